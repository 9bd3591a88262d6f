"""Reading messages, within a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._order import latest_first
from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.off_the_loop import messages_of
from dynamiq_memory.backends._sql.records import COLUMNS, LARGE
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends.operations import ReadPage
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

_NO_LIMIT = 2**62
_BEFORE, _AFTER = "before", "after"


class SQLReader:
    """Reads the messages of a store."""

    def __init__(self, tables: SQLTables) -> None:
        """Compile nothing yet."""
        self._tables = tables

    def read(
        self,
        connection: sa.Connection,
        filter: Filter,
        limit: int | None = None,
        before: Message | None = None,
        after: Message | None = None,
    ) -> list[Message]:
        """Read messages as `MemoryBackend.get_all` promises."""
        names, parameters = _parameters(filter, limit, before, after)
        if single_scope(filter) is not None:
            statement = self._tables.prepared(("read", names), lambda: _messages(self._tables, names))
            rows = statement.fetch(connection, parameters)
        else:
            clauses = self._tables.filters.clauses(filter)
            rows = connection.execute(_messages(self._tables, names).where(*clauses), parameters).fetchall()
        return messages_of(connection, rows[::-1] if after is None else rows)

    def read_page(self, connection: sa.Connection, page: ReadPage) -> tuple[list[Message], bool]:
        """Read a page of messages by one statement, which measures them before it reads them."""
        names, parameters = _parameters(page.filter, page.limit + 1, page.before, page.after)
        parameters["max_bytes"] = page.max_bytes
        if single_scope(page.filter) is not None:
            statement = self._tables.prepared(("page", names), lambda: _within_size(self._tables, names))
            rows = statement.fetch(connection, parameters)
        else:
            clauses = self._tables.filters.clauses(page.filter)
            rows = connection.execute(_within_size(self._tables, names, clauses), parameters).fetchall()
        found = messages_of(connection, [row[1:] for row in (rows[::-1] if page.after is None else rows)])
        messages, more = page.page_of(found, page.limit)
        return messages, more or (bool(rows) and rows[0][0] > len(rows))

    def by_seq(
        self, connection: sa.Connection, numbers: Sequence[int], max_bytes: int | None = None
    ) -> Mapping[int, Message]:
        """Read messages by their numbers of arrival: all, or the first of them up to a size."""
        if not numbers:
            return {}
        measured = max_bytes is not None
        statement = self._tables.prepared(("by number", measured), lambda: numbered(self._tables, measured=measured))
        parameters = {"numbers": self._tables.filters.packed(numbers), "max_bytes": max_bytes}
        return messages_by_number(connection, statement.fetch(connection, parameters))

    def count(self, connection: sa.Connection, filter: Filter) -> int:
        """Count matching messages."""
        statement = sa.select(sa.func.count()).select_from(self._tables.messages)
        return int(connection.execute(statement.where(*self._tables.filters.clauses(filter))).scalar_one())

    def sessions(self, connection: sa.Connection, filter: Filter) -> list[Session]:
        """List the sessions of matching messages, the most recently used first."""
        columns, clauses = self._tables.messages.c, self._tables.filters.clauses(filter)
        scope, time = (columns.user_id, columns.session_id), columns.timestamp
        statement = sa.select(*scope, sa.func.count(), sa.func.min(time), sa.func.max(time))
        rows = connection.execute(statement.where(*clauses).group_by(*scope)).fetchall()
        return latest_first(Session(user or None, session or None, *numbers) for user, session, *numbers in rows)


def messages_by_number(connection: sa.Connection, rows: Sequence[Sequence[Any]]) -> Mapping[int, Message]:
    """Build messages from rows of `numbered`, those that fit."""
    rows = [row for row in rows if row[1]]
    return dict(zip([row[0] for row in rows], messages_of(connection, [row[2:] for row in rows]), strict=True))


def _parameters(
    filter: Filter, limit: int | None, before: Message | None, after: Message | None
) -> tuple[frozenset[str], dict[str, Any]]:
    """The parameters of a statement, and their names by which it is compiled."""
    scope = single_scope(filter)
    parameters: dict[str, Any] = {**(scope or {}), "limit": _NO_LIMIT if limit is None else limit}
    names = set(scope or ())
    for side, anchor in ((_BEFORE, before), (_AFTER, after)):
        if anchor is not None:
            names.add(side)
            parameters[f"{side}_user"] = anchor.user_id or ""
            parameters[f"{side}_session"] = anchor.session_id or ""
            parameters[f"{side}_id"] = anchor.id
            parameters[f"{side}_time"] = anchor.timestamp or 0.0
    return frozenset(names), parameters


def numbered(tables: SQLTables, *, measured: bool) -> sa.Select[Any]:
    """A SELECT of messages by their numbers of arrival: this number, whether the message fits, and `COLUMNS`.

    Args:
        tables: The tables.
        measured: Whether those fit that begin before the parameter `max_bytes`, in the order of the numbers, and others
            have no content. Otherwise all fit.
    """
    messages, filters = tables.messages, tables.filters
    if not measured:
        every: sa.ColumnElement[Any] = sa.literal_column("1")
        return sa.select(messages.c.seq, every, *tables.columns).where(filters.among(messages.c.seq, name="numbers"))
    listed, near = filters.listed("numbers"), messages.alias("near")
    size = size_of(near).element
    earlier = sa.func.sum(size).over(order_by=listed.c.place, rows=(None, 0)) - size
    placed = sa.select(near.c.seq, earlier.label("earlier")).join_from(listed, near, near.c.seq == listed.c.value)
    measuring = placed.subquery("placed")
    fits = measuring.c.earlier < sa.bindparam("max_bytes", type_=sa.BigInteger)
    columns = (sa.case((fits, messages.c[name])) if name in LARGE else messages.c[name] for name in COLUMNS)
    statement = sa.select(messages.c.seq, sa.case((fits, 1), else_=0), *columns)
    return statement.join_from(measuring, messages, messages.c.seq == measuring.c.seq)


def _messages(tables: SQLTables, names: frozenset[str]) -> sa.Select[Any]:
    """A SELECT of messages with those parameters of user_id, session_id, before and after that are named."""
    return _chosen(tables, tables.columns, names)


def _within_size(
    tables: SQLTables, names: frozenset[str], clauses: Sequence[sa.ColumnElement[bool]] = ()
) -> sa.Select[Any]:
    """A SELECT of the first of these messages, up to a size; each with the number of all."""
    messages = tables.messages
    columns = (messages.c.seq, messages.c.timestamp, size_of(messages))
    measured = _chosen(tables, columns, names).where(*clauses).cte("measured")
    earlier = sa.func.sum(measured.c.size).over(order_by=_order(measured, names), rows=(None, 0)) - measured.c.size
    placed = sa.select(measured.c.seq, earlier.label("earlier")).cte("placed")
    total = sa.select(sa.func.count()).select_from(measured).scalar_subquery()
    found = messages.alias("found")
    statement = sa.select(total, *(found.c[name] for name in COLUMNS)).join_from(
        placed, found, found.c.seq == placed.c.seq
    )
    statement = statement.where(placed.c.earlier < sa.bindparam("max_bytes", type_=sa.BigInteger))
    return statement.order_by(*_order(found, names))


def size_of(messages: sa.FromClause) -> sa.Label[int]:
    """The size of a message, in characters."""
    size = sum(sa.func.coalesce(sa.func.length(messages.c[name]), 0) for name in ("content", "metadata", "extra"))
    return sa.type_coerce(size, sa.BigInteger).label("size")


def _chosen(tables: SQLTables, columns: Sequence[sa.ColumnElement[Any]], names: frozenset[str]) -> sa.Select[Any]:
    messages = tables.messages
    statement: sa.Select[Any] = sa.select(*columns)
    for key in (USER_KEY, SESSION_KEY):
        if key in names:
            statement = statement.where(messages.c[key] == sa.bindparam(key, type_=sa.Text))
    for side in (_BEFORE, _AFTER):
        if side in names:
            statement = statement.where(_beside(messages, side))
    statement = statement.order_by(*_order(messages, names))
    return statement.limit(sa.bindparam("limit", type_=sa.BigInteger))


def _order(table: sa.FromClause, names: frozenset[str]) -> list[sa.ColumnElement[Any]]:
    order = (table.c.timestamp, table.c.seq)
    return [column if _AFTER in names else column.desc() for column in order]


def _beside(messages: sa.Table, side: str) -> sa.ColumnElement[bool]:
    """Whether a message comes before or after an anchor, which may have been deleted since it was read."""
    anchor = messages.alias(f"{side}_anchor")
    stored = (
        (anchor.c.user_id == sa.bindparam(f"{side}_user", type_=sa.Text))
        & (anchor.c.session_id == sa.bindparam(f"{side}_session", type_=sa.Text))
        & (anchor.c.id == sa.bindparam(f"{side}_id", type_=sa.Text))
    )
    stored_time, stored_seq = (
        sa.select(anchor.c[name]).where(stored).scalar_subquery() for name in ("timestamp", "seq")
    )
    time = sa.func.coalesce(stored_time, sa.bindparam(f"{side}_time", type_=sa.Double))
    seq = sa.func.coalesce(stored_seq, sa.literal_column("-1"))
    # Written so that an index on the timestamp bounds the read.
    if side == _AFTER:
        return (messages.c.timestamp >= time) & ((messages.c.timestamp > time) | (messages.c.seq > seq))
    return (messages.c.timestamp <= time) & ((messages.c.timestamp < time) | (messages.c.seq < seq))
