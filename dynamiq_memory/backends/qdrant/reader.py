"""Reading in order of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter

from qdrant_client import models

from dynamiq_memory.backends._order import session_filter, sessions_of
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records, requests
from dynamiq_memory.backends.qdrant.filters import marked_by, near, translate
from dynamiq_memory.backends.qdrant.records import Point, Position, Stored
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message, Session, scope_of, views

PAGE = 500
_SESSIONS_PAGE = 2000

_FIRST: Position = (-math.inf, 0)
_LAST: Position = (math.inf, 0)

_position = attrgetter("position")


def read(
    filter: Filter, limit: int | None = None, before: Message | None = None, after: Message | None = None
) -> Plan[list[Stored]]:
    """Read the latest matching messages, oldest first; with `after`, the earliest after it."""
    positions = yield from positions_of([anchor for anchor in (before, after) if anchor is not None])
    lower = positions[records.point_id(after)] if after is not None else _FIRST
    upper = positions[records.point_id(before)] if before is not None else _LAST
    return (yield from _between(filter, limit, lower, upper, forward=after is not None))


def _between(
    filter: Filter, limit: int | None, lower: Position, upper: Position, *, forward: bool
) -> Plan[list[Stored]]:
    """Read messages between two positions: the latest, or the earliest if `forward`.

    The store sorts by whole microseconds. A page may have only some of the messages of its last microsecond; they are
    read with the next page and sorted here.
    """
    translation = translate(filter)
    start, end = _order_at(lower if forward else upper), _order_at(upper)
    found: list[Stored] = []
    while limit is None or len(found) < limit:
        size = PAGE if limit is None or not translation.exact else min(PAGE, limit - len(found) + 1)
        order = _order(forward, start)
        points, _ = yield from requests.page(translation.filter, records.WHOLE, size, order_by=order)
        page = complete = [records.stored_of(point) for point in points]
        if len(page) == size:
            start = page[-1].order
            complete = [stored for stored in page if stored.order != start]
            if not complete:
                moment = translation.narrowed(near(start, start)).filter
                points = yield from requests.pages(moment, records.WHOLE, PAGE)
                complete = [stored for stored in map(records.stored_of, points) if stored.order == start]
                start += 1 if forward else -1
        found += [
            stored
            for stored in sorted(complete, key=_position, reverse=not forward)
            if lower < stored.position < upper and (translation.exact or filter.matches(stored.message))
        ]
        if len(page) < size or (forward and end is not None and page[-1].order > end):
            break
    found = found[:limit]
    return found if forward else found[::-1]


def around(anchors: Sequence[Message], before: int, after: int, filter: Filter) -> Plan[list[list[Message]]]:
    """Read the messages before and after each anchor, within its session: for all anchors in one request."""
    positions = yield from positions_of(anchors)
    sides = [
        (session_filter(anchor, filter), positions[records.point_id(anchor)], count, forward)
        for anchor in anchors
        for count, forward in ((before, False), (after, True))
    ]
    # Messages that must be checked again are read page by page.
    exact = translate(filter).exact
    pages = (yield from requests.query([_nearest_query(*side) for side in sides])) if exact else [[]] * len(sides)
    found: list[list[Message]] = []
    for (session, position, count, forward), points in zip(sides, pages, strict=True):
        nearest = _nearest(points, position, count, forward) if exact else None
        if nearest is None:
            lower, upper = (position, _LAST) if forward else (_FIRST, position)
            nearest = yield from _between(session, count, lower, upper, forward=forward)
        found.append(views(stored.message for stored in nearest))
    return [[*earlier, anchor, *later] for anchor, earlier, later in zip(anchors, found[::2], found[1::2], strict=True)]


def _nearest_query(session: Filter, position: Position, count: int, forward: bool) -> models.QueryRequest:
    """Return the query for the messages before a position or, `forward`, after it."""
    return models.QueryRequest(
        query=models.OrderByQuery(order_by=_order(forward, _order_at(position))),
        filter=translate(session).filter,
        limit=_nearest_size(count),
        with_payload=records.WHOLE,
    )


def _nearest_size(count: int) -> int:
    """Besides the messages: the anchor itself, and one that shows whether the last microsecond is complete."""
    return min(count + 2, PAGE)


def _nearest(points: Sequence[Point], position: Position, count: int, forward: bool) -> list[Stored] | None:
    """Return the nearest messages of the query's result, in order; None if it has too few of them."""
    page = [records.stored_of(point) for point in points]
    full = len(page) == _nearest_size(count)
    complete = [stored for stored in page if not (full and stored.order == page[-1].order)]
    beside = [s for s in complete if (s.position > position if forward else s.position < position)]
    if full and len(beside) < count:
        return None
    beside.sort(key=_position)
    return beside[:count] if forward else beside[max(0, len(beside) - count) :]


def positions_of(anchors: Sequence[Message]) -> Plan[dict[str, Position]]:
    """Read the positions of messages, by the ids of their points; one that is not stored precedes its equals."""
    positions: dict[str, Position] = {records.point_id(anchor): (anchor.timestamp or 0.0, -1) for anchor in anchors}
    wanted = [TIMESTAMP_KEY, records.ARRIVAL, records.GONE]
    for point in (yield from requests.retrieve(list(positions), wanted)):
        if records.GONE not in records.payload_of(point):
            positions[str(point.id)] = records.position_of(point)
    return positions


def count(filter: Filter) -> Plan[int]:
    """Count matching messages."""
    translation = translate(filter)
    if not translation.exact:
        return len((yield from read(filter)))
    return (yield from requests.count(translation.filter))


def sessions(filter: Filter) -> Plan[list[Session]]:
    """List the sessions of matching messages."""
    translation = translate(filter)
    if not translation.exact:
        found = yield from read(filter)
        return sessions_of((scope_of(stored.message), stored.position[0]) for stored in found)
    points = yield from requests.pages(translation.filter, [USER_KEY, SESSION_KEY, TIMESTAMP_KEY], _SESSIONS_PAGE)
    payloads = map(records.payload_of, points)
    return sessions_of(((each.get(USER_KEY), each.get(SESSION_KEY)), float(each[TIMESTAMP_KEY])) for each in payloads)


def marked(token: str) -> Plan[list[Stored]]:
    """Read the messages that one deletion has marked, in order."""
    found = yield from requests.pages(marked_by(token), records.WHOLE, PAGE)
    return sorted(map(records.stored_of, found), key=_position)


def _order(forward: bool, start: int | None) -> models.OrderBy:
    """Order from a microsecond on, which is a whole number and therefore exact on its way to the store."""
    direction = models.Direction.ASC if forward else models.Direction.DESC
    return models.OrderBy(key=records.ORDER, direction=direction, start_from=start)


def _order_at(position: Position) -> int | None:
    """Return the microsecond of a position; None for the first and the last."""
    return records.order_of(position[0]) if math.isfinite(position[0]) else None
