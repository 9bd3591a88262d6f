"""Reading the neighbours of many messages by one statement.

A statement for each side of each message would cost a round trip to the server each time. A message that is near
several others is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.off_the_loop import off_the_loop
from dynamiq_memory.backends._sql.reader import size_of
from dynamiq_memory.backends._sql.records import COLUMNS, LARGE, from_rows
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends.operations import AroundPage
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message

Window = tuple[list[Message], bool, bool]
_BEFORE, _AFTER = 0, 1
# What is left out of messages that do not fit.


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
        return [window for window, _, _ in self._windows(connection, filter, anchors, before, after)]

    def page(self, connection: sa.Connection, page: AroundPage) -> list[Window]:
        """Read neighbours up to a size, by one statement, which measures them before it reads them."""
        return self._windows(connection, page.filter, page.anchors, page.before, page.after, page.max_bytes)

    def _windows(
        self,
        connection: sa.Connection,
        filter: Filter,
        anchors: Sequence[Message],
        before: int,
        after: int,
        max_bytes: int | None = None,
    ) -> list[Window]:
        if not anchors:
            return []
        filters, scope, measured = self._tables.filters, single_scope(filter), max_bytes is not None
        parameters = {**filters.packed_anchors(anchors), **(scope or {}), "before": before, "after": after}
        if measured:
            parameters["max_bytes"] = max_bytes
        if scope is not None:
            names = tuple(scope)
            prepared = self._tables.prepared(
                ("around", names, measured), lambda: self._statement(self._in_scope(names), measured=measured)
            )
            rows = prepared.fetch(connection, parameters)
        else:
            statement = self._statement(filters.clauses(filter), measured=measured)
            rows = connection.execute(statement, parameters).fetchall()
        return off_the_loop(connection, lambda: _windows_of(rows, anchors, before, after), rows)

    def _in_scope(self, names: Sequence[str]) -> list[sa.ColumnElement[bool]]:
        return [self._tables.messages.c[key] == sa.bindparam(key, type_=sa.Text) for key in names]

    def _statement(self, clauses: Sequence[sa.ColumnElement[bool]], *, measured: bool) -> sa.Select[Any]:
        """A SELECT of the messages near anchors, in order, each with the places where it belongs, and whether it fits.

        A place is twice the number of an anchor, plus one for the messages after it.
        """
        messages = self._tables.messages
        anchors = self._anchors()
        near = sa.union_all(
            *(self._beside(anchors, clauses, side) for side in (_BEFORE, _AFTER)),
        ).subquery("near")
        concatenate = getattr(sa.func, self._tables.filters.concatenate)
        places = concatenate(sa.cast(near.c.place, sa.Text), sa.literal_column("','")).label("places")
        first = sa.func.min(near.c.place).label("first")
        grouped = sa.select(near.c.seq, places, first).group_by(near.c.seq).subquery("grouped")
        found = messages.alias("found")
        columns: list[sa.ColumnElement[Any]] = [sa.literal_column("1"), *(found.c[name] for name in COLUMNS)]
        if measured:
            fitting = self._fitting(grouped)
            fits = fitting.c.total <= sa.bindparam("max_bytes", type_=sa.BigInteger)
            columns = [sa.case((fits, 1), else_=0)]
            columns += (sa.case((fits, found.c[name])) if name in LARGE else found.c[name] for name in COLUMNS)
            grouped = fitting
        statement = sa.select(grouped.c.places, *columns)
        statement = statement.join_from(grouped, found, found.c.seq == grouped.c.seq)
        return statement.order_by(found.c.timestamp, found.c.seq)

    def _fitting(self, grouped: sa.Subquery) -> sa.Subquery:
        """Add to each message the size of all up to it: of earlier places, and of those that are nearer.

        A message that is too large by itself keeps no others from being read.
        """
        near, most = self._tables.messages.alias("measured"), sa.bindparam("max_bytes", type_=sa.BigInteger)
        is_later = grouped.c.first % 2 == _AFTER
        nearest_first = (sa.case((is_later, each), else_=-each) for each in (near.c.timestamp, near.c.seq))
        size = size_of(near).element
        before = sa.func.sum(sa.case((size <= most, size), else_=0)).over(
            order_by=(grouped.c.first, *nearest_first), rows=(None, 0)
        )
        total = sa.case((size <= most, before), else_=size).label("total")
        statement = sa.select(grouped.c.seq, grouped.c.places, total)
        return statement.join_from(grouped, near, near.c.seq == grouped.c.seq).subquery("fitting")

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


def _windows_of(rows: Sequence[Any], anchors: Sequence[Message], before: int, after: int) -> list[Window]:
    """Make windows of the rows of `NeighbourReader._statement`."""
    messages = iter(from_rows([row[2:] for row in rows if row[1]]))
    # Each side, in order; None is a message that does not fit.
    windows: list[tuple[list[Message | None], list[Message | None]]] = [([], []) for _ in anchors]
    for row in rows:
        message = next(messages) if row[1] else None
        for place in row[0].split(","):
            number, side = divmod(int(place), 2)
            windows[number][side].append(message)
    return [_joined(anchor, *sides, before, after) for anchor, sides in zip(anchors, windows, strict=True)]


def _joined(
    anchor: Message,
    earlier: Sequence[Message | None],
    later: Sequence[Message | None],
    before: int,
    after: int,
) -> Window:
    """Join both sides of an anchor, each up to the first message that does not fit; and whether there may be more."""
    near_earlier, near_later = _fitting(reversed(earlier))[::-1], _fitting(later)
    more_earlier = 0 < before == len(earlier) or len(near_earlier) < len(earlier)
    more_later = 0 < after == len(later) or len(near_later) < len(later)
    return [*near_earlier, anchor, *near_later], more_earlier, more_later


def _fitting(messages: Iterable[Message | None]) -> list[Message]:
    fitting: list[Message] = []
    for message in messages:
        if message is None:
            break
        fitting.append(message)
    return fitting
