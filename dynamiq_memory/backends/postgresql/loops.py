"""An asynchronous engine for each event loop: a connection belongs to the loop that opened it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


class EnginesOfLoops:
    """Makes an engine for each event loop, and ends the connections of loops that have been closed.

    Args:
        make: Makes an engine.
        finish: Ends a connection of the driver's at once, without its loop.
    """

    def __init__(self, make: Callable[[], AsyncEngine], finish: Callable[[Any], None]) -> None:
        """Begin with none."""
        self._make = make
        self._finish = finish
        self._lock = threading.Lock()
        self._engines: dict[asyncio.AbstractEventLoop, tuple[AsyncEngine, list[Any]]] = {}

    def of_this_loop(self) -> AsyncEngine:
        """The engine of the event loop that is running."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for other in [known for known in self._engines if known.is_closed()]:
                self._end(other)
            if loop not in self._engines:
                self._engines[loop] = self._opened()
            return self._engines[loop][0]

    def end(self) -> None:
        """End all connections. Those of another thread's running loop end there, as soon as it comes to it."""
        with self._lock:
            for loop in list(self._engines):
                self._end(loop)

    def abandon(self) -> list[Any]:
        """Let go of all connections without a word to their server, in a forked child; return what must be kept."""
        self._lock = threading.Lock()
        engines, self._engines = self._engines, {}
        return list(engines.values())

    def _opened(self) -> tuple[AsyncEngine, list[Any]]:
        engine = self._make()
        connections: list[Any] = []

        @event.listens_for(engine.sync_engine, "connect")
        def keep(adapted: Any, _: Any) -> None:
            connections[:] = [one for one in connections if not one.closed]
            connections.append(adapted.driver_connection)

        return engine, connections

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        _, connections = self._engines.pop(loop)
        for connection in connections:
            if loop.is_running() and loop is not _running_loop():
                loop.call_soon_threadsafe(self._finish, connection)
            else:
                self._finish(connection)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
