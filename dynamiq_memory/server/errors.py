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
    InvalidArgumentError,
    MessageTooLargeError,
    PartialWriteError,
)
from dynamiq_memory.server.partition import OtherUserError

logger = logging.getLogger("dynamiq_memory.server")

_RETRY_SECONDS = 1


class ProblemError(Exception):
    """An error response.

    Args:
        status: HTTP status.
        kind: Value of `type`.
        detail: The problem and how to fix it.
        headers: Additional headers.
    """

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Create the error."""
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, dict(headers or {})

    def response(self) -> JSONResponse:
        """Return the response."""
        return JSONResponse({"type": self.kind, "detail": self.detail}, self.status, self.headers)


def add_handlers(app: FastAPI) -> None:
    """Register the handlers that convert exceptions to error responses."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        kinds = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed"}
        headers = error.headers
        return ProblemError(error.status_code, kinds.get(error.status_code, "Error"), error.detail, headers).response()

    @app.exception_handler(RequestValidationError)
    async def validation(_: Request, error: RequestValidationError) -> JSONResponse:
        details = [_describe(each) for each in error.errors()[:5]]
        status = 400 if any(each["type"] == "json_invalid" for each in error.errors()) else 422
        return ProblemError(status, "InvalidArgumentError", "; ".join(details)).response()

    @app.exception_handler(OtherUserError)
    async def other_user(_: Request, error: OtherUserError) -> JSONResponse:
        return ProblemError(403, "OtherUserError", str(error)).response()

    @app.exception_handler(InvalidArgumentError)
    async def invalid(_: Request, error: InvalidArgumentError) -> JSONResponse:
        status = 413 if isinstance(error, MessageTooLargeError) else 422
        return ProblemError(status, type(error).__name__, str(error)).response()

    @app.exception_handler(BackendError)
    async def backend(_: Request, error: BackendError) -> JSONResponse:
        log_failure("the store failed", error)
        detail = "the store failed: search the service's log for this response's X-Request-Id"
        if isinstance(error, BackendConnectionError):
            return ProblemError(503, "BackendError", detail, {"Retry-After": str(_RETRY_SECONDS)}).response()
        body: dict[str, Any] = {"type": "BackendError", "detail": detail}
        if isinstance(error, PartialWriteError):
            body |= {"type": "PartialWriteError", "stored_ids": error.stored_ids}
        return JSONResponse(body, 500)


def log_failure(event: str, error: BaseException) -> None:
    """Log the types of the errors and where they occurred, but not their messages, which may contain user content."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    kinds = [f"{type(each).__module__}.{type(each).__qualname__}" for each in causes]
    logger.error(event, extra={"fields": {"error": kinds, "frames": frames[-12:]}})


def _describe(error: Mapping[str, Any]) -> str:
    location = ".".join(str(part) for part in error["loc"])
    return f"{location}: {error['msg']}"
