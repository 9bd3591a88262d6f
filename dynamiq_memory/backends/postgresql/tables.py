"""The tables in PostgreSQL, where messages have a column for filters."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends.postgresql.filters import PostgreSQLFilters
from dynamiq_memory.backends.postgresql.vectors import PostgreSQLVectors
from dynamiq_memory.ranking import Tokenize


class PostgreSQLTables(SQLTables):
    """The tables of one store.

    Args:
        name: The name of the table of messages.
        schema: The database schema, or None for the first of the search path.
        dialect: The SQL dialect.
        tokenize: Splits texts into terms.
        embedder: The embedder that ranks, or None.
    """

    def __init__(
        self, name: str, schema: str | None, dialect: sa.Dialect, tokenize: Tokenize, embedder: MessageEmbedder | None
    ) -> None:
        """Describe the tables."""
        by_filter = sa.Index(
            f"{name}_by_filter", "filterable", postgresql_using="gin", postgresql_ops={"filterable": "jsonb_path_ops"}
        )
        more = (sa.Column("filterable", JSONB, nullable=False), by_filter)
        super().__init__(
            name, dialect, insert, PostgreSQLFilters, tokenize, PostgreSQLVectors, embedder, schema=schema, more=more
        )
