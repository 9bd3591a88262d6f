"""Where the server is, and the clients of it: one for synchronous callers, one for all event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.config import GrpcConfig
from weaviate.connect import ConnectionParams
from weaviate.exceptions import WeaviateGRPCUnavailableError

from dynamiq_memory.backends._urls import check_server
from dynamiq_memory.backends.weaviate.errors import status_of
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import ConfigurationError

_ATTRIBUTES = ("deployment_type", "api_key", "url", "http_host", "http_port", "grpc_host", "grpc_port")
_CLOUD_PORT = 443
_LOCAL_GRPC_PORT = 50051
# Seconds to wait for requests that are under way when the asynchronous client is closed.
_PATIENCE = 10.0

# What a forked child has of its parent's clients: collecting them would end connections that the parent uses.
_inherited: list[Any] = []


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a server is, and how to talk to it.

    Attributes:
        http_host: The host of REST.
        http_port: Its port.
        http_secure: Whether over TLS.
        grpc_host: The host of gRPC.
        grpc_port: Its port.
        grpc_secure: Whether over TLS.
        api_key: The key, or None.
        timeout_init: Seconds to wait for the server when it is opened.
        timeout_query: Seconds to wait for an answer.
        timeout_insert: Seconds to wait for a write.
    """

    http_host: str
    http_port: int
    http_secure: bool
    grpc_host: str
    grpc_port: int
    grpc_secure: bool
    api_key: str | None = field(default=None, repr=False)
    timeout_init: float = 30.0
    timeout_query: float = 180.0
    timeout_insert: float = 120.0

    @property
    def address(self) -> str:
        """Where REST is."""
        return f"{'https' if self.http_secure else 'http'}://{self.http_host}:{self.http_port}"


def settings_of(connection: Any) -> Settings:
    """Read what was given as a connection.

    Args:
        connection: A `dynamiq_memory.connections.Weaviate` or an object with its attributes, a URL, or None for what
            the environment says.

    Raises:
        ConfigurationError: It is none of these, or says too little.
    """
    if connection is None:
        connection = WeaviateConnection()
    if isinstance(connection, str):
        connection = WeaviateConnection(url=connection)
    if isinstance(connection, type) or not all(hasattr(connection, name) for name in _ATTRIBUTES):
        raise ConfigurationError(
            "connection must be a dynamiq_memory.connections.Weaviate, a URL such as http://localhost:8080, or a "
            f"weaviate.WeaviateClient, not {connection!r:.80}"
        )
    common: dict[str, Any] = {
        name: getattr(connection, name)
        for name in ("timeout_init", "timeout_query", "timeout_insert")
        if getattr(connection, name, None) is not None
    }
    common["api_key"] = plain(connection.api_key) or None
    kind = str(getattr(connection.deployment_type, "value", connection.deployment_type))
    url = connection.url
    if url and not (kind == "custom" and connection.http_host):
        return _of_url(connection, url, common)
    if not connection.http_host:
        raise ConfigurationError(
            "where is Weaviate? Set WEAVIATE_URL, or WEAVIATE_HTTP_HOST, or give Weaviate(url=…) or "
            "Weaviate(http_host=…)"
        )
    secure = getattr(connection, "http_secure", None)
    grpc_secure = getattr(connection, "grpc_secure", None)
    return Settings(
        connection.http_host,
        int(connection.http_port or _CLOUD_PORT),
        True if secure is None else secure,
        connection.grpc_host or connection.http_host,
        int(connection.grpc_port or _LOCAL_GRPC_PORT),
        (True if secure is None else secure) if grpc_secure is None else grpc_secure,
        **common,
    )


def _of_url(connection: Any, url: str, common: dict[str, Any]) -> Settings:
    url = url if "://" in url else f"https://{url}"
    check_server(url, "the URL of Weaviate")
    parsed = urlsplit(url)
    if parsed.username or parsed.password:
        raise ConfigurationError("the URL of Weaviate has no place for a password: give the api_key")
    secure = parsed.scheme == "https"
    host = parsed.hostname or ""
    port = parsed.port or (_CLOUD_PORT if secure else 80)
    if secure and port == _CLOUD_PORT:  # Weaviate Cloud has gRPC on a host of its own
        grpc_host, grpc_port = _cloud_grpc_host(host), _CLOUD_PORT
    else:
        grpc_host, grpc_port = host, int(connection.grpc_port or _LOCAL_GRPC_PORT)
    return Settings(host, port, secure, connection.grpc_host or grpc_host, grpc_port, secure, **common)


def _cloud_grpc_host(host: str) -> str:
    if host.endswith(".weaviate.network"):
        name, domain = host.split(".", 1)
        return f"{name}.grpc.{domain}"
    return f"grpc-{host}"


def _arguments(settings: Settings) -> dict[str, Any]:
    return {
        "connection_params": ConnectionParams.from_params(
            http_host=settings.http_host,
            http_port=settings.http_port,
            http_secure=settings.http_secure,
            grpc_host=settings.grpc_host,
            grpc_port=settings.grpc_port,
            grpc_secure=settings.grpc_secure,
        ),
        "auth_client_secret": None if settings.api_key is None else Auth.api_key(settings.api_key),
        "additional_config": AdditionalConfig(
            timeout=Timeout(init=settings.timeout_init, query=settings.timeout_query, insert=settings.timeout_insert),
            # Else a forked child gets a connection of its parent's from the pool of the process.
            grpc_config=GrpcConfig(channel_options=[("grpc.use_local_subchannel_pool", 1)]),
        ),
        # The client's checks would also ask the package registry for its newest version.
        "skip_init_checks": True,
    }


def check_grpc(settings: Settings) -> None:
    """Wait for the server's gRPC.

    The client tries a request for a minute before it says that it cannot be reached.

    Raises:
        WeaviateGRPCUnavailableError: It cannot be reached.
    """
    target = f"{settings.grpc_host}:{settings.grpc_port}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
        if settings.grpc_secure
        else grpc.insecure_channel(target, options)
    )
    try:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        check(b"", timeout=settings.timeout_init, wait_for_ready=True)
    except grpc.RpcError as error:
        # Any other answer is one of the server's, which says more when it is asked for something.
        if status_of(error) in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}:
            raise WeaviateGRPCUnavailableError("", (settings.grpc_host, settings.grpc_port)) from error
    finally:
        channel.close()


class Loop:
    """An event loop in a thread of its own.

    An asynchronous client belongs to one loop. Callers have many, one after the other or at once, and end them without
    a word; so the client has its own, and theirs wait for it.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dynamiq-memory-Weaviate", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Do work on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def end(self, last: Coroutine[Any, Any, Any]) -> None:
        """Wait a while for what is under way, do a last piece of work, and end the thread."""
        self.submit(self._finish(last)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finish(self, last: Coroutine[Any, Any, Any]) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, slow = await asyncio.wait(others, timeout=_PATIENCE)
            for task in slow:
                task.cancel()
        await last


class Clients:
    """Makes clients of a server when they are first needed, and anew in a forked child.

    Args:
        settings: Where the server is.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing."""
        self.settings = settings
        self._lock = threading.Lock()
        self._sync: weaviate.WeaviateClient | None = None
        self._loop: Loop | None = None
        self._async: weaviate.WeaviateAsyncClient | None = None
        self._connecting: asyncio.Lock | None = None

    def sync(self) -> weaviate.WeaviateClient:
        """The client for synchronous callers."""
        with self._lock:
            if self._sync is None:
                made = weaviate.WeaviateClient(**_arguments(self.settings))
                try:
                    made.connect()
                except BaseException:
                    made.close()
                    raise
                self._sync = made
            return self._sync

    async def run(self, work: Callable[[weaviate.WeaviateAsyncClient], Awaitable[Any]]) -> Any:
        """Work with the client for asynchronous callers; what cancels the caller cancels the work."""
        with self._lock:
            if self._loop is None:
                self._loop = Loop()
            started = self._loop.submit(self._work(work))
        return await asyncio.wrap_future(started)

    def close(self) -> None:
        """Close both."""
        with self._lock:
            sync, self._sync = self._sync, None
            self._end_loop()
        if sync is not None:
            sync.close()

    def before_fork(self) -> None:
        """Close the asynchronous one: a child cannot use gRPC while its parent's asynchronous side is open."""
        self._lock.acquire()
        self._end_loop()

    def after_fork_in_parent(self) -> None:
        """Let asynchronous callers go on, with a new client."""
        self._lock.release()

    def abandon(self) -> None:
        """Forget the parent's client without a word to the server, in a forked child."""
        _inherited.append(self._sync)
        self._sync = None
        self._lock = threading.Lock()

    async def _work(self, work: Callable[[weaviate.WeaviateAsyncClient], Awaitable[Any]]) -> Any:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._async is None:
                made = weaviate.WeaviateAsyncClient(**_arguments(self.settings))
                try:
                    await made.connect()
                except BaseException:
                    await made.close()
                    raise
                self._async = made
        return await work(self._async)

    def _end_loop(self) -> None:
        if self._loop is not None:
            loop, self._loop = self._loop, None
            loop.end(self._close_asynchronous())

    async def _close_asynchronous(self) -> None:
        made, self._async, self._connecting = self._async, None, None
        if made is not None:
            await made.close()
