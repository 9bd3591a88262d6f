"""The tables in SQLite, where messages have an index for the memories that share a store."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends.sqlite.filters import SQLiteFilters, owner_of
from dynamiq_memory.backends.sqlite.vectors import SQLiteVectors
from dynamiq_memory.ranking import Tokenize


class SQLiteTables(SQLTables):
    """The tables of one store.

    Args:
        name: The name of the table of messages.
        dialect: The SQL dialect.
        tokenize: Splits texts into terms.
        embedder: The embedder that ranks, or None.
    """

    def __init__(self, name: str, dialect: sa.Dialect, tokenize: Tokenize, embedder: MessageEmbedder | None) -> None:
        """Describe the tables."""
        super().__init__(name, dialect, insert, SQLiteFilters, tokenize, SQLiteVectors, embedder)
        columns = self.messages.c
        by_owner = sa.Index(f"{name}_by_owner", owner_of(self.messages), columns.timestamp, columns.seq)
        # Version 1 of the schema had none.
        self.later_indexes = {"by_owner": by_owner}
