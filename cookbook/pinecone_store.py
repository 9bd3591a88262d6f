"""Conversations in Pinecone: found by meaning, seen at once by who wrote them, and by others a little later.

Without PINECONE_API_KEY, this runs on the server of the tests, which has Pinecone's limits and lags behind; with it,
on an index of your own, "dynamiq-memory-cookbook" (created, and left there). Needs `pip install '.[pinecone]'`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from dynamiq_memory import Memory
from dynamiq_memory.backends import Pinecone
from dynamiq_memory.connections import Pinecone as PineconeConnection

INDEX = "dynamiq-memory-cookbook"
ANN = {"user_id": "ann", "session_id": "holiday"}
BOB = {"user_id": "bob", "session_id": "holiday"}
TOPICS = (
    {"train", "trains", "railway", "rail"},
    {"hotel", "room", "stay", "staying", "sleep"},
    {"eat", "food", "vegan", "vegetarian", "restaurant"},
    {"lisbon", "portugal", "porto"},
)


class Topics:
    """An embedder is an object with these two methods; a real one calls a model. This one counts words by topic."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed what is stored."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for."""
        words = {word.strip(".,?!").lower() for word in text.split()}
        return [float(len(words & topic)) for topic in TOPICS]


@contextmanager
def service() -> Iterator[tuple[PineconeConnection, Callable[[], object]]]:
    """The account of the environment, or the server of the tests; and what makes it show what was written."""
    if os.environ.get("PINECONE_API_KEY"):
        yield PineconeConnection(), lambda: None  # it does so by itself, after a while
        return
    server: Any = load(Path(__file__).parents[1] / "tests" / "servers" / "pinecone.py")
    with server.running() as running:
        running.hold()
        yield PineconeConnection(api_key=server.API_KEY, host=running.url), running.release


def load(path: Path) -> Any:
    spec = spec_from_file_location("pinecone_server", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is missing: run this in a checkout of the repository, or set PINECONE_API_KEY")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_for(memory: Memory, count: int) -> None:
    while memory.count(ANN) < count:
        time.sleep(0.1)


def main() -> None:
    with (
        service() as (connection, show),
        Memory(backend=Pinecone(connection, Topics(), INDEX, namespace="recipe")) as memory,
        Memory(backend=Pinecone(connection, Topics(), INDEX, namespace="recipe")) as elsewhere,
    ):
        memory.clear()
        memory.add("user", "We take the railway to Portugal in May.", metadata=ANN)
        memory.add("assistant", "Noted: by rail, in May.", metadata=ANN)
        memory.add("user", "No meat for me, I am a vegetarian.", metadata=ANN)
        memory.add("user", "I never eat fish.", metadata=BOB)

        print("What this process wrote is in its next read:")
        for message in memory.search(filters=ANN, limit=2):
            print(f"  {message.role}: {message.text}")
        print(f"Elsewhere, {elsewhere.count(ANN)} of 3 messages are seen yet.")
        show()
        wait_for(elsewhere, 3)
        print("A moment later, all of them.")

        print("By meaning, 'Which restaurant suits her?' finds:")
        for message in elsewhere.search("Which restaurant suits her?", ANN, limit=1):
            print(f"  {message.text}")

        print(f"Deleted: {memory.delete(session_id='holiday', user_id='ann')} messages of Ann's;", end=" ")
        print(f"{memory.count(BOB)} of Bob's is left.")
        memory.clear()


if __name__ == "__main__":
    main()
