"""The tables of a SQL store.

`{name}` has a row for each message. `{name}_terms` has the terms of each message for keyword ranking, laid out so that
the terms of a session are stored together. `{name}_meta` has the version and the tokenizer that wrote them. With an
embedder, `{name}_vectors` has the vector of each message.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql import ClauseElement

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.filters import SQLFilters
from dynamiq_memory.backends._sql.records import COLUMNS
from dynamiq_memory.backends._sql.vectors import KEYS as VECTOR_KEYS
from dynamiq_memory.backends._sql.vectors import VectorTable
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.ranking.tokenizer import Tokenize, earlier_signatures_of, signature_of

T = TypeVar("T")

SCHEMA_VERSION = "1"
VERSION_KEY = "schema_version"
TOKENIZER_KEY = "tokenizer"
# The last message that has been indexed again; the key is there only until all have been.
RENEWED_KEY = "renewed_up_to"


_MOST_NAMES = 64


@lru_cache(_MOST_NAMES)
def _shared(key: tuple[Any, ...]) -> dict[Hashable, Any]:  # noqa: ARG001 - by which it is kept
    """Return what depends on the key alone: to describe tables and to compile statements takes milliseconds."""
    return {}


class SQLTables:
    """The tables of one store.

    Args:
        name: The name of the table of messages; the others' begin with it.
        dialect: The SQL dialect of the database.
        insert: The dialect's INSERT, which has ON CONFLICT.
        filters: Translates filters.
        tokenize: Splits texts into terms.
        vectors: Describes the table of vectors.
        embedder: The embedder that ranks, or None.
        schema: The database schema of the tables, or None for the default one.
    """

    checked_keys: ClassVar[tuple[str, ...]] = (TOKENIZER_KEY, *VECTOR_KEYS)
    """The keys with values that are checked in each write and search."""

    def __init__(
        self,
        name: str,
        dialect: sa.Dialect,
        insert: Any,
        filters: type[SQLFilters],
        tokenize: Tokenize,
        vectors: type[VectorTable],
        embedder: MessageEmbedder | None = None,
        *,
        schema: str | None = None,
    ) -> None:
        """Describe the tables, and compile the statements that check the table of meta."""
        self.name = name
        self.insert = insert
        self.tokenize = tokenize
        self.signature = signature_of(tokenize)
        self.earlier_signatures = earlier_signatures_of(tokenize)
        self._dialect = dialect
        self._schema = schema
        self._shared = _shared((type(self), name, schema, type(dialect), dialect.paramstyle))
        # Indexes that earlier versions did not make are in `later_indexes`, by their keys in the table of meta.
        self.metadata, self.messages, self.terms, self.meta, self.later_indexes = self.once("tables", self._describe)
        self.filters = filters(self.messages)
        self.columns = [self.messages.c[name] for name in COLUMNS]
        # The few rows of meta are read as a whole, since looking for keys takes longer.
        self._read_meta = self.prepared("read meta", lambda: sa.select(self.meta.c.key, self.meta.c.value))
        self._lock_meta = self.prepared("lock meta", self._locking_meta)
        # The table of meta at its last check.
        self.checked_meta: Mapping[str, str] = {}
        self.vectors = vectors(self, embedder)

    def _describe(self) -> tuple[sa.MetaData, sa.Table, sa.Table, sa.Table, Mapping[str, sa.Index]]:
        name = self.name
        metadata = sa.MetaData(schema=self._schema)
        # SQLite numbers rows itself only if the type is exactly INTEGER.
        sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
        messages = sa.Table(
            self.name,
            metadata,
            # The order of arrival.
            sa.Column("seq", sequence, primary_key=True),
            # The empty string means none: it is not a valid id, and NULLs would not be unique.
            sa.Column("user_id", sa.Text, nullable=False),
            sa.Column("session_id", sa.Text, nullable=False),
            sa.Column("id", sa.Text, nullable=False),
            sa.Column("timestamp", sa.Double, nullable=False),
            sa.Column("role", sa.Text, nullable=False),
            # NULL if the content is not plain text; then it is in `extra`.
            sa.Column("content", sa.Text),
            sa.Column("metadata", sa.Text, nullable=False),
            sa.Column("extra", sa.Text),
            sa.Index(f"{name}_by_id", "user_id", "session_id", "id", unique=True),
            # Each way to read has an index in reading order: of a session, a user, a session's name, everything.
            sa.Index(f"{name}_by_scope", "user_id", "session_id", "timestamp", "seq"),
            sa.Index(f"{name}_by_user", "user_id", "timestamp", "seq"),
            sa.Index(f"{name}_by_session", "session_id", "timestamp", "seq"),
            sa.Index(f"{name}_by_time", "timestamp", "seq"),
            *self._more(),
        )
        terms = sa.Table(
            f"{name}_terms",
            metadata,
            sa.Column("user_id", sa.Text, primary_key=True),
            sa.Column("session_id", sa.Text, primary_key=True),
            sa.Column("seq", sequence, primary_key=True, autoincrement=False),
            sa.Column("timestamp", sa.Double, nullable=False),
            sa.Column("length", sa.Integer, nullable=False),
            sa.Column("terms", sa.LargeBinary, nullable=False),
            sqlite_with_rowid=False,
        )
        meta = sa.Table(
            f"{name}_meta",
            metadata,
            sa.Column("key", sa.Text, primary_key=True),
            sa.Column("value", sa.Text, nullable=False),
            sqlite_with_rowid=False,
        )
        return metadata, messages, terms, meta, self._later(messages)

    def _more(self) -> Sequence[SchemaItem]:
        """Additional columns and indexes of the table of messages."""
        return ()

    def _later(self, messages: sa.Table) -> Mapping[str, sa.Index]:  # noqa: ARG002
        """Indexes that earlier versions did not make, by the keys under which the table of meta has them."""
        return {}

    def _locking_meta(self) -> sa.Select[Any]:
        return self.among_writers(sa.select(self.meta.c.key, self.meta.c.value))

    @property
    def expected_meta(self) -> dict[str, str]:
        """The contents of the table of meta if the tables need no upgrade."""
        indexes = dict.fromkeys(self.later_indexes, "1")
        return {VERSION_KEY: SCHEMA_VERSION, TOKENIZER_KEY: self.signature, **indexes}

    def prepare(self, statement: ClauseElement) -> Prepared:
        """Compile a statement."""
        return Prepared(statement, self._dialect)

    def prepared(self, key: Hashable, build: Callable[[], ClauseElement]) -> Prepared:
        """Build and compile a statement, once for all stores of the same name in this process."""
        return self.once(key, lambda: self.prepare(build()))

    def once(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return what was built under a key for a store of this name, or build it."""
        if key not in self._shared:
            self._shared.setdefault(key, build())  # another thread may have been faster
        built: T = self._shared[key]
        return built

    def present(self, connection: sa.Connection) -> set[str]:
        """Return which of the tables exist, by their names."""
        tables = (self.messages, self.terms, self.meta, self.vectors.table)
        inspector = sa.inspect(connection)
        return {table.name for table in tables if inspector.has_table(table.name, table.schema)}

    def read_meta(self, connection: sa.Connection) -> dict[str, str]:
        """Read the table of meta."""
        return dict(self._read_meta.fetch(connection, {}))

    def check_meta(self, connection: sa.Connection, *, write: bool = False) -> Mapping[str, str]:
        """Return the table of meta, and check it, since another process may have changed it.

        Args:
            connection: A connection in a transaction.
            write: Whether the table must not change until the end of the transaction, which has changed no message yet.

        Raises:
            ConfigurationError: Another process has indexed the messages again, with another tokenizer or embedder.
        """
        rows = (self._lock_meta if write else self._read_meta).fetch(connection, {})
        meta: dict[str, str] = {key: value for key, value in rows if key in self.checked_keys}
        stored = meta.get(TOKENIZER_KEY, self.signature)
        if stored != self.signature:
            raise ConfigurationError(
                f"the messages in {self.name!r} have been re-indexed by the tokenizer {stored!r}, but this object "
                f"uses {self.signature!r}: make a new one with that tokenizer"
            )
        self.vectors.check(meta)
        self.checked_meta = meta
        return meta

    def meta_is_unchanged(self) -> sa.ColumnElement[bool]:
        """Whether the table of meta needs no other check. The parameters are `meta_parameters`."""
        meta = self.meta.c
        differing = [
            (meta.key == sa.literal_column(f"'{key}'")) & (meta.value != sa.bindparam(f"meta_{key}", type_=sa.Text))
            for key in self.checked_keys
        ]
        return ~sa.select(sa.literal_column("1")).where(sa.or_(*differing)).exists()

    def meta_parameters(self, checked: Mapping[str, str]) -> dict[str, str]:
        """The parameters of `meta_is_unchanged`, for what `check_meta` returned. A key that is gone needs no check."""
        return {f"meta_{key}": checked.get(key, "") for key in self.checked_keys}

    def among_writers(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Let `wait_for_writers` wait for a transaction from this statement on. By default, one writes at a time."""
        return statement

    def wait_for_writers(self, connection: sa.Connection) -> None:
        """Wait for the transactions that write, and let no other begin. By default, one writes at a time."""


class Prepared:
    """A statement of SQLAlchemy Core, compiled once for a dialect and run by the driver with named parameters.

    For a small read or write, SQLAlchemy's own way to the driver costs more than SQLite itself. Within a transaction,
    both ways can be mixed. This way is only for statements with values that the driver takes and returns unchanged
    (text, numbers, bytes).

    Args:
        statement: The statement; each value in it is a `bindparam`.
        dialect: The dialect that will run it.
    """

    def __init__(self, statement: ClauseElement, dialect: sa.Dialect) -> None:
        """Compile the statement."""
        compiled = statement.compile(dialect=dialect)
        self.sql = compiled.string
        # None if the driver takes parameters by name.
        self._order: Sequence[str] | None = getattr(compiled, "positiontup", None)
        # Values that the compiler adds, such as SQLite's OFFSET 0.
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def fetch(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Run the statement once and return its rows."""
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(self.sql, self._ordered(parameters))
            return list(cursor.fetchall())

    def run(self, connection: sa.Connection, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement for each set of parameters."""
        with closing(connection.connection.cursor()) as cursor:
            if len(parameters) == 1:
                cursor.execute(self.sql, self._ordered(parameters[0]))
            elif parameters:
                cursor.executemany(self.sql, [self._ordered(each) for each in parameters])

    def _ordered(self, parameters: Mapping[str, Any]) -> Any:
        values = {**self._constants, **parameters} if self._constants else parameters
        return values if self._order is None else tuple(map(values.__getitem__, self._order))
