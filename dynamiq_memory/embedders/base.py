"""The protocol of an embedder."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors: of one length each, and near each other for texts of like meaning.

    LangChain's `Embeddings` have the same four methods. One object is used by many threads and tasks at once.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are stored: a vector for each, in their order."""
        ...

    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for."""
        ...

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are stored; see `embed_documents`."""
        ...

    async def aembed_query(self, text: str) -> list[float]:
        """Embed what is searched for; see `embed_query`."""
        ...


class ThreadedEmbedder(ABC):
    """An embedder whose asynchronous methods run the synchronous ones in a thread."""

    @abstractmethod
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are stored: a vector for each, in their order."""

    @abstractmethod
    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are stored; see `embed_documents`."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed what is searched for; see `embed_query`."""
        return await asyncio.to_thread(self.embed_query, text)
