"""Embedding of messages and queries, with checks of the vectors."""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends._threads import computed
from dynamiq_memory.backends.plans import Step
from dynamiq_memory.embedders.adapting import as_embedder, name_of
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, EmbedderError
from dynamiq_memory.messages import Message

_MAX_CACHED_QUERIES = 256
_MAX_LENGTH = 1e18
# Embedders send JSON in UTF-8, which cannot represent these.
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")

Vector = list[float]


@dataclass(frozen=True, slots=True)
class Embed(Step[list[Vector | None]]):
    """Embed the texts of messages. The result has None for messages without text, or without an embedder."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class EmbedQuery(Step[Vector | None]):
    """Embed a query. The result is None if the query has no vector or the backend has no embedder."""

    query: str


class MessageEmbedder(WatchesForks):
    """Embeds the texts of messages, and queries, for one store.

    All vectors are checked: they have the store's dimension and finite numbers. Blank texts have no vector, and neither
    do texts that the embedder maps to zeros, since these have no direction.

    Args:
        embedder: Any object that `dynamiq_memory.embedders.as_embedder` accepts.
        dimension: Dimension of the store's vectors, or None until it is known.
        location: The store's name in error messages.
        reindexes: Whether the store embeds its messages again when it is opened with `reindex=True`.
        copies: For stores that cannot embed again with another dimension: the expression that opens another one.

    Attributes:
        dimension: Dimension of the store's vectors, which the store sets when it knows it, or that of the first vector.
        name: The name of the embedder's model, or None if it has none.
        given_name: The name by which the embedder was given, or None if it was an object, which its owner closes.

    Raises:
        ConfigurationError: The object is not an embedder.
    """

    def __init__(
        self,
        embedder: Any,
        dimension: int | None = None,
        location: str = "the store",
        *,
        reindexes: bool = False,
        copies: str = "",
    ) -> None:
        """Create the embedder for a store."""
        self.given_name = embedder if isinstance(embedder, str) else None
        self.embedder = as_embedder(embedder)
        self.name = name_of(self.embedder)
        self.dimension = dimension
        self._location = location
        other = "reindex=True to embed all messages again" if reindexes else "another collection for this one"
        self._fix = f"use the embedder that the messages were stored with, or {other}"
        self._fix_dimension = self._fix
        if copies:
            self._fix_dimension = (
                "use the embedder that the messages were stored with, or copy them, which embeds them again: "
                f"`dynamiq-memory copy FROM TO`, or dynamiq_memory.transfer.copy(backend, {copies})"
            )
        self._queries: OrderedDict[str, Vector | None] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def compared_here(cls, embedder: Any, location: str, *, reindexes: bool = False) -> MessageEmbedder:
        """Create the embedder for a store that compares vectors in this process.

        Raises:
            MissingDependencyError: numpy is not installed.
        """
        made = cls(embedder, location=location, reindexes=reindexes)
        import_module("dynamiq_memory.ranking.vectors")  # slow, so not without an embedder
        return made

    def measured_dimension(self) -> int:
        """Return the dimension of the embedder's vectors, by embedding a word."""
        try:
            vector = self.embedder.embed_query("dimension")
        except Exception as error:
            raise _translated(error) from error
        return len(_numbers(vector))

    def differs_from(self, name: str | None) -> bool:
        """Whether this is certainly not the embedder of that name. Embedders without a name may be the same."""
        return name is not None and self.name is not None and name != self.name

    @property
    def label(self) -> str:
        """The name, or "" without one, by which stores label vectors."""
        return self.name or ""

    def check_name(self, name: str | None) -> None:
        """Check that the vectors of the store are not of another embedder.

        Args:
            name: The name of the embedder that made them; None if it had none.

        Raises:
            ConfigurationError: They are of another embedder.
        """
        if self.differs_from(name):
            raise ConfigurationError(
                f"the vectors of {self._location} are of the embedder {name!r}, not of {self.name!r}: {self._fix}"
            )

    def check_stored(self, name: str | None, dimension: int) -> None:
        """Check that the vectors of the store are of this embedder. Take their dimension, if its own is not known yet.

        Args:
            name: The name of the embedder that made them; None if it had none.
            dimension: Their dimension.

        Raises:
            ConfigurationError: They are of another embedder.
        """
        self.check_name(name)
        if self.dimension is None:
            self.dimension = dimension
        self.check_dimension(self.dimension, dimension)

    def check_dimension(self, own: int, stored: int | None = None) -> None:
        """Check the dimension of a vector.

        Args:
            own: The vector's dimension.
            stored: The dimension of the store's vectors. Defaults to what is known of it.

        Raises:
            ConfigurationError: They differ.
        """
        stored = stored or self.dimension or own
        if own != stored:
            raise ConfigurationError(
                f"the embedder's vectors have {own} numbers, those of {self._location} have {stored}: "
                f"{self._fix_dimension}"
            )

    def close(self) -> None:
        """Close the embedder, unless the caller passed it in."""
        close = getattr(self.embedder, "close", None)
        if self.given_name is not None and close is not None:
            close()

    def _after_fork(self) -> None:
        """Replace the lock in a forked child, since a thread that the child does not have may have locked it."""
        self._lock = threading.Lock()

    def embed(self, messages: Sequence[Message]) -> list[Vector | None]:
        """Embed the texts of messages. Must be called before anything is written.

        Returns:
            A vector for each message, or None if it has no text.

        Raises:
            EmbedderError: The embedder failed or did not return one finite vector per text.
            ConfigurationError: Its vectors do not have the store's dimension.
        """
        texts = _texts(messages)
        present = [text for text in texts if text]
        if not present:
            return [None] * len(texts)
        try:
            vectors = self.embedder.embed_documents(present)
        except Exception as error:
            raise _translated(error) from error
        return self._checked(texts, vectors, len(present))

    async def aembed(self, messages: Sequence[Message]) -> list[Vector | None]:
        """Embed the texts of messages; see `embed`."""
        texts = await computed(_texts, messages)
        present = [text for text in texts if text]
        if not present:
            return [None] * len(texts)
        try:
            vectors = await self.embedder.aembed_documents(present)
        except Exception as error:
            raise _translated(error) from error
        return await computed(self._checked, texts, vectors, len(present))

    def embed_query(self, query: str) -> Vector | None:
        """Embed a query, or return its cached vector; None if it has none.

        Raises:
            EmbedderError: The embedder failed or did not return a finite vector.
            ConfigurationError: Its vector does not have the store's dimension.
        """
        text = _clean(query)
        if not text:
            return None
        is_cached, vector = self._cached(text)
        if is_cached:
            return vector
        try:
            numbers = self.embedder.embed_query(text)
        except Exception as error:
            raise _translated(error) from error
        return self._cache(text, numbers)

    async def aembed_query(self, query: str) -> Vector | None:
        """Embed a query, or return its cached vector; see `embed_query`."""
        text = _clean(query)
        if not text:
            return None
        is_cached, vector = self._cached(text)
        if is_cached:
            return vector
        try:
            numbers = await self.embedder.aembed_query(text)
        except Exception as error:
            raise _translated(error) from error
        return self._cache(text, numbers)

    def _checked(self, texts: Sequence[str], returned: Any, count: int) -> list[Vector | None]:
        try:
            vectors = list(returned)
        except TypeError:
            raise EmbedderError(f"the embedder returned a {type(returned).__name__}, not a list of vectors") from None
        except Exception as error:  # some embedders compute on iteration
            raise _translated(error) from error
        if len(vectors) != count:
            raise EmbedderError(f"the embedder returned {len(vectors)} vectors for {count} texts")
        checked = [_numbers(vector) for vector in vectors]
        dimension = self.dimension or len(checked[0])
        for vector in checked:
            self.check_dimension(len(vector), dimension)
        self.dimension = dimension
        remaining = iter([vector if any(vector) else None for vector in checked])
        return [next(remaining) if text else None for text in texts]

    def _cached(self, text: str) -> tuple[bool, Vector | None]:
        with self._lock:
            if text not in self._queries:
                return False, None
            self._queries.move_to_end(text)
            return True, self._queries[text]

    def _cache(self, text: str, returned: Any) -> Vector | None:
        numbers = _numbers(returned)
        # This does not set the dimension: only stored vectors do.
        self.check_dimension(len(numbers), self.dimension)
        vector = numbers if any(numbers) else None
        with self._lock:
            self._queries[text] = vector
            if len(self._queries) > _MAX_CACHED_QUERIES:
                self._queries.popitem(last=False)
        return vector


def _numbers(returned: Any) -> Vector:
    try:
        numbers = list(returned.tolist() if hasattr(returned, "tolist") else returned)
    except TypeError:
        numbers = [None]
    except Exception as error:  # some embedders compute on iteration
        raise _translated(error) from error
    try:
        vector = [float(_number(number)) for number in numbers]
    except (TypeError, ValueError, OverflowError):
        raise EmbedderError(f"the embedder returned {returned!r:.100}, which is not a vector of numbers") from None
    if not vector:
        raise EmbedderError("the embedder returned an empty vector")
    # Stores use 32 bits and add up squares: larger numbers would become infinite, smaller ones zero.
    length = math.hypot(*vector)
    if not length < _MAX_LENGTH:
        raise EmbedderError("the embedder returned a vector with NaN, infinity or numbers beyond 32 bits")
    return vector if length > 1 / _MAX_LENGTH else [0.0] * len(vector)


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise TypeError
    return value


def _clean(text: str) -> str:
    return _LONE_SURROGATES.sub("\ufffd", text).strip()


def _texts(messages: Sequence[Message]) -> list[str]:
    return [_clean(message.text) for message in messages]


def _translated(error: Exception) -> DynamiqMemoryError:
    if isinstance(error, DynamiqMemoryError):
        return error
    return EmbedderError(f"the embedder failed: {type(error).__name__}: {error}")
