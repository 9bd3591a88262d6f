"""Endpoints that store, read, change and delete messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from dynamiq_memory.exceptions import FilterError, InvalidArgumentError
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, USER_KEY, Message
from dynamiq_memory.server import models
from dynamiq_memory.server.access import Access, RequestAccess
from dynamiq_memory.wire import from_anchor, from_item, to_anchor, to_shown_item

_PARAMETERS = ("user_id", "session_id", "page_size", "page", "cursor", "sort", "filters")
_MINIMAL = "return=minimal"
_BOOLEANS = {"true": True, "false": False}

router = APIRouter(prefix="/v1/memories/{memory_id}/items", tags=["items"])
Prefer = Annotated[str, Header(description="`return=minimal` omits the messages from the response.")]


@router.post("", status_code=201, response_model=models.ItemResponse | models.ItemsResponse)
async def store_messages(
    access: RequestAccess, body: models.Item | models.Items | models.ItemList, prefer: Prefer = ""
) -> Response:
    """Store one or more messages durably. A message with the same id in the same session is replaced."""
    single = isinstance(body, models.Item)
    items = [body] if isinstance(body, models.Item) else body.items if isinstance(body, models.Items) else body.root
    stored = await access.memory.aadd_many(_messages(access, items))
    access.service.metrics.written.inc(len(stored))
    if prefer.strip().lower() == _MINIMAL:
        return Response(status_code=204)
    data = stored_items(stored)
    return JSONResponse({"data": data[0] if single else data}, 201)


@router.get("", response_model=models.ItemPage)
async def list_messages(
    request: Request,
    access: RequestAccess,
    user_id: Annotated[str | None, Query(min_length=1)] = None,
    session_id: Annotated[str | None, Query(min_length=1)] = None,
    page_size: Annotated[int | None, Query(ge=1)] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the previous page.")] = None,
    sort: Annotated[Literal["-created_at", "created_at"], Query()] = "-created_at",
    filters: Annotated[str | None, Query(description=f"JSON. {models.FILTERS}")] = None,
) -> Response:
    """Read messages, latest first by default. Any other parameter filters by the metadata key of that name."""
    settings = access.service.settings
    size = page_size if page_size is not None else min(100, settings.max_page_size)
    check_size(access, size)
    if page * size > settings.max_results:
        raise InvalidArgumentError(f"pages by number end at {settings.max_results:,} messages: use the cursor")
    combined = access.filters(_parse_filters(filters) | _metadata_filters(request), user_id, session_id)
    anchor = _from_cursor(cursor) if cursor is not None else None
    latest = sort == "-created_at"
    if not latest and anchor is None:
        anchor = access.beginning()
    limit = page * size + 1
    bound = {"before": anchor} if latest else {"after": anchor}
    messages = await access.memory.aget_all(limit, combined, **bound)
    if latest:
        messages.reverse()
    return _page(messages[(page - 1) * size :], size)


@router.delete("", response_model=models.DeleteResponse)
async def delete_session_or_user(
    access: RequestAccess,
    user_id: Annotated[str | None, Query(min_length=1)] = None,
    session_id: Annotated[str | None, Query(min_length=1)] = None,
) -> Response:
    """Delete the messages of a session, of a user, or of one session of a user."""
    access.filters(None, user_id, session_id)
    return _deleted(access, await access.memory.adelete(session_id, user_id))


@router.post("/query", response_model=models.ItemPage)
async def query_messages(access: RequestAccess, body: models.QueryRequest) -> Response:
    """Read the latest matching messages, latest first; with `after`, the earliest ones, earliest first."""
    size = body.limit if body.limit is not None else access.service.settings.max_page_size
    check_size(access, size)
    before, after = (_anchor(access, each) for each in (body.before, body.after))
    messages = await access.memory.aget_all(size + 1, access.filters(body.filters), before=before, after=after)
    if after is None:
        messages.reverse()
    return _page(messages, size)


@router.post("/around", response_model=models.WindowsResponse)
async def neighbours_of_messages(access: RequestAccess, body: models.AroundRequest) -> Response:
    """Read the neighbours of messages, each within its own session."""
    max_results = access.service.settings.max_results
    if len(body.anchors) * (body.before + body.after + 1) > max_results:
        raise InvalidArgumentError(f"this may be more than {max_results:,} messages: request fewer neighbours at once")
    anchors = [cast("Message", _anchor(access, each)) for each in body.anchors]
    windows = await access.memory.aaround(anchors, body.before, body.after, access.filters(body.filters))
    # The windows contain the anchors, which have no content; put the stored messages there instead.
    stored = await _read_anchors(access, anchors)
    complete = [[stored.get(_identity(message), message) for message in window] for window in windows]
    return JSONResponse({"data": [stored_items(window) for window in complete]})


@router.post("/count", response_model=models.CountResponse)
async def count_messages(access: RequestAccess, body: models.OptionalFilterRequest) -> Response:
    """Count the matching messages."""
    return JSONResponse({"count": await access.memory.acount(access.filters(body.filters))})


@router.post("/delete", response_model=models.DeleteResponse)
async def delete_messages(access: RequestAccess, body: models.FilterRequest) -> Response:
    """Delete the matching messages. An empty filter deletes the whole memory."""
    return _deleted(access, await access.memory.aclear(access.filters(body.filters)))


@router.post("/take", response_model=models.ItemsResponse)
async def take_messages(access: RequestAccess, body: models.FilterRequest) -> Response:
    """Delete and return the matching messages. Among concurrent requests, only one gets each message."""
    taken = await access.memory.atake(access.filters(body.filters))
    access.service.metrics.deleted.inc(len(taken))
    return JSONResponse({"data": stored_items(taken)})


@router.post("/replace", response_model=models.ItemsResponse)
async def replace_messages(access: RequestAccess, body: models.ReplaceRequest, prefer: Prefer = "") -> Response:
    """Replace all matching messages atomically: readers see either the old messages or the new ones."""
    filters = access.filters(body.filters)
    if access.memory.user_id is not None:
        filters.setdefault(USER_KEY, access.memory.user_id)
    stored = await access.memory.areplace(filters, _messages(access, body.items))
    access.service.metrics.written.inc(len(stored))
    if prefer.strip().lower() == _MINIMAL:
        return Response(status_code=204)
    return JSONResponse({"data": stored_items(stored)})


@router.post("/update", response_model=models.ItemsResponse)
async def update_messages(access: RequestAccess, body: models.UpdateRequest) -> Response:
    """Store new versions of the messages that still exist and match, and return these."""
    stored = await access.memory.aupdate(_messages(access, body.items), access.filters(body.filters))
    access.service.metrics.written.inc(len(stored))
    return JSONResponse({"data": stored_items(stored)})


def stored_items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Convert stored messages to items, with their scores if they have any."""
    items = [to_shown_item(message) for message in messages]
    for item, message in zip(items, messages, strict=True):
        if message.score is not None:
            item["score"] = message.score
    return items


def check_size(access: Access, size: int) -> None:
    """Check the size of a page.

    Raises:
        InvalidArgumentError: It exceeds the maximum.
    """
    max_size = access.service.settings.max_page_size
    if size > max_size:
        raise InvalidArgumentError(
            f"a page may have up to {max_size:,} messages, not {size:,}: read the rest with next_cursor"
        )


def _messages(access: Access, items: Sequence[models.Item]) -> list[Message]:
    messages = [from_item(item.model_dump(exclude_unset=True)) for item in items]
    for message in messages:
        if message.user_id is None and access.memory.user_id is not None:
            message.metadata[USER_KEY] = access.memory.user_id
        access.memory.check_user(message.user_id)
    return messages


def _page(messages: list[Message], size: int) -> Response:
    has_more = len(messages) > size
    page = messages[:size]
    cursor = _to_cursor(page[-1]) if has_more else None
    return JSONResponse({"data": stored_items(page), "page_size": size, "has_more": has_more, "next_cursor": cursor})


def _deleted(access: Access, count: int) -> Response:
    access.service.metrics.deleted.inc(count)
    return JSONResponse({"deleted": count})


def _anchor(access: Access, anchor: models.Anchor | None) -> Message | None:
    if anchor is None:
        return None
    message = from_anchor(anchor.model_dump())
    access.memory.check_user(message.user_id)
    return message


async def _read_anchors(
    access: Access, anchors: Sequence[Message]
) -> dict[tuple[str | None, str | None, str], Message]:
    sessions: dict[tuple[str | None, str | None], list[str]] = {}
    for anchor in anchors:
        sessions.setdefault((anchor.user_id, anchor.session_id), []).append(anchor.id)
    stored: dict[tuple[str | None, str | None, str], Message] = {}
    for (user_id, session_id), ids in sessions.items():
        filters = {USER_KEY: user_id, SESSION_KEY: session_id, MESSAGE_ID_KEY: ids}
        stored |= {_identity(message): message for message in await access.memory.aget_all(None, filters)}
    return stored


def _identity(message: Message) -> tuple[str | None, str | None, str]:
    return (message.user_id, message.session_id, message.id)


def _to_cursor(message: Message) -> str:
    return base64.urlsafe_b64encode(json.dumps(to_anchor(message)).encode()).decode()


def _from_cursor(cursor: str) -> Message:
    with suppress(ValueError, RecursionError):
        anchor = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        if isinstance(anchor, dict) and isinstance(anchor.get("timestamp"), float):
            return from_anchor(anchor)
    raise InvalidArgumentError("cursor is invalid: use next_cursor from the previous page")


def _parse_filters(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    with suppress(ValueError, RecursionError):
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            return parsed
    raise FilterError("the parameter filters must be a JSON object")


def _metadata_filters(request: Request) -> dict[str, Any]:
    """Build a filter from the parameters that are metadata keys. Their text may also mean a number or a boolean."""
    filters: dict[str, list[Any]] = {}
    for key, text in request.query_params.multi_items():
        if key not in _PARAMETERS:
            filters.setdefault(key, []).extend([text] if key == MESSAGE_ID_KEY else _possible_values(text))
    return filters


def _possible_values(text: str) -> list[Any]:
    if text.lower() in _BOOLEANS:
        return [text, _BOOLEANS[text.lower()]]
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            if abs(number) < 2**63:
                return [text, number]
    return [text]
