"""Ranking by two statements that need no transaction: each round trip to the server counts.

The first statement reads the terms, if the table of meta is as it was last checked. The second reads the best messages,
if no transaction has changed them since: each change of a message writes its terms again, and `xmin` of a row names the
transaction that wrote it (https://www.postgresql.org/docs/current/ddl-system-columns.html).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.off_the_loop import off_the_loop
from dynamiq_memory.backends._sql.reader import SQLReader, messages_by_number
from dynamiq_memory.backends._sql.search import HybridSearch, Question, WordSearch
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25


class PostgreSQLWordSearch(WordSearch):
    """Ranks by BM25."""

    _tables: PostgreSQLTables

    def __init__(self, tables: PostgreSQLTables, reader: SQLReader, bm25: BM25) -> None:
        """Compile a statement."""
        super().__init__(tables, reader, bm25)
        self._unchanged = tables.prepared("unchanged messages", lambda: _unchanged(tables))

    def search_at_once(self, connection: sa.Connection, question: Question) -> list[Message] | None:
        """Rank matching messages by statements of which each may see another state; None if that mattered."""
        best = self._best(connection, question)
        numbers = self._reader.fitting(connection, best.arrivals, question.search.max_bytes)
        versions = list({best.rows[number][-1] for number in best.numbers})
        messages = self._read_unchanged(connection, numbers, versions)
        if len(messages) != len(numbers):
            return None
        return off_the_loop(connection, lambda: best.found(messages, question.search.filter), best.numbers)

    def _read_unchanged(
        self, connection: sa.Connection, numbers: Sequence[int], versions: Sequence[str]
    ) -> Mapping[int, Message]:
        if not numbers:
            return {}
        parameters = {"numbers": self._tables.filters.packed(numbers), "versions": versions}
        return messages_by_number(connection, self._unchanged.fetch(connection, parameters))

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        return super()._select(scope, source).add_columns(_version(self._tables))  # the last column


class PostgreSQLHybridSearch(PostgreSQLWordSearch, HybridSearch):
    """Ranks by BM25 and by the similarity of vectors."""


def _version(tables: PostgreSQLTables) -> sa.ColumnElement[str]:
    """Which transaction wrote the terms of a message."""
    return sa.cast(sa.column("xmin", _selectable=tables.terms), sa.Text)


def _unchanged(tables: PostgreSQLTables) -> sa.Select[Any]:
    """A SELECT of messages by their numbers of arrival, if given versions of their terms are still the current ones."""
    messages, terms, filters = tables.messages, tables.terms, tables.filters
    same = sa.and_(*(terms.c[name] == messages.c[name] for name in ("user_id", "session_id", "seq")))
    statement = sa.select(messages.c.seq, *tables.columns).select_from(messages.join(terms, same))
    return statement.where(
        filters.among(messages.c.seq, name="numbers"), filters.among(_version(tables), name="versions")
    )
