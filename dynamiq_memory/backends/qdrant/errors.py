"""What the errors of Qdrant and its client mean."""

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
)

try:
    from qdrant_client.common.client_exceptions import QdrantException
except ImportError:  # before 1.12

    class QdrantException(Exception):  # type: ignore[no-redef] # noqa: N818 - the name in the client
        """Stands for what older clients do not raise."""


REMOTE: tuple[type[Exception], ...] = (
    ApiException,
    QdrantException,
    grpc.RpcError,
    httpx.HTTPError,
    json.JSONDecodeError,
)
"""What the client raises about a server."""
LOCAL: tuple[type[Exception], ...] = (ValueError, RuntimeError, KeyError, OSError, sqlite3.Error)
"""What it raises in local mode."""

_MOST_TRIES = 4
_LONGEST_WAIT = 5.0
_BUSY = (429, 502, 503, 504)
_DIMENSION = re.compile(r"dimension error: expected dim: (\d+), got (\d+)", re.IGNORECASE)
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def wait_before(error: Exception, tries: int) -> float | None:
    """How many seconds to wait before a call is repeated that failed so for the `tries`-th time; None for never."""
    if tries >= _MOST_TRIES:
        return None
    if isinstance(error, httpx.HTTPError) or _code(error) in _UNREACHABLE or _is_broken(error):
        return 0.0 if tries == 1 else None
    asked = getattr(error, "retry_after_s", None)
    if isinstance(error, UnexpectedResponse) and error.status_code in _BUSY:
        given = error.headers.get("retry-after", "")
        asked = int(given) if given.isdigit() else 0.05 * 2**tries
    if asked is None and _code(error) is _EXHAUSTED:
        asked = 0.05 * 2**tries
    return min(float(asked), _LONGEST_WAIT) if asked is not None else None


def translated(error: Exception, where: str, api_key: str | None) -> DynamiqMemoryError:
    """Turn an error of the client's into one of ours.

    Args:
        error: The client's.
        where: The collection and its server, without secrets.
        api_key: What must not show.
    """
    said = _said(error)
    if api_key:
        said = said.replace(api_key, "…")
    if isinstance(error, RuntimeError) and "already accessed" in said:
        return BackendConnectionError(
            f"{where} is open elsewhere: a folder serves one client at a time. Share one backend, or run a Qdrant "
            "server"
        )
    if isinstance(error, httpx.HTTPError) or _code(error) in _UNREACHABLE or _is_broken(error):
        return BackendConnectionError(f"{where} cannot be reached ({said}): check QDRANT_URL and the network")
    if isinstance(error, ResponseHandlingException | json.JSONDecodeError):
        return BackendError(f"{where} answers what this client does not know: update qdrant-client ({said})")
    return _answered(error, said, where)


def _answered(error: Exception, said: str, where: str) -> DynamiqMemoryError:
    """What a server's answer means."""
    status = _status(error)
    if status in (401, 403) or _code(error) in _REFUSED:
        return BackendAuthenticationError(
            f"{where} refuses the key ({said}): set QDRANT_API_KEY, or give Qdrant(api_key=…); writing needs a key "
            "that may write"
        )
    if status in _BUSY or getattr(error, "retry_after_s", None) is not None or _code(error) is _EXHAUSTED:
        return BackendConnectionError(f"{where} is too busy, also after {_MOST_TRIES} tries ({said}): try again later")
    if status == 404 or _code(error) is grpc.StatusCode.NOT_FOUND:
        return BackendError(f"{where} is not there ({said}): was it deleted meanwhile? Correct index_name or the URL")
    if status == 413 or "larger than allowed" in said:
        return MessageTooLargeError(f"{where} takes no request of this size ({said}): raise its max_request_size_mb")
    wrong = _DIMENSION.search(said)
    if wrong is not None:
        return ConfigurationError(
            f"the embedder's vectors have {wrong[2]} numbers, those of {where} have {wrong[1]}: use the embedder that "
            "the messages were stored with, or another collection for this one"
        )
    return BackendError(f"{where}: {said}")


def _is_broken(error: Exception) -> bool:
    """Whether the connection failed; the client wraps an answer that it cannot read in the same error."""
    return isinstance(error, ResponseHandlingException) and not isinstance(error.source, ValueError)


def _status(error: Exception) -> int | None:
    return error.status_code if isinstance(error, UnexpectedResponse) else None


def _code(error: Exception) -> Any:
    code = getattr(error, "code", None)
    return code() if isinstance(error, grpc.RpcError) and callable(code) else None


def _said(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        try:
            said = json.loads(error.content)["status"]["error"]
        except (ValueError, KeyError, TypeError):  # a proxy in between answers otherwise
            said = error.content.decode(errors="replace")[:200] or error.reason_phrase
        return f"{error.status_code}: {said}"
    if isinstance(error, ResponseHandlingException):
        return f"{type(error.source).__name__}: {error.source}"
    details = getattr(error, "details", None)
    if isinstance(error, grpc.RpcError) and callable(details):
        return f"{_code(error)}: {details()}"
    return str(error) or type(error).__name__
