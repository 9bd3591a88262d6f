"""An asynchronous client for each event loop, since connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from dynamiq_memory._forks import WatchesForks, keep_inherited

T = TypeVar("T")


class ClientPerLoop(WatchesForks, Generic[T]):
    """Creates a client when an event loop first needs one, and closes it when the loop ends or the backend is closed.

    Args:
        make: Creates a client, called in its loop.
        close: Closes a client, called in its loop.
        abort: Ends a client at once, called for a loop that is closed or not running. By default, such a client is left
            to its loop.
    """

    def __init__(
        self, make: Callable[[], T], close: Callable[[T], Awaitable[Any]], abort: Callable[[T], Any] | None = None
    ) -> None:
        """Create the container, without clients."""
        self._make = make
        self._close = close
        self._abort = abort or (lambda _: None)
        self._lock = threading.Lock()
        self._clients: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None]]] = {}

    async def get(self) -> T:
        """Return the client of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._clients.get(loop)
            if known is not None:
                return known[0]
            for other in [other for other in self._clients if other.is_closed()]:
                self._abort(self._clients.pop(other)[0])
            client = self._make()
            closing = self._until_closed(client)
            self._clients[loop] = client, closing
        # This registers the generator with the loop: asyncio.run finishes asynchronous generators before the loop ends.
        await anext(closing)
        return client

    async def aclose(self) -> None:
        """Close the client of the running event loop."""
        with self._lock:
            _, closing = self._clients.pop(asyncio.get_running_loop(), (None, None))
        if closing is not None:
            await closing.aclose()

    def close(self) -> None:
        """Close all clients. Those of loops that run in other threads are closed by their loops soon after."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for loop, (client, closing) in clients.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(_end(closing), loop)
            else:  # it closes its client when it ends
                self._abort(client)

    def _after_fork(self) -> None:
        # The child must not tell the servers.
        self._lock = threading.Lock()
        keep_inherited(*self._clients.items())
        self._clients = {}

    async def _until_closed(self, client: T) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._close(client)


async def _end(closing: AsyncGenerator[None]) -> None:
    await closing.aclose()
