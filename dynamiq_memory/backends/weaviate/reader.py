"""Reading in order, counting, and listing sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dynamiq_memory.backends._order import session_filter, sessions_of
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.filters import MESSAGE, PARTLY, has_fact, lacks_fact, translate
from dynamiq_memory.backends.weaviate.objects import Bounds, Objects
from dynamiq_memory.backends.weaviate.records import Position, Row, uuid_of
from dynamiq_memory.backends.weaviate.replacements import heal
from dynamiq_memory.backends.weaviate.requests import AtOnce
from dynamiq_memory.backends.weaviate.schema import DIMENSION, POSITION
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, Session, scope_of, views


class Reader:
    """Makes the plans that read.

    Args:
        objects: Reads objects.
    """

    def __init__(self, objects: Objects) -> None:
        """Keep the reader of objects."""
        self._objects = objects

    def read(
        self, filter: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> Plan[list[Message]]:
        """Read messages as `MemoryBackend.get_all` promises."""
        anchors = [anchor for anchor in (before, after) if anchor is not None]
        positions = yield from self._positions(anchors)
        bounds = Bounds(
            None if before is None else positions[uuid_of(before)], None if after is None else positions[uuid_of(after)]
        )
        wanted = translate(filter)
        notes: list[str] = []
        rows = yield from self._objects.matching(wanted, limit, bounds, notes=notes)
        if notes and (yield from heal(self._objects, notes)):
            rows = yield from self._objects.matching(wanted, limit, bounds)
        return _messages(rows)

    def around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> Plan[list[list[Message]]]:
        """Read neighbours as `MemoryBackend.around` promises."""
        positions = yield from self._positions(anchors)
        plans = []
        for anchor in anchors:
            session, position = translate(session_filter(anchor, filter)), positions[uuid_of(anchor)]
            plans.append(self._objects.matching(session, before, Bounds(before=position)))
            plans.append(self._objects.matching(session, after, Bounds(after=position)))
        sides = [_messages(rows) for rows in (yield from AtOnce(plans))]
        return [
            [*earlier, anchor, *later] for earlier, anchor, later in zip(sides[::2], anchors, sides[1::2], strict=True)
        ]

    def is_empty(self) -> Plan[bool]:
        """Find out whether the collection contains a message at all."""
        return not (yield from requests.fetch(has_fact(MESSAGE), 1, [DIMENSION]))

    def count(self, filter: Filter) -> Plan[int]:
        """Count messages that match."""
        wanted = translate(filter)
        if wanted.clauses is None:
            return 0
        if not wanted.exact:
            return len((yield from self._objects.matching(wanted)))
        if not wanted.partial:
            return (yield from requests.count(wanted.clause()))
        whole, partly = yield from AtOnce(
            [requests.count(wanted.clause(each)) for each in (lacks_fact(PARTLY), has_fact(PARTLY))]
        )
        if partly:
            only = replace(wanted, clauses=(*wanted.clauses, has_fact(PARTLY)), exact=False)
            partly = len((yield from self._objects.matching(only)))
        return whole + partly

    def sessions(self, filter: Filter) -> Plan[list[Session]]:
        """List the sessions of messages that match."""
        wanted = translate(filter)
        if wanted.never:
            return []
        if (yield from self._objects.match_exactly(wanted)):
            return sessions_of((yield from self._objects.times(wanted)))
        rows = yield from self._objects.matching(wanted)
        return sessions_of((scope_of(row.message), row.position[0]) for row in rows)

    def _positions(self, anchors: Sequence[Message]) -> Plan[dict[str, Position]]:
        """The positions of messages by the ids of their objects; of one that is not stored, where its time is."""
        rows = yield from self._objects.by_ids(map(uuid_of, anchors), POSITION)
        unstored: dict[str, Position] = {uuid_of(each): (each.timestamp or 0.0, -1, "") for each in anchors}
        return unstored | {row.uuid: row.position for row in rows}


def _messages(rows: Sequence[Row]) -> list[Message]:
    return views(row.message for row in rows)
