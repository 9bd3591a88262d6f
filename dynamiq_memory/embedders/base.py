"""The `Embedder` protocol."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Protocol, runtime_checkable


@runtime_checkable
class Embedder(Protocol):
    """Converts texts to vectors of the same length, which are close to each other if the texts have similar meanings.

    LangChain's `Embeddings` have the same four methods. An embedder is used by many threads and tasks at once.
    """

    @abstractmethod
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store. Return one vector per text, in the same order."""
        ...

    @abstractmethod
    def embed_query(self, text: str) -> list[float]:
        """Embed a search query."""
        ...

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store; see `embed_documents`."""
        ...

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a search query; see `embed_query`."""
        ...


class ThreadedEmbedder(Embedder):
    """An embedder that runs its synchronous methods in a thread for asynchronous callers."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store; see `embed_documents`."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a search query; see `embed_query`."""
        return await asyncio.to_thread(self.embed_query, text)
