"""Request bodies: parsed and checked up to the first error, and outside of the event loop if they are large."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dynamiq_memory.backends._threads import Threads

T = TypeVar("T")

# More would hold up the event loop for milliseconds.
_BYTES_ON_THE_LOOP = 16_384
_MESSAGES_ON_THE_LOOP = 50
# Each value takes up to 100 bytes when it is parsed, even where its text has only two. A message has 7 to 20 values.
_FREE_VALUES = 100_000
_BYTES_PER_VALUE = 16
_MOST_VALUES = 500_000
# Strings, so that what is in them does not count, and what stands before or between values.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,]', re.DOTALL)
_QUOTE = ord('"')
# A cancelled request holds its share until the thread that works for it is free again.
_threads = Threads("dynamiq-memory-service")


class BodyRoute(APIRoute):
    """A route that checks its body, the argument named `body`, before FastAPI does.

    FastAPI parses and checks bodies on the event loop.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        handle = super().get_route_handler()
        body_type = get_type_hints(self.endpoint, include_extras=True).get("body")
        if body_type is None:
            return handle
        adapter: TypeAdapter[Any] = TypeAdapter(body_type)

        async def checked(request: Request) -> Response:
            return await handle(_CheckedRequest(request, adapter))

        return checked


class InvalidBodyError(HTTPException):
    """A body that is not JSON, or not as described."""


class _CheckedRequest(Request):
    """A request with the checked body as its JSON."""

    def __init__(self, request: Request, adapter: TypeAdapter[Any]) -> None:
        super().__init__(request.scope, request.receive)
        self._adapter = adapter

    async def json(self) -> Any:
        """Parse and check the body.

        Raises:
            InvalidBodyError: It is not as described.
        """
        body = await self.body()
        if len(body) <= _BYTES_ON_THE_LOOP:
            return _checked(body, self._adapter)
        return await _threads.run(_checked, body, self._adapter)


async def for_messages(count: int, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that takes some microseconds for each of so many messages, in a thread if they are many."""
    if count <= _MESSAGES_ON_THE_LOOP:
        return function(*arguments)
    return await _threads.run(function, *arguments)


def _checked(body: bytes, adapter: TypeAdapter[Any]) -> Any:
    _check_values(body)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or not in UTF-8"
        raise InvalidBodyError(400, f"the body is not JSON: {reason}") from None
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidBodyError(422, "; ".join(map(_described, error.errors(include_input=False)[:5]))) from None


def _check_values(body: bytes) -> None:
    most = min(_FREE_VALUES + len(body) // _BYTES_PER_VALUE, _MOST_VALUES)
    if len(body) < most:
        return
    values = 0
    for token in _TOKEN.finditer(body):
        if body[token.start()] != _QUOTE:
            values += 1
            if values > most:
                detail = f"a body of {len(body):,} bytes may have {most:,} JSON values: send fewer messages or metadata"
                raise InvalidBodyError(413, detail)


def _described(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, ("body", *error["loc"])))
    return f"{place}: {error['msg']}"
