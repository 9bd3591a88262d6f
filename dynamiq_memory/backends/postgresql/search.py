"""Ranking messages by words and by meaning together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, FromClause, Select

from dynamiq_memory.backends._sql.filters import SQLFilters
from dynamiq_memory.backends._sql.meta import Meta
from dynamiq_memory.backends._sql.reader import SQLReader
from dynamiq_memory.backends._sql.schema import Tables
from dynamiq_memory.backends._sql.search import WordSearch
from dynamiq_memory.backends.postgresql.vectors import NEAR, VectorTable, as_text
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25
from dynamiq_memory.ranking.fusion import Ranking, min_max


class HybridSearch(WordSearch):
    """Ranks by BM25 and by the similarity of vectors, both read by one statement.

    Args:
        tables: The tables of the store.
        filters: Translates filters.
        reader: Reads the messages found.
        meta: Checks the table of meta.
        bm25: The parameters of the ranking by words.
        vectors: The table of vectors.
    """

    def __init__(
        self, tables: Tables, filters: SQLFilters, reader: SQLReader, meta: Meta, bm25: BM25, vectors: VectorTable
    ) -> None:
        """Compile nothing yet."""
        super().__init__(tables, filters, reader, meta, bm25)
        self._vectors = vectors

    def search_near(
        self, connection: Connection, vector: Sequence[float], terms: Sequence[str], filter: Filter, limit: int | None
    ) -> list[Message]:
        """Rank matching messages by the vector and the terms of a query."""
        self._meta.check(connection)
        rows = self._rows(connection, filter, {NEAR: as_text(vector)})
        # A vector that points away from the query's has nothing to do with it.
        by_meaning = {number: row[4] for number, row in enumerate(rows) if row[4] is not None and row[4] > 0}
        scores = min_max([Ranking(self._scores(terms, rows), zero=0.0), Ranking(by_meaning)])
        return self._best(connection, rows, scores, filter, limit)

    def _select(self, scope: Collection[str] = (), source: FromClause | None = None) -> Select[Any]:
        return self._vectors.with_similarity(super()._select(scope, source), self._tables.terms)
