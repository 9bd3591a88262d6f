"""Connecting: where the server is, and a synchronous and an asynchronous client of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.config import GrpcConfig
from weaviate.connect import ConnectionParams
from weaviate.exceptions import WeaviateGRPCUnavailableError

from dynamiq_memory._clients import LazyClient
from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends._urls import check_server
from dynamiq_memory.backends.weaviate.errors import grpc_status
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import ConfigurationError

T = TypeVar("T")
End = tuple[str, int, bool]
"""A host, a port, and whether it uses TLS."""

_ATTRIBUTES = ("deployment_type", "api_key", "url", "http_host", "http_port", "grpc_host", "grpc_port")
_TIMEOUTS = {"init": 30.0, "query": 60.0, "insert": 90.0}
_CLOUD_PORT = 443
_LOCAL_GRPC_PORT = 50051
_CHANNEL_OPTIONS = [
    # With the process's pool, a forked child would use its parent's connections.
    ("grpc.use_local_subchannel_pool", 1),
    # A request waits for a lost connection until its timeout. Without this, it fails at once, and the client repeats it
    # for 63 seconds, which no setting changes.
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True}]})),
    # A server that is back is noticed soon; gRPC would wait for up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 5000),
]
# Seconds to wait for running requests when the asynchronous client is closed.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the settings of its clients.

    Attributes:
        params: The hosts and ports of REST and gRPC.
        timeout: Timeouts in seconds.
        api_key: The key, if the server requires one.
    """

    params: ConnectionParams
    timeout: Timeout
    api_key: str | None = field(repr=False)

    @property
    def address(self) -> str:
        """The URL of REST."""
        http = self.params.http
        return f"{'https' if http.secure else 'http'}://{http.host}:{http.port}"

    def client(self) -> weaviate.WeaviateClient:
        """Make a client, connected by REST and gRPC.

        Raises:
            WeaviateBaseError: The server cannot be reached, or refuses the key.
        """
        client = weaviate.WeaviateClient(**self._arguments)
        try:
            client.connect()
            self._check_grpc()
        except BaseException:
            client.close()
            raise
        return client

    async def async_client(self) -> weaviate.WeaviateAsyncClient:
        """Make a connected asynchronous client."""
        client = weaviate.WeaviateAsyncClient(**self._arguments)
        try:
            await client.connect()
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            "connection_params": self.params,
            "auth_client_secret": None if self.api_key is None else Auth.api_key(self.api_key),
            "additional_config": AdditionalConfig(
                timeout=self.timeout, grpc_config=GrpcConfig(channel_options=_CHANNEL_OPTIONS)
            ),
            # The client's checks would also ask the package registry for its newest version.
            "skip_init_checks": True,
        }

    def _check_grpc(self) -> None:
        """Wait for gRPC: the client would repeat its first request for a minute before it fails."""
        host, port = self.params.grpc.host, self.params.grpc.port
        if self.params.grpc.secure:
            channel = grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(), _CHANNEL_OPTIONS)
        else:
            channel = grpc.insecure_channel(f"{host}:{port}", _CHANNEL_OPTIONS)
        try:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            check(b"", timeout=self.timeout.init, wait_for_ready=True)
        except grpc.RpcError as error:
            # Any other error is the server's, and the first request reports it better.
            if grpc_status(error) in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}:
                raise WeaviateGRPCUnavailableError("", (host, port)) from error
        finally:
            channel.close()


def server_of(connection: Any) -> Server:
    """Read the server and the settings from a connection.

    Args:
        connection: A `dynamiq_memory.connections.Weaviate` or an object with its attributes, a URL, or None for the
            settings of the environment.

    Raises:
        ConfigurationError: It is something else, or does not name a server.
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
    kind = str(getattr(connection.deployment_type, "value", connection.deployment_type))
    if connection.url and not (kind == "custom" and connection.http_host):
        http, rpc = _ends_at(connection.url, connection.grpc_host, connection.grpc_port)
    elif connection.http_host:
        secure, grpc_secure = getattr(connection, "http_secure", None), getattr(connection, "grpc_secure", None)
        secure = True if secure is None else secure
        http = connection.http_host, int(connection.http_port or _CLOUD_PORT), secure
        grpc_port = int(connection.grpc_port or _LOCAL_GRPC_PORT)
        rpc = connection.grpc_host or http[0], grpc_port, secure if grpc_secure is None else grpc_secure
    else:
        raise ConfigurationError(
            "where is Weaviate? Set WEAVIATE_URL, or WEAVIATE_HTTP_HOST, or give Weaviate(url=…) or "
            "Weaviate(http_host=…)"
        )
    timeouts = {name: getattr(connection, f"timeout_{name}", None) or default for name, default in _TIMEOUTS.items()}
    return Server(ConnectionParams.from_params(*http, *rpc), Timeout(**timeouts), plain(connection.api_key) or None)


def _ends_at(url: str, grpc_host: str | None, grpc_port: Any) -> tuple[End, End]:
    """Return the ends of REST and gRPC of the server at a URL."""
    url = url if "://" in url else f"https://{url}"
    check_server(url, "the URL of Weaviate")
    parsed = urlsplit(url)
    if parsed.username or parsed.password:
        raise ConfigurationError("the URL of Weaviate must not contain a password: give the api_key")
    secure, host = parsed.scheme == "https", parsed.hostname or ""
    port = parsed.port or (_CLOUD_PORT if secure else 80)
    if secure and port == _CLOUD_PORT:
        return (host, port, secure), (grpc_host or _cloud_grpc_host(host), _CLOUD_PORT, secure)
    return (host, port, secure), (grpc_host or host, int(grpc_port or _LOCAL_GRPC_PORT), secure)


def _cloud_grpc_host(host: str) -> str:
    if host.endswith(".weaviate.network"):
        name, domain = host.split(".", 1)
        return f"{name}.grpc.{domain}"
    return f"grpc-{host}"


class ClientThread:
    """An asynchronous client, on an event loop in a thread of its own. Callers' loops wait for its results.

    Other stores have a client for each event loop of their callers. Here that would not survive a fork: if a process
    forks while an asynchronous channel is open, gRPC hangs in the child. So the client is closed before each fork, and
    only its own event loop can close it. The thread that forks may be running the caller's loop and cannot wait for it,
    but it can wait for this one.

    Args:
        server: The server, to which the first request connects.
    """

    def __init__(self, server: Server) -> None:
        """Start the thread."""
        self._server = server
        self._client: weaviate.WeaviateAsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dynamiq-memory-Weaviate", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[weaviate.WeaviateAsyncClient], Awaitable[T]]) -> Future[T]:
        """Start work with the client; cancelling the future cancels the work."""
        return asyncio.run_coroutine_threadsafe(self._work(work), self._loop)

    def close(self) -> None:
        """Wait some seconds for running work, close the client, and end the thread."""
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _work(self, work: Callable[[weaviate.WeaviateAsyncClient], Awaitable[T]]) -> T:
        async with self._connecting:
            if self._client is None:
                self._client = await self._server.async_client()
        return await work(self._client)

    async def _finish(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        if running:
            _, slow = await asyncio.wait(running, timeout=_PATIENCE)
            for task in slow:
                task.cancel()
        if self._client is not None:
            await self._client.close()


class Clients(WatchesForks):
    """The clients of a backend: made when they are first needed, and again in a forked child.

    Args:
        source: The server, or a client owned by the caller.
        location: The collection, for errors.
    """

    def __init__(self, source: Server | weaviate.WeaviateClient, location: str) -> None:
        """Connect to nothing yet."""
        self._server = source if isinstance(source, Server) else None
        if isinstance(source, Server):
            self._client = LazyClient(source.client, weaviate.WeaviateClient.close)
        else:
            self._client = LazyClient.given(source, location)
        self._thread: ClientThread | None = None
        self._lock = threading.Lock()

    def client(self) -> weaviate.WeaviateClient:
        """The client for synchronous callers."""
        with self._lock:
            return self._client.get()

    async def run(self, work: Callable[[weaviate.WeaviateAsyncClient], Awaitable[T]]) -> T:
        """Do work with the client for asynchronous callers; cancelling the caller cancels the work."""
        if self._server is None:
            raise AssertionError("a client owned by the caller is used in threads")
        with self._lock:
            if self._thread is None:
                self._thread = ClientThread(self._server)
            started = self._thread.submit(work)
        return await asyncio.wrap_future(started)

    def close(self) -> None:
        """Close the clients that were made here."""
        with self._lock:
            self._close_thread()
            self._client.close()

    def _before_fork(self) -> None:
        self._lock.acquire()  # so that nobody connects during the fork
        self._close_thread()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def _close_thread(self) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.close()
