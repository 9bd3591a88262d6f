"""Running the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError, MissingDependencyError
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.guard import is_local
from dynamiq_memory.server.keys import KeyStore
from dynamiq_memory.server.settings import Settings

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingDependencyError("the memory service needs uvicorn: pip install 'dynamiq-memory[server]'") from error

_HEADER_SECONDS = 10.0
_UNREAD_SECONDS = 60.0
_GRACE_SECONDS = 10
# Longer than clients keep idle connections (5 s in httpx). Otherwise they might send a request while we close it.
_IDLE_SECONDS = 75


class TimeoutProtocol(H11Protocol):
    """HTTP/1.1 that disconnects clients that send the head of a request, or read a response, too slowly."""

    header_seconds = _HEADER_SECONDS
    unread_seconds = _UNREAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request's head."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._start("head", self.header_seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        """Stop the timer when the head is complete; the body has its own limits."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop("head")
        else:
            self._start("head", self.header_seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop("head")
        self._stop("unread")
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        self._start("unread", self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer, since the client has read."""
        super().resume_writing()
        self._stop("unread")

    def _start(self, timer: str, seconds: float, then: Callable[[], None]) -> None:
        if timer not in self._timers:
            self._timers[timer] = self.loop.call_later(seconds, then)

    def _stop(self, timer: str) -> None:
        if timer in self._timers:
            self._timers.pop(timer).cancel()


def check_open(host: str, keys: KeyStore | None) -> None:
    """Check that a service without keys is reachable from this machine only.

    Raises:
        ConfigurationError: It would be reachable from elsewhere.
    """
    if keys is None and not is_local(host):
        raise ConfigurationError(
            f"without keys, the service listens on 127.0.0.1 only, not on {host!r}: create a key with "
            "`dynamiq-memory keys create`, or omit --host"
        )


def serve(
    store: MemoryBackend, keys: KeyStore | None, settings: Settings, host: str, port: int, max_connections: int
) -> None:
    """Serve requests until the process receives a signal to stop.

    Raises:
        ConfigurationError: Without keys, the service would be reachable from other machines.
    """
    check_open(host, keys)
    options: dict[str, Any] = {"http": TimeoutProtocol, "ws": "none", "lifespan": "off", "log_config": None}
    config = uvicorn.Config(
        create_app(store, keys, settings),
        host=host,
        port=port,
        access_log=False,
        server_header=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **options,
    )
    uvicorn.Server(config).run()
