"""From messages and queries to checked vectors."""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynamiq_memory.backends.plans import Step
from dynamiq_memory.embedders import as_embedder
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, EmbedderError
from dynamiq_memory.messages import Message

if TYPE_CHECKING:
    from dynamiq_memory.embedders import OpenAIDocumentEmbedder

_QUERIES_KEPT = 256
_LONGEST = 1e18
# JSON in UTF-8, as embedders send it, has no place for these.
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")

Vector = list[float]


@dataclass(frozen=True, slots=True)
class Embed(Step[list[Vector | None]]):
    """Embed the texts of messages: for each its vector, or None for one without text, or without an embedder."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class EmbedQuery(Step[Vector | None]):
    """Embed a query; the result is None if it has no vector, or there is no embedder."""

    query: str


class MessageEmbedder:
    """Embeds the texts of messages, and queries, for one store.

    Nothing that it returns is unchecked: each vector has the store's dimension and finite numbers. A text that is blank
    gets no vector, nor does one whose vector is all zeros, which has no direction.

    Args:
        embedder: What `dynamiq_memory.embedders.as_embedder` takes.
        dimension: How many numbers the store's vectors have; None until that is known (see `expect`).
        where: The store, for errors.

    Attributes:
        dimension: How many numbers a vector has: the store's, or else those of the first vector.

    Raises:
        ConfigurationError: It is no embedder.
    """

    def __init__(self, embedder: Any, dimension: int | None = None, where: str = "the store") -> None:
        """Keep the embedder."""
        self.embedder = as_embedder(embedder)
        self.dimension = dimension
        self._where = where
        self._queries: OrderedDict[str, Vector | None] = OrderedDict()
        self._lock = threading.Lock()

    def expect(self, dimension: int) -> None:
        """Set the dimension of the store's vectors."""
        self.dimension = dimension

    def dimension_of(self, text: str) -> int:
        """How many numbers the embedder gives; asks it."""
        try:
            given = self.embedder.embed_query(text)
        except Exception as error:
            raise _translated(error) from error
        return len(_numbers(given))

    def renew_lock(self) -> None:
        """In a forked child: the parent's lock may be held by a thread that the child does not have."""
        self._lock = threading.Lock()

    def embed(self, messages: Sequence[Message]) -> list[Vector | None]:
        """Embed the texts of messages; call it before anything is written.

        Returns:
            For each message its vector, or None for one without text.

        Raises:
            EmbedderError: The embedder failed, or what it gave is no finite vector for each text.
            ConfigurationError: Its vectors have another dimension than the store's.
        """
        texts = _texts(messages)
        present = [text for text in texts if text]
        if not present:
            return [None] * len(texts)
        try:
            given = self.embedder.embed_documents(present)
        except Exception as error:
            raise _translated(error) from error
        return self._placed(texts, given, len(present))

    async def aembed(self, messages: Sequence[Message]) -> list[Vector | None]:
        """Embed the texts of messages; see `embed`."""
        texts = _texts(messages)
        present = [text for text in texts if text]
        if not present:
            return [None] * len(texts)
        try:
            given = await self.embedder.aembed_documents(present)
        except Exception as error:
            raise _translated(error) from error
        return self._placed(texts, given, len(present))

    def embed_query(self, query: str) -> Vector | None:
        """Embed a query, or remember its vector; None if it has none.

        Raises:
            EmbedderError: The embedder failed, or what it gave is no finite vector.
            ConfigurationError: Its vector has another dimension than the store's.
        """
        text = _clean(query)
        if not text:
            return None
        known, vector = self._remembered(text)
        if known:
            return vector
        try:
            given = self.embedder.embed_query(text)
        except Exception as error:
            raise _translated(error) from error
        return self._remember(text, given)

    async def aembed_query(self, query: str) -> Vector | None:
        """Embed a query, or remember its vector; see `embed_query`."""
        text = _clean(query)
        if not text:
            return None
        known, vector = self._remembered(text)
        if known:
            return vector
        try:
            given = await self.embedder.aembed_query(text)
        except Exception as error:
            raise _translated(error) from error
        return self._remember(text, given)

    def _placed(self, texts: Sequence[str], given: Any, count: int) -> list[Vector | None]:
        try:
            found = list(given)
        except TypeError:
            raise EmbedderError(f"the embedder gave a {type(given).__name__}, not a list of vectors") from None
        except Exception as error:  # it computes when it is read
            raise _translated(error) from error
        if len(found) != count:
            raise EmbedderError(f"the embedder gave {len(found)} vectors for {count} texts")
        checked = [_numbers(vector) for vector in found]
        dimension = self._fitting(checked, self.dimension or len(checked[0]))
        self.dimension = dimension
        vectors = iter([vector if any(vector) else None for vector in checked])
        return [next(vectors) if text else None for text in texts]

    def _remembered(self, text: str) -> tuple[bool, Vector | None]:
        with self._lock:
            if text not in self._queries:
                return False, None
            self._queries.move_to_end(text)
            return True, self._queries[text]

    def _remember(self, text: str, given: Any) -> Vector | None:
        numbers = _numbers(given)
        # A query's vector alone fixes nothing: what is stored does.
        self._fitting([numbers], self.dimension or len(numbers))
        vector = numbers if any(numbers) else None
        with self._lock:
            self._queries[text] = vector
            if len(self._queries) > _QUERIES_KEPT:
                self._queries.popitem(last=False)
        return vector

    def _fitting(self, vectors: Sequence[Vector], dimension: int) -> int:
        for vector in vectors:
            if len(vector) != dimension:
                raise ConfigurationError(
                    f"the embedder's vectors have {len(vector)} numbers, those of {self._where} have {dimension}: use "
                    "the embedder that the messages were stored with, or another collection for this one"
                )
        return dimension


def embedder_of_url(model: str | None) -> OpenAIDocumentEmbedder | None:
    """Make the embedder that the `embedder` option of a URL names; None without one.

    Args:
        model: An OpenAI model. The environment has the key and the server's URL.
    """
    if model is None:
        return None
    from dynamiq_memory.embedders import OpenAIDocumentEmbedder  # noqa: PLC0415 - needs its library

    return OpenAIDocumentEmbedder(model)


def _numbers(given: Any) -> Vector:
    try:
        vector = [float(number) for number in (given.tolist() if hasattr(given, "tolist") else given)]
    except (TypeError, ValueError, OverflowError):
        raise EmbedderError(f"the embedder gave {given!r:.100}, which is no vector of numbers") from None
    if not vector:
        raise EmbedderError("the embedder gave an empty vector")
    # Stores keep 32 bits, and add up squares: larger numbers are infinite there, smaller ones zero.
    length = math.hypot(*vector)
    if not length < _LONGEST:
        raise EmbedderError("the embedder gave a vector with NaN, infinity or numbers beyond 32 bits")
    return vector if length > 1 / _LONGEST else [0.0] * len(vector)


def _clean(text: str) -> str:
    return _LONE_SURROGATES.sub("\ufffd", text).strip()


def _texts(messages: Sequence[Message]) -> list[str]:
    return [_clean(message.text) for message in messages]


def _translated(error: Exception) -> DynamiqMemoryError:
    if isinstance(error, DynamiqMemoryError):
        return error
    return EmbedderError(f"the embedder failed: {type(error).__name__}: {error}")
