"""The objects of a collection: read in order or by their ids, and deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from weaviate.classes.query import Filter as ServerFilter
from weaviate.classes.query import FilterReturn

from dynamiq_memory.backends._batches import batched
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.filters import PARTLY, REPLACING, Translation, has_fact
from dynamiq_memory.backends.weaviate.records import Position, Row
from dynamiq_memory.backends.weaviate.schema import ARRIVAL, BODY, POSITION, TIMESTAMP
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.messages import LATEST

IDS_AT_ONCE = 1000
WHOLE = (*POSITION, BODY)
# A note of a replacement sorts after all messages, so that every read of the newest messages finds it.
NOTE_TIME = LATEST * 2
# The first page is small, since messages may be large; later ones are as large as approximately this many bytes take.
_FIRST_PAGE = 100
_PAGE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """A part of the order of messages.

    Attributes:
        before: Only positions before this one.
        after: Only positions after this one. Then the earliest come first, otherwise the latest.
    """

    before: Position | None = None
    after: Position | None = None

    def contain(self, position: Position) -> bool:
        """Whether a position is within the bounds."""
        return (self.before is None or position < self.before) and (self.after is None or position > self.after)

    def clauses(self) -> list[FilterReturn]:
        """Conditions for the server, which objects of the same time and arrival as a bound meet too."""
        time, arrival = ServerFilter.by_property(TIMESTAMP), ServerFilter.by_property(ARRIVAL)
        sides = [
            (self.before, time.less_than, arrival.less_or_equal),
            (self.after, time.greater_than, arrival.greater_or_equal),
        ]
        return [
            ServerFilter.any_of([beyond(bound[0]), ServerFilter.all_of([time.equal(bound[0]), up_to(bound[1])])])
            for bound, beyond, up_to in sides
            if bound is not None
        ]


EVERYTHING = Bounds()


class Objects:
    """Makes the plans that read and delete objects.

    Args:
        max_results: How many results the server returns at once, its QUERY_MAXIMUM_RESULTS.
        location: The collection, for errors.
    """

    def __init__(self, max_results: int, location: str) -> None:
        """Keep the settings."""
        self.max_results = max_results
        self.location = location

    def by_ids(self, uuids: Iterable[str], properties: Sequence[str]) -> Plan[list[Row]]:
        """Read objects by their ids, in any order."""
        ids = list(dict.fromkeys(uuids))
        found: list[Row] = []

        def request(size: int) -> Plan[list[Row]]:
            return requests.fetch(ServerFilter.by_id().contains_any(ids[:size]), properties, size)

        size = self._first_page(properties)
        while ids:
            page, size = yield from requests.read_page(request, min(size, len(ids)))
            found += page
            ids = ids[size:]
        return found

    def matching(
        self,
        wanted: Translation,
        limit: int | None = None,
        bounds: Bounds = EVERYTHING,
        *,
        properties: Sequence[str] = WHOLE,
        notes: list[str] | None = None,
    ) -> Plan[list[Row]]:
        """Read objects of messages that match, in order.

        The server returns at most QUERY_MAXIMUM_RESULTS by offset, and its cursor allows no filter. So each page begins
        at the position where the previous one ended. Whole messages are compared with the filter in this process, too,
        until there are enough.

        Args:
            wanted: The filter; it must match exactly if the bodies are not read.
            limit: Maximum number of objects; None for all.
            bounds: The part of the order that is read.
            properties: The properties to read.
            notes: Receives the ids of the notes of replacements in progress.
        """
        if limit == 0:
            return []
        ascending = bounds.after is not None
        found: list[Row] = []
        seen: set[str] = set()
        cursor, is_last = bounds, False
        size = self._first_page(properties)
        if limit is not None and wanted.exact:
            # The object at a bound comes with the page.
            size = min(size, limit + (bounds != EVERYTHING))
        while not is_last and (limit is None or len(found) < limit):
            clause = wanted.clause(*cursor.clauses())
            if notes is not None:
                clause = ServerFilter.any_of([clause, has_fact(REPLACING)])
            request = partial(requests.fetch, clause, properties, ascending=ascending)
            page, size = yield from requests.read_page(request, size)
            is_last = len(page) < size
            if notes is not None:
                notes += [row.uuid for row in page if row.position[0] == NOTE_TIME]
                page = [row for row in page if row.position[0] != NOTE_TIME]
                notes = None
            new = sorted(
                (row for row in page if row.uuid not in seen), key=lambda row: row.position, reverse=not ascending
            )
            if not new:
                if not is_last and size >= self.max_results:
                    raise BackendError(
                        f"{self.location}: more than {size} messages have the same time and arrival: they cannot be "
                        "paged"
                    )
                size = min(self.max_results, size * 2)
                continue
            seen.update(row.uuid for row in new)
            end = (*new[-1].position[:2], "")
            cursor = Bounds(bounds.before, end) if ascending else Bounds(end, bounds.after)
            found += [row for row in new if bounds.contain(row.position) and _matches(row, wanted)]
            size = self._next_page(page, size)
            if limit is not None and wanted.exact:
                size = min(size, max(1, limit - len(found)) + 1)
        return found[:limit] if ascending else found[:limit][::-1]

    def match_exactly(self, wanted: Translation) -> Plan[bool]:
        """Whether all objects that meet the conditions for the server match the filter."""
        if not wanted.exact or not wanted.partial:
            return wanted.exact
        return not (yield from requests.count(wanted.clause(has_fact(PARTLY))))

    def delete_ids(self, uuids: Sequence[str]) -> Plan[int]:
        """Delete objects by their ids and return how many there were."""
        deleted = 0
        for group in batched(uuids, IDS_AT_ONCE):
            deleted += yield from self.delete_matching(ServerFilter.by_id().contains_any(group))
        return deleted

    def delete_matching(self, clause: FilterReturn) -> Plan[int]:
        """Delete all objects that meet a condition and return how many there were."""
        deleted = 0
        while True:
            reply = yield from requests.delete(clause)
            deleted += reply.successful
            if reply.failed:
                raise BackendError(
                    f"{self.location}: {deleted} messages were deleted, {reply.failed} could not be: try again"
                )
            if not reply.matches:
                return deleted

    def _first_page(self, properties: Sequence[str]) -> int:
        return min(self.max_results, _FIRST_PAGE if BODY in properties else IDS_AT_ONCE)

    def _next_page(self, page: Sequence[Row], size: int) -> int:
        read = sum(len(text) for row in page for text in row.properties.values() if isinstance(text, str))
        fitting = max(2, _PAGE_BYTES * max(1, len(page)) // max(1, read))
        return min(self.max_results, fitting, size * 10)


def _matches(row: Row, wanted: Translation) -> bool:
    return BODY not in row.properties or wanted.filter.matches(row.message)
