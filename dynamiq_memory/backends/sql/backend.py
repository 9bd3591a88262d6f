"""What all SQL stores do alike."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    bindparam,
    delete,
    func,
    select,
    tuple_,
)

from dynamiq_memory.backends.base import MemoryBackend, Session
from dynamiq_memory.backends.sql.filters import clauses, scope_clauses
from dynamiq_memory.backends.sql.rows import COLUMNS, from_rows, to_row
from dynamiq_memory.backends.sql.schema import Tables
from dynamiq_memory.filters import Condition, Filter
from dynamiq_memory.messages import USER_KEY, Message
from dynamiq_memory.ranking import BM25, Tokenize, forward

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.sql.base import Executable

# Bound parameters in one statement; SQLite allows 32,766.
_KEYS_AT_ONCE = 5_000


class SQLBackend(MemoryBackend):
    """Messages in a SQL table, their terms in another, both written in one transaction.

    Args:
        tables: The tables.
        insert: The dialect's INSERT, which knows ON CONFLICT.
        tokenizer: Turns a text into the terms of keyword ranking.
        bm25: The parameters of keyword ranking.
    """

    def __init__(self, tables: Tables, insert: Any, *, tokenizer: Tokenize | None, bm25: BM25 | None) -> None:
        """Keep the tables and build the statements that do not depend on a call."""
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._tables = tables
        self._columns = [tables.messages.c[column] for column in COLUMNS]
        self._upsert_messages, self._upsert_terms = _upserts(tables, insert)

    @abstractmethod
    def _transaction(self, *, write: bool) -> AbstractContextManager[Connection]:
        """A connection in a transaction that commits at the end and rolls back on an error."""

    @abstractmethod
    def _metadata_clause(self, conditions: Sequence[Condition]) -> ColumnElement[bool]:
        """What conditions on metadata keys are in the store's SQL."""

    def _write(self, messages: Sequence[Message]) -> None:
        rows, terms = self._rows(messages)
        with self._transaction(write=True) as connection:
            self._insert(connection, rows, terms)

    def _read(
        self, where: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> list[Message]:
        table = self._tables.messages
        order = (table.c.timestamp, table.c.seq)
        statement: Select[Any] = select(*self._columns).where(*self._clauses(where)).limit(limit)
        statement = statement.order_by(*(order if after is not None else (column.desc() for column in order)))
        with self._transaction(write=False) as connection:
            for anchor, later in ((before, False), (after, True)):
                if anchor is not None:
                    statement = statement.where(self._beside(connection, anchor, later=later))
            rows: Sequence[Any] = connection.execute(statement).fetchall()
        return from_rows(rows if after is not None else rows[::-1])

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        terms = self.tokenizer(query)
        with self._transaction(write=False) as connection:
            rows = connection.execute(self._terms_within(where)).fetchall()
            times = {seq: timestamp for seq, timestamp, _, _ in rows}
            scores = forward.scores(self.bm25, terms, [(seq, length, packed) for seq, _, length, packed in rows])
            # Best first, of equals the latest first: by timestamp, then by arrival.
            order = {seq: (score, times[seq], seq) for seq, score in scores.items()}
            best = heapq.nlargest(len(order) if limit is None else limit, order, key=order.__getitem__)
            found = self._by_seq(connection, best)
        results = [found[seq] for seq in best]
        for seq, result in zip(best, results, strict=True):
            result.score = scores[seq]
        return results

    def _delete(self, where: Filter) -> int:
        with self._transaction(write=True) as connection:
            return self._delete_matching(connection, where)

    def _replace(self, where: Filter, messages: Sequence[Message]) -> None:
        rows, terms = self._rows(messages)
        with self._transaction(write=True) as connection:
            self._delete_matching(connection, where)
            if rows:
                self._insert(connection, rows, terms)

    def _count(self, where: Filter) -> int:
        statement = select(func.count()).select_from(self._tables.messages).where(*self._clauses(where))
        with self._transaction(write=False) as connection:
            return int(connection.execute(statement).scalar_one())

    def _sessions(self, where: Filter) -> list[Session]:
        columns = self._tables.messages.c
        last = func.max(columns.timestamp)
        statement = (
            select(columns.user_id, columns.session_id, func.count(), func.min(columns.timestamp), last)
            .where(*self._clauses(where))
            .group_by(columns.user_id, columns.session_id)
            .order_by(last.desc())
        )
        with self._transaction(write=False) as connection:
            rows = connection.execute(statement).fetchall()
        return [Session(user or None, session or None, *numbers) for user, session, *numbers in rows]

    def _rows(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of messages, and the parameters of `_upsert_terms` for each."""
        rows, parameters = [], []
        for message in messages:
            row = to_row(message)
            terms = self.tokenizer(message.text)
            rows.append(row)
            parameters.append(
                {
                    "of_user": row["user_id"],
                    "of_session": row["session_id"],
                    "of_id": row["id"],
                    "how_many": len(terms),
                    "packed": forward.encode(terms),
                }
            )
        return rows, parameters

    def _insert(
        self, connection: Connection, rows: list[dict[str, Any]], terms: list[dict[str, Any]]
    ) -> None:
        connection.execute(self._upsert_messages, rows)
        connection.execute(self._upsert_terms, terms)

    def _delete_matching(self, connection: Connection, where: Filter) -> int:
        messages, terms = self._tables.messages, self._tables.terms
        conditions = self._clauses(where)
        if where.beyond_scope or where.scope(USER_KEY) is None:
            key = (messages.c.user_id, messages.c.session_id, messages.c.seq)
            doomed = select(*key).where(*conditions)
            statement = delete(terms).where(tuple_(*terms.primary_key).in_(doomed))
        else:
            statement = delete(terms).where(*scope_clauses(where, terms))
        connection.execute(statement)
        return connection.execute(delete(messages).where(*conditions)).rowcount

    def _clauses(self, where: Filter) -> list[ColumnElement[bool]]:
        return clauses(where, self._tables.messages, self._metadata_clause)

    def _terms_within(self, where: Filter) -> Select[Any]:
        """The terms of all messages that match: seq, timestamp, length, packed terms."""
        messages, terms = self._tables.messages, self._tables.terms
        statement = select(terms.c.seq, terms.c.timestamp, terms.c.length, terms.c.terms)
        if not where.beyond_scope and where.scope(USER_KEY) is not None:
            return statement.where(*scope_clauses(where, terms))
        same = [terms.c[column] == messages.c[column] for column in ("user_id", "session_id", "seq")]
        return statement.join_from(messages, terms, onclause=same[0] & same[1] & same[2]).where(
            *self._clauses(where)
        )

    def _by_seq(self, connection: Connection, numbers: Sequence[int]) -> Mapping[int, Message]:
        table = self._tables.messages
        found: dict[int, Message] = {}
        for start in range(0, len(numbers), _KEYS_AT_ONCE):
            some = numbers[start : start + _KEYS_AT_ONCE]
            rows = connection.execute(select(table.c.seq, *self._columns).where(table.c.seq.in_(some))).fetchall()
            found |= zip((row[0] for row in rows), from_rows(row[1:] for row in rows), strict=True)
        return found

    def _beside(self, connection: Connection, anchor: Message, *, later: bool) -> ColumnElement[bool]:
        """What holds for the messages before or behind a stored one."""
        columns = self._tables.messages.c
        place = connection.execute(
            select(columns.timestamp, columns.seq).where(
                columns.user_id == (anchor.user_id or ""),
                columns.session_id == (anchor.session_id or ""),
                columns.id == anchor.id,
            )
        ).first()
        timestamp, seq = place if place is not None else (anchor.timestamp or 0.0, -1)
        if later:
            return (columns.timestamp >= timestamp) & ((columns.timestamp > timestamp) | (columns.seq > seq))
        return (columns.timestamp <= timestamp) & ((columns.timestamp < timestamp) | (columns.seq < seq))


def _upserts(tables: Tables, insert: Any) -> tuple[Executable, Executable]:
    """INSERT … ON CONFLICT DO UPDATE for the messages, and for the terms of a message that is in its table."""
    messages, terms = tables.messages, tables.terms
    key = ("user_id", "session_id", "id")
    into_messages = insert(messages)
    into_messages = into_messages.on_conflict_do_update(
        index_elements=list(key),
        set_={column: into_messages.excluded[column] for column in COLUMNS if column not in key},
    )
    stored = select(
        messages.c.user_id,
        messages.c.session_id,
        messages.c.seq,
        messages.c.timestamp,
        bindparam("how_many", type_=Integer),
        bindparam("packed", type_=LargeBinary),
    ).where(
        messages.c.user_id == bindparam("of_user"),
        messages.c.session_id == bindparam("of_session"),
        messages.c.id == bindparam("of_id"),
    )
    into_terms = insert(terms).from_select([column.name for column in terms.columns], stored)
    into_terms = into_terms.on_conflict_do_update(
        index_elements=[column.name for column in terms.primary_key],
        set_={column: into_terms.excluded[column] for column in ("timestamp", "length", "terms")},
    )
    return into_messages, into_terms
