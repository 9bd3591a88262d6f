"""The HTTP clients of a backend: connecting, retrying, reading responses."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from httpx_retries import Retry, RetryTransport

from dynamiq_memory._clients import LazyClient
from dynamiq_memory.backends._loops import ClientPerLoop
from dynamiq_memory.backends._urls import check_server
from dynamiq_memory.backends.dynamiq import errors
from dynamiq_memory.backends.dynamiq.requests import Request
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import BackendError, ConfigurationError

T = TypeVar("T")

_METHODS = ("GET", "POST", "DELETE")
_STATUSES = (429, 502, 503, 504)
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 30.0
_CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
# Raised by reading JSON that does not have the expected form; MessageError is a ValueError.
_UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class Client:
    """Sends requests about one memory, by one client for all threads and one for each event loop.

    Args:
        connection: An object with `url`, `api_key` and `headers`.
        memory_id: The memory.
        timeout: Seconds to wait for a connection, and for each part of a response.
        retries: Maximum number of times that a request is sent again.

    Attributes:
        url: The server's base URL.
        secret: The API key, or None.
        headers: The connection's headers, with the key.
        per_loop: The clients of the asynchronous methods.

    Raises:
        ConfigurationError: The connection is not one, or a part of it cannot be used.
    """

    def __init__(self, connection: Any, memory_id: str, timeout: float, retries: int) -> None:
        """Open no connection yet."""
        self.url = _url_of(connection)
        self.secret = plain(connection.api_key) or None
        self.headers = _headers_of(connection, self.secret)
        self._base = f"{self.url}/v1/memories/{quote(memory_id, safe='')}"
        self._timeout = timeout
        again = partial(
            Retry,
            total=retries,
            backoff_factor=_FIRST_WAIT,
            max_backoff_wait=_LONGEST_WAIT,
            allowed_methods=_METHODS,
        )
        # The body is read where a request can still be sent again, since connections also break off within one.
        self._retry = again(status_forcelist=_STATUSES, validate_response=_read_body)
        self._aretry = again(status_forcelist=_STATUSES, validate_response=_aread_body)
        # A request that may not be repeated is sent again only if the server has not carried it out.
        self._retry_unsent = again(
            status_forcelist=(429,), retry_on_exceptions=(httpx.ConnectError, httpx.ConnectTimeout)
        )
        self._client = LazyClient(lambda: httpx.Client(**self._options(httpx.HTTPTransport)), httpx.Client.close)
        self.per_loop: ClientPerLoop[httpx.AsyncClient] = ClientPerLoop(
            lambda: httpx.AsyncClient(**self._options(httpx.AsyncHTTPTransport)), httpx.AsyncClient.aclose
        )

    def send(self, request: Request[T]) -> T:
        """Send a request and return its result.

        Raises:
            BackendError: The server responds with an error or with JSON of another form.
            httpx.HTTPError: It cannot be reached.
        """
        client = self._client.get()
        return self._result(request, client.send(self._http_request(client, request, self._retry)))

    async def asend(self, request: Request[T]) -> T:
        """Send a request and return its result; see `send`."""
        client = await self.per_loop.get()
        return self._result(request, await client.send(self._http_request(client, request, self._aretry)))

    def close(self) -> None:
        """Close the connections of the synchronous methods."""
        self._client.close()

    def _options(self, kind: type[httpx.HTTPTransport | httpx.AsyncHTTPTransport]) -> dict[str, Any]:
        parts = urlsplit(self.url)
        proxies = getproxies()
        proxy = None if proxy_bypass(parts.netloc) else proxies.get(parts.scheme) or proxies.get("all")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        try:
            # Loading certificates takes tens of milliseconds; without TLS they are not needed.
            transport = kind(verify=parts.scheme == "https", limits=_CONNECTIONS, proxy=proxy or None)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ConfigurationError(f"the proxy that the environment names cannot be used: {error}") from error
        return {
            "transport": RetryTransport(transport=transport),
            "headers": {"Content-Type": "application/json", "Accept": "application/json", **self.headers},
            "timeout": self._timeout,
        }

    def _http_request(
        self, client: httpx.Client | httpx.AsyncClient, request: Request[Any], retry: Retry
    ) -> httpx.Request:
        content = None
        if request.body is not None:
            content = json.dumps(request.body, ensure_ascii=False, separators=(",", ":")).encode()
        return client.build_request(
            request.method,
            self._base + request.path,
            params=dict(request.params) or None,
            content=content,
            headers={"Prefer": "return=minimal"} if request.method == "POST" else None,
            extensions={"retry": retry if request.repeatable else self._retry_unsent},
        )

    def _result(self, request: Request[T], response: httpx.Response) -> T:
        accepted = response.status_code in request.accept
        if response.status_code >= 300 and not accepted:
            raise errors.from_response(response, self.url, self.secret)
        try:
            answer = response.json() if response.content else None
        except (ValueError, RecursionError):
            if not accepted:
                raise self._unexpected(f"{response.status_code} without JSON") from None
            answer = None
        try:
            return request.read(answer)
        except _UNREADABLE as error:
            raise self._unexpected(f"with JSON of another form ({type(error).__name__}: {error})") from error

    def _unexpected(self, response: str) -> BackendError:
        return BackendError(f"{self.url} answered {response}: is this the address of its API?")


def _url_of(connection: Any) -> str:
    if not all(hasattr(connection, name) for name in ("url", "api_key", "headers")):
        raise ConfigurationError(
            "connection must be a dynamiq_memory.connections.Dynamiq, or an object with url, api_key and headers, not "
            f"a {type(connection).__name__}"
        )
    url = connection.url
    if isinstance(url, str) and ("@" in url or "?" in url or "#" in url):
        raise ConfigurationError("url must not contain a password or a token: give the api_key, or headers")
    check_server(url, f"url={url!r}")
    return str(url).rstrip("/")


def _headers_of(connection: Any, key: str | None) -> dict[str, str]:
    headers = {"User-Agent": "dynamiq-memory"}
    headers |= {str(name): str(value) for name, value in dict(connection.headers or {}).items()}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable() or value != value.strip():
            source = "api_key" if key and name == "Authorization" else f"the header {name!r}"
            raise ConfigurationError(f"{source} contains a character that a header cannot contain")
    return headers


def _read_body(response: httpx.Response) -> None:
    response.read()


async def _aread_body(response: httpx.Response) -> None:
    await response.aread()
