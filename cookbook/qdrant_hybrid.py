"""Qdrant without a server: messages in a folder, found by their words and by their meaning.

The embedder here is a toy that needs no model: it knows groups of words with similar meanings. Instead, use
`OpenAIDocumentEmbedder()`, `FastEmbedEmbedder()`, or an embedder of LangChain, LlamaIndex or dynamiq; to use a server
instead of the folder, pass `dynamiq_memory.connections.Qdrant(url=…)`.
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


class GroupEmbedder:
    """Counts the words of each group in a text."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed a search query."""
        words = text.lower().replace("?", " ").replace(".", " ").split()
        return [float(sum(word in group for word in words)) for group in GROUPS]


MESSAGES = (
    ("user", "I sold my old automobile last week."),
    ("assistant", "Did you get a good price?"),
    ("user", "My kitten is called Minka."),
    ("user", "On Sundays I cook for my neighbours."),
)


def main() -> None:
    scope = {"user_id": "ann", "session_id": "monday"}
    with tempfile.TemporaryDirectory() as folder:
        with Memory(backend=Qdrant(path=folder, embedder=GroupEmbedder(), dimension=len(GROUPS))) as memory:
            for role, text in MESSAGES:
                memory.add(role, text, metadata=scope)
            memory.add("user", "My cats eat too much.", metadata={"user_id": "ben", "session_id": "monday"})

        # This could be another process on another day.
        with Memory(backend=Qdrant(path=folder, embedder=GroupEmbedder()), filters={"user_id": "ann"}) as memory:
            for question in ("Who is Minka?", "What pets are there?", "Which car was it?"):
                best = memory.search(question, limit=1)
                print(f"{question} {best[0].text}")
            print(f"ranks by words and meaning: {memory.backend.capabilities.hybrid}")
            print(f"stored for Ann: {memory.count()}, newest: {memory.get_all(limit=1)[0].text}")
            print(f"deleted: {memory.delete(session_id='monday')}, left for Ann: {memory.count()}")


if __name__ == "__main__":
    main()
