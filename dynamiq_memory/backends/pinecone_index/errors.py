"""What the errors of Pinecone and its clients mean.

The clients of different versions raise different classes; all of them carry the status of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
)

_REPEATABLE = (408, 429, 500, 502, 503, 504)
_REFUSED = (400, 413, 414, 422)
_LONGEST = 500
# Raised by the clients before anything is sent.
_MISUSED = ("PineconeValueError", "PineconeTypeError", "PineconeConfigurationError", "ValidationError")


class RefusedRequestError(BackendError):
    """The service refused a request as too large or wrong."""


def status_of(error: BaseException) -> int | None:
    """The status of the answer that an error stands for; None if there was no answer."""
    for name in ("status_code", "status"):
        status = getattr(error, name, None)
        if isinstance(status, int) and status:
            return status
    return None


def may_repeat(error: BaseException) -> bool:
    """Whether a request that failed so may succeed when it is sent again."""
    status = status_of(error)
    return _never_answered(error) if status is None else status in _REPEATABLE


def retry_after(error: BaseException) -> float | None:
    """How many seconds the service asks to wait, if it says so."""
    headers = getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    for name, value in headers.items():
        if str(name).lower() == "retry-after":
            try:
                return max(0.0, float(value))
            except ValueError:
                return None
    return None


def translated(error: Exception, where: str, secret: str | None = None) -> DynamiqMemoryError:
    """Turn an error of a client into one of ours.

    Args:
        error: The client's.
        where: The index.
        secret: What must not show.
    """
    status, said = status_of(error), _said(error)
    if secret:
        said = said.replace(secret, "…")
    if status == 401:  # noqa: PLR2004
        return BackendAuthenticationError(f"{where} refuses the API key ({said}): set PINECONE_API_KEY, or give another")
    if status == 403:  # noqa: PLR2004
        return BackendAuthenticationError(
            f"{where} forbids this ({said}): give the API key the roles to read and write, or raise the project's quota"
        )
    if status == 404:  # noqa: PLR2004
        return BackendError(f"{where} is not there ({said}): correct index_name, or the project of the API key")
    if status == 429:  # noqa: PLR2004
        return BackendError(f"{where} is throttled, also after all retries ({said}): send less at a time, or raise its limits")
    if status in _REFUSED:
        return RefusedRequestError(f"{where} refused a request ({status}: {said})")
    if status is not None and status >= 500:  # noqa: PLR2004
        return BackendConnectionError(f"{where} is not available ({status}: {said}): try again")
    if type(error).__name__ in _MISUSED:
        return ConfigurationError(f"{where}: {said}")
    if _never_answered(error):
        return BackendConnectionError(f"{where} cannot be reached ({said}): check the network, and the host if one is set")
    return BackendError(f"{where}: {said}" if status is None else f"{where}: {status}: {said}")


def _never_answered(error: BaseException) -> bool:
    """Whether a connection failed; each client has its transport's errors, or its own."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(
        names
        & {
            "pinecone.PineconeConnectionError",
            "pinecone.PineconeTimeoutError",
            "urllib3.HTTPError",
            "aiohttp.ClientError",
            "httpx.TransportError",
        }
    )


def _said(error: BaseException) -> str:
    body: Any = getattr(error, "body", None)
    if isinstance(body, str | bytes):
        try:
            body = json.loads(body)
        except ValueError:
            body = {"message": body if isinstance(body, str) else body.decode(errors="replace")}
    if isinstance(body, Mapping):
        inner = body.get("error")
        message = (inner.get("message") if isinstance(inner, Mapping) else inner) or body.get("message")
        if message:
            return str(message)[:_LONGEST]
    return (str(error) or type(error).__name__)[:_LONGEST]
