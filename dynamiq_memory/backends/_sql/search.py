"""Ranking messages by words, within a transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.parts import Parts
from dynamiq_memory.backends._sql.prepared import Prepared
from dynamiq_memory.backends._sql.reader import SQLReader
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import USER_KEY, Message
from dynamiq_memory.ranking import packed_terms
from dynamiq_memory.ranking.bm25 import best

TermsRow = Sequence[Any]
"""A message's number of arrival, its timestamp, the number of its terms, and these terms, packed."""


class WordSearch:
    """Ranks the messages of a store by BM25, over the terms of all that match the filter."""

    def __init__(self, parts: Parts, reader: SQLReader) -> None:
        """Compile nothing yet."""
        self._tables, self._filters, self._meta = parts.tables, parts.filters, parts.meta
        self._bm25 = parts.bm25
        self._reader = reader
        # Compiled when first needed, by the names of their parameters.
        self._statements: dict[frozenset[str], Prepared] = {}

    def search(
        self, connection: sa.Connection, terms: Sequence[str], filter: Filter, limit: int | None
    ) -> list[Message]:
        """Rank matching messages by the terms of a query."""
        self._meta.check(connection)
        rows = self._rows(connection, filter)
        return self._best(connection, rows, self._scores(terms, rows), filter, limit)

    def _rows(self, connection: sa.Connection, filter: Filter, more: Mapping[str, Any] = {}) -> Sequence[TermsRow]:
        """Read the terms of all matching messages; `more` has more parameters of the statement."""
        scope = single_scope(filter)
        if scope is not None and USER_KEY in scope:
            names = frozenset(scope)
            if names not in self._statements:
                self._statements[names] = Prepared(self._select(scope), self._tables.dialect)
            return self._statements[names].fetch(connection, {**scope, **more})
        messages, terms = self._tables.messages, self._tables.terms
        if not filter.beyond_scope and filter.scope(USER_KEY) is not None:
            statement = self._select().where(*self._filters.scope(filter, terms))
        else:
            same = [terms.c[name] == messages.c[name] for name in ("user_id", "session_id", "seq")]
            statement = self._select((), messages.join(terms, sa.and_(*same))).where(*self._filters.clauses(filter))
        return connection.execute(statement, dict(more)).fetchall()

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        """A SELECT of terms, with parameters for those of user_id and session_id that are named."""
        terms = self._tables.terms
        statement = sa.select(terms.c.seq, terms.c.timestamp, terms.c.length, terms.c.terms)
        statement = statement.select_from(terms if source is None else source)
        return statement.where(*(terms.c[key] == sa.bindparam(key, type_=sa.Text) for key in scope))

    def _scores(self, terms: Sequence[str], rows: Sequence[TermsRow]) -> dict[int, float]:
        """Score rows, by their numbers in the list."""
        return packed_terms.scores(self._bm25, terms, [row[2] for row in rows], [row[3] for row in rows])

    def _best(
        self,
        connection: sa.Connection,
        rows: Sequence[TermsRow],
        scores: Mapping[int, float],
        filter: Filter,
        limit: int | None,
    ) -> list[Message]:
        """Read the messages of the best rows."""
        # Among equal scores the latest first: by timestamp, then by arrival.
        ranked = best(scores, lambda number: (rows[number][1], rows[number][0]), limit)
        messages = self._reader.by_seq(connection, [rows[number][0] for number in ranked])
        results = []
        for number in ranked:
            # After a change without this package, terms may have no message, or another one.
            message = messages.get(rows[number][0])
            if message is not None and filter.matches(message):
                message.score = scores[number]
                results.append(message)
        return results
