"""The tables in PostgreSQL, where messages have a column for filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.schema import SchemaItem

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
        super().__init__(name, dialect, insert, PostgreSQLFilters, tokenize, PostgreSQLVectors, embedder, schema=schema)

    def _more(self) -> Sequence[SchemaItem]:
        """The column for filters, and its index."""
        operators = {"filterable": "jsonb_path_ops"}
        by_filter = sa.Index(f"{self.name}_by_filter", "filterable", postgresql_using="gin", postgresql_ops=operators)
        return (sa.Column("filterable", JSONB, nullable=False), by_filter)

    def among_writers(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Lock the table of messages as each change of it does: writers do not wait for each other."""
        messages = self.messages
        return statement.add_cte(sa.update(messages).values(role=messages.c.role).where(sa.false()).cte("locking"))

    def wait_for_writers(self, connection: sa.Connection) -> None:
        """Wait for the transactions that write, and let no other begin.

        A statement that writes locks the table of messages before it sees the state that it works on. So it ends
        before this one goes on, or sees what this transaction has changed.
        """
        # Earlier versions of this package lock these rows instead.
        connection.execute(sa.select(self.meta.c.key).with_for_update()).fetchall()
        table = self._dialect.identifier_preparer.format_table(self.messages)
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
