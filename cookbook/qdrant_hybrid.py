"""Qdrant without a server: messages in a folder, found by their words and by their meaning.

The embedder here is a toy that needs no model: it knows groups of words that mean much the same. In its place goes
`OpenAIDocumentEmbedder()`, `FastEmbedEmbedder()`, or an embedder of LangChain, LlamaIndex or dynamiq; in the place of
the folder, `QdrantConnection(url=…)`.
"""

from __future__ import annotations

import tempfile

from dynamiq_memory import Memory
from dynamiq_memory.backends import Qdrant

GROUPS = (
    {"car", "cars", "automobile", "vehicle", "drive", "driving", "garage"},
    {"cat", "cats", "kitten", "pet", "pets", "animal"},
    {"food", "eat", "eats", "dinner", "lunch", "hungry", "meal"},
    {"money", "price", "cost", "costs", "expensive", "cheap", "pay"},
)


class Groups:
    """An embedder: how many words of each group a text has."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed what is stored."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for."""
        words = text.lower().replace("?", " ").replace(".", " ").split()
        return [float(sum(word in group for word in words)) for group in GROUPS]


SAID = (
    ("user", "I sold my old automobile last week."),
    ("assistant", "Did you get a good price?"),
    ("user", "My kitten is called Minka."),
    ("user", "On Sundays I cook for my neighbours."),
)


def main() -> None:
    scope = {"user_id": "ann", "session_id": "monday"}
    with tempfile.TemporaryDirectory() as folder:
        with Memory(backend=Qdrant(path=folder, embedder=Groups(), dimension=len(GROUPS))) as memory:
            for role, text in SAID:
                memory.add(role, text, metadata=scope)
            memory.add("user", "My cats eat too much.", metadata={"user_id": "ben", "session_id": "monday"})

        # Another process, another day.
        with Memory(backend=Qdrant(path=folder, embedder=Groups()), filters={"user_id": "ann"}) as memory:
            for question in ("Who is Minka?", "What pets are there?", "Which car was it?"):
                best = memory.search(question, limit=1)
                print(f"{question} {best[0].text}")
            print(f"can rank by words and meaning: {memory.backend.capabilities.hybrid}")
            print(f"stored for Ann: {memory.count()}, newest: {memory.get_all(limit=1)[0].text}")
            print(f"deleted: {memory.delete(session_id='monday')}, left of Ann: {memory.count()}")


if __name__ == "__main__":
    main()
