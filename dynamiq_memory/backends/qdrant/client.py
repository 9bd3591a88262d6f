"""The clients of a backend: one for threads, and an asynchronous one for each event loop.

Qdrant's local mode runs in this process and is not thread-safe: threads lose each other's writes. There, all calls hold
one lock, and asynchronous callers use threads.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.local.qdrant_local import QdrantLocal

from dynamiq_memory._clients import LazyClient, leave_open
from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends._loops import ClientPerLoop
from dynamiq_memory.backends._urls import check_server
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.connections import plain, without_secrets
from dynamiq_memory.exceptions import ConfigurationError

# Two backends may share a local client: they share its lock, too.
_locks: weakref.WeakKeyDictionary[QdrantClient, Any] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Address:
    """The address of Qdrant: a folder, this process (":memory:"), a server, or a client owned by the caller.

    Attributes:
        path: A folder, or ":memory:".
        url: The server's URL.
        api_key: The server's key.
        prefer_grpc: Whether to use gRPC.
        grpc_port: The server's port for gRPC.
        timeout: Seconds to wait for a response.
        client: A client owned by the caller, which is used instead of the others.
    """

    path: str | None = None
    url: str | None = None
    api_key: str | None = None
    prefer_grpc: bool = False
    grpc_port: int = 6334
    timeout: int = 30
    client: QdrantClient | None = None

    @property
    def shown(self) -> str | None:
        """The folder, or the URL without secrets; None for a client owned by the caller."""
        return self.path or (self.url and without_secrets(self.url))

    @property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "url": self.url,
            "api_key": self.api_key,
            "prefer_grpc": self.prefer_grpc,
            "grpc_port": self.grpc_port,
            "timeout": self.timeout,
        }
        if self.url is not None and self.url.startswith("http://"):
            # Reading the certificates takes tens of milliseconds, and they are useless without TLS.
            options["verify"] = False
        # Newer clients ask for the server's version at once, and warn if it is too old or too new for them.
        if "check_compatibility" in inspect.signature(QdrantClient.__init__).parameters:
            options["check_compatibility"] = False
        return options

    def connect(self) -> QdrantClient:
        """Make a client."""
        if self.path == ":memory:":
            return QdrantClient(location=":memory:", force_disable_check_same_thread=True)
        if self.path is not None:
            return QdrantClient(path=self.path, force_disable_check_same_thread=True)
        return QdrantClient(**self._options)

    def connect_async(self) -> AsyncQdrantClient:
        """Make an asynchronous client of a server."""
        return AsyncQdrantClient(**self._options)


def address_of(connection: Any, path: str | Path | None, *, prefer_grpc: bool, grpc_port: int, timeout: int) -> Address:
    """Check the arguments of a backend that say where Qdrant is.

    Raises:
        ConfigurationError: They do not.
    """
    if path is not None:
        if connection is not None:
            raise ConfigurationError("pass either connection or path: a folder needs no server")
        if Path(path).is_file():
            raise ConfigurationError(
                f"{str(path)!r} is a file: path must be a folder, which is created if it does not exist"
            )
        return Address(path=str(path))
    if isinstance(connection, QdrantClient):
        return Address(client=connection)
    if isinstance(connection, AsyncQdrantClient):
        raise ConfigurationError(
            "connection must be a QdrantClient or a Qdrant(url=…), which serve both, not an async client"
        )
    if connection == ":memory:":
        return Address(path=":memory:")
    if connection is None:
        connection = QdrantConnection()
    elif isinstance(connection, str):
        connection = QdrantConnection(url=connection)
    if not hasattr(connection, "url") or not hasattr(connection, "api_key"):
        raise ConfigurationError(
            'connection must be a dynamiq_memory.connections.Qdrant, a URL, ":memory:" or a QdrantClient, not a '
            f"{type(connection).__name__}"
        )
    check_server(connection.url, "Qdrant's url (QDRANT_URL or Qdrant(url=…))")
    return Address(None, connection.url, plain(connection.api_key), prefer_grpc, grpc_port, timeout)


class Clients(WatchesForks):
    """The clients of a backend.

    Args:
        address: The address of Qdrant.
        location: The collection, for errors.

    Attributes:
        client: The client for threads.
        is_local: Whether Qdrant runs in local mode.
        per_loop: The asynchronous clients; None in local mode, and for a client owned by the caller.
    """

    def __init__(self, address: Address, location: str) -> None:
        """Make no client yet, except in memory."""
        given = address.client
        self.is_local = address.path is not None if given is None else isinstance(_inner(given), QdrantLocal)
        self.per_loop: ClientPerLoop[AsyncQdrantClient] | None = None
        if given is None and not self.is_local:
            self.per_loop = ClientPerLoop(address.connect_async, lambda client: client.close())
        self._lock: Any = _lock_of(given) if given is not None and self.is_local else threading.RLock()
        self.client = _lazy_client(address, location)

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock to hold during a call."""
        return self._lock if self.is_local else nullcontext()

    def close(self) -> None:
        """Close the client for threads."""
        with self.lock():
            self.client.close()

    def _before_fork(self) -> None:
        if self.is_local:
            self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        if self.is_local:
            self._lock.release()

    _after_fork = _after_fork_in_parent


def _lazy_client(address: Address, location: str) -> LazyClient[QdrantClient]:
    """In a forked child, messages in memory are a copy, a folder is the parent's, connections are made again."""
    given = address.client
    if address.path == ":memory:":
        in_memory = address.connect()
        return LazyClient(lambda: in_memory, _close)
    if getattr(_inner(given), "location", "") == ":memory:":
        return LazyClient(lambda: given, leave_open)
    if given is not None:
        return LazyClient.given(given, location)
    stale = None
    if address.path is not None:
        stale = f"{location} was opened before this process was forked: open it in this process, or run a Qdrant server"
    return LazyClient(address.connect, _close, stale)


def _close(client: QdrantClient) -> None:
    client.close()
    # The client closes itself again when it is collected, and warns about gRPC channels that are closed already.
    getattr(_inner(client), "_grpc_channel_pool", []).clear()


def _inner(client: QdrantClient | None) -> Any:
    return getattr(client, "_client", None)


def _lock_of(client: QdrantClient) -> Any:
    with _locks_lock:
        return _locks.setdefault(client, threading.RLock())
