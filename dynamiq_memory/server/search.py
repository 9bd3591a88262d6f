"""Endpoints that search, list sessions and export messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

from dynamiq_memory._checks import check_query
from dynamiq_memory._wire import to_shown_item
from dynamiq_memory.backends.operations import Search
from dynamiq_memory.conversation.strategies import Explanation
from dynamiq_memory.exceptions import InvalidArgumentError
from dynamiq_memory.filters import parse
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message
from dynamiq_memory.server import models
from dynamiq_memory.server.access import Access, RequestAccess
from dynamiq_memory.server.bodies import BodyRoute, for_messages
from dynamiq_memory.server.items import MAX_PAGE_BYTES, read_page, stored_items, total_size, whole_page
from dynamiq_memory.server.settings import MEBIBYTE

_EXPORT_PAGE = 500
_EXPORT_BYTES = 4 * MEBIBYTE
_DEFAULT_LIMIT = 20
# No model takes more.
_MOST_TOKENS = 1_000_000

router = APIRouter(prefix="/v1/memories/{memory_id}", tags=["memory"], route_class=BodyRoute)
UserId = Annotated[str | None, Query(min_length=1)]


@router.post("/search", response_model=models.SearchResponse)
async def search_messages(access: RequestAccess, body: models.SearchRequest) -> Response:
    """Search the messages, best first; with a strategy, return the messages that an agent would be given."""
    max_results = access.service.settings.max_results
    if body.limit is not None and body.limit > max_results:
        raise InvalidArgumentError(f"limit may be up to {max_results:,}, not {body.limit:,}")
    filters = access.filters(body.filters, body.user_id, body.session_id)
    if body.strategy is not None:
        memory = Memory(backend=access.memory)
        limit = body.limit if body.limit is not None else _DEFAULT_LIMIT
        picks = await memory.aexplain_agent_conversation(
            body.query,
            limit,
            filters,
            body.strategy,
            _tokens(body.max_tokens),
            body.window,
            body.placement,
            compare=body.compare,
        )
        return await for_messages(len(picks), _explained, picks)
    for name in ("max_tokens", "window", "placement", "compare"):
        if getattr(body, name):
            raise InvalidArgumentError(f"{name} requires a strategy")
    limit = body.limit if body.limit is not None else max_results
    query = check_query(body.query)
    if query is None:
        messages, has_more = await whole_page(access, filters, limit)
    else:
        found = await access.memory.aexecute(Search(parse(filters), query, limit + 1, MAX_PAGE_BYTES))
        if await for_messages(len(found), total_size, found) >= MAX_PAGE_BYTES:
            raise InvalidArgumentError(
                f"the best {len(found):,} matches have more than {MAX_PAGE_BYTES:,} bytes: give a lower limit"
            )
        messages, has_more = found[:limit], len(found) > limit
    # A client that sets a limit knows that there may be more.
    more = has_more and body.limit is None
    return await for_messages(len(messages), lambda: JSONResponse({"data": stored_items(messages), "has_more": more}))


def _tokens(max_tokens: int | None) -> int:
    """Return the maximum number of tokens of a conversation; without one, that of the service.

    Raises:
        InvalidArgumentError: It is more than the service gives.
    """
    if max_tokens is not None and max_tokens > _MOST_TOKENS:
        raise InvalidArgumentError(f"max_tokens may be up to {_MOST_TOKENS:,}, not {max_tokens:,}")
    return _MOST_TOKENS if max_tokens is None else max_tokens


def _explained(picks: Explanation) -> Response:
    items = stored_items([pick.message for pick in picks])
    data = [item | {"reason": pick.reason.value} for item, pick in zip(items, picks, strict=True)]
    block = picks.recalled_block or None
    return JSONResponse({"data": data, "has_more": False, "recalled_block": block, "unchanged": picks.unchanged})


@router.get("/sessions", response_model=models.SessionsResponse)
async def list_sessions(access: RequestAccess, user_id: UserId = None) -> Response:
    """List the sessions of one user or of all users, most recently used first."""
    return await _sessions(access, access.filters(None, user_id))


@router.post("/sessions/query", response_model=models.SessionsResponse)
async def query_sessions(access: RequestAccess, body: models.OptionalFilterRequest) -> Response:
    """List the sessions that have matching messages, most recently used first."""
    return await _sessions(access, access.filters(body.filters))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "One message per line."}},
)
async def export_messages(
    access: RequestAccess, user_id: UserId = None, session_id: UserId = None
) -> StreamingResponse:
    """Export all messages, oldest first, as one item per line. The items can be stored again."""
    filters = access.filters(None, user_id, session_id)
    page = await _read(access, filters, None)  # before the response starts, so that a failure is an error response
    return StreamingResponse(_lines(access, filters, *page), media_type="application/x-ndjson")


async def _sessions(access: Access, filters: dict[str, Any]) -> Response:
    return JSONResponse({"data": [asdict(session) for session in await access.memory.asessions(filters)]})


async def _read(access: Access, filters: dict[str, Any], after: Message | None) -> tuple[list[Message], bool]:
    start = access.beginning() if after is None else after
    return await read_page(access, filters, _EXPORT_PAGE, after=start, max_bytes=_EXPORT_BYTES)


async def _lines(access: Access, filters: dict[str, Any], page: list[Message], more: bool) -> AsyncIterator[bytes]:
    while page:
        last = page[-1]
        yield await for_messages(len(page), _encoded, page)
        page.clear()  # the next page is read while this one is not in memory
        async with asyncio.timeout(access.service.settings.request_timeout):
            page, more = await _read(access, filters, last) if more else ([], False)


def _encoded(page: list[Message]) -> bytes:
    return b"".join(json.dumps(to_shown_item(message), ensure_ascii=False).encode() + b"\n" for message in page)
