"""Reading: pages in the store's own order, counting, listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from weaviate.classes.query import Filter as Native
from weaviate.classes.query import Sort

from dynamiq_memory.backends._order import latest_first, session_filter
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate.errors import DRIVER_ERRORS, is_too_large
from dynamiq_memory.backends.weaviate.filters import (
    ARRIVAL,
    PARTLY,
    REPLACING,
    TIMESTAMP,
    Translation,
    is_fact,
    is_no_fact,
    translate,
)
from dynamiq_memory.backends.weaviate.records import BODY, NOTE_TIME, Place, Row, row_of, uuid_of
from dynamiq_memory.backends.weaviate.steps import AtOnce, ask
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

PLACE = (TIMESTAMP, ARRIVAL)
# The first page is small, since messages may be large; the next ones are as large as about this many bytes take.
_FIRST_PAGE = 100
_PAGE_BYTES = 8 * 1024 * 1024
_IDS_AT_ONCE = 1000
_TOO_LARGE_ALONE = "one message alone exceeds what the server sends in an answer: raise GRPC_MAX_MESSAGE_SIZE there"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What part of the order is read.

    Attributes:
        before: Only what stands before this place.
        after: Only what stands behind this place; then the earliest come first, else the latest.
    """

    before: Place | None = None
    after: Place | None = None

    def hold(self, place: Place) -> bool:
        """Whether a place is within."""
        return (self.before is None or place < self.before) and (self.after is None or place > self.after)

    def clauses(self) -> list[Any]:
        """The native filters, which let through what stands at the same time and arrival too."""
        clauses = []
        if self.before is not None:
            clauses.append(_beside(self.before, "less_than", "less_or_equal"))
        if self.after is not None:
            clauses.append(_beside(self.after, "greater_than", "greater_or_equal"))
        return clauses


_ALL = Bounds()


def _beside(place: Place, strictly: str, loosely: str) -> Any:
    time, arrival = Native.by_property(TIMESTAMP), Native.by_property(ARRIVAL)
    equal = Native.all_of([time.equal(place[0]), getattr(arrival, loosely)(place[1])])
    return Native.any_of([getattr(time, strictly)(place[0]), equal])


class Reader:
    """Makes the plans that read.

    Args:
        most_results: How many results the server gives at once, its QUERY_MAXIMUM_RESULTS.
    """

    def __init__(self, most_results: int) -> None:
        """Keep the limit."""
        self._most = most_results
        self.heal: Callable[[Sequence[str]], Plan[bool]] | None = None
        """Finishes replacements that were interrupted, by the ids of their notes; whether anything changed."""

    def messages(
        self, where: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> Plan[list[Message]]:
        """The messages that `get_all` promises."""
        bounds = _ALL
        anchors = [anchor for anchor in (before, after) if anchor is not None]
        if anchors:
            places = yield from self.places(anchors)
            bounds = Bounds(
                None if before is None else _place(before, places), None if after is None else _place(after, places)
            )
        wanted = translate(where)
        notes: list[str] = []
        found = yield from self.rows(wanted, limit, bounds, notes=notes)
        if notes and self.heal is not None and (yield from self.heal(notes)):
            found = yield from self.rows(wanted, limit, bounds)
        return [message for _, message in found]

    def around(
        self, anchors: Sequence[Message], before: int, after: int, where: Filter
    ) -> Plan[list[tuple[list[Message], list[Message]]]]:
        """What stands before and behind each anchor in its session."""
        places = yield from self.places(anchors)
        plans: list[Plan[Any]] = []
        for anchor in anchors:
            within, place = translate(session_filter(anchor, where)), _place(anchor, places)
            plans.append(self.rows(within, before, Bounds(before=place)))
            plans.append(self.rows(within, after, Bounds(after=place)))
        found = yield AtOnce(plans)
        sides = [[message for _, message in rows] for rows in found]
        return list(zip(sides[::2], sides[1::2], strict=True))

    def places(self, messages: Sequence[Message]) -> Plan[dict[str, Place]]:
        """Where the stored versions of messages stand, by the ids of their objects."""
        rows = yield from self.by_ids([uuid_of(message) for message in messages], PLACE)
        return {row.uuid: row.place for row in rows}

    def by_ids(self, uuids: Iterable[str], properties: Sequence[str]) -> Plan[list[Row]]:
        """Read objects by their ids, in any order."""
        ids = list(dict.fromkeys(uuids))
        found: list[Row] = []
        size = _FIRST_PAGE if BODY in properties else min(_IDS_AT_ONCE, self._most)
        while ids:
            group = ids[:size]
            try:
                reply = yield partial(
                    _fetch, filters=Native.by_id().contains_any(group), limit=len(group), properties=properties
                )
            except DRIVER_ERRORS as error:
                size = smaller(error, len(group))
                continue
            found += map(row_of, reply.objects)
            ids = ids[size:]
        return found

    def rows(
        self, wanted: Translation, limit: int | None, bounds: Bounds = _ALL, notes: list[str] | None = None
    ) -> Plan[list[tuple[Row, Message]]]:
        """Read what matches, with the messages themselves, in order.

        What the server lets through is compared here once more, page by page, until there is enough.

        Args:
            wanted: What matches.
            limit: At most so many.
            bounds: What part of the order is read.
            notes: Filled with the ids of notes of replacements that are going on, where the newest are read.
        """
        if wanted.never or limit == 0:
            return []
        found: list[tuple[Row, Message]] = []
        sloppy = not wanted.exact
        # What stands at a bound itself comes with the first page.
        enough = _FIRST_PAGE if limit is None or sloppy else limit + (bounds != _ALL)
        size = min(self._most, enough, _FIRST_PAGE)
        rows = Pages(wanted, bounds, (*PLACE, BODY), size, self._most, notes)
        page = yield from rows.next()
        while page is not None:
            pairs = [(row, row.message) for row in page]
            found += [pair for pair in pairs if wanted.where.matches(pair[1])]
            if limit is not None and len(found) >= limit:
                found = found[:limit]
                break
            missing = None if limit is None or sloppy else limit - len(found)
            page = yield from rows.next(missing)
        return found if bounds.after is not None else found[::-1]

    # --- counting and listing --------------------------------------------------------------------------------

    def count(self, where: Filter) -> Plan[int]:
        """Count what matches."""
        wanted = translate(where)
        if wanted.never:
            return 0
        if not wanted.exact:
            return len((yield from self.rows(wanted, None)))
        if not wanted.partial:
            counted: int | None = (yield partial(_count, filters=wanted.native())).total_count
            return counted or 0
        whole, partly = yield AtOnce(
            [ask(partial(_count, filters=wanted.native(each))) for each in (is_no_fact(PARTLY), is_fact(PARTLY))]
        )
        if not partly.total_count:
            return int(whole.total_count or 0)
        only = Translation(where, (*(wanted.clauses or ()), is_fact(PARTLY)), exact=False, partial=True)
        return int(whole.total_count or 0) + len((yield from self.rows(only, None)))

    def exactly(self, wanted: Translation) -> Plan[bool]:
        """Whether the server lets through nothing else than what matches."""
        if not wanted.exact or not wanted.partial:
            return wanted.exact
        return not (yield partial(_count, filters=wanted.native(is_fact(PARTLY)))).total_count

    def sessions(self, where: Filter) -> Plan[list[Session]]:
        """The sessions of what matches."""
        wanted = translate(where)
        if wanted.never:
            return []
        groups: dict[tuple[str | None, str | None], list[float]] = {}
        if (yield from self.exactly(wanted)):
            pages = Pages(wanted, _ALL, (*PLACE, USER_KEY, SESSION_KEY), min(1000, self._most), self._most)
            page = yield from pages.next()
            while page is not None:
                for row in page:
                    scope = (row.properties.get(USER_KEY) or None, row.properties.get(SESSION_KEY) or None)
                    groups.setdefault(scope, []).append(row.place[0])
                page = yield from pages.next()
        else:
            for row, message in (yield from self.rows(wanted, None)):
                groups.setdefault((message.user_id, message.session_id), []).append(row.place[0])
        found = [Session(*scope, len(times), min(times), max(times)) for scope, times in groups.items()]
        return latest_first(found)


class Pages:
    """Reads what a filter lets through, in order, page by page.

    The server gives no more than QUERY_MAXIMUM_RESULTS by offset, and its cursor takes no filter; so each page begins
    at the place where the last one ended.
    """

    def __init__(
        self,
        wanted: Translation,
        bounds: Bounds,
        properties: Sequence[str],
        size: int,
        most: int,
        notes: list[str] | None = None,
    ) -> None:
        """Begin at the bounds."""
        self._wanted = wanted
        self._bounds = bounds
        self._properties = properties
        self._size = size
        self._most = most
        self._seen: set[str] = set()
        self._cursor = bounds
        self._over = False
        # Notes stand behind all messages: the first page shows them.
        self._notes = notes if bounds == _ALL else None

    def next(self, missing: int | None = None) -> Plan[list[Row] | None]:
        """Read a page, of at most so many if that is given; None after the last."""
        if missing is not None:
            # The first of a page stands at the end of the last one.
            self._size = min(self._size, missing + 1)
        ascending = self._bounds.after is not None
        sort = Sort.by_property(TIMESTAMP, ascending=ascending).by_property(ARRIVAL, ascending=ascending)
        while not self._over:
            size = self._size
            native = self._wanted.native(*self._cursor.clauses())
            if self._notes is not None:
                native = Native.any_of([native, is_fact(REPLACING)])
            try:
                reply = yield partial(_fetch, filters=native, sort=sort, limit=size, properties=self._properties)
            except DRIVER_ERRORS as error:
                self._size = smaller(error, size)
                continue
            rows = [row_of(found) for found in reply.objects]
            self._over = len(rows) < size
            if self._notes is not None:
                self._notes += [row.uuid for row in rows if row.place[0] == NOTE_TIME]
                if self._notes:
                    rows = [row for row in rows if row.place[0] != NOTE_TIME]
                self._notes = None
            new = [row for row in rows if row.uuid not in self._seen]
            if not new:
                if not self._over and size >= self._most:
                    raise BackendError(
                        f"more than {size} messages have the same time and arrival: they cannot be paged"
                    )
                self._size = min(self._most, size * 2)
                continue
            self._size = self._next_size(rows, size)
            self._seen.update(row.uuid for row in new)
            new.sort(key=lambda row: row.place, reverse=not ascending)
            last = (*new[-1].place[:2], "")
            self._cursor = Bounds(self._bounds.before, last) if ascending else Bounds(last, self._bounds.after)
            within = [row for row in new if self._bounds.hold(row.place)]
            if within:
                return within
        return None

    def _next_size(self, rows: Sequence[Row], size: int) -> int:
        read = sum(len(text) for row in rows for text in row.properties.values() if isinstance(text, str))
        fitting = max(2, _PAGE_BYTES * max(1, len(rows)) // max(1, read))
        return min(self._most, fitting, size * 10)


def _place(anchor: Message, places: dict[str, Place]) -> Place:
    return places.get(uuid_of(anchor)) or (anchor.timestamp or 0.0, -1, "")


def _fetch(collection: Any, *, filters: Any, limit: int, properties: Sequence[str], sort: Any = None) -> Any:
    return collection.query.fetch_objects(
        filters=filters, limit=limit, sort=sort, return_properties=list(properties), return_metadata=[]
    )


def _count(collection: Any, *, filters: Any) -> Any:
    return collection.aggregate.over_all(filters=filters, total_count=True)


def smaller(error: Exception, size: int) -> int:
    """Half of a page that was too large to be sent; any other error is raised again."""
    if not is_too_large(error):
        raise error
    if size <= 1:
        raise BackendError(_TOO_LARGE_ALONE) from error
    return size // 2
