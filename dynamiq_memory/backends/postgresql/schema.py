"""The tables in PostgreSQL: creating and upgrading them, by one of several processes."""

from __future__ import annotations

import sqlalchemy as sa

from dynamiq_memory.backends._sql.backend import Transaction
from dynamiq_memory.backends._sql.legacy import LegacyTable
from dynamiq_memory.backends._sql.schema import SQLSchema
from dynamiq_memory.backends.postgresql.client import PostgreSQLClient
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.backends.postgresql.vectors import require_pgvector
from dynamiq_memory.backends.postgresql.writer import PostgreSQLWriter
from dynamiq_memory.exceptions import StoreNotFoundError

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
            StoreNotFoundError: The tables do not exist, and must not be created.
            ConfigurationError: The tables are not as they should be.
        """
        if not create and self._tables.name not in client.run(Transaction(self._tables.present)):
            raise StoreNotFoundError(
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
