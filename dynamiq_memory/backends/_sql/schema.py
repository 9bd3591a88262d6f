"""The tables of a SQL store.

`{name}` has a row for each message. `{name}_terms` has the terms of each message for keyword ranking, laid out so that
the terms of a session are stored together. `{name}_meta` has the version and the tokenizer that wrote them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    inspect,
    select,
)
from sqlalchemy.schema import SchemaItem

from dynamiq_memory.backends._sql.legacy import LegacyTable, upgrade
from dynamiq_memory.backends._sql.meta import SCHEMA_VERSION, TOKENIZER_KEY, VERSION_KEY
from dynamiq_memory.backends._sql.records import COLUMNS, from_rows
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message, prepare
from dynamiq_memory.ranking.tokenizer import Tokenize, signature_of

if TYPE_CHECKING:
    from dynamiq_memory.backends._sql.writer import SQLWriter

logger = logging.getLogger(__name__)

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one store.

    Attributes:
        dialect: The SQL dialect of the database.
        insert: The dialect's INSERT, which has ON CONFLICT.
    """

    dialect: Dialect
    insert: Any
    metadata: MetaData
    messages: Table
    terms: Table
    meta: Table


def make_tables(
    name: str, dialect: Dialect, insert: Any, schema: str | None = None, more: Sequence[SchemaItem] = ()
) -> Tables:
    """Describe the tables of a store.

    Args:
        name: The name of the table of messages; the others' begin with it.
        dialect: The SQL dialect of the database.
        insert: The dialect's INSERT, which has ON CONFLICT.
        schema: The database schema of the tables, or None for the default one.
        more: Additional columns and indexes of the table of messages.
    """
    metadata = MetaData(schema=schema)
    # SQLite numbers rows itself only if the type is exactly INTEGER.
    sequence = BigInteger().with_variant(Integer, "sqlite")
    messages = Table(
        name,
        metadata,
        # The order of arrival.
        Column("seq", sequence, primary_key=True),
        # The empty string means none: it is not a valid id, and NULLs would not be unique.
        Column("user_id", Text, nullable=False),
        Column("session_id", Text, nullable=False),
        Column("id", Text, nullable=False),
        Column("timestamp", Double, nullable=False),
        Column("role", Text, nullable=False),
        # NULL if the content is not plain text; then it is in `extra`.
        Column("content", Text),
        Column("metadata", Text, nullable=False),
        Column("extra", Text),
        Index(f"{name}_by_id", "user_id", "session_id", "id", unique=True),
        # Each way to read has an index in reading order: of a session, a user, a session's name, everything.
        Index(f"{name}_by_scope", "user_id", "session_id", "timestamp", "seq"),
        Index(f"{name}_by_user", "user_id", "timestamp", "seq"),
        Index(f"{name}_by_session", "session_id", "timestamp", "seq"),
        Index(f"{name}_by_time", "timestamp", "seq"),
        *more,
    )
    terms = Table(
        f"{name}_terms",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("session_id", Text, primary_key=True),
        Column("seq", sequence, primary_key=True, autoincrement=False),
        Column("timestamp", Double, nullable=False),
        Column("length", Integer, nullable=False),
        Column("terms", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    meta = Table(
        f"{name}_meta",
        metadata,
        Column("key", Text, primary_key=True),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    return Tables(dialect, insert, metadata, messages, terms, meta)


class SQLSchema:
    """Creates, checks and upgrades the tables of a store.

    Args:
        tables: The tables as they should be.
        writer: Writes messages and their terms.
        tokenize: The tokenizer that ranks.
        legacy: The table of the dynamiq package in this kind of database.
    """

    def __init__(self, tables: Tables, writer: SQLWriter, tokenize: Tokenize, legacy: LegacyTable) -> None:
        """Touch no database yet."""
        self._tables = tables
        self._writer = writer
        self._signature = signature_of(tokenize)
        self._legacy = legacy

    def make_ready(self, connection: Connection, *, reindex: bool) -> None:
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

    def _check_meta(self, connection: Connection, *, reindex: bool) -> None:
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

    def _reindex(self, connection: Connection) -> None:
        tables = self._tables
        messages, meta = tables.messages, tables.meta
        connection.execute(meta.update().where(meta.c.key == TOKENIZER_KEY).values(value=self._signature))
        columns = [messages.c[name] for name in COLUMNS]
        last, done = -1, 0
        while True:
            statement = select(messages.c.seq, *columns).where(messages.c.seq > last).order_by(messages.c.seq)
            rows = connection.execute(statement.limit(_BATCH)).fetchall()
            if not rows:
                return
            self._store(connection, prepare(from_rows([row[1:] for row in rows])))
            last = rows[-1][0]
            done += len(rows)
            logger.info("re-indexed %d messages of %s", done, messages.name)

    def _store(self, connection: Connection, messages: Sequence[Message]) -> None:
        self._writer.upsert(connection, self._writer.rows(messages))


def columns_of(connection: Connection, table: Table) -> set[str]:
    """Return the names of a table's columns in the database; none if there is no such table."""
    inspector = inspect(connection)
    if not inspector.has_table(table.name, table.schema):
        return set()
    return {column["name"] for column in inspector.get_columns(table.name, table.schema)}


def meta_in(connection: Connection, tables: Tables) -> dict[str, str]:
    """Read the table of meta."""
    return {key: value for key, value in connection.execute(select(tables.meta)).fetchall()}  # noqa: C416 - rows


def _check_columns(expected: Table, present: set[str]) -> None:
    if present and present != {column.name for column in expected.columns}:
        raise ConfigurationError(
            f"the table {expected.name!r} exists and is not one of this package (its columns are "
            f"{', '.join(sorted(present))}): choose another name"
        )
