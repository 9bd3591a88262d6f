"""Errors of Pinecone and its clients, and what they mean.

The clients of different versions raise different classes; all of them have the status of the response.
"""

from __future__ import annotations

import json
import random
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
    """The service refused a request as too large or invalid."""


class NotFoundError(BackendError):
    """There is no such index or namespace."""


class ConflictError(BackendError):
    """An index of this name exists already."""


REPEATS_ITSELF = hasattr(pinecone, "RetryConfig")
"""Whether the installed client retries requests when the service is busy; since version 9 it does."""
_REPEATABLE = (408, 429, 500, 502, 503, 504)
_REFUSED = (400, 413, 414, 422)
# A client that retries requests itself has done so three times by then.
_ATTEMPTS = 2 if REPEATS_ITSELF else 5
_LONGEST_WAIT = 30.0
_FIRST_WAIT = 0.2
_MEANINGS: dict[int | None, tuple[type[BackendError], str]] = {
    401: (BackendAuthenticationError, "rejected the API key ({text}): set PINECONE_API_KEY, or pass another key"),
    403: (
        BackendAuthenticationError,
        "denied the request ({text}): give the API key the roles to read and write, or raise the project's quota",
    ),
    404: (NotFoundError, "does not exist ({text}): correct index_name, or the project of the API key"),
    409: (ConflictError, "exists already ({text})"),
    429: (BackendError, "is throttled, even after all retries ({text}): send less at a time, or raise its limits"),
}
_UNREACHABLE = ("PineconeConnectionError", "PineconeTimeoutError")
# Raised by the clients before anything is sent.
_MISUSED = ("PineconeValueError", "PineconeTypeError", "PineconeConfigurationError", "ValidationError")
# Before version 9, urllib3 retries requests that failed with a 5xx or without a response; then it raises this.
_EXHAUSTED = "MaxRetryError"
_LONGEST = 500


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the installed client: its own, and before version 9 those of its transports, too."""
    found: list[type[Exception]] = [PineconeException, ConnectionError, TimeoutError]
    if not REPEATS_ITSELF:
        for module, name in (("urllib3.exceptions", "HTTPError"), ("aiohttp", "ClientError")):
            if find_spec(module.partition(".")[0]) is not None:
                found.append(getattr(import_module(module), name))
    return tuple(found)


CLIENT_ERRORS = _client_errors()


def _status_of(error: Exception) -> int | None:
    """Return the status of the response; None if there was none."""
    for name in ("status_code", "status"):
        status = getattr(error, name, None)
        if isinstance(status, int) and status:
            return status
    return None


def wait_before_retry(error: Exception, attempt: int) -> float | None:
    """Return how many seconds to wait after a request failed for the `attempt`-th time; None to give up."""
    if attempt >= _ATTEMPTS or not _is_passing(error):
        return None
    asked = _retry_after(error)
    if asked is not None:
        return min(asked, _LONGEST_WAIT)
    longest = _FIRST_WAIT * 2 ** (attempt - 1)
    return random.uniform(longest / 2, longest)  # noqa: S311 - so that clients do not come back together


def _is_passing(error: Exception) -> bool:
    """Whether a request that failed may succeed when it is sent again."""
    if type(error).__name__ == _EXHAUSTED:
        return False
    status = _status_of(error)
    return _never_answered(error) if status is None else status in _REPEATABLE


def _retry_after(error: Exception) -> float | None:
    """Return how many seconds the service asks to wait, if it does."""
    headers = getattr(error, "headers", None)
    values = {str(name).lower(): value for name, value in headers.items()} if isinstance(headers, Mapping) else {}
    try:
        return max(0.0, float(values["retry-after"]))
    except (KeyError, ValueError):
        return None  # none, or a date


def translated(error: Exception, location: str, secret: str | None = None) -> DynamiqMemoryError:
    """Convert a client error to ours.

    Args:
        error: The client's error.
        location: The index.
        secret: The key to remove from the text.
    """
    status, text = _status_of(error), _text_of(error)
    if secret:
        text = text.replace(secret, "…")
    if status in _MEANINGS:
        kind, meaning = _MEANINGS[status]
        return kind(f"{location} {meaning.format(text=text)}")
    if status in _REFUSED:
        return RefusedRequestError(f"{location} refused a request ({status}: {text})")
    if (status is not None and status >= 500) or _answered_with_errors(error):
        return BackendConnectionError(f"{location} is not available ({text}): try again")
    if type(error).__name__ in _MISUSED:
        return ConfigurationError(f"{location}: {text}")
    if _never_answered(error):
        return BackendConnectionError(
            f"{location} cannot be reached ({text}): check the network, and the host if one is set"
        )
    return BackendError(f"{location}: {text}" if status is None else f"{location}: {status}: {text}")


def _answered_with_errors(error: Exception) -> bool:
    """Whether urllib3 gave up because all responses were errors."""
    return type(error).__name__ == _EXHAUSTED and type(getattr(error, "reason", None)).__name__ == "ResponseError"


def _never_answered(error: Exception) -> bool:
    """Whether a connection failed."""
    return not isinstance(error, PineconeException) or type(error).__name__ in _UNREACHABLE


def _text_of(error: Exception) -> str:
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
