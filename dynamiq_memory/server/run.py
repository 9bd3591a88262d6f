"""Running the service."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import socket
import threading
from collections.abc import Callable
from operator import attrgetter
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
# Then requests that are still running are cancelled. After this time, only requests that cannot be cancelled are left.
_CANCEL_SECONDS = 5
# Longer than clients keep idle connections (5 s in httpx). Otherwise they might send a request while we close it.
_IDLE_SECONDS = 75

logger = logging.getLogger("dynamiq_memory.server")


class TimeoutProtocol(H11Protocol):
    """HTTP/1.1 that disconnects clients that send the head of a request, or read a response, too slowly.

    When no more connections are allowed, a new one replaces the one that has been idle longest, so that nobody can
    lock others out by connections without requests.

    Attributes:
        idle_since: When the last response ended or the connection was made, in seconds of the event loop's clock;
            infinite while there is a request.
    """

    header_seconds = _HEADER_SECONDS
    unread_seconds = _UNREAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request's head."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.idle_since = self.loop.time()
        self._start("head", self.header_seconds, transport.close)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._replace_idle()

    def data_received(self, data: bytes) -> None:
        """Stop the timer when the head is complete; the body has its own limits."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop("head")
            self.idle_since = math.inf
        else:
            self._start("head", self.header_seconds, self.transport.close)

    def on_response_complete(self) -> None:
        """Note since when the connection has been idle."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

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

    def _replace_idle(self) -> None:
        """Disconnect the client that has been idle longest, if one is idle."""
        others = [each for each in self.connections if isinstance(each, TimeoutProtocol) and each is not self]
        oldest = min(others, key=attrgetter("idle_since"), default=self)
        if oldest is not self and oldest.idle_since < math.inf:
            self.connections.discard(oldest)  # it is lost a moment later
            oldest.transport.abort()

    def _start(self, timer: str, seconds: float, then: Callable[[], None]) -> None:
        if timer not in self._timers:
            self._timers[timer] = self.loop.call_later(seconds, then)

    def _stop(self, timer: str) -> None:
        if timer in self._timers:
            self._timers.pop(timer).cancel()


class Server(uvicorn.Server):
    """A server that ends in bounded time after a signal, whatever its requests do."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Start no timer yet."""
        super().__init__(config)
        self._leaving = threading.Timer(_GRACE_SECONDS + _CANCEL_SECONDS, _leave)
        self._leaving.daemon = True

    def run(self, sockets: Any = None) -> None:
        """Serve until a signal."""
        try:
            super().run(sockets)
        finally:
            self._leaving.cancel()

    async def shutdown(self, sockets: Any = None) -> None:
        """Wait for running requests, cancel those that take too long, and leave what cannot be cancelled."""
        self._leaving.start()
        await super().shutdown(sockets)


def _leave() -> None:
    # As safe as `kill -9`: what was acknowledged is stored, and what is half written is rolled back.
    logger.error("requests did not end after they were cancelled: leaving them")
    os._exit(1)


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


def check_proxies(forwarded_allow_ips: str | None) -> None:
    """Check the addresses of proxies.

    Raises:
        ConfigurationError: One is not an address or a network, such as 10.0.0.1 or 10.0.0.0/8.
    """
    for each in [] if forwarded_allow_ips is None else forwarded_allow_ips.split(","):
        try:
            ipaddress.ip_network(each.strip())
        except ValueError as error:
            raise ConfigurationError(
                f"--forwarded-allow-ips: {each.strip()!r} is not the address or network of a proxy ({error})"
            ) from None


def serve(
    store: MemoryBackend,
    keys: KeyStore | None,
    settings: Settings,
    host: str,
    port: int,
    max_connections: int,
    forwarded_allow_ips: str | None = None,
) -> None:
    """Serve requests until the process receives a signal to stop.

    Running requests then have 10 seconds to end before they are cancelled, and 5 more before the process ends anyway.

    Args:
        store: The store with the messages.
        keys: The API keys; None to admit everyone on this machine.
        settings: The limits.
        host: The address to listen on.
        port: The port.
        max_connections: Maximum number of connections.
        forwarded_allow_ips: Addresses and networks of proxies, separated by commas, to trust their X-Forwarded-For;
            None for no proxy.

    Raises:
        ConfigurationError: Without keys, the service would be reachable from other machines; or the port is in use.
    """
    check_open(host, keys)
    _check_port(host, port)
    options: dict[str, Any] = {"http": TimeoutProtocol, "ws": "none", "lifespan": "off", "log_config": None}
    config = uvicorn.Config(
        create_app(store, keys, settings),
        host=host,
        port=port,
        access_log=False,
        server_header=False,
        proxy_headers=forwarded_allow_ips is not None,
        forwarded_allow_ips=forwarded_allow_ips or "",
        limit_concurrency=max_connections,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **options,
    )
    Server(config).run()


def _check_port(host: str, port: int) -> None:
    """Check that the port is free, which uvicorn would only log.

    Raises:
        ConfigurationError: It is not, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigurationError(
            f"the service cannot listen on port {port} of {host}: {error.strerror or error}; choose another --port or "
            "--host"
        ) from error
