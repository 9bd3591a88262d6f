"""Middleware that runs before the application: API keys, limits and the log."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.server.errors import RETRY, ProblemError, log_failure
from dynamiq_memory.server.keys import APIKey, KeyStore
from dynamiq_memory.server.logs import request_id
from dynamiq_memory.server.metrics import Metrics
from dynamiq_memory.server.settings import Settings
from dynamiq_memory.server.shares import Inbox, Limit, LimitError, Shares

logger = logging.getLogger("dynamiq_memory.server")

PROTECTED = "/v1/"
# Four clients alone can fill the default number of connections with requests that wait.
_WAITING_REQUESTS = 250
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Reverse proxies set these headers when they forward requests from other machines.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@dataclass(frozen=True, slots=True)
class Observer:
    """The outermost middleware: gives each request an id, logs and counts it, and adds security headers for browsers.

    If a request is cancelled because the service stops, it is answered, too.

    Attributes:
        app: The next application.
        metrics: The counters.
    """

    app: ASGIApp
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token = request_id.set(secrets.token_hex(8))
        started, status = time.perf_counter(), 0
        scope.setdefault("state", {})

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = request_id.get() or ""
            await send(message)

        self.metrics.open.inc()
        try:
            await self.app(scope, receive, observed_send)
        except asyncio.CancelledError:
            if not status:
                detail = "the service is stopping: send the request again when it has started"
                await ProblemError(503, "Stopping", detail, RETRY).response(scope, receive, observed_send)
        except Exception as error:  # noqa: BLE001 - after any error, the client gets a response and the log a line
            log_failure("a request failed", error)
            if not status:
                detail = "the service failed: search its log for this response's X-Request-Id"
                await ProblemError(500, "InternalError", detail).response(scope, receive, observed_send)
        finally:
            self.metrics.open.dec()
            self._finish(scope, status, time.perf_counter() - started)
            request_id.reset(token)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        # Only the route's template and known methods, so that clients cannot create any number of time series.
        route = getattr(scope.get("route"), "path", "") or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(method, route, status).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        key: APIKey | None = scope["state"].get("key")
        fields = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2)}
        logger.info("request", extra={"fields": fields | ({"key": key.id} if key is not None else {})})


class Guard:
    """Checks the API key, the request rate and the size of the body, and gives each client its share of the service.

    Requests are rejected before their body is read in full and before the application sees them. A request is stopped
    if it takes too long or its client disconnects.

    Args:
        app: The next application.
        keys: The keys, or None to admit everyone.
        settings: The limits.
        metrics: The counters.
    """

    def __init__(self, app: ASGIApp, keys: KeyStore | None, settings: Settings, metrics: Metrics) -> None:
        """Create the middleware."""
        self._app = app
        self._keys = keys
        self._settings = settings
        self._metrics = metrics
        self._rate = parse_rate(settings.rate)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._shares = Shares(settings.max_concurrent, _WAITING_REQUESTS, settings.request_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            _check_framing(headers)
            self._check_host(headers)
            if scope["path"].startswith(PROTECTED):
                inbox = Inbox(receive)
                async with self._shares.turn(await self._admit(scope, headers), inbox):
                    await self._forward(scope, headers, inbox.receive, send, self._settings.max_body_bytes)
            else:
                # Without a key, a body could fill the memory.
                await self._forward(scope, headers, receive, send, 0)
        except ProblemError as problem:
            self._metrics.refused.labels(problem.kind).inc()
            await problem.response(scope, receive, send)
        except BackendError as error:
            log_failure("the keys cannot be read", error)
            await ProblemError(503, "BackendError", "the keys cannot be read", RETRY).response(scope, receive, send)

    async def _forward(self, scope: Scope, headers: Headers, receive: Receive, send: Send, max_bytes: int) -> None:
        body = await self._body(scope, headers, receive, max_bytes)
        limit = Limit(body, receive, self._settings.request_timeout)

        async def observed_send(message: Message) -> None:
            limit.started()
            await send(message)

        try:
            async with limit.applied():
                await self._app(scope, limit.receive, observed_send)
        except LimitError:
            if not limit.client_is_gone:
                detail = (
                    f"the request was stopped after {self._settings.request_timeout:g} seconds: ask for less (a "
                    "narrower filter, a lower limit), or start the service with a higher --request-timeout. If it "
                    "was to write messages, they may have been stored: send them again with the same ids"
                )
                raise ProblemError(503, "RequestTimeout", detail) from None

    def _check_host(self, headers: Headers) -> None:
        if self._settings.local_only and not is_local(_host_of(headers.get("host", ""))):
            raise ProblemError(421, "WrongHost", "without keys, the service accepts requests to localhost only")
        if self._settings.local_only and any(name in headers for name in _FORWARDED):
            raise ProblemError(421, "WrongHost", "without keys, the service rejects proxied requests: create a key")

    async def _admit(self, scope: Scope, headers: Headers) -> str:
        """Check the key and the rate; return the client, by its key or its address."""
        address = (scope.get("client") or ("?",))[0]
        if self._keys is None:
            return await self._count(f"address {address}")
        scheme, _, text = headers.get("authorization", "").partition(" ")
        token = text.strip() if scheme.lower() == "bearer" else ""
        key = self._keys.check(token) if token else None
        client = await self._count(f"key {key.id}" if key is not None else f"address {address}")
        if key is None:
            detail = "send a valid API key: Authorization: Bearer dm_…"
            raise ProblemError(401, "Unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        scope["state"]["key"] = key
        return client

    async def _count(self, client: str) -> str:
        if self._rate is None or await self._limiter.hit(self._rate, client):
            return client
        window = await self._limiter.get_window_stats(self._rate, client)
        seconds = max(1, round(window.reset_time - time.time() + 0.5))
        detail = (
            f"more requests than {self._settings.rate}: send this one again after {seconds} seconds (Retry-After), and "
            "fewer at once, or start the service with a higher --rate"
        )
        raise ProblemError(429, "TooManyRequests", detail, {"Retry-After": str(seconds)})

    async def _body(self, scope: Scope, headers: Headers, receive: Receive, max_bytes: int) -> bytes:
        length = headers.get("content-length")
        if length is None and headers.get("transfer-encoding") is None:
            return b""
        if length is not None and length.isdecimal() and int(length) > max_bytes:
            raise _too_large(max_bytes)
        if scope["method"] in ("POST", "PUT", "PATCH"):
            media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type != "application/json":
                # Browsers send this content type to another site only after a preflight request.
                raise ProblemError(415, "UnsupportedMediaType", "send JSON with Content-Type: application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                async for chunk in Request(scope, receive).stream():
                    body += chunk
                    if len(body) > max_bytes:
                        raise _too_large(max_bytes)
        except ClientDisconnect:
            raise ProblemError(400, "Disconnected", "the client disconnected") from None
        except TimeoutError:
            detail = f"the body did not arrive within {self._settings.body_timeout:g} seconds"
            raise ProblemError(408, "RequestTimeout", detail, {"Connection": "close"}) from None
        return bytes(body)


def _check_framing(headers: Headers) -> None:
    """Reject a body with two lengths: a proxy may read the other one, and take its rest for another request."""
    if "transfer-encoding" in headers and "content-length" in headers:
        detail = "send either Content-Length or Transfer-Encoding, not both"
        raise ProblemError(400, "BadRequest", detail, {"Connection": "close"})


def _too_large(max_bytes: int) -> ProblemError:
    detail = f"the maximum size of a body is {max_bytes:,} bytes: send fewer messages at once"
    return ProblemError(413, "BodyTooLarge", detail, {"Connection": "close"})


def parse_rate(rate: str | None) -> RateLimitItem | None:
    """Parse a request rate.

    Raises:
        ConfigurationError: The rate is malformed.
    """
    if rate is None:
        return None
    wrong = f"rate={rate!r} is not a rate: use, for example, 100/second or 5000/minute"
    try:
        parsed = parse(rate)
    except ValueError as error:
        raise ConfigurationError(wrong) from error
    if parsed.amount < 1:
        raise ConfigurationError(wrong)
    return parsed


def is_local(host: str) -> bool:
    """Return whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def _host_of(authority: str) -> str:
    """Return the host name or address in a Host header, without the port."""
    if "@" in authority:
        return ""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""
