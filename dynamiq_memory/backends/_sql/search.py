"""Ranking messages by words, and by words and meaning together, within a transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.off_the_loop import off_the_loop
from dynamiq_memory.backends._sql.reader import SQLReader
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends.operations import Search
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.ranking import BM25, packed_terms
from dynamiq_memory.ranking.bm25 import best
from dynamiq_memory.ranking.fusion import hybrid
from dynamiq_memory.ranking.pooling import in_sessions, pooled
from dynamiq_memory.ranking.scores import Scores

TermsRow = Sequence[Any]
"""A message's number of arrival, its timestamp, the number of its terms, these terms, packed, and its user and session,
unless these are the same in all rows."""


class WordSearch:
    """Ranks the messages of a store by BM25, over the terms of all that match the filter."""

    def __init__(self, tables: SQLTables, reader: SQLReader, bm25: BM25) -> None:
        """Compile nothing yet."""
        self._tables = tables
        self._reader = reader
        self._bm25 = bm25

    def search(self, connection: sa.Connection, search: Search, terms: Sequence[str]) -> list[Message]:
        """Rank matching messages by the terms of a query."""
        rows = self._rows(connection, search.filter)
        return self._best(connection, search, rows, lambda: self._scores(terms, rows))

    def _rows(self, connection: sa.Connection, filter: Filter, more: Mapping[str, Any] = {}) -> Sequence[TermsRow]:
        """Read the terms of all matching messages; `more` has more parameters of the statement.

        Raises:
            ConfigurationError: Another process has indexed the messages again, with another tokenizer or embedder.
        """
        checked = self._tables.checked_meta
        rows = self._rows_by(checked, connection, filter, more)
        if not rows and (now := self._tables.check_meta(connection)) != checked:
            return self._rows_by(now, connection, filter, more)
        return rows

    def _rows_by(
        self, checked: Mapping[str, str], connection: sa.Connection, filter: Filter, more: Mapping[str, Any]
    ) -> Sequence[TermsRow]:
        """Read the terms of all matching messages; none if the table of meta has changed since it was checked."""
        parameters = {**self._tables.meta_parameters(checked), **more}
        scope = single_scope(filter)
        if scope is None or USER_KEY not in scope:
            return connection.execute(self._matching(filter), parameters).fetchall()
        names = tuple(scope)
        statement = self._tables.prepared((type(self), names), lambda: self._select(names))
        return statement.fetch(connection, parameters | scope)

    def _matching(self, filter: Filter) -> sa.Select[Any]:
        """A SELECT of the terms of the messages that match a filter."""
        messages, terms, filters = self._tables.messages, self._tables.terms, self._tables.filters
        if not filter.beyond_scope and filter.scope(USER_KEY) is not None:
            return self._select().where(*filters.scope(filter, terms))
        same = [terms.c[name] == messages.c[name] for name in ("user_id", "session_id", "seq")]
        return self._select((), messages.join(terms, sa.and_(*same))).where(*filters.clauses(filter))

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        """A SELECT of terms, with parameters for those of user_id and session_id that are named."""
        terms = self._tables.terms
        user, session = (sa.null() if key in scope else terms.c[key] for key in (USER_KEY, SESSION_KEY))
        statement = sa.select(terms.c.seq, terms.c.timestamp, terms.c.length, terms.c.terms, user, session)
        statement = statement.select_from(terms if source is None else source)
        statement = statement.where(self._tables.meta_is_unchanged())
        return statement.where(*(terms.c[key] == sa.bindparam(key, type_=sa.Text) for key in scope))

    def _scores(self, terms: Sequence[str], rows: Sequence[TermsRow]) -> Scores[int]:
        """Score rows, by their numbers in the list."""
        if not rows:
            return Scores({}, {}.__getitem__)
        numbers, times, lengths, packed, users, sessions, *_ = zip(*rows, strict=True)
        scores = packed_terms.scores(self._bm25, terms, lengths, packed)
        scopes, positions = list(zip(users, sessions, strict=True)), list(zip(times, numbers, strict=True))
        return pooled(scores, in_sessions(range(len(rows)), scopes.__getitem__, positions.__getitem__))

    def _best(
        self,
        connection: sa.Connection,
        search: Search,
        rows: Sequence[TermsRow],
        score: Callable[[], Scores[int]],
    ) -> list[Message]:
        """Score the rows, and read the messages of the best of them."""

        def rank() -> tuple[Scores[int], list[int]]:
            scores = score()
            # Among equal scores the latest first: by timestamp, then by arrival.
            return scores, best(scores, lambda number: (rows[number][1], rows[number][0]), search.limit)

        scores, ranked = off_the_loop(connection, rank, rows)
        messages = self._reader.by_seq(connection, [rows[number][0] for number in ranked], search.max_bytes)
        results = []
        for number in ranked:
            # After a change without this package, terms may have no message, or another one.
            message = messages.get(rows[number][0])
            if message is not None and search.filter.matches(message):
                message.score = scores.of(number)
                results.append(message)
        return results


class HybridSearch(WordSearch):
    """Ranks by BM25 and by the similarity of vectors, both read by one statement."""

    def search_near(
        self, connection: sa.Connection, search: Search, terms: Sequence[str], vector: Sequence[float]
    ) -> list[Message]:
        """Rank matching messages by the vector and the terms of a query."""
        # Before the vectors are read: some databases refuse to compare those of another dimension.
        self._tables.check_meta(connection)
        vectors = self._tables.vectors
        vectors.check_query(vector)
        rows = self._rows(connection, search.filter, vectors.parameters(vector))

        def score() -> Scores[int]:
            read = {number: row[6] for number, row in enumerate(rows) if row[6] is not None}
            return hybrid(self._scores(terms, rows), vectors.similarities(read, vector))

        return self._best(connection, search, rows, score)

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        return self._tables.vectors.joined(super()._select(scope, source), self._tables.terms)
