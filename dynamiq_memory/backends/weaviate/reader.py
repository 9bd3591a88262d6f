"""Reading in order, counting, and listing sessions."""

from __future__ import annotations

from collections.abc import Sequence

from dynamiq_memory.backends._order import session_filter, sessions_of
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.filters import MESSAGE, has_fact, translate
from dynamiq_memory.backends.weaviate.objects import Bounds, Objects
from dynamiq_memory.backends.weaviate.records import Position, messages_of, uuid_of
from dynamiq_memory.backends.weaviate.replacements import heal
from dynamiq_memory.backends.weaviate.requests import AtOnce
from dynamiq_memory.backends.weaviate.schema import BODY, DIMENSION, POSITION
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

_IN_SESSION = (*POSITION, USER_KEY, SESSION_KEY)


class Reader(Objects):
    """Makes the plans that read."""

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
        changed, _ = yield from heal(self, notes)
        if changed:
            rows = yield from self.matching(wanted, limit, bounds)
        return messages_of(rows)

    def around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> Plan[list[list[Message]]]:
        """Read neighbours as `MemoryBackend.around` promises."""
        positions = yield from self._positions(anchors)
        plans = []
        for anchor in anchors:
            session, position = translate(session_filter(anchor, filter)), positions[uuid_of(anchor)]
            plans.append(self.matching(session, before, Bounds(before=position)))
            plans.append(self.matching(session, after, Bounds(after=position)))
        sides = [messages_of(rows) for rows in (yield from AtOnce(plans))]
        return [
            [*earlier, anchor, *later] for earlier, anchor, later in zip(sides[::2], anchors, sides[1::2], strict=True)
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
        rows = yield from self.matching(wanted, properties=_IN_SESSION if exact else (*_IN_SESSION, BODY))
        return sessions_of((row.scope, row.position[0]) for row in rows)

    def _positions(self, anchors: Sequence[Message]) -> Plan[dict[str, Position]]:
        """The positions of messages by the ids of their objects; of one that is not stored, where its time is."""
        rows = yield from self.by_ids(map(uuid_of, anchors), POSITION)
        unstored: dict[str, Position] = {uuid_of(each): (each.timestamp or 0.0, -1, "") for each in anchors}
        return unstored | {row.uuid: row.position for row in rows}
