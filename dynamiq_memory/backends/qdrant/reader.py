"""Reading in the order of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._order import latest_first, session_filter
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records as points
from dynamiq_memory.backends.qdrant.filters import Native, matches, native, near
from dynamiq_memory.backends.qdrant.records import Stored
from dynamiq_memory.backends.qdrant.steps import Ask
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

PAGE = 500
_SCOPES_PAGE = 2000
_REQUESTS_AT_ONCE = 64

Place = tuple[float, int]
_FIRST: Place = (-math.inf, 0)
_LAST: Place = (math.inf, 0)


def read(
    where: Filter, limit: int | None, before: Message | None = None, after: Message | None = None
) -> Plan[list[Stored]]:
    """Read the latest that match, oldest first; with `after` the earliest behind it.

    The store sorts by whole microseconds. What falls on the last one of a page may be incomplete, so it is read with
    the next page, and sorted here.
    """
    translated = native(where)
    if translated is None:
        return []
    places = yield from places_of([anchor for anchor in (before, after) if anchor is not None])
    lower = places[points.point_id(after)] if after is not None else _FIRST
    upper = places[points.point_id(before)] if before is not None else _LAST
    forward = after is not None
    start = points.order_of((lower if forward else upper)[0]) if before is not None or forward else None
    end = points.order_of(upper[0]) if forward and before is not None else None
    found: list[Stored] = []
    while limit is None or len(found) < limit:
        size = PAGE if limit is None or not translated.exact else min(PAGE, limit - len(found) + 1)
        page = yield from _page(translated, forward, size, start)
        complete = page
        if len(page) == size:
            start = page[-1].order
            complete = [stored for stored in page if stored.order != start]
            if not complete:
                complete = yield from _all_at(translated, start)
                start += 1 if forward else -1
        complete.sort(key=lambda stored: stored.position, reverse=not forward)
        found += [
            stored
            for stored in complete
            if lower < stored.position < upper and (translated.exact or where.matches(stored.message))
        ]
        if len(page) < size or (end is not None and page[-1].order > end):
            break
    found = found[:limit]
    return found if forward else found[::-1]


def around(
    anchors: Sequence[Message], before: int, after: int, where: Filter
) -> Plan[list[tuple[list[Stored], list[Stored]]]]:
    """Read what stands before and behind messages, within their sessions: for all of them in one request."""
    places = yield from places_of(anchors)
    asked: list[tuple[int, bool]] = []
    requests: list[models.QueryRequest] = []
    for number, anchor in enumerate(anchors):
        translated = native(session_filter(anchor, where))
        if translated is None or not translated.exact:
            continue
        start = points.order_of(places[points.point_id(anchor)][0])
        for forward, count in ((False, before), (True, after)):
            if count:
                asked.append((number, forward))
                # Besides those wanted: the anchor itself, and one that shows whether the last microsecond is whole.
                requests.append(_ordered(translated, forward, min(count + 2, PAGE), start))
    pages: list[Any] = []
    for start in range(0, len(requests), _REQUESTS_AT_ONCE):
        some = requests[start : start + _REQUESTS_AT_ONCE]
        pages += yield Ask("query_batch_points", {"requests": some})
    windows: dict[tuple[int, bool], list[Stored] | None] = {}
    for (number, forward), request, answer in zip(asked, requests, pages, strict=True):
        page = [points.stored_of(point) for point in answer.points]
        place = places[points.point_id(anchors[number])]
        windows[number, forward] = _beside(page, place, after if forward else before, forward, request.limit)
    result = []
    for number, anchor in enumerate(anchors):
        within_session = session_filter(anchor, where)
        earlier, later = windows.get((number, False)), windows.get((number, True))
        if earlier is None:
            earlier = (yield from read(within_session, before, before=anchor)) if before else []
        if later is None:
            later = (yield from read(within_session, after, after=anchor)) if after else []
        result.append((earlier, later))
    return result


def _beside(page: list[Stored], place: Place, count: int, forward: bool, asked: int | None) -> list[Stored] | None:
    """Of a page from a message on, those beside it, in order; None if the page does not hold enough of them."""
    full = len(page) == asked
    whole = [stored for stored in page if not (full and stored.order == page[-1].order)]
    beside = [s for s in whole if (s.position > place if forward else s.position < place)]
    beside.sort(key=lambda stored: stored.position)
    if full and len(beside) < count:
        return None
    return beside[:count] if forward else beside[-count:]


def places_of(anchors: Sequence[Message]) -> Plan[dict[str, Place]]:
    """The places of stored messages, by the ids of their points; of one that is not stored, before its equals."""
    places: dict[str, Place] = {points.point_id(anchor): (anchor.timestamp or 0.0, -1) for anchor in anchors}
    if places:
        wanted = [points.TIMESTAMP, points.ARRIVAL, points.GONE]
        found = yield Ask("retrieve", {"ids": list(places), "with_payload": wanted, "with_vectors": False})
        for point in found:
            if points.GONE not in point.payload:
                places[str(point.id)] = points.position_of(point.payload)
    return places


def count(where: Filter) -> Plan[int]:
    """Count what matches."""
    translated = native(where)
    if translated is None:
        return 0
    if not translated.exact:
        return len((yield from read(where, None)))
    answer = yield Ask("count", {"count_filter": translated.filter, "exact": True})
    return int(answer.count)


def sessions(where: Filter) -> Plan[list[Session]]:
    """List the sessions of what matches."""
    translated = native(where)
    if translated is None:
        return []
    groups: dict[tuple[str | None, str | None], list[float]] = {}
    if translated.exact:
        fields = [USER_KEY, SESSION_KEY, points.TIMESTAMP]
        for point in (yield from scroll(translated.filter, fields, _SCOPES_PAGE)):
            scope = (point.payload.get(USER_KEY), point.payload.get(SESSION_KEY))
            groups.setdefault(scope, []).append(float(point.payload[points.TIMESTAMP]))
    else:
        for stored in (yield from read(where, None)):
            scope = (stored.message.user_id, stored.message.session_id)
            groups.setdefault(scope, []).append(stored.position[0])
    found = [Session(*scope, len(times), min(times), max(times)) for scope, times in groups.items()]
    return latest_first(found)


def scroll(chosen: models.Filter, fields: list[str], size: int = PAGE) -> Plan[list[Any]]:
    """Read all points that a filter lets through, in no order."""
    found: list[Any] = []
    offset = None
    while True:
        arguments = {"scroll_filter": chosen, "limit": size, "offset": offset, "with_payload": fields}
        page, offset = yield Ask("scroll", {**arguments, "with_vectors": False})
        found += page
        if offset is None:
            return found


def _page(translated: Native, forward: bool, size: int, start: int | None) -> Plan[list[Stored]]:
    page, _ = yield Ask(
        "scroll",
        {
            "scroll_filter": translated.filter,
            "limit": size,
            "order_by": _order(forward, start),
            "with_payload": points.WHOLE,
            "with_vectors": False,
        },
    )
    return [points.stored_of(point) for point in page]


def _ordered(translated: Native, forward: bool, size: int, start: int) -> models.QueryRequest:
    query = models.OrderByQuery(order_by=_order(forward, start))
    return models.QueryRequest(query=query, filter=translated.filter, limit=size, with_payload=points.WHOLE)


def _all_at(translated: Native, order: int) -> Plan[list[Stored]]:
    found = yield from scroll(translated.and_(near(order, order)).filter, points.WHOLE)
    return [stored for stored in map(points.stored_of, found) if stored.order == order]


def _order(forward: bool, start: int | None) -> models.OrderBy:
    """From a microsecond on, which is a whole number and so is exact on its way."""
    direction = models.Direction.ASC if forward else models.Direction.DESC
    return models.OrderBy(key=points.ORDER, direction=direction, start_from=start)


def deleted_by(token: str) -> Plan[list[Stored]]:
    """Read what a deletion has taken, in order."""
    found = yield from scroll(models.Filter(must=[matches(points.GONE, token)]), points.WHOLE)
    return sorted(map(points.stored_of, found), key=lambda stored: stored.position)
