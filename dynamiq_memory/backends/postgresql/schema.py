"""The tables in PostgreSQL: creating and upgrading them, by one of several processes."""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa

from dynamiq_memory.backends._sql.backend import Transaction
from dynamiq_memory.backends._sql.legacy import LegacyTable
from dynamiq_memory.backends._sql.schema import SQLSchema, columns_of
from dynamiq_memory.backends._sql.tables import RENEWED_KEY, SCHEMA_VERSION, TOKENIZER_KEY, VERSION_KEY
from dynamiq_memory.backends.postgresql.client import PostgreSQLClient
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.backends.postgresql.vectors import require_pgvector
from dynamiq_memory.backends.postgresql.writer import PostgreSQLWriter
from dynamiq_memory.exceptions import BackendError

LEGACY = LegacyTable(
    ("message_id", "role", "content", "metadata", "timestamp"),
    sa.cast(sa.column("metadata"), sa.Text),
    sa.literal_column("ctid"),
)


class PostgreSQLSchema(SQLSchema):
    """Creates, checks and upgrades the tables of a store, and embeds its messages."""

    _tables: PostgreSQLTables
    _writer: PostgreSQLWriter

    def open_on(self, client: PostgreSQLClient, *, create: bool, reindex: bool) -> None:
        """Make the tables ready for use; see `open`.

        Args:
            client: Carries out transactions.
            create: Whether to create missing tables.
            reindex: Whether to index and to embed stored messages.

        Raises:
            BackendError: The tables do not exist, and must not be created.
            ConfigurationError: The tables are not as they should be.
        """
        if not (reindex and self._tables.vectors.embedder) and client.run(Transaction(self._is_ready, snapshot=True)):
            self._complete_vectors(client.run, reindex=False)
            return  # nothing to write: it may be a replica, or a user who may not create tables
        if not create and not client.run(Transaction(partial(_has_table, self._tables.messages), snapshot=True)):
            raise BackendError(
                f"the table {self._tables.name!r} does not exist in {client.server}: correct table_name or schema, or "
                "pass create_if_not_exist=True"
            )
        self.open(client.run, reindex=reindex)

    def make_ready(self, connection: sa.Connection, *, reindex: bool, dimension: int | None) -> bool:
        """Create the tables, upgrade them, or check that they are as they should be."""
        if self._tables.vectors.embedder is not None:
            require_pgvector(connection)
        self._writer.lock_tables(connection)
        return super().make_ready(connection, reindex=reindex, dimension=dimension)

    def _is_ready(self, connection: sa.Connection) -> bool:
        """Whether the tables are as they should be, so that opening them needs no write."""
        tables = self._tables
        for table in (tables.messages, tables.terms, tables.meta):
            if columns_of(connection, table) != {column.name for column in table.columns}:
                return False
        meta = tables.read_meta(connection)
        if (meta.get(VERSION_KEY), meta.get(TOKENIZER_KEY)) != (
            SCHEMA_VERSION,
            tables.signature,
        ) or RENEWED_KEY in meta:
            return False
        tables.check_meta(connection)
        return tables.vectors.embedder is None or _has_table(tables.vectors.table, connection)


def _has_table(table: sa.Table, connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(table.name, table.schema)
