"""Searching, listing sessions, exporting, describing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

import dynamiq_memory
from dynamiq_memory.exceptions import InvalidArgumentError
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message
from dynamiq_memory.server import models
from dynamiq_memory.server.access import Access, Accessed
from dynamiq_memory.server.items import shown
from dynamiq_memory.wire import to_shown_item

_EXPORTED_AT_ONCE = 500
_DEFAULT_LIMIT = 20

router = APIRouter(prefix="/v1/memories/{memory_id}", tags=["memory"])
UserId = Annotated[str | None, Query(min_length=1)]


@router.get("", response_model=models.Description)
async def describe_memory(access: Accessed) -> Response:
    """Tell what serves this memory, what it can do and what it allows. This is how clients recognise the service."""
    capabilities, settings = access.memory.capabilities, access.service.settings
    limits = {name: getattr(settings, name) for name in models.ShownLimits.model_fields}
    return JSONResponse(
        {
            "service": "dynamiq-memory",
            "version": dynamiq_memory.__version__,
            "memory_id": access.memory_id,
            "user_id": access.memory.user_id,
            "capabilities": asdict(capabilities),
            "limits": limits,
        }
    )


@router.post("/search", response_model=models.Found)
async def search_messages(access: Accessed, body: models.Search) -> Response:
    """Find the messages that match a query, best first; or with a strategy, what an agent would be given."""
    most = access.service.settings.max_results
    if body.limit is not None and body.limit > most:
        raise InvalidArgumentError(f"limit may be {most:,} at most, not {body.limit:,}")
    wanted = access.filters(body.filters, body.user_id, body.session_id)
    if body.strategy is not None:
        memory = Memory(backend=access.memory)
        limit = body.limit if body.limit is not None else _DEFAULT_LIMIT
        picks = await memory.aexplain_agent_conversation(body.query, limit, wanted, body.strategy, body.max_tokens)
        items = shown([pick.message for pick in picks])
        data = [item | {"reason": pick.reason.value} for item, pick in zip(items, picks, strict=True)]
        return JSONResponse({"data": data, "has_more": False})
    if body.max_tokens is not None:
        raise InvalidArgumentError("max_tokens needs a strategy")
    found = await access.memory.asearch(body.query, wanted, body.limit if body.limit is not None else most + 1)
    more = len(found) > most
    if more and (body.query is None or not body.query.strip()):
        found = found[1:]  # without a query, the oldest come first
    return JSONResponse({"data": shown(found[:most]), "has_more": more})


@router.get("/sessions", response_model=models.Sessions)
async def list_sessions(access: Accessed, user_id: UserId = None) -> Response:
    """List the sessions of a user, or of all, the most recently used first."""
    return await _sessions(access, access.filters(None, user_id))


@router.post("/sessions/query", response_model=models.Sessions)
async def query_sessions(access: Accessed, body: models.Some) -> Response:
    """List the sessions that have messages which match, the most recently used first."""
    return await _sessions(access, access.filters(body.filters))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "A message a line."}},
)
async def export_messages(access: Accessed, user_id: UserId = None, session_id: UserId = None) -> StreamingResponse:
    """Give all messages, oldest first, an item a line: what storing them again takes."""
    wanted = access.filters(None, user_id, session_id)
    page = await _earliest(access, wanted, None)  # a store that fails is an error, not half an answer
    return StreamingResponse(_lines(access, wanted, page), media_type="application/x-ndjson")


async def _sessions(access: Access, wanted: dict[str, Any]) -> Response:
    return JSONResponse({"data": [asdict(session) for session in await access.memory.asessions(wanted)]})


async def _earliest(access: Access, wanted: dict[str, Any], after: Message | None) -> list[Message]:
    return await access.memory.aget_all(_EXPORTED_AT_ONCE, wanted, after=after or access.beginning())


async def _lines(access: Access, wanted: dict[str, Any], page: list[Message]) -> AsyncIterator[str]:
    while page:
        yield "".join(json.dumps(to_shown_item(message), ensure_ascii=False) + "\n" for message in page)
        page = await _earliest(access, wanted, page[-1]) if len(page) == _EXPORTED_AT_ONCE else []
