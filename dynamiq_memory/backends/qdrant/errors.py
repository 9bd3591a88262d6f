"""Errors of Qdrant and its client, and what they mean."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import grpc
import httpx
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    MessageTooLargeError,
    StoreNotFoundError,
)

try:
    from qdrant_client.common.client_exceptions import QdrantException
except ImportError:  # before 1.12

    class QdrantException(Exception):  # type: ignore[no-redef] # noqa: N818 - the name in the client
        """An error that older clients do not raise."""


REMOTE: tuple[type[Exception], ...] = (
    ApiException,
    QdrantException,
    grpc.RpcError,
    httpx.HTTPError,
    json.JSONDecodeError,
)
"""The client's errors with a server."""
LOCAL: tuple[type[Exception], ...] = (ValueError, RuntimeError, KeyError, OSError, sqlite3.Error)
"""The client's errors in local mode."""

_ATTEMPTS = 4
_LONGEST_WAIT = 5.0
_BUSY = (429, 502, 503, 504)
_DIMENSION = re.compile(r"dimension error: expected dim: (\d+), got (\d+)", re.IGNORECASE)
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def missing(location: str, text: str = "") -> StoreNotFoundError:
    """Make the error for a collection that does not exist."""
    return StoreNotFoundError(
        f"{location} does not exist{text}: correct index_name or the URL, or open it with create_if_not_exist=True"
    )


def wait_before_retry(error: Exception, attempt: int) -> float | None:
    """Return how many seconds to wait after a request failed for the `attempt`-th time; None to give up."""
    if attempt >= _ATTEMPTS:
        return None
    if isinstance(error, httpx.HTTPError) or _code(error) in _UNREACHABLE or _is_broken(error):
        return 0.0 if attempt == 1 else None
    asked = getattr(error, "retry_after_s", None)
    if isinstance(error, UnexpectedResponse) and error.status_code in _BUSY:
        header = error.headers.get("retry-after", "")
        asked = int(header) if header.isdigit() else 0.05 * 2**attempt
    if asked is None and _code(error) is _EXHAUSTED:
        asked = 0.05 * 2**attempt
    return min(float(asked), _LONGEST_WAIT) if asked is not None else None


def translated(error: Exception, location: str, api_key: str | None) -> DynamiqMemoryError:
    """Convert a client error to ours.

    Args:
        error: The client's error.
        location: The collection and its server, without secrets.
        api_key: The key to remove from the text.
    """
    text = _text_of(error)
    if api_key:
        text = text.replace(api_key, "…")
    if isinstance(error, RuntimeError) and "already accessed" in text:
        return BackendConnectionError(
            f"{location} is open elsewhere: a folder serves one client at a time. Share one backend, or run a Qdrant "
            "server"
        )
    if isinstance(error, httpx.HTTPError) or _code(error) in _UNREACHABLE or _is_broken(error):
        return BackendConnectionError(f"{location} cannot be reached ({text}): check QDRANT_URL and the network")
    if isinstance(error, ResponseHandlingException | json.JSONDecodeError):
        return BackendError(f"{location} sent a response that this client cannot read: update qdrant-client ({text})")
    return _refusal(error, text, location)


def _refusal(error: Exception, text: str, location: str) -> DynamiqMemoryError:
    """Convert an error that the server reported."""
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    code = _code(error)
    if status in (401, 403) or code in _REFUSED:
        return BackendAuthenticationError(
            f"{location} rejected the key ({text}): set QDRANT_API_KEY or pass Qdrant(api_key=…); writing needs a key "
            "with write access"
        )
    if status in _BUSY or getattr(error, "retry_after_s", None) is not None or code is _EXHAUSTED:
        return BackendConnectionError(f"{location} is too busy, even after {_ATTEMPTS} attempts ({text}): try later")
    if status == 404 or code is grpc.StatusCode.NOT_FOUND:
        return missing(location, f" ({text})")
    if status == 413 or "larger than allowed" in text:
        return MessageTooLargeError(
            f"{location} does not accept a request of this size ({text}): raise its max_request_size_mb"
        )
    wrong = _DIMENSION.search(text)
    if wrong is not None:
        return ConfigurationError(
            f"the embedder's vectors have {wrong[2]} numbers, those of {location} have {wrong[1]}: use the embedder "
            "that the messages were stored with, or another collection for this one"
        )
    return BackendError(f"{location}: {text}")


def _is_broken(error: Exception) -> bool:
    """Whether the connection failed; the client wraps an unreadable response in the same error."""
    return isinstance(error, ResponseHandlingException) and not isinstance(error.source, ValueError)


def _code(error: Exception) -> Any:
    code = getattr(error, "code", None)
    return code() if isinstance(error, grpc.RpcError) and callable(code) else None


def _text_of(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        try:
            text = json.loads(error.content)["status"]["error"]
        except (ValueError, KeyError, TypeError):  # the response of a proxy in between
            text = error.content.decode(errors="replace")[:200] or error.reason_phrase
        return f"{error.status_code}: {text}"
    if isinstance(error, ResponseHandlingException):
        return f"{type(error.source).__name__}: {error.source}"
    details = getattr(error, "details", None)
    if isinstance(error, grpc.RpcError) and callable(details):
        return f"{_code(error)}: {details()}"
    return str(error) or type(error).__name__
