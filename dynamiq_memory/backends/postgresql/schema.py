"""The tables in PostgreSQL: creating and upgrading them, by one of several processes, and embedding stored messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.backend import Transaction
from dynamiq_memory.backends._sql.legacy import LegacyTable
from dynamiq_memory.backends._sql.records import from_rows, to_row
from dynamiq_memory.backends._sql.schema import SQLSchema, columns_of
from dynamiq_memory.backends._sql.tables import RENEWED_KEY, SCHEMA_VERSION, TOKENIZER_KEY, VERSION_KEY
from dynamiq_memory.backends.postgresql.client import PostgreSQLClient
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.backends.postgresql.vectors import VECTOR, as_text, require_pgvector
from dynamiq_memory.backends.postgresql.writer import PostgreSQLWriter
from dynamiq_memory.exceptions import BackendError

logger = logging.getLogger(__name__)

_EMBEDDED_AT_ONCE = 500
LEGACY = LegacyTable(
    ("message_id", "role", "content", "metadata", "timestamp"),
    sa.cast(sa.column("metadata"), sa.Text),
    sa.literal_column("ctid"),
)


class PostgreSQLSchema(SQLSchema):
    """Creates, checks and upgrades the tables of a store, and embeds its messages."""

    _tables: PostgreSQLTables
    _writer: PostgreSQLWriter

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
        if client.run(Transaction(self._is_ready, snapshot=True)) and not (reindex and self._tables.embedder):
            return  # nothing to write: it may be a replica, or a user who may not create tables
        name = self._tables.name
        if not create and not client.run(Transaction(partial(_has_table, self._tables.messages), snapshot=True)):
            raise BackendError(
                f"the table {name!r} does not exist in {client.server}: correct table_name or schema, or pass "
                "create_if_not_exist=True"
            )
        more = client.run(Transaction(partial(self.make_ready, reindex=reindex), write=True))
        while more:
            more = client.run(Transaction(self.renew_terms, write=True))
        if self._tables.embedder is None:
            return
        if reindex:
            self._embed_missing(client, self._tables.embedder)
        elif client.run(Transaction(partial(self._tables.vectors.read_missing, after=-1, limit=1))):
            logger.warning(
                "messages in %s were stored without an embedder: they are ranked by words alone, until it is opened "
                "with reindex=True",
                name,
            )

    def make_ready(self, connection: sa.Connection, *, reindex: bool) -> bool:
        """Create the tables, upgrade them, or check that they are as they should be."""
        if self._tables.embedder is not None:
            require_pgvector(connection)
        self._writer.lock_tables(connection)
        more = super().make_ready(connection, reindex=reindex)
        if self._tables.embedder is not None:
            self._tables.vectors.table.create(connection, checkfirst=True)
        self._tables.check_meta(connection)
        return more

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
        return tables.embedder is None or _has_table(tables.vectors.table, connection)

    def _embed_missing(self, client: PostgreSQLClient, embedder: MessageEmbedder) -> None:
        """Embed messages that have no vector of the embedder's dimension; batches that are done stay if interrupted."""
        embedder.dimension = None
        sample = embedder.embed_query("dimension")
        if sample is not None:
            replace = partial(self._tables.replace_dimension, dimension=len(sample))
            client.run(Transaction(replace, write=True))
        last, done = -1, 0
        read = partial(self._tables.vectors.read_missing, limit=_EMBEDDED_AT_ONCE)
        while rows := client.run(Transaction(partial(read, after=last))):
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
            logger.info("embedded %d messages of %s", done, self._tables.name)

    def _write_missing(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        self._tables.settle_dimension(connection, self._tables.check_meta(connection, write=True))
        self._tables.vectors.insertion.run(connection, rows)


def _has_table(table: sa.Table, connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(table.name, table.schema)
