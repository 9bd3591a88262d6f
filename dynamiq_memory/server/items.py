"""Endpoints that store, read, change and delete messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from dynamiq_memory._wire import from_anchor, from_item, to_anchor, to_shown_item
from dynamiq_memory.backends._order import version_filters
from dynamiq_memory.backends.operations import AroundPage, ReadPage
from dynamiq_memory.exceptions import FilterError, InvalidArgumentError
from dynamiq_memory.filters import parse
from dynamiq_memory.integrations.native import reduced
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, USER_KEY, Key, Message, key_of, size_of
from dynamiq_memory.ranking.scores import parts_of
from dynamiq_memory.server import models
from dynamiq_memory.server.access import Access, RequestAccess
from dynamiq_memory.server.bodies import BodyRoute, for_messages
from dynamiq_memory.server.settings import MEBIBYTE

MAX_PAGE_BYTES = 16 * MEBIBYTE
"""Size, in characters, at which a page of messages ends."""
_PARAMETERS = ("user_id", "session_id", "include_scope", "page_size", "page", "cursor", "sort", "filters")
_EVERYWHERE: list[Literal["user", "session"]] = ["user", "session"]
_ASKS_FOR_PAGINATION = frozenset({"page", "include_scope"})
_MINIMAL = "return=minimal"
_BOOLEANS = {"true": True, "false": False}

Window = tuple[list[Message], bool, bool]
router = APIRouter(prefix="/v1/memories/{memory_id}/items", tags=["items"], route_class=BodyRoute)
Prefer = Annotated[str, Header(description="`return=minimal` omits the messages from the response.")]


@router.post("", status_code=201, response_model=models.ItemResponse | models.ItemsResponse)
async def store_messages(access: RequestAccess, body: models.OneOrMoreItems, prefer: Prefer = "") -> Response:
    """Store one or more messages durably. A message with the same id in the same session is replaced."""
    items = [body] if isinstance(body, models.Item) else body.items if isinstance(body, models.Items) else body.root
    stored = await access.memory.aadd_many(await for_messages(len(items), _messages, access, items))
    return await _written(access, stored, prefer, 201, single=isinstance(body, models.Item))


@router.get("", response_model=models.ItemPage)
async def list_messages(
    request: Request,
    access: RequestAccess,
    user_id: Annotated[str | None, Query(min_length=1)] = None,
    session_id: Annotated[str | None, Query(min_length=1)] = None,
    include_scope: Annotated[list[Literal["user", "session"]], Query(description=models.INCLUDE_SCOPE)] = _EVERYWHERE,
    page_size: Annotated[int | None, Query(ge=1)] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the previous page.")] = None,
    sort: Annotated[Literal["-created_at", "created_at"], Query()] = "-created_at",
    filters: Annotated[str | None, Query(description=f"JSON. {models.FILTERS}")] = None,
) -> Response:
    """Read messages, latest first by default. Any other parameter filters by the metadata key of that name."""
    settings = access.service.settings
    size = _size(access, page_size, min(100, settings.max_page_size))
    if page * size > settings.max_results:
        raise InvalidArgumentError(f"pages by number end at {settings.max_results:,} messages: use the cursor")
    combined = access.filters(_parse_filters(filters) | _metadata_filters(request), user_id, session_id)
    if session_id is None and "session" not in include_scope:
        combined |= {SESSION_KEY: None}
    elif session_id is None and "user" not in include_scope:
        raise InvalidArgumentError("include_scope=session needs a session_id, or include_scope=user beside it")
    latest = sort == "-created_at"
    found, more = await whole_page(access, combined, page * size, _from_cursor(cursor) if cursor else None, latest)
    found = found[: max(0, len(found) - (page - 1) * size)] if latest else found[(page - 1) * size :]
    # Counting takes some stores as long as reading everything.
    is_asked = not _ASKS_FOR_PAGINATION.isdisjoint(request.query_params) and not cursor
    total = await access.memory.acount(combined) if is_asked else None
    return await for_messages(size, partial(_page, found, size, more, total, latest_first=latest))


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
    size = _size(access, body.limit, access.service.settings.max_page_size)
    before, after = (_anchor(access, each) if each else None for each in (body.before, body.after))
    messages, more = await read_page(access, access.filters(body.filters), size, before, after)
    return await for_messages(size, partial(_page, messages, size, more, latest_first=after is None))


@router.post("/around", response_model=models.WindowsResponse)
async def neighbours_of_messages(access: RequestAccess, body: models.AroundRequest) -> Response:
    """Read the neighbours of messages, each within its own session. Windows end where the answer is full."""
    max_results = access.service.settings.max_results
    most = len(body.anchors) * (body.before + body.after + 1)
    if most > max_results:
        raise InvalidArgumentError(f"this may be more than {max_results:,} messages: request fewer neighbours at once")
    anchors = [_anchor(access, each) for each in body.anchors]
    # The windows contain the anchors as they were given, without content.
    stored, size = await _stored(access, anchors) if body.anchor_content else ({}, 0)
    max_bytes = max(0, MAX_PAGE_BYTES - size)
    if body.max_bytes is not None:
        max_bytes = min(max_bytes, body.max_bytes)
    filter = parse(access.filters(body.filters))
    windows = await access.memory.aexecute(AroundPage(filter, anchors, body.before, body.after, max_bytes))
    return await for_messages(most, _windows, anchors, windows, stored, max_bytes)


def _windows(
    anchors: Sequence[Message], windows: Sequence[Window], stored: Mapping[Key, Message], max_bytes: int
) -> Response:
    data, more, left = [], [], max_bytes
    for anchor, (window, *beyond) in zip(anchors, windows, strict=True):
        # A message near several anchors is in the answer for each of them.
        place = window.index(anchor)
        earlier, left = _fitting(window[:place][::-1], left)
        later, left = _fitting(window[place + 1 :], left)
        data.append(stored_items([*earlier[::-1], stored.get(key_of(anchor), anchor), *later]))
        more.append((beyond[0] or len(earlier) < place, beyond[1] or len(later) < len(window) - place - 1))
    return JSONResponse({"data": data, "more": more})


def _fitting(messages: Sequence[Message], max_bytes: int) -> tuple[Sequence[Message], int]:
    """Return the first messages, as far as they fit, and the size that is left; nothing is left if not all fit."""
    for number, message in enumerate(messages):
        size = size_of(message)
        if size > max_bytes:
            return messages[:number], 0
        max_bytes -= size
    return messages, max_bytes


async def _stored(access: Access, anchors: Sequence[Message]) -> tuple[dict[Key, Message], int]:
    """Read anchors; also return their size.

    Raises:
        InvalidArgumentError: They are too large for one answer.
    """
    found: dict[Key, Message] = {}
    size = 0
    for filter in version_filters(anchors):
        page, more = await access.memory.aexecute(ReadPage(filter, len(anchors), max(1, MAX_PAGE_BYTES - size)))
        found |= {key_of(message): message for message in page}
        size += await for_messages(len(page), total_size, page)
        if more:
            raise InvalidArgumentError(
                f"{len(anchors):,} anchors have more than {MAX_PAGE_BYTES:,} bytes: request the neighbours of fewer at "
                "once, or anchor_content=false"
            )
    return found, size


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
    filters = access.filters(body.filters)
    most = access.service.settings.max_results
    if (await whole_page(access, filters, most))[1]:
        raise InvalidArgumentError(f"more than {most:,} messages match: take fewer at once, by a narrower filter")
    taken = await access.memory.atake(filters)
    access.service.metrics.deleted.inc(len(taken))
    return await for_messages(len(taken), lambda: JSONResponse({"data": stored_items(taken)}))


@router.post("/replace", response_model=models.ItemsResponse)
async def replace_messages(access: RequestAccess, body: models.ReplaceRequest, prefer: Prefer = "") -> Response:
    """Replace all matching messages atomically: readers see either the old messages or the new ones."""
    filters = access.filters(body.filters)
    if access.memory.user_id is not None:
        filters.setdefault(USER_KEY, access.memory.user_id)
    messages = await for_messages(len(body.items), _messages, access, body.items)
    return await _written(access, await access.memory.areplace(filters, messages), prefer)


@router.post("/update", response_model=models.ItemsResponse)
async def update_messages(access: RequestAccess, body: models.UpdateRequest) -> Response:
    """Store new versions of the messages that still exist and match, and return these."""
    messages = await for_messages(len(body.items), _messages, access, body.items)
    return await _written(access, await access.memory.aupdate(messages, access.filters(body.filters)))


def stored_items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Convert stored messages to items, with their scores if they have any."""
    return [to_shown_item(message) | _scored(message) for message in messages]


def _scored(message: Message) -> dict[str, Any]:
    return {} if message.score is None else {"score": message.score, "score_parts": parts_of(message.score)}


def _size(access: Access, requested: int | None, default: int) -> int:
    """Return the size of a page, if it does not exceed the maximum."""
    size, max_size = default if requested is None else requested, access.service.settings.max_page_size
    if size > max_size:
        raise InvalidArgumentError(
            f"a page may have up to {max_size:,} messages, not {size:,}: read the rest with next_cursor"
        )
    return size


def _messages(access: Access, items: Sequence[models.Item]) -> list[Message]:
    messages = [from_item(item.model_dump(exclude_unset=True)) for item in items]
    for message in messages:
        if access.memory.user_id is None:
            continue
        if message.user_id is None:
            message.metadata[USER_KEY] = access.memory.user_id
        access.memory.check_user(message.user_id)
        # An adapter gives a model what is in `native`. The one user of a key may be anybody.
        message.native = reduced(message)
    return messages


async def read_page(
    access: Access,
    filters: dict[str, Any],
    limit: int,
    before: Message | None = None,
    after: Message | None = None,
    max_bytes: int = MAX_PAGE_BYTES,
) -> tuple[list[Message], bool]:
    """Read messages up to a size, at least one if any matches; and whether there are more."""
    return await access.memory.aexecute(ReadPage(parse(filters), limit, max_bytes, before, after))


async def whole_page(
    access: Access, filters: dict[str, Any], limit: int, anchor: Message | None = None, latest: bool = True
) -> tuple[list[Message], bool]:
    """Read messages for a client that takes a page that is not full for the last one; and whether there are more.

    Raises:
        InvalidArgumentError: The page is too large.
    """
    found: list[Message] = []
    size = 0
    while size < MAX_PAGE_BYTES:
        bound = {"before": anchor} if latest else {"after": anchor or access.beginning()}
        page, more = await read_page(access, filters, limit - len(found), **bound)
        found = [*page, *found] if latest else [*found, *page]
        if not more or len(found) == limit:
            return found, more
        # Some stores end pages at a number of messages.
        size += await for_messages(len(page), total_size, page)
        anchor = found[0 if latest else -1]
    raise InvalidArgumentError(
        f"{limit:,} messages have more than {MAX_PAGE_BYTES:,} bytes: ask for up to {len(found):,}, use POST "
        "/items/query, which ends a page where it is full, or a narrower filter"
    )


def total_size(messages: Sequence[Message]) -> int:
    """Return the size of messages in bytes."""
    return sum(map(size_of, messages))


def _page(found: list[Message], size: int, has_more: bool, total: int | None = None, *, latest_first: bool) -> Response:
    page = found[::-1] if latest_first else found
    cursor = base64.urlsafe_b64encode(json.dumps(to_anchor(page[-1])).encode()).decode() if has_more else None
    content = {"data": stored_items(page), "page_size": size, "has_more": has_more, "next_cursor": cursor}
    if total is not None:
        content["pagination"] = models.pagination(total, size)
    return JSONResponse(content)


async def _written(
    access: Access, stored: Sequence[Message], prefer: str = "", status: int = 200, *, single: bool = False
) -> Response:
    access.service.metrics.written.inc(len(stored))
    if prefer.strip().lower() == _MINIMAL:
        return Response(status_code=204)
    return await for_messages(len(stored), partial(_response, stored, status, single=single))


def _response(stored: Sequence[Message], status: int, *, single: bool) -> Response:
    data = stored_items(stored)
    return JSONResponse({"data": data[0] if single else data}, status)


def _deleted(access: Access, count: int) -> Response:
    access.service.metrics.deleted.inc(count)
    return JSONResponse({"deleted": count})


def _anchor(access: Access, anchor: models.Anchor) -> Message:
    message = from_anchor(anchor.model_dump())
    access.memory.check_user(message.user_id)
    return message


def _from_cursor(cursor: str) -> Message:
    with suppress(ValueError, RecursionError):
        anchor = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        if isinstance(anchor, dict) and isinstance(anchor.get("timestamp"), float):
            return from_anchor(anchor)
    raise InvalidArgumentError("cursor is invalid: use next_cursor from the previous page")


def _parse_filters(text: str | None) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        parsed = {} if text is None else json.loads(text)
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
