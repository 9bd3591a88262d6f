"""Storing, reading, changing and deleting messages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from dynamiq_memory.exceptions import FilterError, InvalidArgumentError, MessageError
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message
from dynamiq_memory.server import models
from dynamiq_memory.server.access import Access, Accessed
from dynamiq_memory.wire import from_anchor, from_item, to_anchor, to_shown_item

_PARAMETERS = ("user_id", "session_id", "page_size", "page", "cursor", "sort", "filters")
_MINIMAL = "return=minimal"
_ALIKE = {"true": True, "false": False}

router = APIRouter(prefix="/v1/memories/{memory_id}/items", tags=["items"])
Prefer = Annotated[str, Header(description="`return=minimal`: answer without the messages.")]


@router.post("", status_code=201, response_model=models.One | models.Several)
async def store_messages(
    access: Accessed, body: models.Item | models.Items | models.ItemList, prefer: Prefer = ""
) -> Response:
    """Store a message, or several at once: durable when this answers. The same id in the same session replaces."""
    one = isinstance(body, models.Item)
    given = [body] if isinstance(body, models.Item) else body.items if isinstance(body, models.Items) else body.root
    stored = await access.memory.aadd_many(_messages(access, given))
    access.service.metrics.written.inc(len(stored))
    if prefer.strip().lower() == _MINIMAL:
        return Response(status_code=204)
    items = shown(stored)
    return JSONResponse({"data": items[0] if one else items}, 201)


@router.get("", response_model=models.Page)
async def list_messages(
    request: Request,
    access: Accessed,
    user_id: Annotated[str | None, Query(min_length=1)] = None,
    session_id: Annotated[str | None, Query(min_length=1)] = None,
    page_size: Annotated[int | None, Query(ge=1)] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    sort: Annotated[Literal["-created_at", "created_at"], Query()] = "-created_at",
    filters: Annotated[str | None, Query(description=f"JSON. {models.FILTERS}")] = None,
) -> Response:
    """Read messages, the latest first unless sorted otherwise. Any other parameter is a key of their metadata."""
    settings = access.service.settings
    size = checked_size(access, page_size if page_size is not None else min(100, settings.max_page_size))
    if page * size > settings.max_results:
        raise InvalidArgumentError(f"pages by number end at {settings.max_results:,} messages: use the cursor")
    wanted = access.filters(_parsed(filters) | _named(request), user_id, session_id)
    anchor = _from_cursor(cursor) if cursor is not None else None
    latest = sort == "-created_at"
    if not latest and anchor is None:
        anchor = access.beginning()
    limit = page * size + 1
    sides = {"before": anchor} if latest else {"after": anchor}
    found = await access.memory.aget_all(limit, wanted, **sides)
    if latest:
        found.reverse()
    return _page(found[(page - 1) * size :], size)


@router.delete("", response_model=models.Deleted)
async def delete_session_or_user(
    access: Accessed,
    user_id: Annotated[str | None, Query(min_length=1)] = None,
    session_id: Annotated[str | None, Query(min_length=1)] = None,
) -> Response:
    """Delete the messages of a session, of a user, or of a user's session."""
    access.filters(None, user_id, session_id)
    return _deleted(access, await access.memory.adelete(session_id, user_id))


@router.post("/query", response_model=models.Page)
async def query_messages(access: Accessed, body: models.Query) -> Response:
    """Read the latest messages that match, the latest first; with `after`, the earliest first."""
    size = checked_size(access, body.limit if body.limit is not None else access.service.settings.max_page_size)
    before, after = (_anchor(access, each) for each in (body.before, body.after))
    found = await access.memory.aget_all(size + 1, access.filters(body.filters), before=before, after=after)
    if after is None:
        found.reverse()
    return _page(found, size)


@router.post("/around", response_model=models.Windows)
async def neighbours_of_messages(access: Accessed, body: models.Around) -> Response:
    """Read the neighbours of messages, each within its own session."""
    most = access.service.settings.max_results
    if len(body.anchors) * (body.before + body.after + 1) > most:
        raise InvalidArgumentError(f"this may be more than {most:,} messages: ask for fewer neighbours at once")
    anchors = [cast("Message", _anchor(access, each)) for each in body.anchors]
    windows = await access.memory.aaround(anchors, body.before, body.after, access.filters(body.filters))
    # An anchor is only a name; the store has the message.
    whole = await _stored(access, anchors)
    lists = [[whole.get(_place(message), message) for message in window] for window in windows]
    return JSONResponse({"data": [shown(each) for each in lists]})


@router.post("/count", response_model=models.Counted)
async def count_messages(access: Accessed, body: models.Some) -> Response:
    """Count the messages that match."""
    return JSONResponse({"count": await access.memory.acount(access.filters(body.filters))})


@router.post("/delete", response_model=models.Deleted)
async def delete_messages(access: Accessed, body: models.Exactly) -> Response:
    """Delete the messages that match; with an empty filter, all of the memory."""
    return _deleted(access, await access.memory.aclear(access.filters(body.filters)))


@router.post("/take", response_model=models.Several)
async def take_messages(access: Accessed, body: models.Exactly) -> Response:
    """Delete what matches and answer with it; of several requests at once, one gets each message."""
    taken = await access.memory.atake(access.filters(body.filters))
    access.service.metrics.deleted.inc(len(taken))
    return JSONResponse({"data": shown(taken)})


@router.post("/replace", response_model=models.Several)
async def replace_messages(access: Accessed, body: models.Replace, prefer: Prefer = "") -> Response:
    """Put messages in the place of all that match; readers see the old ones or the new ones."""
    wanted = access.filters(body.filters)
    if access.memory.user_id is not None:
        wanted.setdefault(USER_KEY, access.memory.user_id)
    stored = await access.memory.areplace(wanted, _messages(access, body.items))
    access.service.metrics.written.inc(len(stored))
    if prefer.strip().lower() == _MINIMAL:
        return Response(status_code=204)
    return JSONResponse({"data": shown(stored)})


@router.post("/update", response_model=models.Several)
async def update_messages(access: Accessed, body: models.Update) -> Response:
    """Store new versions of messages that are still there, and match; answer with those that were stored."""
    stored = await access.memory.aupdate(_messages(access, body.items), access.filters(body.filters))
    access.service.metrics.written.inc(len(stored))
    return JSONResponse({"data": shown(stored)})


def shown(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Write messages as items, those with a score with it."""
    items = [to_shown_item(message) for message in messages]
    for item, message in zip(items, messages, strict=True):
        if message.score is not None:
            item["score"] = message.score
    return items


def checked_size(access: Access, size: int) -> int:
    """Check how many messages are asked for at once.

    Raises:
        InvalidArgumentError: More than a page may have.
    """
    most = access.service.settings.max_page_size
    if size > most:
        raise InvalidArgumentError(f"a page has {most:,} messages at most, not {size:,}: read on by next_cursor")
    return size


def _messages(access: Access, items: Sequence[models.Item]) -> list[Message]:
    messages = [from_item(item.model_dump(exclude_unset=True)) for item in items]
    for message in messages:
        if message.user_id is None and access.memory.user_id is not None:
            message.metadata[USER_KEY] = access.memory.user_id
        access.memory.check_user(message.user_id)
    return messages


def _page(found: list[Message], size: int) -> Response:
    more = len(found) > size
    page = found[:size]
    cursor = _to_cursor(page[-1]) if more else None
    return JSONResponse({"data": shown(page), "page_size": size, "has_more": more, "next_cursor": cursor})


def _deleted(access: Access, count: int) -> Response:
    access.service.metrics.deleted.inc(count)
    return JSONResponse({"deleted": count})


def _anchor(access: Access, anchor: models.Anchor | None) -> Message | None:
    if anchor is None:
        return None
    message = from_anchor(anchor.model_dump())
    access.memory.check_user(message.user_id)
    return message


async def _stored(access: Access, anchors: Sequence[Message]) -> dict[tuple[str | None, str | None, str], Message]:
    sessions: dict[tuple[str | None, str | None], list[str]] = {}
    for anchor in anchors:
        sessions.setdefault((anchor.user_id, anchor.session_id), []).append(anchor.id)
    found: dict[tuple[str | None, str | None, str], Message] = {}
    for (user_id, session_id), ids in sessions.items():
        wanted = {USER_KEY: user_id, SESSION_KEY: session_id, MESSAGE_ID_KEY: ids}
        found |= {_place(message): message for message in await access.memory.aget_all(None, wanted)}
    return found


def _place(message: Message) -> tuple[str | None, str | None, str]:
    return (message.user_id, message.session_id, message.id)


def _to_cursor(message: Message) -> str:
    return base64.urlsafe_b64encode(json.dumps(to_anchor(message)).encode()).decode()


def _from_cursor(cursor: str) -> Message:
    try:
        anchor = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        if not isinstance(anchor, dict) or not isinstance(anchor.get("timestamp"), float):
            raise InvalidArgumentError("cursor is none of this service: take next_cursor of the page before")
        return from_anchor(anchor)
    except (ValueError, RecursionError, binascii.Error, MessageError) as error:
        raise InvalidArgumentError("cursor is none of this service: take next_cursor of the page before") from error


def _parsed(filters: str | None) -> dict[str, Any]:
    if filters is None:
        return {}
    try:
        parsed = json.loads(filters)
    except (ValueError, RecursionError):
        raise FilterError("the parameter filters must be a JSON object") from None
    if not isinstance(parsed, dict):
        raise FilterError("the parameter filters must be a JSON object")
    return parsed


def _named(request: Request) -> dict[str, Any]:
    """The filter of the parameters that are keys of metadata: a text in a URL may stand for a number or a boolean."""
    named: dict[str, list[Any]] = {}
    for key, text in request.query_params.multi_items():
        if key in _PARAMETERS:
            continue
        values = named.setdefault(key, [])
        if key == TIMESTAMP_KEY or key != MESSAGE_ID_KEY:
            values += _meanings(text)
        else:
            values.append(text)
    return named


def _meanings(text: str) -> list[Any]:
    if text.lower() in _ALIKE:
        return [text, _ALIKE[text.lower()]]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if abs(number) < 2**63:
            return [text, number]
    return [text]
