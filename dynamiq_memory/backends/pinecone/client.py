"""The seam to Pinecone's clients: `pinecone` from 7 on, and `pinecone-client` 3.2.

All of them have the methods that are used here, with the same arguments; what differs is what they raise (errors.py)
and whether they have an asynchronous twin.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pinecone

from dynamiq_memory.backends.pinecone.errors import (
    CLIENT_ERRORS,
    REPEATS_ITSELF,
    may_repeat,
    retry_after,
    status_of,
    translated,
)
from dynamiq_memory.backends.pinecone.requests import Delete, Fetch, Listing, Query, Record, Upsert
from dynamiq_memory.connections import Pinecone as PineconeConnection
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import ConfigurationError

Call = Upsert | Delete | Fetch | Query | Listing

# A client that repeats requests itself has done so three times by then.
_ATTEMPTS = 2 if REPEATS_ITSELF else 5
_LONGEST_WAIT = 30.0
_FIRST_WAIT = 0.2
_NOT_FOUND = 404
_DATA_METHODS = ("upsert", "query", "fetch", "delete", "list_paginated")


def check_connection(connection: Any) -> Any:
    """Check what was given as a connection.

    Returns:
        An object with the attributes of `dynamiq_memory.connections.Pinecone`, a client, or a client's index.

    Raises:
        ConfigurationError: It is none of these.
    """
    if connection is None:
        return PineconeConnection()
    if isinstance(connection, type):
        raise ConfigurationError(f"connection must be an object, not the class {connection.__name__}")
    if any(inspect.iscoroutinefunction(getattr(connection, name, None)) for name in ("query", "describe_index")):
        raise ConfigurationError(
            f"connection is a {type(connection).__name__}, which has asynchronous methods only: give a "
            "pinecone.Pinecone, of which an asynchronous client is made where it is needed"
        )
    if is_index(connection) or is_client(connection):
        return connection
    if hasattr(connection, "api_key"):
        return connection
    raise ConfigurationError(
        "connection must be a dynamiq_memory.connections.Pinecone, a pinecone.Pinecone or an index of it, not a "
        f"{type(connection).__name__}"
    )


def is_index(given: Any) -> bool:
    """Whether something is a client's index."""
    return all(callable(getattr(given, name, None)) for name in _DATA_METHODS)


def is_client(given: Any) -> bool:
    """Whether something is a client."""
    return callable(getattr(given, "describe_index", None)) and callable(getattr(given, "Index", None))


def api_key_of(connection: Any) -> str:
    """The API key of a connection of ours or of the `dynamiq` package.

    Raises:
        ConfigurationError: There is none.
    """
    key = plain(getattr(connection, "api_key", None))
    if not isinstance(key, str) or not key:
        raise ConfigurationError("there is no API key of Pinecone: set PINECONE_API_KEY, or give Pinecone(api_key=…)")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key of Pinecone holds spaces, line breaks or letters that no key has")
    return key


def make_client(connection: Any) -> Any:
    """Make a client of our own."""
    host = getattr(connection, "host", None)
    arguments = {"host": host} if host else {}
    return pinecone.Pinecone(api_key=api_key_of(connection), **arguments)


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends requests to an index and reads the answers.

    Attributes:
        namespace: The namespace.
        where: The index, for errors.
        secret: What must not show in errors.
    """

    namespace: str
    where: str
    secret: str | None

    def call(self, index: Any, request: Call) -> Any:
        """Send a request with a synchronous client."""
        name, arguments, read = self._prepared(request)

        def work() -> Any:
            try:
                return read(getattr(index, name)(**arguments))
            except CLIENT_ERRORS as error:
                if _is_done(request, error):
                    return None
                raise

        return self.repeat(work)

    async def acall(self, index: Any, request: Call) -> Any:
        """Send a request with an asynchronous client."""
        name, arguments, read = self._prepared(request)
        attempt = 0
        while True:
            attempt += 1
            try:
                return read(await getattr(index, name)(**arguments))
            except CLIENT_ERRORS as error:
                if _is_done(request, error):
                    return None
                await asyncio.sleep(self._wait(error, attempt))

    def repeat(self, work: Callable[[], Any]) -> Any:
        """Do something with a synchronous client, again where the service asks for that."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return work()
            except CLIENT_ERRORS as error:
                wait = self._wait(error, attempt)
            time.sleep(wait)

    def _wait(self, error: Exception, attempt: int) -> float:
        """How long to wait before a request is sent again; all of them can be repeated.

        Raises:
            DynamiqMemoryError: It is not to be sent again.
        """
        if attempt >= _ATTEMPTS or not may_repeat(error):
            raise translated(error, self.where, self.secret) from error
        asked = retry_after(error)
        if asked is not None:
            return min(asked, _LONGEST_WAIT)
        longest = _FIRST_WAIT * 2 ** (attempt - 1)
        return random.uniform(longest / 2, longest)  # noqa: S311 - so that clients do not come back together

    def _prepared(self, request: Call) -> tuple[str, dict[str, Any], Callable[[Any], Any]]:
        arguments: dict[str, Any] = {"namespace": self.namespace}
        match request:
            case Upsert(vectors):
                return "upsert", arguments | {"vectors": list(vectors)}, _nothing
            case Delete(ids):
                return "delete", arguments | {"ids": list(ids)}, _nothing
            case Fetch(ids):
                return "fetch", arguments | {"ids": list(ids)}, _fetched
            case Query(vector, top_k, condition, metadata):
                wanted = {"vector": vector, "top_k": top_k, "filter": dict(condition)}
                return "query", arguments | wanted | {"include_metadata": metadata, "include_values": False}, _found
            case Listing(prefix, token, limit):
                page = {"prefix": prefix, "limit": limit} | ({} if token is None else {"pagination_token": token})
                return "list_paginated", arguments | page, _listed


def _is_done(request: Call, error: Exception) -> bool:
    """Whether a deletion failed since there is no such namespace, and so nothing to delete."""
    return isinstance(request, Delete) and status_of(error) == _NOT_FOUND


def _nothing(_: Any) -> None:
    return None


def _metadata(record: Any) -> Mapping[str, Any]:
    return getattr(record, "metadata", None) or {}


def _fetched(answer: Any) -> list[Record]:
    return [Record(record_id, _metadata(record)) for record_id, record in (answer.vectors or {}).items()]


def _found(answer: Any) -> list[Record]:
    return [Record(match.id, _metadata(match), float(match.score or 0.0)) for match in answer.matches or ()]


def _listed(answer: Any) -> tuple[list[str], str | None]:
    pagination = getattr(answer, "pagination", None)
    token = getattr(pagination, "next", None) if pagination is not None else None
    return [each.id for each in getattr(answer, "vectors", None) or ()], token or None


class AsyncIndexes:
    """Makes an asynchronous index for each event loop: a connection belongs to the loop that opened it.

    Args:
        make: Makes an asynchronous index, within its loop.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        """Begin with none."""
        self._make = make
        self._lock = threading.Lock()
        self._held: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncIterator[None]]] = {}

    async def of_this_loop(self) -> Any:
        """The index of the event loop that is running."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for other in [known for known in self._held if known.is_closed()]:
                del self._held[other]
            if loop in self._held:
                return self._held[loop][0]
            index = self._make()
            closing = _closing(index)
            self._held[loop] = index, closing
        # A loop that ends runs the rest of its asynchronous generators: this one closes the connections.
        await anext(closing)
        return index

    def close(self) -> None:
        """Close the connections of all loops, each in its own."""
        with self._lock:
            held, self._held = self._held, {}
        for loop, (_, closing) in held.items():
            if loop.is_closed():
                continue
            if loop is _running_loop():
                self._ending = loop.create_task(_end(closing))
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(_end(closing), loop).result()

    def abandon(self) -> list[Any]:
        """Let go of all connections without a word to their server, in a forked child; return what must be kept."""
        self._lock = threading.Lock()
        held, self._held = self._held, {}
        return list(held.items())


async def _closing(index: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await index.close()


async def _end(closing: AsyncIterator[None]) -> None:
    await closing.aclose()  # type: ignore[attr-defined]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def has_async_twin(client: Any) -> bool:
    """Whether an asynchronous index can be made of a client: pinecone 7 and 8 need aiohttp for it."""
    if not callable(getattr(client, "IndexAsyncio", None)):
        return False
    return REPEATS_ITSELF or find_spec("aiohttp") is not None
