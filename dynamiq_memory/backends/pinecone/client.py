"""The clients of a backend: `pinecone` from version 7 on, and `pinecone-client` 3.2.

All of them have the methods that are used here, with the same arguments. They differ in the errors that they raise (see
errors.py) and in whether they have an asynchronous index.
"""

from __future__ import annotations

import inspect
import threading
from importlib.util import find_spec
from typing import Any

import pinecone

from dynamiq_memory.backends._forks import keep_inherited
from dynamiq_memory.backends._loops import ClientPerLoop
from dynamiq_memory.backends.pinecone.errors import REPEATS_ITSELF
from dynamiq_memory.connections import Pinecone as PineconeConnection
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import BackendError, ConfigurationError

_INDEX_METHODS = ("upsert", "query", "fetch", "delete", "list_paginated")
_CLIENT_METHODS = ("describe_index", "Index")


class Clients:
    """Makes a client and its indexes when they are needed, and closes them.

    Args:
        connection: The settings of a connection, a client, or a client's index. The caller closes the last two.
        location: The index, for errors.

    Attributes:
        has_index: Whether the connection is an index.
        secret: The API key, if the caller passed settings.

    Raises:
        ConfigurationError: The connection is something else, or has no usable API key.
    """

    def __init__(self, connection: Any, location: str) -> None:
        """Check the connection."""
        self._connection = connection = _checked(connection)
        self._location = location
        self.has_index = _has(connection, _INDEX_METHODS)
        self._owns_client = not self.has_index and not _has(connection, _CLIENT_METHODS)
        self.secret = _api_key_of(connection) if self._owns_client else None
        self._lock = threading.RLock()
        self._client: Any = None if self._owns_client or self.has_index else connection
        self._index: Any = connection if self.has_index else None
        self._host = ""
        self._async: ClientPerLoop[Any] | None = None

    def use(self, host: str) -> None:
        """Use the index at a host from now on."""
        self._host = host
        if _has_async_index(self.client()):
            self._async = ClientPerLoop(lambda: self.client().IndexAsyncio(host=host), lambda index: index.close())

    def client(self) -> Any:
        """Return the client, which manages indexes."""
        with self._lock:
            if self._client is None:
                host = getattr(self._connection, "host", None)
                arguments = {"host": host} if host else {}
                self._client = pinecone.Pinecone(api_key=self.secret, **arguments)
            return self._client

    def index(self) -> Any:
        """Return the index for threads.

        Raises:
            BackendError: The caller made it before this process was forked, and it cannot be shared.
        """
        with self._lock:
            if self._index is None and self.has_index:
                raise BackendError(
                    f"{self._location}: the index was made before this process was forked, and shares its connections "
                    "with the parent. Make a new one in this process, or pass a connection or a client instead"
                )
            if self._index is None:
                self._index = self.client().Index(host=self._host)
            return self._index

    @property
    def is_asynchronous(self) -> bool:
        """Whether there is an asynchronous index; otherwise asynchronous callers use threads."""
        return self._async is not None

    async def async_index(self) -> Any:
        """Return the index for the running event loop."""
        if self._async is None:
            raise BackendError(f"{self._location} has no asynchronous client")
        return await self._async.get()

    async def aclose(self) -> None:
        """Close the index of the running event loop."""
        if self._async is not None:
            await self._async.aclose()

    def close(self) -> None:
        """Close everything that the caller did not pass."""
        if self._async is not None:
            self._async.close()
        if self._index is not None and not self.has_index:
            self._index.__exit__(None, None, None)
        # Old clients need no closing.
        if self._client is not None and self._owns_client and hasattr(self._client, "close"):
            self._client.close()

    def after_fork(self) -> None:
        """Forget the parent's connections in a forked child."""
        self._lock = threading.RLock()
        keep_inherited(self._index, self._client, *(self._async.abandon() if self._async is not None else ()))
        self._index = None
        if self._owns_client:
            self._client = None


def _checked(connection: Any) -> Any:
    if connection is None:
        return PineconeConnection()
    if isinstance(connection, type):
        raise ConfigurationError(f"connection must be an object, not the class {connection.__name__}")
    if any(inspect.iscoroutinefunction(getattr(connection, name, None)) for name in ("query", "describe_index")):
        raise ConfigurationError(
            f"connection is a {type(connection).__name__}, which has asynchronous methods only: pass a "
            "pinecone.Pinecone, which makes asynchronous indexes as well"
        )
    if _has(connection, _INDEX_METHODS) or _has(connection, _CLIENT_METHODS) or hasattr(connection, "api_key"):
        return connection
    raise ConfigurationError(
        "connection must be a dynamiq_memory.connections.Pinecone, a pinecone.Pinecone or one of its indexes, not a "
        f"{type(connection).__name__}"
    )


def _has(connection: Any, methods: tuple[str, ...]) -> bool:
    return all(callable(getattr(connection, name, None)) for name in methods)


def _api_key_of(connection: Any) -> str:
    key = plain(connection.api_key)
    if not isinstance(key, str) or not key:
        raise ConfigurationError("Pinecone requires an API key: set PINECONE_API_KEY, or pass Pinecone(api_key=…)")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("Pinecone's API key contains spaces, line breaks or letters that no key has")
    return key


def _has_async_index(client: Any) -> bool:
    """Whether a client can make an asynchronous index; versions 7 and 8 need aiohttp for it."""
    return callable(getattr(client, "IndexAsyncio", None)) and (REPEATS_ITSELF or find_spec("aiohttp") is not None)
