"""The tables in PostgreSQL: messages have a column for filters, and the table of meta has the dimension of vectors."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends.postgresql.filters import PostgreSQLFilters
from dynamiq_memory.backends.postgresql.vectors import VectorTable
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.ranking import Tokenize

DIMENSION_KEY = "dimension"


class PostgreSQLTables(SQLTables):
    """The tables of one store.

    Args:
        name: The name of the table of messages.
        schema: The database schema, or None for the first of the search path.
        dialect: The SQL dialect.
        tokenize: Splits texts into terms.
        embedder: The embedder that ranks, or None.
    """

    checked_keys = (*SQLTables.checked_keys, DIMENSION_KEY)

    def __init__(
        self, name: str, schema: str | None, dialect: sa.Dialect, tokenize: Tokenize, embedder: MessageEmbedder | None
    ) -> None:
        """Describe the tables; the vectors have a table of their own."""
        by_filter = sa.Index(
            f"{name}_by_filter", "filterable", postgresql_using="gin", postgresql_ops={"filterable": "jsonb_path_ops"}
        )
        more = (sa.Column("filterable", JSONB, nullable=False), by_filter)
        super().__init__(name, dialect, insert, PostgreSQLFilters, tokenize, schema, more)
        self.vectors = VectorTable(self)
        self.embedder = embedder

    def check_meta(self, connection: sa.Connection, *, write: bool = False) -> Mapping[str, str]:
        """Return the table of meta, and check it, including the dimension of vectors."""
        meta = super().check_meta(connection, write=write)
        if DIMENSION_KEY in meta and self.embedder is not None:
            dimension = int(meta[DIMENSION_KEY])
            if self.embedder.dimension is None:
                self.embedder.dimension = dimension
            if self.embedder.dimension != dimension:
                raise ConfigurationError(
                    f"the embedder's vectors have {self.embedder.dimension} numbers, those of the table {self.name!r} "
                    f"have {dimension}: use the embedder that the messages were stored with, another table_name, or "
                    "reindex=True to embed all messages again"
                )
        return meta

    def settle_dimension(self, connection: sa.Connection, meta: Mapping[str, str]) -> None:
        """Set the store's dimension to that of the embedder, unless another process has set one.

        Raises:
            ConfigurationError: Another process has set another dimension.
        """
        dimension = None if self.embedder is None else self.embedder.dimension
        if dimension is None or DIMENSION_KEY in meta:
            return
        # Otherwise a writer that has seen no dimension would not delete the old vector of a text that it changes.
        self.wait_for_writers(connection)
        values = {"key": DIMENSION_KEY, "value": str(dimension)}
        connection.execute(self.insert(self.meta).on_conflict_do_nothing(), values)
        self.check_meta(connection)

    def replace_dimension(self, connection: sa.Connection, dimension: int) -> None:
        """Set the dimension of the store, whatever it was, and delete the vectors of others."""
        self.wait_for_writers(connection)
        vectors = self.vectors.table
        connection.execute(sa.delete(vectors).where(sa.func.vector_dims(vectors.c.embedding) != dimension))
        statement = self.insert(self.meta).values(key=DIMENSION_KEY, value=str(dimension))
        connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": str(dimension)}))
