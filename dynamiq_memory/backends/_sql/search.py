"""Ranking messages by words, and by words and meaning together, within a transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Question:
    """A search, and what its query was made into.

    Attributes:
        search: The search.
        terms: The terms of its query.
        vector: The vector of its query; empty without an embedder.
    """

    search: Search
    terms: Sequence[str]
    vector: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Best:
    """The terms of all matching messages, and the numbers of the best of them in that list, with the scores of all."""

    rows: Sequence[TermsRow]
    numbers: Sequence[int]
    scores: Scores[int]

    @property
    def arrivals(self) -> list[int]:
        """The numbers of arrival of the best."""
        return [self.rows[number][0] for number in self.numbers]

    def found(self, messages: Mapping[int, Message], filter: Filter) -> list[Message]:
        """Return the best messages with their scores, from messages that were read by their numbers of arrival."""
        results = []
        for number, arrival in zip(self.numbers, self.arrivals, strict=True):
            # After a change without this package, terms may have no message, or another one.
            message = messages.get(arrival)
            if message is not None and filter.matches(message):
                message.score = self.scores.of(number)
                results.append(message)
        return results


class WordSearch:
    """Ranks the messages of a store by BM25, over the terms of all that match the filter."""

    def __init__(self, tables: SQLTables, reader: SQLReader, bm25: BM25) -> None:
        """Compile nothing yet."""
        self._tables = tables
        self._reader = reader
        self._bm25 = bm25

    def search(self, connection: sa.Connection, question: Question) -> list[Message]:
        """Rank matching messages, in a transaction whose statements all see the same state."""
        best = self._best(connection, question)
        messages = self._reader.by_seq(connection, best.arrivals, question.search.max_bytes)
        return off_the_loop(connection, lambda: best.found(messages, question.search.filter), best.numbers)

    def search_at_once(self, connection: sa.Connection, question: Question) -> list[Message] | None:
        """Rank matching messages without such a transaction; None if messages have changed in the meantime.

        By default, this is `search`, since every transaction sees one state.
        """
        return self.search(connection, question)

    def _rows(self, connection: sa.Connection, question: Question) -> Sequence[TermsRow]:
        """Read the terms of all matching messages.

        Raises:
            ConfigurationError: Another process has indexed the messages again, with another tokenizer or embedder.
        """
        checked = self._tables.checked_meta
        rows = self._rows_by(checked, connection, question)
        if not rows and (now := self._tables.check_meta(connection)) != checked:
            return self._rows_by(now, connection, question)
        return rows

    def _rows_by(self, checked: Mapping[str, str], connection: sa.Connection, question: Question) -> Sequence[TermsRow]:
        """Read the terms of all matching messages; none if the table of meta has changed since it was checked."""
        filter = question.search.filter
        parameters = {**self._tables.meta_parameters(checked), **self._parameters(question)}
        scope = single_scope(filter)
        if scope is None or USER_KEY not in scope:
            return connection.execute(self._matching(filter), parameters).fetchall()
        names = tuple(scope)
        statement = self._tables.prepared((type(self), names), lambda: self._select(names))
        return statement.fetch(connection, parameters | scope)

    def _parameters(self, question: Question) -> Mapping[str, Any]:  # noqa: ARG002
        """More parameters of the statement that reads terms."""
        return {}

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

    def _best(self, connection: sa.Connection, question: Question) -> Best:
        """Read the terms of all matching messages, and rank them."""
        rows = self._rows(connection, question)

        def rank() -> Best:
            scores = self._scores(rows, question)
            # Among equal scores the latest first: by timestamp, then by arrival.
            numbers = best(scores, lambda number: (rows[number][1], rows[number][0]), question.search.limit)
            return Best(rows, numbers, scores)

        return off_the_loop(connection, rank, rows)

    def _scores(self, rows: Sequence[TermsRow], question: Question) -> Scores[int]:
        """Score rows, by their numbers in the list."""
        if not rows:
            return Scores({}, {}.__getitem__)
        numbers, times, lengths, packed, users, sessions, *_ = zip(*rows, strict=True)
        scores = packed_terms.scores(self._bm25, question.terms, lengths, packed)
        scopes, positions = list(zip(users, sessions, strict=True)), list(zip(times, numbers, strict=True))
        return pooled(scores, in_sessions(range(len(rows)), scopes.__getitem__, positions.__getitem__))


class HybridSearch(WordSearch):
    """Ranks by BM25 and by the similarity of vectors, both read by one statement."""

    def _rows(self, connection: sa.Connection, question: Question) -> Sequence[TermsRow]:
        # Before the vectors are read: some databases refuse to compare those of another dimension.
        self._tables.check_meta(connection)
        self._tables.vectors.check_query(question.vector)
        return super()._rows(connection, question)

    def _parameters(self, question: Question) -> Mapping[str, Any]:
        return self._tables.vectors.parameters(question.vector)

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        return self._tables.vectors.joined(super()._select(scope, source), self._tables.terms)

    def _scores(self, rows: Sequence[TermsRow], question: Question) -> Scores[int]:
        read = {number: row[6] for number, row in enumerate(rows) if row[6] is not None}
        return hybrid(super()._scores(rows, question), self._tables.vectors.similarities(read, question.vector))
