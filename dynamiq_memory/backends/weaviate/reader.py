"""Reading objects in order or by their ids, counting, listing sessions, and deleting; healing replacements."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter

from weaviate.classes.query import Filter as ServerFilter
from weaviate.classes.query import FilterReturn

from dynamiq_memory._batches import batched
from dynamiq_memory.backends._order import session_filter, sessions_of
from dynamiq_memory.backends._windows import alone, grouped, most_between, sides
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.filters import MESSAGE, PARTLY, REPLACING, Translation, has_fact, translate
from dynamiq_memory.backends.weaviate.records import NOTE_TIME, Note, Position, Row, messages_of, uuid_of
from dynamiq_memory.backends.weaviate.requests import AtOnce
from dynamiq_memory.backends.weaviate.schema import ARRIVAL, BODY, DIMENSION, IN_SESSION, POSITION, TIMESTAMP
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, Session

IDS_AT_ONCE = 1000
WHOLE = (*POSITION, BODY)
# The first page is small, since messages may be large; later ones are as large as approximately this many bytes take.
_FIRST_PAGE = 100
_PAGE_BYTES = 8 * 1024 * 1024
# A writer that has not finished after this many seconds has died.
_SECONDS_TO_FINISH = 600.0
_POSITION = attrgetter("position")
# Ids are written in hexadecimal digits.
_AFTER_IDS = "g"


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


class Reader:
    """Makes the plans that read and delete objects.

    Args:
        max_results: How many results the server returns at once, its QUERY_MAXIMUM_RESULTS.
        location: The collection, for errors.
    """

    def __init__(self, max_results: int, location: str) -> None:
        """Keep the settings."""
        self.max_results = max_results
        self.location = location

    # --- messages --------------------------------------------------------------------------------------------

    def read(
        self, filter: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> Plan[list[Message]]:
        """Read messages as `MemoryBackend.get_all` promises."""
        positions = yield from self._positions([anchor for anchor in (before, after) if anchor is not None])
        bounds = Bounds(
            None if before is None else positions[uuid_of(before)], None if after is None else positions[uuid_of(after)]
        )
        wanted = translate(filter)
        notes: list[str] = []
        rows = yield from self.matching(wanted, limit, bounds, notes=notes)
        changed, _ = yield from self.heal(notes)
        if changed:
            rows = yield from self.matching(wanted, limit, bounds)
        return messages_of(rows)

    def around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> Plan[list[list[Message]]]:
        """Read neighbours as `MemoryBackend.around` promises."""
        positions = yield from self._positions(anchors)
        windows: list[list[Message]] = [[] for _ in anchors]
        groups = grouped(anchors)
        while groups:
            bounds = [[positions[uuid_of(anchors[number])] for number in group] for group in groups]
            sessions = [translate(session_filter(anchors[group[0]], filter)) for group in groups]
            lines = yield from self._lines(list(zip(sessions, bounds, strict=True)), before, after)
            far: list[int] = []
            for group, places, line in zip(groups, bounds, lines, strict=True):
                if line is None:
                    far += group
                    continue
                for number, place in zip(group, places, strict=True):
                    earlier, later = map(messages_of, sides(line, place, _POSITION, before, after))
                    windows[number] = [*earlier, anchors[number], *later]
            groups = alone(far)
        return windows

    def _lines(
        self, parts: Sequence[tuple[Translation, Sequence[Position]]], before: int, after: int
    ) -> Plan[list[list[Row] | None]]:
        """Read parts of sessions: from the first to the last of some positions, and some messages before and after.

        Returns:
            Each part in order; None for one of which too much is between the positions: read each by itself.
        """
        plans, most = [], []
        for session, positions in parts:
            low, high = min(positions), max(positions)
            most.append(most_between(positions, before, after))
            if most[-1]:  # the first and the last belong to what is between
                low, high = (*low[:2], ""), (*high[:2], _AFTER_IDS)
            plans += [
                self.matching(session, before, Bounds(before=low)),
                self.matching(session, most[-1] and most[-1] + 1, Bounds(high, low)),
                self.matching(session, after, Bounds(after=high)),
            ]
        rows = yield from AtOnce(plans)
        return [
            None if len(rows[start + 1]) > limit else [*chain.from_iterable(rows[start : start + 3])]
            for start, limit in zip(range(0, len(rows), 3), most, strict=True)
        ]

    def is_empty(self) -> Plan[bool]:
        """Find out whether the collection contains a message at all."""
        return not (yield from requests.fetch(has_fact(MESSAGE), [DIMENSION], 1))

    def count(self, filter: Filter) -> Plan[int]:
        """Count messages that match."""
        wanted = translate(filter)
        if (yield from self.match_exactly(wanted)):
            return (yield from requests.count(wanted.clause()))
        return len((yield from self.matching(wanted)))

    def sessions(self, filter: Filter) -> Plan[list[Session]]:
        """List the sessions of messages that match."""
        wanted = translate(filter)
        exact = yield from self.match_exactly(wanted)
        rows = yield from self.matching(wanted, properties=IN_SESSION if exact else (*IN_SESSION, BODY))
        return sessions_of((row.scope, row.position[0]) for row in rows)

    def _positions(self, anchors: Sequence[Message]) -> Plan[dict[str, Position]]:
        """The positions of messages by the ids of their objects; of one that is not stored, where its time is."""
        rows = yield from self.by_ids(map(uuid_of, anchors), POSITION)
        unstored: dict[str, Position] = {uuid_of(each): (each.timestamp or 0.0, -1, "") for each in anchors}
        return unstored | {row.uuid: row.position for row in rows}

    # --- objects ---------------------------------------------------------------------------------------------

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

    def heal(self, uuids: Sequence[str]) -> Plan[tuple[bool, list[Note]]]:
        """Finish replacements that were interrupted, or take them back.

        Args:
            uuids: The ids of their notes.

        Returns:
            Whether anything changed, and the notes of the replacements that are still in progress.
        """
        changed, in_progress = False, []
        for row in (yield from self.by_ids(uuids, WHOLE)):
            note = Note(**json.loads(row.properties[BODY]))
            stored = {each.uuid: each.position[1] for each in (yield from self.by_ids(note.new, POSITION))}
            # An object of the same id may be the version before; the new one has another arrival.
            if note.new.items() <= stored.items():
                doomed = note.old
            elif time.time() - note.at > _SECONDS_TO_FINISH:
                doomed = note.fresh
            else:
                in_progress.append(note)
                continue
            found = yield from self.by_ids(doomed, POSITION)
            yield from self.delete_ids([*(each.uuid for each in found if each.position[1] <= note.until), row.uuid])
            changed = True
        return changed, in_progress

    def _first_page(self, properties: Sequence[str]) -> int:
        return min(self.max_results, _FIRST_PAGE if BODY in properties else IDS_AT_ONCE)

    def _next_page(self, page: Sequence[Row], size: int) -> int:
        read = sum(len(text) for row in page for text in row.properties.values() if isinstance(text, str))
        fitting = max(2, _PAGE_BYTES * max(1, len(page)) // max(1, read))
        return min(self.max_results, fitting, size * 10)


def _matches(row: Row, wanted: Translation) -> bool:
    return BODY not in row.properties or wanted.filter.matches(row.message)
