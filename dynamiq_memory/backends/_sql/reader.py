"""Reading messages, within a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._order import latest_first
from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.records import from_rows
from dynamiq_memory.backends._sql.tables import Prepared, SQLTables
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

_NO_LIMIT = 2**62
_BEFORE, _AFTER = "before", "after"


class SQLReader:
    """Reads the messages of a store."""

    def __init__(self, tables: SQLTables) -> None:
        """Compile a statement."""
        self._tables = tables
        # Compiled when first needed, by the names of their parameters.
        self._statement = cache(partial(_statement, tables))
        seq = tables.messages.c.seq
        statement = sa.select(seq, *tables.columns).where(tables.filters.among(seq, name="numbers"))
        self._by_seq = tables.prepare(statement)

    def read(
        self,
        connection: sa.Connection,
        filter: Filter,
        limit: int | None = None,
        before: Message | None = None,
        after: Message | None = None,
    ) -> list[Message]:
        """Read messages as `MemoryBackend.get_all` promises."""
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
        statement, prepared = self._statement(frozenset(names))
        if scope is not None:
            rows = prepared.fetch(connection, parameters)
        else:
            rows = connection.execute(statement.where(*self._tables.filters.clauses(filter)), parameters).fetchall()
        return from_rows(rows[::-1] if after is None else rows)

    def by_seq(self, connection: sa.Connection, numbers: Sequence[int]) -> Mapping[int, Message]:
        """Read messages by their numbers of arrival."""
        rows = self._by_seq.fetch(connection, {"numbers": self._tables.filters.packed(numbers)})
        return dict(zip([row[0] for row in rows], from_rows([row[1:] for row in rows]), strict=True))

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


def _statement(tables: SQLTables, names: frozenset[str]) -> tuple[sa.Select[Any], Prepared]:
    """A SELECT of messages with those parameters of user_id, session_id, before and after that are named."""
    messages = tables.messages
    statement: sa.Select[Any] = sa.select(*tables.columns)
    for key in (USER_KEY, SESSION_KEY):
        if key in names:
            statement = statement.where(messages.c[key] == sa.bindparam(key, type_=sa.Text))
    for side in (_BEFORE, _AFTER):
        if side in names:
            statement = statement.where(_beside(messages, side))
    order = (messages.c.timestamp, messages.c.seq)
    statement = statement.order_by(*(order if _AFTER in names else [column.desc() for column in order]))
    statement = statement.limit(sa.bindparam("limit", type_=sa.BigInteger))
    return statement, tables.prepare(statement)


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
