"""Ranking by two statements that need no transaction: each round trip to the server counts.

The first statement reads the terms, if the table of meta is as it was last checked. The second reads the best messages,
if no transaction has changed them since: each change of a message writes its terms again, and `xmin` of a row names the
transaction that wrote it (https://www.postgresql.org/docs/current/ddl-system-columns.html).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.off_the_loop import off_the_loop
from dynamiq_memory.backends._sql.reader import messages_by_number, numbered
from dynamiq_memory.backends._sql.search import HybridSearch, Question, WordSearch
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.messages import Message


class PostgreSQLWordSearch(WordSearch):
    """Ranks by BM25."""

    _tables: PostgreSQLTables

    def search_at_once(self, connection: sa.Connection, question: Question) -> list[Message] | None:
        """Rank matching messages by statements of which each may see another state; None if that mattered."""
        best = self._best(connection, question)
        versions = list({best.rows[number][-1] for number in best.numbers})
        rows = self._unchanged(connection, best.arrivals, versions, question.search.max_bytes)
        if len(rows) != len(best.numbers):
            return None
        messages = messages_by_number(connection, rows)
        return off_the_loop(connection, lambda: best.found(messages, question.search.filter), best.numbers)

    def _unchanged(
        self, connection: sa.Connection, numbers: Sequence[int], versions: Sequence[str], max_bytes: int | None
    ) -> Sequence[Sequence[Any]]:
        """Read messages by their numbers of arrival, if given versions of their terms are still the current ones."""
        if not numbers:
            return []
        measured = max_bytes is not None
        statement = self._tables.prepared(
            ("unchanged by number", measured), lambda: _unchanged(self._tables, measured=measured)
        )
        parameters = {"numbers": self._tables.filters.packed(numbers), "versions": versions, "max_bytes": max_bytes}
        return statement.fetch(connection, parameters)

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        return super()._select(scope, source).add_columns(_version(self._tables))  # the last column


class PostgreSQLHybridSearch(PostgreSQLWordSearch, HybridSearch):
    """Ranks by BM25 and by the similarity of vectors."""


def _version(tables: PostgreSQLTables) -> sa.ColumnElement[str]:
    """Which transaction wrote the terms of a message."""
    return sa.cast(sa.column("xmin", _selectable=tables.terms), sa.Text)


def _unchanged(tables: PostgreSQLTables, *, measured: bool) -> sa.Select[Any]:
    """A SELECT of messages by their numbers of arrival, if given versions of their terms are still the current ones."""
    messages, terms = tables.messages, tables.terms
    same = sa.and_(*(terms.c[name] == messages.c[name] for name in ("user_id", "session_id", "seq")))
    statement = numbered(tables, measured=measured).join(terms, same)
    return statement.where(tables.filters.among(_version(tables), name="versions"))
