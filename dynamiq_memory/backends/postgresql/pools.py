"""Pools of connections: one for each event loop; and none hands out a connection older than one that broke."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_OPENED = "dynamiq_memory_opened"


def finish(connection: Any) -> None:
    """End a driver connection at once, without asking the server or an event loop."""
    connection.pgconn.finish()


class EnginePerLoop:
    """Makes an asynchronous engine for each event loop, since a connection belongs to the loop that opened it.

    Unlike `ClientPerLoop` it ends the connections itself, without their loop: a server has only few.

    Args:
        make: Makes an engine.
    """

    def __init__(self, make: Callable[[], AsyncEngine]) -> None:
        """Begin without engines."""
        self._make = make
        self._lock = threading.Lock()
        self._engines: dict[asyncio.AbstractEventLoop, tuple[AsyncEngine, list[Any]]] = {}

    def get(self) -> AsyncEngine:
        """Return the engine of the running event loop, and end the connections of loops that have been closed."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for other in [known for known in self._engines if known.is_closed()]:
                self._end(other)
            if loop not in self._engines:
                self._engines[loop] = self._made()
            return self._engines[loop][0]

    def close(self) -> None:
        """End all connections; those of other threads' running loops as soon as these come to it."""
        with self._lock:
            for loop in list(self._engines):
                self._end(loop)

    def abandon(self) -> list[Any]:
        """Forget all engines in a forked child, without a word to the server; return what must be kept alive."""
        self._lock = threading.Lock()
        engines, self._engines = self._engines, {}
        return list(engines.values())

    def _made(self) -> tuple[AsyncEngine, list[Any]]:
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
                loop.call_soon_threadsafe(finish, connection)
            else:
                finish(connection)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class StaleConnections:
    """Replaces connections that were opened before one broke, in all engines that it watches."""

    def __init__(self) -> None:
        """Begin with nothing broken."""
        self._broken = -math.inf

    def broke(self) -> None:
        """Note that a connection has broken: those opened until now are stale."""
        self._broken = time.monotonic()

    def watch(self, engine: Engine) -> None:
        """Check each connection that an engine opens and hands out."""
        event.listen(engine, "connect", self._note)
        event.listen(engine, "checkout", self._check)

    def leave(self, engine: Engine) -> None:
        """Stop checking."""
        for name, listener in (("connect", self._note), ("checkout", self._check)):
            if event.contains(engine, name, listener):
                event.remove(engine, name, listener)

    def _note(self, _: Any, record: Any) -> None:
        record.info[_OPENED] = time.monotonic()

    def _check(self, _: Any, record: Any, __: Any) -> None:
        if record.info.get(_OPENED, math.inf) <= self._broken:
            raise DisconnectionError("opened before another connection broke")  # the pool opens a new one
