"""One asynchronous client for each event loop: connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ClientPerLoop(Generic[T]):
    """Makes a client when an event loop first needs one, and closes it when the loop or the backend ends.

    Args:
        make: Makes a client, within its loop.
        close: Closes a client, within its loop.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[Any]]) -> None:
        """Begin without clients."""
        self._make = make
        self._close = close
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
                del self._clients[other]
            client = self._make()
            closing = self._until_closed(client)
            self._clients[loop] = client, closing
        # From here on the loop knows the generator; asyncio.run ends its asynchronous generators before the loop.
        await anext(closing)
        return client

    async def aclose(self) -> None:
        """Close the client of the running event loop."""
        with self._lock:
            _, closing = self._clients.pop(asyncio.get_running_loop(), (None, None))
        if closing is not None:
            await closing.aclose()

    def close(self) -> None:
        """Close all clients; those of other threads' running loops as soon as these come to it."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for loop, (_, closing) in clients.items():
            if loop.is_running():
                loop.call_soon_threadsafe(_end, loop, closing)
            # A loop that is not running closes its client when it ends.

    def abandon(self) -> list[Any]:
        """Forget all clients in a forked child, without a word to their servers; return what must be kept alive."""
        self._lock = threading.Lock()
        clients, self._clients = self._clients, {}
        return list(clients.items())

    async def _until_closed(self, client: T) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._close(client)


_ending: set[asyncio.Task[Any]] = set()


def _end(loop: asyncio.AbstractEventLoop, closing: AsyncGenerator[None]) -> None:
    async def end() -> None:
        await closing.aclose()

    task = loop.create_task(end())
    _ending.add(task)
    task.add_done_callback(_ending.discard)
