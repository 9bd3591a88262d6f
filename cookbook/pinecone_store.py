"""Conversations in Pinecone: found by meaning, visible to their writer at once and to others a little later.

If PINECONE_API_KEY is set, this uses the index "dynamiq-memory-cookbook" of your account, which is created if necessary
and not deleted. Otherwise, it uses the test server, which has Pinecone's limits and delays. Requires
`pip install '.[pinecone]'`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


class TopicEmbedder:
    """Counts words by topic. An embedder is an object with these two methods; a real one uses a model."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed a search query."""
        words = {word.strip(".,?!").lower() for word in text.split()}
        return [float(len(words & topic)) for topic in TOPICS]


@contextmanager
def service() -> Iterator[tuple[PineconeConnection, Callable[[], object]]]:
    """Use the account from the environment, or the test server. Also return a function that makes writes visible."""
    if os.environ.get("PINECONE_API_KEY"):
        yield PineconeConnection(), lambda: None  # Pinecone shows them by itself after a while
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.fakes.pinecone.server import API_KEY, running

    with running() as server:
        server.hold()
        yield PineconeConnection(api_key=API_KEY, host=server.url), server.release


def wait_for(memory: Memory, count: int) -> None:
    while memory.count(ANN) < count:
        time.sleep(0.1)


def main() -> None:
    with (
        service() as (connection, show),
        Memory(backend=Pinecone(connection, TopicEmbedder(), INDEX, namespace="recipe")) as memory,
        Memory(backend=Pinecone(connection, TopicEmbedder(), INDEX, namespace="recipe")) as elsewhere,
    ):
        memory.clear()
        memory.add("user", "We take the railway to Portugal in May.", metadata=ANN)
        memory.add("assistant", "Noted: by rail, in May.", metadata=ANN)
        memory.add("user", "No meat for me, I am a vegetarian.", metadata=ANN)
        memory.add("user", "I never eat fish.", metadata=BOB)

        print("This process reads its own writes at once:")
        for message in memory.search(filters=ANN, limit=2):
            print(f"  {message.role}: {message.text}")
        print(f"Elsewhere, {elsewhere.count(ANN)} of 3 messages are visible.")
        show()
        wait_for(elsewhere, 3)
        print("A moment later, all of them.")

        print("By meaning, 'Which restaurant suits her?' finds:")
        for message in elsewhere.search("Which restaurant suits her?", ANN, limit=1):
            print(f"  {message.text}")

        print(f"Deleted {memory.delete(session_id='holiday', user_id='ann')} messages of Ann;", end=" ")
        print(f"{memory.count(BOB)} message of Bob is left.")
        memory.clear()


if __name__ == "__main__":
    main()
