"""The tables in SQLite, where messages have an index for the memories that share a store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

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

    def _later(self, messages: sa.Table) -> Mapping[str, sa.Index]:
        """Version 1 of the schema had no index of owners."""
        columns = messages.c
        return {"by_owner": sa.Index(f"{self.name}_by_owner", owner_of(messages), columns.timestamp, columns.seq)}

    def present(self, connection: sa.Connection) -> set[str]:
        """Return which of the tables exist, by their names, which SQLite compares without regard to case."""
        tables = (self.messages, self.terms, self.meta, self.vectors.table)
        names = {table.name.lower(): table.name for table in tables}
        statement = "SELECT lower(name) FROM sqlite_master WHERE type = 'table' AND lower(name) IN (?, ?, ?, ?)"
        with closing(connection.connection.cursor()) as cursor:  # as in `Prepared`
            cursor.execute(statement, tuple(names))
            return {names[row[0]] for row in cursor.fetchall()}
