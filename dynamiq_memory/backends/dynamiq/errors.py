"""Responses and the client's errors, as our errors."""

from __future__ import annotations

import httpx

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    DynamiqMemoryError,
    FilterError,
    InvalidArgumentError,
    MessageError,
    MessageTooLargeError,
    PartialWriteError,
)

CLIENT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)
"""The exceptions of httpx."""

_LONGEST_TEXT = 500
# The service sends `type` with its errors.
_BY_TYPE = {kind.__name__: kind for kind in (FilterError, InvalidArgumentError, MessageError, MessageTooLargeError)} | {
    "BodyTooLarge": MessageTooLargeError
}


def from_response(response: httpx.Response, url: str, secret: str | None) -> DynamiqMemoryError:
    """Make an error from a response with an error status; the text does not show the secret."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    status, type_ = response.status_code, str(answer.get("type") or "")
    detail = str(answer.get("detail") or answer.get("message") or answer.get("error") or response.text)
    text = f"{url} answered {status} {response.reason_phrase}: {_without(secret, detail)[:_LONGEST_TEXT]}"
    if status == 404 and not type_:
        text += " (this API is not there: check the URL, DYNAMIQ_URL and memory_id)"
    if status in (401, 403):
        return BackendAuthenticationError(f"{text} (check the API key, and which memory and user it is for)")
    if type_ == "PartialWriteError":
        return PartialWriteError(text, [str(each) for each in answer.get("stored_ids") or ()])
    return _BY_TYPE.get(type_, MessageTooLargeError if status == 413 else BackendError)(text)


def from_client(error: Exception, url: str, secret: str | None, timeout: float) -> BackendConnectionError:
    """Make an error from one of `CLIENT_ERRORS`; the text does not show the secret."""
    text = _without(secret, str(error)) or type(error).__name__
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return BackendConnectionError(f"{url} did not answer within {timeout:g} s: {text}")
    return BackendConnectionError(f"{url} cannot be reached: {text}")


def _without(secret: str | None, text: str) -> str:
    return text.replace(secret, "***") if secret else text
