"""Embedders for the tests: deterministic, without weights."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any


class NGrams:
    """Hashed n-grams of letters: texts are near each other when they share parts of words.

    A number of a vector counts the trigrams of words that fall on it. A text without any has a vector of zeros.

    Args:
        dimension: How many numbers a vector has.
    """

    def __init__(self, dimension: int = 512) -> None:
        self.dimension = dimension

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vector(text)

    async def aembed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        await asyncio.sleep(0)
        return self.embed_query(text)

    def _vector(self, text: str) -> list[float]:
        folded = unicodedata.normalize("NFKD", text).casefold()
        counts = [0.0] * self.dimension
        for word in re.findall(r"[a-z]+", folded):
            for start in range(len(word) - 2):
                counts[_hash(word[start : start + 3]) % self.dimension] += 1.0
        length = math.hypot(*counts)
        return [count / length for count in counts] if length else counts


@cache
def _hash(gram: str) -> int:
    return int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest())


class Scripted(NGrams):
    """Does with the vectors of texts what a test says, and keeps what it was given.

    Args:
        change: From the vectors to what is returned; it may raise.
    """

    def __init__(
        self, change: Callable[[list[list[float]]], Any] = lambda vectors: vectors, dimension: int = 64
    ) -> None:
        super().__init__(dimension)
        self.change = change
        self.documents: list[list[str]] = []
        self.queries: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.documents.append(list(texts))
        return self.change(super().embed_documents(texts))

    def embed_query(self, text: str) -> Any:
        self.queries.append(text)
        return self.change([super().embed_query(text)])[0]
