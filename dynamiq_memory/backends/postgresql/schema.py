"""The tables in PostgreSQL: creating and upgrading them, by one of several processes, and embedding stored messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.legacy import LegacyTable
from dynamiq_memory.backends._sql.meta import SCHEMA_VERSION, TOKENIZER_KEY, VERSION_KEY
from dynamiq_memory.backends._sql.records import from_rows, to_row
from dynamiq_memory.backends._sql.schema import SQLSchema, columns_of, meta_in
from dynamiq_memory.backends._sql.steps import Transaction
from dynamiq_memory.backends._sql.tables import Tables, make_tables
from dynamiq_memory.backends.postgresql.client import PostgreSQLClient
from dynamiq_memory.backends.postgresql.meta import DIMENSION_KEY
from dynamiq_memory.backends.postgresql.parts import PostgreSQLParts
from dynamiq_memory.backends.postgresql.vectors import VECTOR, as_text, require_pgvector
from dynamiq_memory.backends.postgresql.writer import PostgreSQLWriter
from dynamiq_memory.exceptions import BackendError

logger = logging.getLogger(__name__)

_EMBEDDED_AT_ONCE = 500
_LEGACY = LegacyTable(
    ("message_id", "role", "content", "metadata", "timestamp"),
    sa.cast(sa.column("metadata"), sa.Text),
    sa.literal_column("ctid"),
)


def tables_of(name: str, schema: str | None, dialect: sa.Dialect) -> Tables:
    """Describe the tables of a store; the vectors have a table of their own.

    Args:
        name: The name of the table of messages.
        schema: The database schema, or None for the first of the search path.
        dialect: The SQL dialect.
    """
    more = (
        sa.Column("filterable", JSONB, nullable=False),
        sa.Index(
            f"{name}_by_filter",
            "filterable",
            postgresql_using="gin",
            postgresql_ops={"filterable": "jsonb_path_ops"},
        ),
    )
    return make_tables(name, dialect, insert, schema, more)


class PostgreSQLSchema(SQLSchema):
    """Creates, checks and upgrades the tables of a store, and embeds its messages."""

    def __init__(self, parts: PostgreSQLParts, writer: PostgreSQLWriter) -> None:
        """Touch no database yet."""
        super().__init__(parts, writer, _LEGACY)
        self._meta, self._vectors = parts.meta, parts.vectors
        self._locks = parts.locks
        self._embedder = parts.embedder

    def open(self, client: PostgreSQLClient, *, create: bool, reindex: bool) -> None:
        """Make the tables ready for use.

        Args:
            client: Carries out transactions.
            create: Whether to create missing tables.
            reindex: Whether to index the stored messages again if another tokenizer indexed them; with an embedder,
                whether to embed those without a vector.

        Raises:
            BackendError: The tables do not exist, and must not be created.
            ConfigurationError: The table is not one of this package, or is of a newer version or another tokenizer.
        """
        if client.run(Transaction(self._is_ready, snapshot=True)) and not (reindex and self._embedder):
            return  # nothing to write: it may be a replica, or a user who may not create tables
        name = self._tables.messages.name
        if not create and not client.run(Transaction(partial(_has_table, self._tables.messages), snapshot=True)):
            raise BackendError(
                f"the table {name!r} does not exist in {client.server}: correct table_name or schema, or pass "
                "create_if_not_exist=True"
            )
        client.run(Transaction(lambda connection: self.make_ready(connection, reindex=reindex), write=True))
        if self._embedder is None:
            return
        if reindex:
            self._embed_missing(client, self._embedder)
        elif client.run(Transaction(lambda connection: self._vectors.read_missing(connection, -1, 1))):
            logger.warning(
                "messages in %s were stored without an embedder: they are ranked by words alone, until it is opened "
                "with reindex=True",
                name,
            )

    def make_ready(self, connection: sa.Connection, *, reindex: bool) -> None:
        """Create the tables, upgrade them, or check that they are as they should be."""
        if self._embedder is not None:
            require_pgvector(connection)
        self._locks.opening(connection)
        super().make_ready(connection, reindex=reindex)
        if self._embedder is not None:
            self._vectors.table.create(connection, checkfirst=True)
        self._meta.check(connection)

    def _is_ready(self, connection: sa.Connection) -> bool:
        """Whether the tables are as they should be, so that opening them needs no write."""
        for table in (self._tables.messages, self._tables.terms, self._tables.meta):
            if columns_of(connection, table) != {column.name for column in table.columns}:
                return False
        meta = meta_in(connection, self._tables)
        meta.pop(DIMENSION_KEY, None)
        if meta != {VERSION_KEY: SCHEMA_VERSION, TOKENIZER_KEY: self._signature}:
            return False
        self._meta.check(connection)
        return self._embedder is None or _has_table(self._vectors.table, connection)

    def _reindex(self, connection: sa.Connection) -> None:
        self._meta.wait_for_writers(connection)
        super()._reindex(connection)

    def _embed_missing(self, client: PostgreSQLClient, embedder: MessageEmbedder) -> None:
        """Embed messages that have no vector of the embedder's dimension; batches that are done stay if interrupted."""
        embedder.dimension = None
        sample = embedder.embed_query("dimension")
        if sample is not None:
            dimension = len(sample)
            client.run(Transaction(lambda connection: self._keep_dimension(connection, dimension), write=True))
        last, done = -1, 0
        while rows := client.run(Transaction(partial(self._vectors.read_missing, after=last, limit=_EMBEDDED_AT_ONCE))):
            messages = from_rows([row[1:] for row in rows])
            embedded = [
                {**to_row(message), "seq": row[0], VECTOR: as_text(vector)}
                for row, message, vector in zip(rows, messages, embedder.embed(messages), strict=True)
                if vector is not None
            ]
            if embedded:
                client.run(Transaction(partial(self._write_missing, rows=embedded), write=True))
            last = rows[-1][0]
            done += len(rows)
            logger.info("embedded %d messages of %s", done, self._tables.messages.name)

    def _keep_dimension(self, connection: sa.Connection, dimension: int) -> None:
        self._meta.wait_for_writers(connection)
        self._vectors.delete_other_dimensions(connection, dimension)
        self._meta.replace_dimension(connection, dimension)

    def _write_missing(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        self._meta.settle_dimension(connection, self._meta.check_for_write(connection))
        self._vectors.write_missing(connection, rows)


def _has_table(table: sa.Table, connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(table.name, table.schema)
