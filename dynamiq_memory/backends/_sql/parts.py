"""The parts that the reader, the writer, the search and the schema of a SQL store share."""

from __future__ import annotations

from dataclasses import dataclass

from dynamiq_memory.backends._sql.filters import SQLFilters
from dynamiq_memory.backends._sql.meta import Meta
from dynamiq_memory.backends._sql.tables import Tables
from dynamiq_memory.ranking import BM25, Tokenize


@dataclass(frozen=True, slots=True)
class Parts:
    """The shared parts of a store.

    Attributes:
        tables: Its tables.
        filters: Translates filters.
        meta: Checks the table of meta.
        tokenize: Splits texts into terms.
        bm25: The parameters of keyword ranking.
    """

    tables: Tables
    filters: SQLFilters
    meta: Meta
    tokenize: Tokenize
    bm25: BM25
