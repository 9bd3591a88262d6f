"""Conversations in Weaviate: found by words and by meaning, filtered by any key, separated by tenant.

If WEAVIATE_URL (and WEAVIATE_API_KEY) is set, this uses that server, with a separate collection that is deleted at the
end. Otherwise, it uses the test server (`make test` installs its dependencies).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import weaviate

from dynamiq_memory import Memory
from dynamiq_memory.backends import Weaviate
from dynamiq_memory.connections import Weaviate as WeaviateConnection

COLLECTION = "DynamiqMemoryCookbook"
TOPICS = (
    {"train", "trains", "railway", "rail"},
    {"hotel", "room", "stay", "sleep"},
    {"eat", "food", "vegan", "vegetarian", "restaurant"},
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
def service() -> Iterator[WeaviateConnection]:
    """Use the server from the environment, or the test server."""
    if os.environ.get("WEAVIATE_URL"):
        yield WeaviateConnection()
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.fakes.weaviate.server import weaviate as running

    with running() as server:
        yield WeaviateConnection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)


def conversations(connection: WeaviateConnection) -> None:
    with Weaviate(connection, TopicEmbedder(), COLLECTION, tenant_name="acme") as backend:
        memory = Memory(backend=backend, filters={"user_id": "ann"})
        monday = {"session_id": "monday"}
        memory.add("user", "I go by train, in May.", {**monday, "topic": "travel"})
        memory.add("assistant", "Noted: by rail, in May.", {**monday, "topic": "travel"})
        memory.add("user", "No meat for me, I am a vegetarian.", {**monday, "topic": "food", "sure": True})

        print("By meaning, 'Which restaurant suits her?' finds:")
        print(" ", memory.search("Which restaurant suits her?", limit=1)[0].content)
        print("By words, 'in May' finds", len(memory.search("in May")), "messages.")
        print("With the topic food, and sure:", memory.count({"topic": "food", "sure": True}))

        with Weaviate(connection, TopicEmbedder(), COLLECTION, tenant_name="globex") as other:
            print("Another tenant sees:", other.get_all())
        print("Deleted:", memory.delete(session_id="monday"))


def drop(connection: WeaviateConnection) -> None:
    """Delete the collection with Weaviate's own client, which can also be passed to a backend."""
    host, port = str(connection.url).removeprefix("http://").split(":")
    with weaviate.connect_to_local(host, int(port), connection.grpc_port, skip_init_checks=True) as client:
        with Weaviate(client, TopicEmbedder(), COLLECTION, tenant_name="acme") as backend:
            print("Left:", backend.count())
        client.collections.delete(COLLECTION)


def main() -> None:
    with service() as connection:
        conversations(connection)
        if str(connection.url).startswith("http://"):
            drop(connection)


if __name__ == "__main__":
    main()
