"""What stands before the application: the key, the limits, the log."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.server.errors import ProblemError, log_failure
from dynamiq_memory.server.keys import Key, KeyStore
from dynamiq_memory.server.logs import request_id
from dynamiq_memory.server.metrics import Metrics
from dynamiq_memory.server.settings import Settings

logger = logging.getLogger("dynamiq_memory.server")

PROTECTED = "/v1/"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# By these a reverse proxy passes on requests of other machines.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Observer:
    """The outermost part: gives each request an id, logs and counts it, and adds the headers that protect a browser.

    Args:
        app: What answers.
        metrics: What counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Keep both."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = request_id.set(secrets.token_hex(8))
        started, status = time.perf_counter(), 0
        scope.setdefault("state", {})

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = request_id.get() or ""
            await send(message)

        self._metrics.open.inc()
        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log a line
            log_failure("a request failed", error)
            if not status:
                problem = ProblemError(500, "InternalError", "the service failed: see its log for this X-Request-Id")
                await problem.response()(scope, receive, watched)
        finally:
            self._metrics.open.dec()
            self._finish(scope, status, time.perf_counter() - started)
            request_id.reset(token)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's own text, and no method that a client made up: what is counted is bounded.
        route = getattr(scope.get("route"), "path", "") or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        key: Key | None = scope["state"].get("key")
        fields = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2)}
        logger.info("request", extra={"fields": fields | ({"key": key.id} if key is not None else {})})


class Guard:
    """Lets in who has a key, as often as allowed, with a body as large as allowed.

    All of it happens before the body is read to its end and before the application sees anything.

    Args:
        app: What answers.
        keys: The keys; None to let everybody in.
        settings: The limits.
        metrics: What counts.
    """

    def __init__(self, app: ASGIApp, keys: KeyStore | None, settings: Settings, metrics: Metrics) -> None:
        """Set up the limits."""
        self._app = app
        self._keys = keys
        self._settings = settings
        self._metrics = metrics
        self._rate = parsed_rate(settings.rate)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            protected = scope["path"].startswith(PROTECTED)
            if protected:
                await self._admit(scope, headers)
            # What asks for no key takes no body: else anybody could fill the memory.
            most = self._settings.max_body_bytes if protected else 0
            body = await self._body(scope, headers, receive, most)
        except ProblemError as problem:
            self._metrics.refused.labels(problem.kind).inc()
            await problem.response()(scope, receive, send)
            return
        except BackendError as error:
            log_failure("the keys cannot be read", error)
            unread = ProblemError(503, "BackendError", "the keys cannot be read", {"Retry-After": "1"})
            await unread.response()(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    def _check_host(self, headers: Headers) -> None:
        if self._settings.local_only and not is_local(_host_of(headers.get("host", ""))):
            raise ProblemError(421, "WrongHost", "without keys, the service answers on localhost alone")
        if self._settings.local_only and any(name in headers for name in _FORWARDED):
            raise ProblemError(421, "WrongHost", "without keys, the service answers to no proxy: make a key")

    async def _admit(self, scope: Scope, headers: Headers) -> None:
        address = (scope.get("client") or ("?",))[0]
        if self._keys is None:
            await self._count(f"address {address}")
            return
        scheme, _, text = headers.get("authorization", "").partition(" ")
        given = text.strip() if scheme.lower() == "bearer" else ""
        key = self._keys.check(given) if given else None
        await self._count(f"key {key.id}" if key is not None else f"address {address}")
        if key is None:
            detail = "give a valid API key: Authorization: Bearer dm_…"
            raise ProblemError(401, "Unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        scope["state"]["key"] = key

    async def _count(self, who: str) -> None:
        if self._rate is None or await self._limiter.hit(self._rate, who):
            return
        window = await self._limiter.get_window_stats(self._rate, who)
        seconds = max(1, round(window.reset_time - time.time() + 0.5))
        detail = f"more than {self._settings.rate} requests: wait as long as Retry-After says"
        raise ProblemError(429, "TooManyRequests", detail, {"Retry-After": str(seconds)})

    async def _body(self, scope: Scope, headers: Headers, receive: Receive, most: int) -> bytes:
        length = headers.get("content-length")
        if length is None and headers.get("transfer-encoding") is None:
            return b""
        if length is not None and length.isdecimal() and int(length) > most:
            raise self._too_large(most)
        if scope["method"] in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                # A page in a browser cannot send this type to another site without asking that site first.
                raise ProblemError(415, "UnsupportedMediaType", "send JSON, with Content-Type: application/json")
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                return await self._read(receive, most)
        except TimeoutError:
            detail = f"the body did not come within {self._settings.body_timeout:g} seconds"
            raise ProblemError(408, "RequestTimeout", detail, {"Connection": "close"}) from None

    async def _read(self, receive: Receive, most: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ProblemError(400, "Disconnected", "the client went away")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most:
                raise self._too_large(most)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self, most: int) -> ProblemError:
        detail = f"a body may have {most:,} bytes: send fewer messages at once"
        return ProblemError(413, "BodyTooLarge", detail, {"Connection": "close"})


def parsed_rate(rate: str | None) -> RateLimitItem | None:
    """Read a rate.

    Raises:
        ConfigurationError: It is none.
    """
    if rate is None:
        return None
    try:
        return parse(rate)
    except ValueError as error:
        raise ConfigurationError(f"rate={rate!r} is no rate: write for example 100/second, 5000/minute") from error


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def _host_of(authority: str) -> str:
    """The name or address in a Host header, without its port."""
    if "@" in authority:
        return ""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give an application the body that has been read, and then what comes."""
    left: Iterable[bytes] = iter([body])

    async def replay() -> Message:
        for chunk in left:
            return {"type": "http.request", "body": chunk, "more_body": False}
        return await receive()

    return replay
