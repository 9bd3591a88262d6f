"""Reading the neighbours of many messages by one statement.

A statement for each side of each message would cost a round trip to the server each time. A message that is near
several others is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.off_the_loop import messages_of
from dynamiq_memory.backends._sql.records import COLUMNS
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message

_BEFORE, _AFTER = 0, 1


class NeighbourReader:
    """Reads the neighbours of messages.

    Args:
        tables: The tables of the store.
    """

    def __init__(self, tables: SQLTables) -> None:
        """Compile nothing yet."""
        self._tables = tables

    def around(
        self, connection: sa.Connection, filter: Filter, anchors: Sequence[Message], before: int, after: int
    ) -> list[list[Message]]:
        """Read neighbours as `MemoryBackend.around` promises."""
        if not anchors:
            return []
        filters, scope = self._tables.filters, single_scope(filter)
        parameters = {**filters.packed_anchors(anchors), **(scope or {}), "before": before, "after": after}
        if scope is not None:
            names = tuple(scope)
            statement = self._tables.prepared(("around", names), lambda: self._statement(self._in_scope(names)))
            rows = statement.fetch(connection, parameters)
        else:
            rows = connection.execute(self._statement(filters.clauses(filter)), parameters).fetchall()
        windows: list[tuple[list[Message], list[Message]]] = [([], []) for _ in anchors]
        for row, message in zip(rows, messages_of(connection, [row[1:] for row in rows]), strict=True):
            for place in row[0].split(","):
                number, side = divmod(int(place), 2)
                windows[number][side].append(message)
        return [[*earlier, anchor, *later] for anchor, (earlier, later) in zip(anchors, windows, strict=True)]

    def _in_scope(self, names: Sequence[str]) -> list[sa.ColumnElement[bool]]:
        return [self._tables.messages.c[key] == sa.bindparam(key, type_=sa.Text) for key in names]

    def _statement(self, clauses: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
        """A SELECT of the messages near anchors, in order, each with the places where it belongs.

        A place is twice the number of an anchor, plus one for the messages after it.
        """
        messages = self._tables.messages
        anchors = self._anchors()
        near = sa.union_all(
            *(self._beside(anchors, clauses, side) for side in (_BEFORE, _AFTER)),
        ).subquery("near")
        concatenate = getattr(sa.func, self._tables.filters.concatenate)
        places = concatenate(sa.cast(near.c.place, sa.Text), sa.literal_column("','")).label("places")
        grouped = sa.select(near.c.seq, places).group_by(near.c.seq).subquery("grouped")
        found = messages.alias("found")
        statement = sa.select(grouped.c.places, *(found.c[name] for name in COLUMNS))
        statement = statement.join_from(grouped, found, found.c.seq == grouped.c.seq)
        return statement.order_by(found.c.timestamp, found.c.seq)

    def _anchors(self) -> sa.CTE:
        """Where anchors are in their sessions. One that has been deleted since it was read is where its time is."""
        anchors, stored = self._tables.filters.anchors(), self._tables.messages.alias("stored")
        same = sa.and_(*(stored.c[name] == anchors.c[name] for name in ("user_id", "session_id", "id")))
        return (
            sa.select(
                anchors.c.number,
                anchors.c.user_id,
                anchors.c.session_id,
                sa.func.coalesce(stored.c.timestamp, anchors.c.timestamp).label("timestamp"),
                sa.func.coalesce(stored.c.seq, sa.literal_column("-1")).label("seq"),
            )
            .select_from(anchors.outerjoin(stored, same))
            .cte("anchors_stored")
        )

    def _beside(self, anchors: sa.CTE, clauses: Sequence[sa.ColumnElement[bool]], side: int) -> sa.Select[Any]:
        """A SELECT of the places on one side of all anchors, and of the messages that belong there, by `seq`."""
        messages = self._tables.messages
        time, seq = messages.c.timestamp, messages.c.seq
        order: Sequence[sa.ColumnElement[Any]]
        # Written so that an index on the timestamp bounds the read.
        if side == _AFTER:
            beyond = (time >= anchors.c.timestamp) & ((time > anchors.c.timestamp) | (seq > anchors.c.seq))
            order, limit = (time, seq), "after"
        else:
            beyond = (time <= anchors.c.timestamp) & ((time < anchors.c.timestamp) | (seq < anchors.c.seq))
            order, limit = (time.desc(), seq.desc()), "before"
        nearest = sa.select(seq).where(
            messages.c.user_id == anchors.c.user_id, messages.c.session_id == anchors.c.session_id, beyond, *clauses
        )
        nearest = nearest.order_by(*order).limit(sa.bindparam(limit, type_=sa.BigInteger))
        source, number = self._tables.filters.each(anchors, nearest)
        return sa.select((anchors.c.number * 2 + side).label("place"), number.label("seq")).select_from(source)
