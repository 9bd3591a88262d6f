"""Ranking messages by words and by meaning together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.search import WordSearch
from dynamiq_memory.backends.operations import Search
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.backends.postgresql.vectors import NEAR, as_text
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking.fusion import Ranking, min_max


class HybridSearch(WordSearch):
    """Ranks by BM25 and by the similarity of vectors, both read by one statement."""

    _tables: PostgreSQLTables

    def search_near(
        self, connection: sa.Connection, search: Search, terms: Sequence[str], vector: Sequence[float]
    ) -> list[Message]:
        """Rank matching messages by the vector and the terms of a query."""
        self._tables.check_meta(connection)
        rows = self._rows(connection, search.filter, {NEAR: as_text(vector)})
        # A vector that points away from the query's has nothing to do with it.
        by_meaning = {number: row[6] for number, row in enumerate(rows) if row[6] is not None and row[6] > 0}
        scores = min_max([Ranking(self._scores(terms, rows), zero=0.0), Ranking(by_meaning)])
        return self._best(connection, search, rows, scores)

    def _select(self, scope: Collection[str] = (), source: sa.FromClause | None = None) -> sa.Select[Any]:
        return self._tables.vectors.with_similarity(super()._select(scope, source), self._tables.terms)
