"""The clients of a backend: one for threads, and an asynchronous one for each event loop.

Qdrant's local mode is no server: it runs in this process and is not made for several threads, which lose each other's
writes. There, all calls hold one lock, and asynchronous callers use threads.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.local.qdrant_local import QdrantLocal

from dynamiq_memory.exceptions import BackendError

# Two backends may share one local client: they share its lock, too.
_locks: weakref.WeakKeyDictionary[QdrantClient, Any] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()
# What a forked child has of its parent's clients: collecting them would end connections that the parent uses.
_inherited: list[Any] = []


@dataclass(frozen=True, slots=True)
class Address:
    """Where Qdrant is: a folder, this process (":memory:"), or a server.

    Attributes:
        path: A folder, or ":memory:", or None for a server.
        url: The server's URL.
        api_key: Its key.
        prefer_grpc: Whether to talk gRPC.
        grpc_port: The port for that.
        timeout: Seconds to wait for an answer.
    """

    path: str | None = None
    url: str | None = None
    api_key: str | None = None
    prefer_grpc: bool = False
    grpc_port: int = 6334
    timeout: int = 30

    @property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "url": self.url,
            "api_key": self.api_key,
            "prefer_grpc": self.prefer_grpc,
            "grpc_port": self.grpc_port,
            "timeout": self.timeout,
        }
        if self.url is not None and self.url.startswith("http://"):
            # Reading the certificates takes tens of milliseconds, and without TLS they are of no use.
            settings["verify"] = False
        # Newer ones ask for the server's version at once, and warn where they think it too old or too new.
        if "check_compatibility" in inspect.signature(QdrantClient.__init__).parameters:
            settings["check_compatibility"] = False
        return settings

    def client(self) -> QdrantClient:
        """A new client."""
        if self.path == ":memory:":
            return QdrantClient(location=":memory:", force_disable_check_same_thread=True)
        if self.path is not None:
            return QdrantClient(path=self.path, force_disable_check_same_thread=True)
        return QdrantClient(**self._settings)

    def async_client(self) -> AsyncQdrantClient:
        """A new asynchronous client of a server."""
        return AsyncQdrantClient(**self._settings)


class Clients:
    """Makes clients when they are needed, and closes those that it made.

    Args:
        address: Where Qdrant is.
        given: The caller's own client, used instead; it stays open.
        where: The collection, for errors.

    Attributes:
        local: Whether it is local mode.
    """

    def __init__(self, address: Address, given: QdrantClient | None, where: str) -> None:
        """Make no client yet."""
        self._address = address
        self._given = given
        self._where = where
        self._made: QdrantClient | None = None
        self._making = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, tuple[AsyncQdrantClient, AsyncGenerator[None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._forked = False
        self.local = address.path is not None if given is None else isinstance(_inner(given), QdrantLocal)
        self._lock: Any = _lock_of(given) if given is not None and self.local else threading.RLock()

    @property
    def is_asynchronous(self) -> bool:
        """Whether there are asynchronous clients: not in local mode, nor where the caller gave one for threads."""
        return self._given is None and not self.local

    def exclusive(self) -> AbstractContextManager[Any]:
        """What a call of the client's must hold."""
        return self._lock if self.local else nullcontext()

    def client(self) -> QdrantClient:
        """The client for threads.

        Raises:
            BackendError: It was made before this process was forked, and cannot be shared.
        """
        if self._forked:
            raise BackendError(
                f"{self._where} was opened before this process was forked, and cannot be shared with the parent: open "
                "it in this process, or run a Qdrant server"
            )
        if self._given is not None:
            return self._given
        with self._making:
            if self._made is None:
                self._made = made = self._address.client()
                weakref.finalize(self, _close, made)
        return self._made

    async def async_client(self) -> AsyncQdrantClient:
        """The client for the event loop that is running; it is closed with the loop's asynchronous generators."""
        loop = asyncio.get_running_loop()
        with self._making:
            for other in [known for known in self._loops if known.is_closed()]:
                del self._loops[other]
            known = self._loops.get(loop)
            if known is None:
                client = self._address.async_client()
                known = self._loops[loop] = (client, _until_closed(client))
                fresh = True
            else:
                fresh = False
        if fresh:
            await anext(known[1])  # from here on, the loop knows it
        return known[0]

    async def aclose(self) -> None:
        """Close the client of the event loop that is running."""
        with self._making:
            known = self._loops.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[1].aclose()

    def close(self) -> None:
        """Close all clients; those of event loops that run elsewhere close there."""
        with self._making:
            loops, self._loops = self._loops, {}
        for loop, (_, held) in loops.items():
            if loop.is_running():
                loop.call_soon_threadsafe(self._end, loop, held)
            # One that does not run ends what it holds when it is closed.
        if self._made is not None:
            with self.exclusive():
                _close(self._made)

    def _end(self, loop: asyncio.AbstractEventLoop, held: AsyncGenerator[None]) -> None:
        task: asyncio.Task[None] = loop.create_task(held.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def before_fork(self) -> None:
        """Let no call be half done in local mode."""
        if self.local:
            self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let go."""
        if self.local:
            self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: messages in memory are a copy, a folder is the parent's, connections are made anew."""
        self._making = threading.Lock()
        if self.local:
            self._lock.release()
            in_memory = self._address.path == ":memory:" or getattr(_inner(self._given), "location", "") == ":memory:"
            self._forked = not in_memory
            return
        self._forked = self._given is not None
        _inherited.extend([self._made, self._loops])
        self._made, self._loops = None, {}


async def _until_closed(client: AsyncQdrantClient) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await client.close()


def _close(client: QdrantClient) -> None:
    client.close()
    # The client closes itself again when it is collected, and warns about channels of gRPC that are closed already.
    getattr(_inner(client), "_grpc_channel_pool", []).clear()


def _inner(client: QdrantClient | None) -> Any:
    return getattr(client, "_client", None)


def _lock_of(client: QdrantClient) -> Any:
    with _locks_lock:
        return _locks.setdefault(client, threading.RLock())
