"""The clients of a backend: `pinecone` from version 7 on, and `pinecone-client` 3.2.

All of them have the methods that are used here, with the same arguments. They differ in the errors that they raise (see
errors.py) and in whether they have an asynchronous index.
"""

from __future__ import annotations

import inspect
from functools import partial
from importlib.util import find_spec
from typing import Any

import pinecone

from dynamiq_memory._clients import LazyClient, leave_open
from dynamiq_memory.backends._loops import ClientPerLoop
from dynamiq_memory.backends.pinecone.errors import REPEATS_ITSELF
from dynamiq_memory.connections import Pinecone as PineconeConnection
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import ConfigurationError

_INDEX_METHODS = ("upsert", "query", "fetch", "delete", "list_paginated")
_CLIENT_METHODS = ("describe_index", "Index")


class Clients:
    """A client and its index.

    Args:
        connection: The settings of a connection, a client, or a client's index. The caller closes the last two.
        location: The index, for errors.

    Attributes:
        client: The client, which manages indexes.
        index: The index for threads.
        has_index: Whether the connection is an index.
        secret: The API key, if the caller passed settings.

    Raises:
        ConfigurationError: The connection is something else, or has no usable API key.
    """

    def __init__(self, connection: Any, location: str) -> None:
        """Check the connection."""
        connection = _checked(connection)
        self.has_index = _has(connection, _INDEX_METHODS)
        self._host = ""
        self.secret: str | None = None
        if self.has_index or _has(connection, _CLIENT_METHODS):
            # In a forked child, too, the caller's client makes an index with connections of its own.
            self.client: LazyClient[Any] = LazyClient(lambda: connection, leave_open)
        else:
            self.secret = _api_key_of(connection)
            host = getattr(connection, "host", None)
            arguments = {"host": host} if host else {}
            self.client = LazyClient(partial(pinecone.Pinecone, api_key=self.secret, **arguments), _close)
        if self.has_index:
            self.index: LazyClient[Any] = LazyClient.given(connection, location)
        else:
            self.index = LazyClient(
                lambda: self.client.get().Index(host=self._host), lambda index: index.__exit__(None, None, None)
            )

    def use(self, host: str) -> ClientPerLoop[Any] | None:
        """Use the index at a host from now on; return its asynchronous clients, if the installed client has any."""
        self._host = host
        if not _has_async_index(self.client.get()):
            return None
        return ClientPerLoop(lambda: self.client.get().IndexAsyncio(host=host), lambda index: index.close())

    def close(self) -> None:
        """Close everything that the caller did not pass."""
        self.index.close()
        self.client.close()


def _close(client: Any) -> None:
    if hasattr(client, "close"):  # old clients need no closing
        client.close()


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
