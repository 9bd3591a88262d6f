"""Running the service."""

from __future__ import annotations

import asyncio
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
# Longer than clients keep a connection that they do not use (5 s in httpx): else they send on one that is being closed.
_IDLE_SECONDS = 75


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on a client whose request's head does not come in time."""

    header_seconds = _HEADER_SECONDS
    unread_seconds = _UNREAD_SECONDS
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait until the head is there; what follows it has limits of its own."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._stop_unread()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def check_open(host: str, keys: KeyStore | None) -> None:
    """Check that a service which anybody can reach asks for a key.

    Raises:
        ConfigurationError: It would not.
    """
    if keys is None and not is_local(host):
        raise ConfigurationError(
            f"without keys, the service listens on 127.0.0.1 alone, not on {host!r}: make a key with "
            "`dynamiq-memory keys create`, or leave out --host"
        )


def serve(
    store: MemoryBackend, keys: KeyStore | None, settings: Settings, host: str, port: int, max_connections: int
) -> None:
    """Answer requests until the process is told to end.

    Raises:
        ConfigurationError: It would let anybody in.
    """
    check_open(host, keys)
    options: dict[str, Any] = {"http": PromptProtocol, "ws": "none", "lifespan": "off", "log_config": None}
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
