"""Creating, checking and upgrading the tables of a SQL store."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import sqlalchemy as sa

from dynamiq_memory.backends._sql.legacy import LegacyTable, upgrade
from dynamiq_memory.backends._sql.meta import SCHEMA_VERSION, TOKENIZER_KEY, VERSION_KEY
from dynamiq_memory.backends._sql.parts import Parts
from dynamiq_memory.backends._sql.records import COLUMNS, from_rows
from dynamiq_memory.backends._sql.tables import Tables
from dynamiq_memory.backends._sql.writer import SQLWriter
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message, prepare
from dynamiq_memory.ranking.tokenizer import signature_of

logger = logging.getLogger(__name__)

_BATCH = 1_000


class SQLSchema:
    """Creates, checks and upgrades the tables of a store, which may be a legacy table."""

    def __init__(self, parts: Parts, writer: SQLWriter, legacy: LegacyTable) -> None:
        """Touch no database yet."""
        self._tables = parts.tables
        self._writer = writer
        self._signature = signature_of(parts.tokenize)
        self._legacy = legacy

    def make_ready(self, connection: sa.Connection, *, reindex: bool) -> None:
        """Create the tables, upgrade them, or check that they are as they should be.

        Args:
            connection: A connection in a transaction that writes.
            reindex: Whether to index the stored messages again if another tokenizer indexed them.

        Raises:
            ConfigurationError: The table is not one of this package, or is of a newer version or another tokenizer.
        """
        tables = self._tables
        present = columns_of(connection, tables.messages)
        for table in (tables.terms, tables.meta):
            _check_columns(table, columns_of(connection, table))
        if not present:
            tables.metadata.create_all(connection)
            # Somebody may have dropped the messages and not their terms.
            connection.execute(tables.terms.delete())
        elif present == set(self._legacy.columns):
            upgrade(connection, tables, self._legacy, self._store)
        else:
            _check_columns(tables.messages, present)
            tables.metadata.create_all(connection)
            self._check_meta(connection, reindex=reindex)
        values = {VERSION_KEY: SCHEMA_VERSION, TOKENIZER_KEY: self._signature}
        connection.execute(
            tables.insert(tables.meta).on_conflict_do_nothing(),
            [{"key": key, "value": value} for key, value in values.items()],
        )

    def _check_meta(self, connection: sa.Connection, *, reindex: bool) -> None:
        name, signature = self._tables.messages.name, self._signature
        meta = meta_in(connection, self._tables)
        version = meta.get(VERSION_KEY, SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"the table {name!r} has version {version}, this package knows {SCHEMA_VERSION}: upgrade dynamiq-memory"
            )
        stored = meta.get(TOKENIZER_KEY, signature)
        if stored == signature:
            return
        if not reindex:
            raise ConfigurationError(
                f"the messages in {name!r} are indexed by the tokenizer {stored!r}, not {signature!r}: pass that "
                "tokenizer, or reindex=True to index them again"
            )
        self._reindex(connection)

    def _reindex(self, connection: sa.Connection) -> None:
        tables = self._tables
        messages, meta = tables.messages, tables.meta
        connection.execute(meta.update().where(meta.c.key == TOKENIZER_KEY).values(value=self._signature))
        columns = [messages.c[name] for name in COLUMNS]
        last, done = -1, 0
        while True:
            statement = sa.select(messages.c.seq, *columns).where(messages.c.seq > last).order_by(messages.c.seq)
            rows = connection.execute(statement.limit(_BATCH)).fetchall()
            if not rows:
                return
            self._store(connection, prepare(from_rows([row[1:] for row in rows])))
            last = rows[-1][0]
            done += len(rows)
            logger.info("re-indexed %d messages of %s", done, messages.name)

    def _store(self, connection: sa.Connection, messages: Sequence[Message]) -> None:
        self._writer.upsert(connection, self._writer.rows(messages))


def columns_of(connection: sa.Connection, table: sa.Table) -> set[str]:
    """Return the names of a table's columns in the database; an empty set if it does not exist."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(table.name, table.schema):
        return set()
    return {column["name"] for column in inspector.get_columns(table.name, table.schema)}


def meta_in(connection: sa.Connection, tables: Tables) -> dict[str, str]:
    """Read the table of meta."""
    return {key: value for key, value in connection.execute(sa.select(tables.meta)).fetchall()}  # noqa: C416 - rows


def _check_columns(expected: sa.Table, present: set[str]) -> None:
    if present and present != {column.name for column in expected.columns}:
        raise ConfigurationError(
            f"the table {expected.name!r} exists and is not one of this package (its columns are "
            f"{', '.join(sorted(present))}): choose another name"
        )
