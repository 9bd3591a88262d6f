"""Messages in a PostgreSQL database."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar, TypeVar

from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    Numeric,
    Select,
    Text,
    and_,
    any_,
    case,
    cast,
    column,
    create_engine,
    delete,
    false,
    func,
    literal,
    literal_column,
    make_url,
    not_,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.types import TypeEngine

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.backend import SQLBackend
from dynamiq_memory.backends._sql.opening import Legacy, has_table, is_ready, open_tables
from dynamiq_memory.backends._sql.records import from_rows
from dynamiq_memory.backends._sql.schema import DIMENSION_KEY, make_tables
from dynamiq_memory.backends._urls import Readers, read_options, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.operations import Operation, Replace, Search, Update, Write
from dynamiq_memory.backends.postgresql.errors import AT_COMMIT, is_disconnect, must_run_again, translated
from dynamiq_memory.backends.postgresql.filterable import filterable, json_literal
from dynamiq_memory.backends.postgresql.loops import EnginesOfLoops
from dynamiq_memory.backends.postgresql.stale import StaleConnections
from dynamiq_memory.backends.postgresql.vectors import NEAR, VectorTable, as_text, require_pgvector
from dynamiq_memory.connections import PostgreSQL as PostgreSQLConnection
from dynamiq_memory.exceptions import (
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    MissingDependencyError,
)
from dynamiq_memory.filters import Absent, Condition, Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.tokenizer import signature_of, terms_of

try:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
except ImportError as error:
    raise MissingDependencyError(
        "the PostgreSQL backend needs psycopg: pip install 'dynamiq-memory[postgresql]'"
    ) from error

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
# PostgreSQL cuts longer names, and the longest suffix of ours is "_by_session".
_LONGEST_NAME = 63 - len("_by_session")
_MOST_ALTERNATIVES = 50
_ATTEMPTS = 5
# Preparing more rows than this would hold up an event loop for milliseconds.
_BATCH_ON_THE_LOOP = 50
_BATCH_LOCKS = 256
_EMBEDDED_AT_ONCE = 500
_READERS: Readers = {
    "table_name": str,
    "schema": str,
    "create_if_not_exist": yes_or_no,
    "pool_size": int,
    "pool_timeout": float,
    "statement_timeout": float,
}

# The connection of an asynchronous operation, which the synchronous code within it uses.
_given: ContextVar[Connection | None] = ContextVar("dynamiq_memory_postgresql_connection", default=None)
# The vectors of its messages, or a tuple with that of its query.
_embedded: ContextVar[Any] = ContextVar("dynamiq_memory_postgresql_vectors", default=None)
# What a forked child has of its parent's connections: collecting it would tell the server to end them.
_inherited: list[Any] = []


class PostgreSQL(SQLBackend):
    """Keeps messages in a PostgreSQL database, for any number of processes and machines.

    An acknowledged message is committed. Reads of one session, appends and deletes touch only their own rows. Tables
    that the `dynamiq` package wrote are upgraded in place when they are opened, in one transaction.

    Args:
        connection: Where the database is: a `dynamiq_memory.connections.PostgreSQL` (or an object with its
            attributes), a URL `postgresql://user:password@host:port/database`, or a SQLAlchemy engine for psycopg,
            which stays the caller's: asynchronous methods then use it in a thread pool. By default, what the
            environment says.
        table_name: The name of the table of messages. Tables with the suffixes `_terms` and `_meta` go with it.
        create_if_not_exist: Whether to create the tables if there are none; else that is an error.
        embedder: What `dynamiq_memory.embedders.as_embedder` takes. With one, messages are ranked by words and by
            meaning together, for which the database needs the extension pgvector. Their vectors are in a table with
            the suffix `_vectors`. Without one, messages are ranked by words.
        schema: The database schema of the tables; by default the first of the search path.
        pool_size: At most so many connections, for synchronous methods and for each event loop.
        pool_timeout: Seconds to wait for one of them to be free.
        statement_timeout: Seconds that a statement may take; None for what the server allows.
        max_message_bytes: The largest message taken, in bytes of its JSON; 256 MiB by default.
        tokenizer: Turns a text into the terms of keyword ranking; English words by default. The tables remember which
            one they were written with.
        bm25: The parameters of keyword ranking.
        reindex: Index the stored messages anew if they were written with another tokenizer; with an embedder, embed
            those that have no vector, or all if theirs have another dimension.

    Raises:
        ConfigurationError: An argument is wrong, the tables are of another kind, or pgvector is missing.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: It refuses the user or the password.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, psycopg.Error)

    def __init__(
        self,
        connection: Any = None,
        table_name: str = "conversations",
        create_if_not_exist: bool = True,
        embedder: Any = None,
        *,
        schema: str | None = None,
        pool_size: int = 10,
        pool_timeout: float = 30.0,
        statement_timeout: float | None = None,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
        reindex: bool = False,
    ) -> None:
        """Connect, and create or upgrade the tables."""
        self.table_name = _checked_name("table_name", table_name)
        self.schema = None if schema is None else _checked_name("schema", schema)
        for name, number in (("pool_size", pool_size), ("max_message_bytes", max_message_bytes)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {number!r}")
        for name, seconds in (("pool_timeout", pool_timeout), ("statement_timeout", statement_timeout)):
            if seconds is not None and (not isinstance(seconds, int | float) or not 0 < seconds < math.inf):
                raise ConfigurationError(f"{name} must be more than 0 seconds, not {seconds!r}")
        self.pool_size, self.pool_timeout, self.statement_timeout = pool_size, pool_timeout, statement_timeout
        self.max_message_bytes = max_message_bytes
        self._own = not isinstance(connection, Engine)
        self._engine = self._make_engine(connection)
        self._where = self._engine.url.set(password=None, query={}).render_as_string()
        more = (
            Column("filterable", JSONB, nullable=False),
            Index(
                f"{table_name}_by_filter",
                "filterable",
                postgresql_using="gin",
                postgresql_ops={"filterable": "jsonb_path_ops"},
            ),
        )
        tables = make_tables(table_name, schema, more)
        self._embedder = None if embedder is None else MessageEmbedder(embedder, where=f"the table {table_name!r}")
        # Only a store with an embedder creates the table of vectors; any other deletes from one that is there.
        aside = tables if self._embedder is not None else make_tables(table_name, schema)
        self._vectors = VectorTable(aside, self._engine.dialect)
        self._stale = StaleConnections()
        self._stale.watch(self._engine)
        make = partial(_async_engine, self._engine.url, self._settings(self._engine.url), self._stale)
        self._loops = EnginesOfLoops(make, _finish)
        weakref.finalize(self, self._loops.end)
        if self._own:
            weakref.finalize(self, self._engine.dispose)
        super().__init__(tables, self._engine.dialect, insert, tokenizer=tokenizer, bm25=bm25)
        try:
            self._open(create=create_if_not_exist, reindex=reindex)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> PostgreSQL:
        """Make a backend for `postgresql://user:password@host:port/database`.

        Args:
            url: The URL. Its query may set `table_name`, `schema`, `create_if_not_exist` ("true" or "false"),
                `pool_size`, `pool_timeout` and `statement_timeout`; all else in it is for libpq
                (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).

        Raises:
            ConfigurationError: It is no such URL, or an option is wrong.
        """
        parsed = _url_of(url)
        given = {}
        for name in _READERS.keys() & parsed.query.keys():
            text = parsed.query[name]
            if not isinstance(text, str):
                raise ConfigurationError(f"{name} stands in the URL more than once")
            given[name] = text
        options = read_options(given, _READERS)
        rest = parsed.difference_update_query(list(options))
        return cls(rest.render_as_string(hide_password=False), **options)

    def to_url(self) -> str | None:
        """The URL of the tables; None if it would hold a password, the engine is the caller's, or so is the ranking."""
        standard = signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()
        standard = standard and self._embedder is None
        url = self._engine.url
        if not self._own or not standard or url.password or any("password" in key for key in url.query):
            return None
        options = {"table_name": self.table_name, "create_if_not_exist": "false"}
        if self.schema is not None:
            options["schema"] = self.schema
        return url.set(drivername="postgresql", password=None).update_query_dict(options).render_as_string()

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        vector = self._embedder is not None
        return Capabilities(vector=vector, transactions=True, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its password and messages."""
        return super().to_dict() | {"server": self._where, "table_name": self.table_name, "schema": self.schema}

    def __repr__(self) -> str:
        """Name the database and the table."""
        return f"PostgreSQL({self._where!r}, table_name={self.table_name!r})"

    # --- connections -----------------------------------------------------------------------------------------

    def _make_engine(self, connection: Any) -> Engine:
        if isinstance(connection, Engine):
            if connection.dialect.name != "postgresql" or connection.dialect.driver != "psycopg":
                raise ConfigurationError(
                    f"the engine is for {connection.dialect.name}+{connection.dialect.driver}: make one for "
                    "postgresql+psycopg"
                )
            if "schema_translate_map" in connection.get_execution_options():
                raise ConfigurationError("the engine has a schema_translate_map: give the schema as schema=…")
            if self.statement_timeout is not None:
                raise ConfigurationError(
                    "statement_timeout is for connections that are made here: set it for those of the engine "
                    '(connect_args={"options": "-c statement_timeout=…"})'
                )
            return connection
        url = _url_of(PostgreSQLConnection() if connection is None else connection)
        return create_engine(url, **self._settings(url))

    def _settings(self, url: URL) -> dict[str, Any]:
        arguments: dict[str, Any] = {"connect_timeout": 10, "application_name": "dynamiq-memory"}
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        if self.statement_timeout is not None:
            given = url.query.get("options", "")
            options = [given] if isinstance(given, str) else list(given)
            arguments["options"] = " ".join(
                [*options, f"-c statement_timeout={math.ceil(self.statement_timeout * 1000)}"]
            )
        return {
            "connect_args": arguments,
            "hide_parameters": True,
            "max_overflow": 0,
            "pool_size": self.pool_size,
            "pool_timeout": self.pool_timeout,
            "pool_use_lifo": True,
        }

    def _open(self, *, create: bool, reindex: bool) -> None:
        try:
            if self._run(self._is_ready, snapshot=True) and not (reindex and self._embedder):
                return  # nothing to write: it may be a replica, or a user who may not create tables
            if not create and not self._run(has_table, self._tables.messages, snapshot=True):
                raise BackendError(
                    f"there is no table {self.table_name!r} in {self._where}: correct table_name or schema, or pass "
                    "create_if_not_exist=True"
                )
            self._run(self._make_ready, reindex, write=True)
            if self._embedder is not None:
                self._embed_missing(self._embedder, reindex=reindex)
        except self.driver_errors as error:
            raise self._translate(error) from error

    def _is_ready(self, connection: Connection) -> bool:
        if not is_ready(connection, self._tables, self.tokenizer):
            return False
        self._check_meta(connection)
        return self._embedder is None or has_table(connection, self._vectors.table)

    def _make_ready(self, connection: Connection, reindex: bool) -> None:
        if self._embedder is not None:
            require_pgvector(connection)
        # Of several processes that open the tables for the first time, one makes them.
        connection.execute(select(func.pg_advisory_xact_lock(_number("open", self.schema, self.table_name))))
        open_tables(connection, self._tables, self.tokenizer, self._store, insert, _LEGACY, reindex=reindex)
        self._check_meta(connection)

    def _store(self, connection: Connection, messages: Sequence[Message]) -> None:
        # Their texts are as they were, and so are their vectors.
        super()._insert(connection, *super()._rows(messages))

    def _embed_missing(self, embedder: MessageEmbedder, *, reindex: bool) -> None:
        """Embed messages that were stored without an embedder, or say that they are there."""
        name = self.table_name
        if not reindex:
            if self._run(self._vectors.missing, self._columns, -1, 1):
                logger.warning(
                    "messages in %s were stored without an embedder: they are ranked by words alone, until it is "
                    "opened with reindex=True",
                    name,
                )
            return
        embedder.dimension = None
        sample = embedder.embed_query("dimension")
        if sample is not None:
            self._run(self._vectors.keep_only, len(sample), write=True)
        last, done = -1, 0
        while rows := self._run(self._vectors.missing, self._columns, last, _EMBEDDED_AT_ONCE):
            messages = from_rows([row[1:] for row in rows])
            vectors = embedder.embed(messages)
            found = [
                {**self._row(message), "seq": row[0], "vector": as_text(vector)}
                for row, message, vector in zip(rows, messages, vectors, strict=True)
                if vector is not None
            ]
            self._run(self._add_missing, found, write=True)
            last = rows[-1][0]
            done += len(rows)
            logger.info("embedded %d messages of %s", done, name)

    def _add_missing(self, connection: Connection, vectors: Sequence[Mapping[str, Any]]) -> None:
        if vectors:
            self._settle_dimension(connection, self._check_meta(connection, hold=True))
            self._vectors.add_missing(connection, vectors)

    @contextmanager
    def _transaction(self, *, write: bool, snapshot: bool) -> Iterator[Connection]:
        given = _given.get()
        with self._engine.connect() if given is None else nullcontext(given) as plain, self._noticed(plain):
            if write:
                connection = plain.execution_options(isolation_level="READ COMMITTED")
            elif snapshot:
                connection = plain.execution_options(isolation_level="REPEATABLE READ")
            else:  # one statement sees one state anyway
                connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin() as transaction:
                try:
                    yield connection
                    try:
                        transaction.commit()
                    except self.driver_errors as error:
                        setattr(error, AT_COMMIT, True)
                        raise
                except BaseException as error:
                    if not isinstance(error, (*self.driver_errors, DynamiqMemoryError)):
                        # A cancellation or an interrupt: nobody knows in which state that has left the connection.
                        _end(connection)
                        connection.invalidate(error)
                    raise

    @contextmanager
    def _noticed(self, connection: Connection) -> Iterator[None]:
        """Notice when a connection breaks; a statement that is run without SQLAlchemy breaks it unseen."""
        try:
            yield
        except self.driver_errors as error:
            if is_disconnect(error):
                self._stale.broke()
                if not connection.invalidated:
                    connection.invalidate(error)
            raise

    async def _aperform(self, operation: Operation[T]) -> T:
        if self._embedder is None:
            return await self._aperform_embedded(operation)
        # Embedding must hold up neither the event loop nor a connection.
        vectors: Any = None
        if isinstance(operation, Write | Replace | Update):
            vectors = await self._embedder.aembed(operation.messages)
        elif isinstance(operation, Search) and not self._only_stop_words(operation.query):
            vectors = (await self._embedder.aembed_query(operation.query),)
        token = _embedded.set(vectors)
        try:
            return await self._aperform_embedded(operation)
        finally:
            _embedded.reset(token)

    async def _aperform_embedded(self, operation: Operation[T]) -> T:
        large = isinstance(operation, Write | Replace | Update) and len(operation.messages) > _BATCH_ON_THE_LOOP
        if not self._own or large:
            return await super()._aperform(operation)
        try:
            async with self._loops.of_this_loop().connect() as connection:
                return await connection.run_sync(self._within, operation)
        except AssertionError as error:
            # What psycopg makes of a cancellation within its pipeline.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, asyncio.CancelledError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from None

    def _within(self, connection: Connection, operation: Operation[T]) -> T:
        token = _given.set(connection)
        try:
            return self._perform(operation)
        finally:
            _given.reset(token)

    def _may_repeat(self, operation: Operation[Any], error: Exception, attempt: int) -> bool:
        if must_run_again(error):  # the server has rolled it back
            return attempt < _ATTEMPTS
        if not is_disconnect(error) or attempt > 1:
            return False
        return operation.repeatable or not getattr(error, AT_COMMIT, False)

    def _close(self) -> None:
        self._loops.end()
        self._stale.leave(self._engine)
        if self._own:
            self._engine.dispose()

    def _after_fork(self) -> None:
        super()._after_fork()
        if self._embedder is not None:
            self._embedder.renew_lock()
        _inherited.extend(self._loops.abandon())
        _inherited.append(self._engine.pool)
        self._engine.dispose(close=False)

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        if isinstance(error, PoolTimeoutError):
            return BackendError(
                f"all {self.pool_size} connections to {self._where} have been in use for {self.pool_timeout:g} s: "
                "raise pool_size, or do less at once"
            )
        if getattr(error, AT_COMMIT, False) and is_disconnect(error):
            return BackendConnectionError(
                f"the connection to {self._where} broke while a change was being committed: it may have been made or "
                "not. Look, before you repeat it"
            )
        return translated(error.orig if isinstance(error, DBAPIError) and error.orig else error, self._where)

    # --- SQL -------------------------------------------------------------------------------------------------

    def _row(self, message: Message) -> dict[str, Any]:
        scope = (USER_KEY, SESSION_KEY)
        metadata = {key: value for key, value in message.metadata.items() if key not in scope}
        return super()._row(message) | {"filterable": filterable(metadata)}

    def _metadata_clause(self, conditions: Sequence[Condition]) -> ColumnElement[bool]:
        return and_(*(_clause(self._tables.messages.c.filterable, condition) for condition in conditions))

    def _among(self, column: ColumnElement[Any], many: ColumnElement[Any]) -> ColumnElement[bool]:
        return column == any_(many)

    def _many_type(self, column: ColumnElement[Any]) -> TypeEngine[Any]:
        return ARRAY(column.type)

    def _many(self, values: Sequence[Any]) -> list[Any]:
        return list(values)

    def _rows(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        rows, terms = super()._rows(messages)
        if self._embedder is not None:
            vectors = _embedded.get() or self._embedder.embed(messages)
            for each, vector in zip(terms, vectors, strict=True):
                each["vector"] = None if vector is None else as_text(vector)
        return rows, terms

    def _insert(
        self, connection: Connection, rows: Sequence[dict[str, Any]], terms: Sequence[dict[str, Any]]
    ) -> Mapping[str, str]:
        self._lock_batch(connection, rows)
        meta = super()._insert(connection, rows, terms)
        if self._embedder is None:
            if DIMENSION_KEY in meta:
                self._vectors.drop(connection, terms)
        else:
            if any(each["vector"] is not None for each in terms):
                self._settle_dimension(connection, meta)
            self._vectors.write(connection, terms)
        return meta

    def _settle_dimension(self, connection: Connection, meta: Mapping[str, str]) -> None:
        if self._embedder is not None and self._embedder.dimension is not None and DIMENSION_KEY not in meta:
            self._check_dimension(self._vectors.remember_dimension(connection, self._embedder.dimension))

    def _check_meta(self, connection: Connection, *, hold: bool = False) -> Mapping[str, str]:
        meta = super()._check_meta(connection, hold=hold)
        if DIMENSION_KEY in meta:
            self._check_dimension(int(meta[DIMENSION_KEY]))
        return meta

    def _check_dimension(self, dimension: int) -> None:
        """Refuse to go on when the vectors of the store have another dimension than the embedder's."""
        if self._embedder is None or self._embedder.dimension == dimension:
            return
        if self._embedder.dimension is None:
            self._embedder.expect(dimension)
            return
        raise ConfigurationError(
            f"the embedder's vectors have {self._embedder.dimension} numbers, those of the table {self.table_name!r} "
            f"have {dimension}: use the embedder that the messages were stored with, another table_name, or "
            "reindex=True to embed all messages anew"
        )

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        if self._embedder is None:
            return super()._search(query, where, limit)
        (vector,) = _embedded.get() or (self._embedder.embed_query(query),)
        if vector is None:
            return super()._search(query, where, limit)
        terms = terms_of(self.tokenizer, query)
        return self._run(self._best_of_both, terms, as_text(vector), where, limit, snapshot=True)

    def _best_of_both(
        self, connection: Connection, terms: Sequence[str], vector: str, where: Filter, limit: int | None
    ) -> list[Message]:
        self._check_meta(connection)
        rows = self._terms_within(connection, where, {NEAR: vector})
        # A vector that points away from the query's has nothing to do with it.
        by_meaning = {number: row[4] for number, row in enumerate(rows) if row[4] is not None and row[4] > 0}
        scores = min_max([Ranking(self._by_words(terms, rows), zero=0.0), Ranking(by_meaning)])
        return self._best_of(connection, rows, scores, where, limit)

    def _with_nearness(self, statement: Select[Any]) -> Select[Any]:
        return self._vectors.with_nearness(statement, self._tables.terms)

    def _overwrite(
        self,
        connection: Connection,
        where: Filter,
        messages: Sequence[Message],
        rows: Sequence[dict[str, Any]],
        terms: Sequence[dict[str, Any]],
    ) -> list[Message]:
        self._lock_batch(connection, rows)
        return super()._overwrite(connection, where, messages, rows, terms)

    def _lock_batch(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Let the batches of a session stand in line: two that change the same messages would meet in a deadlock."""
        if len(rows) < 2:
            return
        sessions = {(row["user_id"], row["session_id"]) for row in rows}
        # The server has room for some thousands of locks.
        numbers = sorted({_hash("batch", self.schema, self.table_name, *each) % _BATCH_LOCKS for each in sessions})
        table = _hash("batches", self.schema, self.table_name) % 2**31
        each = func.unnest(literal(numbers, ARRAY(Integer))).column_valued("number")
        connection.execute(select(func.pg_advisory_xact_lock(literal(table, Integer), each)))

    def _exchange(self, connection: Connection, where: Filter, rows: Sequence[Any], terms: Sequence[Any]) -> None:
        # Of two that replace the same at once, the second must see what the first has put there.
        connection.execute(select(*self._locks(where)))
        super()._exchange(connection, where, rows, terms)

    def _locks(self, where: Filter) -> list[ColumnElement[Any]]:
        """Locks, from the whole to the part: shared but for the smallest that holds all that is replaced."""
        names: list[tuple[str | None, ...]] = [("replace", self.schema, self.table_name)]
        for key in (USER_KEY, SESSION_KEY):
            allowed = where.scope(key)
            if allowed is None or len(allowed) != 1:
                break
            names.append((*names[-1], allowed[0] or ""))
        shared = [func.pg_advisory_xact_lock_shared(_number(*name)) for name in names[:-1]]
        return [*shared, func.pg_advisory_xact_lock(_number(*names[-1]))]

    def _delete_matching(self, connection: Connection, where: Filter) -> int:
        # In one statement, so that a message which comes in between does not lose its terms or leave them behind.
        messages, terms = self._tables.messages, self._tables.terms
        key = ("user_id", "session_id", "seq")
        gone = delete(messages).where(*self._clauses(where)).returning(*(messages.c[name] for name in key)).cte("gone")
        same = tuple_(*(terms.c[name] for name in key)).in_(select(*(gone.c[name] for name in key)))
        erased = delete(terms).where(same).returning(terms.c.seq).cte("erased")
        return int(connection.execute(select(func.count()).select_from(gone).add_cte(erased)).scalar_one())


_LEGACY = Legacy(
    ("message_id", "role", "content", "metadata", "timestamp"),
    cast(column("metadata"), Text),
    literal_column("ctid"),
)


def _clause(held: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    key = literal(condition.key, Text)
    if isinstance(condition, Absent):
        absent: ColumnElement[bool] = not_(held.op("?", is_comparison=True)(key))
        return absent
    value = held.op("->")(key)
    if isinstance(condition, OneOf):
        if len(condition.values) > _MOST_ALTERNATIVES:
            texts = [json_literal(each) for each in condition.values]
            among: ColumnElement[bool] = cast(value, JSONB) == any_(cast(literal(texts, ARRAY(Text)), ARRAY(JSONB)))
            return among
        # Containment, which the index answers.
        same = (cast(literal(filterable({condition.key: each}), Text), JSONB) for each in condition.values)
        return or_(false(), *(held.op("@>", is_comparison=True)(each) for each in same))
    number = cast(held.op("->>")(key), Numeric)
    compare = {"gt": number.__gt__, "gte": number.__ge__, "lt": number.__lt__, "lte": number.__le__}
    within = (
        compare[operator](cast(literal(json_literal(bound), Text), Numeric)) for operator, bound in condition.bounds
    )
    # CASE keeps the cast from what is no number.
    return case((func.jsonb_typeof(value) == "number", and_(*within)), else_=false())


def _url_of(connection: Any) -> URL:
    if isinstance(connection, str):
        try:
            url = make_url(connection)
        except (ArgumentError, ValueError):
            raise ConfigurationError(
                "connection is no URL: write postgresql://user:password@host:port/database"
            ) from None
        if "@" in (url.host or ""):
            raise ConfigurationError("the password in the URL has an @: write %40 for it")
        if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
            raise ConfigurationError(f"a URL for {url.drivername}:// is none of PostgreSQL: write postgresql://…")
        return url.set(drivername="postgresql+psycopg")
    try:
        password = connection.password
        secret = password.get_secret_value() if hasattr(password, "get_secret_value") else password
        named = {"host": connection.host, "port": int(connection.port), "database": connection.database}
        return URL.create("postgresql+psycopg", username=connection.user, password=secret, **named)
    except (AttributeError, TypeError, ValueError):
        raise ConfigurationError(
            f"connection must be a dynamiq_memory.connections.PostgreSQL, a URL or an engine, not a "
            f"{type(connection).__name__}"
        ) from None


def _async_engine(url: URL, settings: Mapping[str, Any], stale: StaleConnections) -> AsyncEngine:
    engine = create_async_engine(url, **settings)
    stale.watch(engine.sync_engine)
    return engine


def _finish(connection: Any) -> None:
    connection.pgconn.finish()


def _end(connection: Connection) -> None:
    """End a connection at once, without a word to the server: nothing that must be waited for."""
    if not connection.invalidated and connection.connection.dbapi_connection is not None:
        _finish(connection.connection.driver_connection)


def _checked_name(what: str, name: str) -> str:
    if not isinstance(name, str) or not name or not is_clean(name) or len(name.encode()) > _LONGEST_NAME:
        raise ConfigurationError(f"{what}={name!r} cannot be used: give a string of 1 to {_LONGEST_NAME} bytes")
    return name


def _number(*names: str | None) -> Any:
    """The number of an advisory lock."""
    return literal(_hash(*names) - 2**63, BigInteger)


def _hash(*names: str | None) -> int:
    digest = hashlib.blake2b("\0".join(name or "" for name in names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
