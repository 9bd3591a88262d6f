"""What the errors of Pinecone and its clients mean.

The clients of different versions raise different classes; all of them carry the status of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pinecone
from pinecone.exceptions import PineconeException

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
)


class RefusedRequestError(BackendError):
    """The service refused a request as too large or wrong."""


REPEATS_ITSELF = hasattr(pinecone, "RetryConfig")
"""Whether the installed client sends a request again when the service is busy; since version 9 it does."""
_REPEATABLE = (408, 429, 500, 502, 503, 504)
_REFUSED = (400, 413, 414, 422)
_MEANINGS: dict[int | None, tuple[type[BackendError], str]] = {
    401: (BackendAuthenticationError, "refuses the API key ({said}): set PINECONE_API_KEY, or give another"),
    403: (
        BackendAuthenticationError,
        "forbids this ({said}): give the API key the roles to read and write, or raise the project's quota",
    ),
    404: (BackendError, "is not there ({said}): correct index_name, or the project of the API key"),
    429: (BackendError, "is throttled, also after all retries ({said}): send less at a time, or raise its limits"),
}
_UNREACHABLE = ("PineconeConnectionError", "PineconeTimeoutError")
# Raised by the clients before anything is sent.
_MISUSED = ("PineconeValueError", "PineconeTypeError", "PineconeConfigurationError", "ValidationError")
# Before version 9, urllib3 repeats what failed with a 5xx or without an answer; then it raises this.
_EXHAUSTED = "MaxRetryError"
_LONGEST = 500


def _client_errors() -> tuple[type[Exception], ...]:
    """What the installed client raises: its own errors, and before version 9 those of its transports too."""
    found: list[type[Exception]] = [PineconeException, ConnectionError, TimeoutError]
    if not REPEATS_ITSELF:
        for module, name in (("urllib3.exceptions", "HTTPError"), ("aiohttp", "ClientError")):
            if find_spec(module.partition(".")[0]) is not None:
                found.append(getattr(import_module(module), name))
    return tuple(found)


CLIENT_ERRORS = _client_errors()


def status_of(error: BaseException) -> int | None:
    """The status of the answer that an error stands for; None if there was no answer."""
    for name in ("status_code", "status"):
        status = getattr(error, name, None)
        if isinstance(status, int) and status:
            return status
    return None


def may_repeat(error: BaseException) -> bool:
    """Whether a request that failed so may succeed when it is sent again."""
    if type(error).__name__ == _EXHAUSTED:
        return False
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
                return None  # a date
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
    if status in _MEANINGS:
        kind, meaning = _MEANINGS[status]
        return kind(f"{where} {meaning.format(said=said)}")
    if status in _REFUSED:
        return RefusedRequestError(f"{where} refused a request ({status}: {said})")
    if (status is not None and status >= 500) or _answered_with_errors(error):
        return BackendConnectionError(f"{where} is not available ({said}): try again")
    if type(error).__name__ in _MISUSED:
        return ConfigurationError(f"{where}: {said}")
    if _never_answered(error):
        return BackendConnectionError(
            f"{where} cannot be reached ({said}): check the network, and the host if one is set"
        )
    return BackendError(f"{where}: {said}" if status is None else f"{where}: {status}: {said}")


def _answered_with_errors(error: BaseException) -> bool:
    """Whether urllib3 has given up since all answers were errors."""
    return type(error).__name__ == _EXHAUSTED and type(getattr(error, "reason", None)).__name__ == "ResponseError"


def _never_answered(error: BaseException) -> bool:
    """Whether a connection failed."""
    return not isinstance(error, PineconeException) or type(error).__name__ in _UNREACHABLE


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
