"""Sending requests: connections, retries, errors."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from httpx_retries import Retry, RetryTransport

from dynamiq_memory.backends.dynamiq.requests import Exchange, Request, Work
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    FilterError,
    InvalidArgumentError,
    MessageError,
    MessageTooLargeError,
    PartialWriteError,
)

T = TypeVar("T")

_METHODS = ("GET", "POST", "DELETE")
_STATUSES = (429, 502, 503, 504)
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 30.0
_LONGEST_TEXT = 500
_CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
# What reading an answer raises that is of another form than expected.
_MISREAD = (AttributeError, IndexError, KeyError, TypeError, ValueError)
# What our own service says by `type`.
_KINDS: dict[str, type[DynamiqMemoryError]] = {
    "FilterError": FilterError,
    "InvalidArgumentError": InvalidArgumentError,
    "MessageError": MessageError,
    "MessageTooLargeError": MessageTooLargeError,
    "BodyTooLarge": MessageTooLargeError,
}


class Transport:
    """Sends requests about one memory: by one client for all threads, and one for each event loop.

    Args:
        url: The server's base URL.
        headers: What goes with each request, the key among them.
        secret: What must show in no error.
        memory_id: The memory.
        timeout: Seconds to wait for a connection, and for each part of an answer.
        retries: How often a request is sent again.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], secret: str | None, memory_id: str, timeout: float, retries: int
    ) -> None:
        """Nothing is opened yet."""
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        self._secret = secret
        self._base = f"{self.url}/v1/memories/{quote(memory_id, safe='')}"
        self._timeout = timeout
        waits: dict[str, Any] = {
            "backoff_factor": _FIRST_WAIT,
            "max_backoff_wait": _LONGEST_WAIT,
            "allowed_methods": _METHODS,
        }
        # An answer is whole, or it has broken off: its body is read where it is sent again.
        again = partial(Retry, total=retries, status_forcelist=_STATUSES, **waits)
        self._retry, self._aretry = again(validate_response=_whole), again(validate_response=_awhole)
        # What may have been done already is sent again only if it has surely not been.
        self._retry_unsent = Retry(
            total=retries,
            status_forcelist=(429,),
            retry_on_exceptions=(httpx.ConnectError, httpx.ConnectTimeout),
            **waits,
        )
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._clients: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None]]] = {}

    def run(self, exchange: Exchange[T]) -> T:
        """Carry out an exchange."""
        step, result, answered = exchange.send, None, False
        while True:
            try:
                request = self._next(step, result, answered=answered)
            except StopIteration as done:
                return cast("T", done.value)
            step, result, answered = exchange.send, None, True
            try:
                result = request.do() if isinstance(request, Work) else self._send(request)
            except DynamiqMemoryError as error:
                step, result = exchange.throw, error

    async def arun(self, exchange: Exchange[T], in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]) -> T:
        """Carry out an exchange asynchronously.

        Args:
            exchange: The exchange.
            in_thread: Does what takes a while.
        """
        step, result, answered = exchange.send, None, False
        while True:
            try:
                request = self._next(step, result, answered=answered)
            except StopIteration as done:
                return cast("T", done.value)
            step, result, answered = exchange.send, None, True
            try:
                result = await (in_thread(request.do) if isinstance(request, Work) else self._asend(request))
            except DynamiqMemoryError as error:
                step, result = exchange.throw, error

    def close(self) -> None:
        """Close all connections; those of another thread's running event loop as soon as it comes to it."""
        with self._lock:
            client, self._client = self._client, None
            clients, self._clients = self._clients, {}
        if client is not None:
            client.close()
        for loop, (_, closing) in clients.items():
            if loop.is_running():
                loop.call_soon_threadsafe(_end, closing)
            # Else the loop closes them when it ends.

    async def aclose_here(self) -> None:
        """Close the connections of the event loop that is running."""
        with self._lock:
            _, closing = self._clients.pop(asyncio.get_running_loop(), (None, None))
        if closing is not None:
            await closing.aclose()

    def _send(self, request: Request) -> Any:
        client = self._client
        if client is None:
            with self._lock:
                client = self._client = self._client or httpx.Client(**self._options(httpx.HTTPTransport))
        try:
            return self._result(request, client.send(self._built(client, request, self._retry)))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self._unreachable(error)

    async def _asend(self, request: Request) -> Any:
        client = await self._client_of_this_loop()
        try:
            return self._result(request, await client.send(self._built(client, request, self._aretry)))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self._unreachable(error)

    async def _client_of_this_loop(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._clients.get(loop)
            if known is not None:
                return known[0]
            for other in [other for other in self._clients if other.is_closed()]:
                del self._clients[other]
            client = httpx.AsyncClient(**self._options(httpx.AsyncHTTPTransport))
            closing = _closing(client)
            self._clients[loop] = (client, closing)
        # From here on the loop knows of the generator, and ends it before it closes itself (asyncio.run does this).
        await anext(closing)
        return client

    def _options(self, kind: type[httpx.HTTPTransport | httpx.AsyncHTTPTransport]) -> dict[str, Any]:
        parts = urlsplit(self.url)
        proxies = getproxies()
        proxy = None if proxy_bypass(parts.netloc) else proxies.get(parts.scheme) or proxies.get("all")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        try:
            # Reading the certificates takes tens of milliseconds, and without TLS they are of no use.
            transport = kind(verify=parts.scheme == "https", limits=_CONNECTIONS, proxy=proxy or None)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ConfigurationError(f"the proxy that the environment names cannot be used: {error}") from error
        return {
            "transport": RetryTransport(transport=transport, retry=self._retry),
            "headers": self._headers,
            "timeout": self._timeout,
        }

    def _built(self, client: httpx.Client | httpx.AsyncClient, request: Request, retry: Retry) -> httpx.Request:
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

    def _result(self, request: Request, response: httpx.Response) -> Any:
        if response.status_code >= 300 and response.status_code not in request.accept:
            raise self._error(response)
        if not response.content:
            return None
        try:
            return response.json()
        except (ValueError, RecursionError):
            if response.status_code in request.accept:
                return None
            raise BackendError(
                f"{self.url} answered {response.status_code} without JSON: is this the address of its API?"
            ) from None

    def _error(self, response: httpx.Response) -> DynamiqMemoryError:
        try:
            told = response.json()
        except (ValueError, RecursionError):
            told = None
        told = told if isinstance(told, dict) else {}
        detail = told.get("detail") or told.get("message") or told.get("error") or response.text
        shown = self._without_secret(str(detail))[:_LONGEST_TEXT]
        text = f"{self.url} answered {response.status_code} {response.reason_phrase}: {shown}"
        if response.status_code == 404 and not told.get("type"):
            text += " (nothing there speaks this API: check the URL, DYNAMIQ_URL and memory_id)"
        if response.status_code in (401, 403):
            return BackendAuthenticationError(f"{text} (check the API key, and which memory and user it is for)")
        if told.get("type") == "PartialWriteError":
            return PartialWriteError(text, [str(each) for each in told.get("stored_ids") or ()])
        kind = _KINDS.get(str(told.get("type")), MessageTooLargeError if response.status_code == 413 else BackendError)
        return kind(text)

    def _next(self, step: Callable[[Any], Any], result: Any, *, answered: bool) -> Any:
        """Go on with an exchange; what cannot read an answer is told as the answer's fault."""
        try:
            return step(result)
        except _MISREAD as error:
            if not answered or isinstance(error, DynamiqMemoryError):
                raise
            raise BackendError(
                f"{self.url} answered with JSON of another form than this API's: is this the address of its API?"
            ) from error

    def _unreachable(self, error: Exception) -> NoReturn:
        what = self._without_secret(str(error)) or type(error).__name__
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            raise BackendConnectionError(f"{self.url} did not answer within {self._timeout:g} s: {what}") from error
        raise BackendConnectionError(f"{self.url} cannot be reached: {what}") from error

    def _without_secret(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


def _whole(response: httpx.Response) -> None:
    response.read()


async def _awhole(response: httpx.Response) -> None:
    await response.aread()


async def _closing(client: httpx.AsyncClient) -> AsyncGenerator[None]:
    """Close a client when the generator is closed."""
    try:
        yield
    finally:
        await client.aclose()


_ending: set[asyncio.Task[None]] = set()


def _end(closing: AsyncGenerator[None]) -> None:
    task = asyncio.get_running_loop().create_task(cast("Any", closing.aclose()))
    _ending.add(task)
    task.add_done_callback(_ending.discard)
