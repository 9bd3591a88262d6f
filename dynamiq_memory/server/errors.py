"""Error responses of the service: a status, a `type` and a `detail`, which never repeats the request's content."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from dynamiq_memory.exceptions import (
    BackendConnectionError,
    BackendError,
    EmbedderError,
    InvalidArgumentError,
    MessageTooLargeError,
    PartialWriteError,
)
from dynamiq_memory.server.bodies import InvalidBodyError
from dynamiq_memory.server.partition import OtherUserError

logger = logging.getLogger("dynamiq_memory.server")

RETRY = {"Retry-After": "1"}
"""The header of a response to a request that may succeed a second later."""
_BODY_KINDS = {400: "InvalidArgumentError", 413: "BodyTooLarge", 422: "InvalidArgumentError"}
_KINDS = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed"}


class ProblemError(Exception):
    """An error response.

    Args:
        status: HTTP status.
        kind: Value of `type`.
        detail: The problem and how to fix it.
        headers: Additional headers.
        fields: Additional fields of the body.

    Attributes:
        kind: Value of `type`.
        response: The response.
    """

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **fields: object
    ) -> None:
        """Create the error."""
        super().__init__(detail)
        self.kind = kind
        self.response = JSONResponse({"type": kind, "detail": detail, **fields}, status, headers)


def add_handlers(app: FastAPI) -> None:
    """Register the handler that converts exceptions to error responses."""
    for kind in (ProblemError, HTTPException, RequestValidationError, InvalidArgumentError, BackendError):
        app.add_exception_handler(kind, _respond)


async def _respond(_: Request, error: Exception) -> JSONResponse:
    return (error if isinstance(error, ProblemError) else _problem(error)).response


def _problem(error: Exception) -> ProblemError:
    match error:
        case InvalidBodyError(status_code=status, detail=detail):
            return ProblemError(status, _BODY_KINDS[status], detail)
        case HTTPException(status_code=status, detail=detail, headers=headers):
            return ProblemError(status, _KINDS.get(status, "Error"), detail, headers)
        case RequestValidationError():
            status = 400 if any(each["type"] == "json_invalid" for each in error.errors()) else 422
            return ProblemError(status, "InvalidArgumentError", "; ".join(map(_describe, error.errors()[:5])))
        case OtherUserError():
            return ProblemError(403, "OtherUserError", str(error))
        case InvalidArgumentError():
            status = 413 if isinstance(error, MessageTooLargeError) else 422
            return ProblemError(status, type(error).__name__, str(error))
    failed = "the store's embedder failed" if isinstance(error, EmbedderError) else "the store failed"
    log_failure(failed, error)
    detail = f"{failed}: search the service's log for this response's X-Request-Id"
    if isinstance(error, BackendConnectionError):
        return ProblemError(503, "BackendError", detail, RETRY)
    if isinstance(error, PartialWriteError):
        return ProblemError(500, "PartialWriteError", detail, stored_ids=error.stored_ids)
    return ProblemError(500, "BackendError", detail)


def log_failure(event: str, error: BaseException) -> None:
    """Log the types of the errors and where they occurred, but not their messages, which may contain user content."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    kinds = [f"{type(each).__module__}.{type(each).__qualname__}" for each in causes]
    logger.error(event, extra={"fields": {"error": kinds, "frames": frames[-12:]}})


def _describe(error: Mapping[str, Any]) -> str:
    location = ".".join(str(part) for part in error["loc"])
    return f"{location}: {error['msg']}"
