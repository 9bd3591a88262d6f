"""Connections to a PostgreSQL database, and transactions on them.

A plan is carried out by psycopg's synchronous or its asynchronous connections. A transaction is one step of it, written
once, as synchronous code: SQLAlchemy's `run_sync` runs it on an asynchronous connection, and switches to the event loop
whenever it waits for the server. If each statement were a step instead, the SQL that this store shares with SQLite
would have to be written as generators.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dynamiq_memory._forks import WatchesForks, keep_inherited
from dynamiq_memory.backends._loops import ClientPerLoop
from dynamiq_memory.backends._sql.backend import Transaction
from dynamiq_memory.backends._threads import stoppable, until_over
from dynamiq_memory.backends.postgresql.errors import AT_COMMIT, is_disconnect
from dynamiq_memory.backends.postgresql.pool import Places
from dynamiq_memory.connections import PostgreSQL as PostgreSQLConnection
from dynamiq_memory.connections import plain
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, MissingDependencyError

try:
    import psycopg
    from psycopg.conninfo import make_conninfo
    from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
except ImportError as error:
    raise MissingDependencyError(
        "the PostgreSQL backend needs psycopg: pip install 'dynamiq-memory[postgresql]'"
    ) from error

T = TypeVar("T")
P = ParamSpec("P")

# An engine of the caller may have connections in an encoding that lacks a character of a message.
DRIVER_ERRORS = (SQLAlchemyError, psycopg.Error, UnicodeEncodeError)
_AUTOCOMMIT = "AUTOCOMMIT"
# Decoding takes some 5 microseconds a row.
_ROWS_AT_ONCE = 200


class PostgreSQLClient(WatchesForks):
    """Connections to a database: a pool for synchronous methods, and one for each event loop.

    Args:
        connection: Where the database is, or an engine.
        pool_size: Maximum number of connections in each pool.
        pool_timeout: Seconds to wait for a free connection.
        statement_timeout: Seconds that a statement may take, or None for the server's setting.
        prepared_statements: Whether statements may stay on a connection; if not, nor do settings.

    Attributes:
        engine: The engine of the synchronous methods.
        owns_engine: Whether it was made here.
        server: The address of the database, without a password.
        per_loop: The engines of the asynchronous methods.
    """

    def __init__(
        self,
        connection: Any,
        pool_size: int,
        pool_timeout: float,
        statement_timeout: float | None,
        *,
        prepared_statements: bool,
    ) -> None:
        """Open no connection yet."""
        self.owns_engine = not isinstance(connection, sa.Engine)
        if isinstance(connection, sa.Engine):
            url = _url_of_engine(connection, statement_timeout, prepared_statements=prepared_statements)
        else:
            url = url_of(PostgreSQLConnection() if connection is None else connection)
            for name in url.query:
                _check_option(name)
        arguments = _driver_arguments(url, prepared_statements=prepared_statements)
        self._limit = ""
        if statement_timeout is not None:
            milliseconds = math.ceil(statement_timeout * 1000)
            if prepared_statements:
                given = url.normalized_query.get("options", ())
                arguments["options"] = " ".join([*given, f"-c statement_timeout={milliseconds}"])
            else:  # for each transaction, since poolers refuse the option
                self._limit = f"SET LOCAL statement_timeout = {milliseconds}"
        # Without looking for the extension hstore, which this store does not use, when the first connection opens.
        options = {"connect_args": arguments, "hide_parameters": True, "use_native_hstore": False}
        # Connections that are made here stay open between transactions, and are closed after an error.
        options |= {"poolclass": sa.NullPool, "pool_reset_on_return": None, "isolation_level": _AUTOCOMMIT}
        self._places = Places(pool_size, pool_timeout)
        # Those that no transaction is using. Each step of the list is one call, which no interrupt can break.
        self._idle: list[sa.Connection] = []
        weakref.finalize(self, _close_all, self._idle)
        self.engine = connection if isinstance(connection, sa.Engine) else _quiet(sa.create_engine(url, **options))
        self.server = url.set(password=None, query={}).render_as_string()
        make = partial(_LoopEngine, url, options, pool_size, pool_timeout)
        self.per_loop = ClientPerLoop(make, _LoopEngine.close, _LoopEngine.abort)
        weakref.finalize(self, self.per_loop.close)

    def run(self, transaction: Transaction[T]) -> T:
        """Carry out a transaction."""
        place = object()
        try:
            if self.owns_engine:
                self._places.take(place)
            return self._run_on(self._take(), transaction)
        finally:
            self._places.taken.discard(place)

    async def arun(self, transaction: Transaction[T]) -> T:
        """Carry out a transaction on an asynchronous connection."""
        # A second cancellation must not end the wait for what becomes of the transaction after the first.
        running = asyncio.create_task(self._arun(transaction))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            running.cancel()
            await until_over(running)
            raise

    async def _arun(self, transaction: Transaction[T]) -> T:
        try:
            of_loop = await self.per_loop.get()
            return await of_loop.run(self._run, transaction)
        except AssertionError as error:
            # psycopg turns a cancellation within its pipeline into this.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, asyncio.CancelledError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from None

    def close(self) -> None:
        """Close all connections of the synchronous methods, except those of an engine owned by the caller."""
        _close_all(self._idle)

    def _after_fork(self) -> None:
        self._places = Places(self._places.count, self._places.timeout)
        keep_inherited(self.engine.pool, *self._idle)
        self._idle.clear()
        self.engine.dispose(close=False)

    def _take(self) -> sa.Connection:
        try:
            return self._idle.pop()  # the last that was returned
        except IndexError:
            return self.engine.connect()

    def _run_on(self, connection: sa.Connection, transaction: Transaction[T]) -> T:
        """Carry out a transaction on a connection that is free, and keep it for the next one if it is ours."""
        driver: Any = connection.connection.driver_connection
        try:
            with nullcontext() if transaction.write else stoppable(driver.cancel):
                result = self._run(connection, transaction)
        except BaseException as error:
            connection.close()
            if _is_broken(error):
                _close_all(self._idle)
            raise
        if self.owns_engine:
            self._idle.append(connection)
        else:
            connection.close()
        return result

    def _run(self, connection: sa.Connection, transaction: Transaction[T]) -> T:
        """Begin a transaction and commit it at the end. After an error, the connection is to be closed."""
        level = self._level(transaction)
        if connection.get_execution_options().get("isolation_level") != level:
            connection.execution_options(isolation_level=level)
        try:
            if level != _AUTOCOMMIT:
                connection.begin()
            if self._limit:
                connection.exec_driver_sql(self._limit)
            committing = transaction.alone
            try:
                result = transaction.work(connection)
                committing = True
                connection.commit()
            except DRIVER_ERRORS as error:
                setattr(error, AT_COMMIT, committing)
                raise
        except BaseException as error:
            self._check_connection(connection, error)
            raise
        return result

    def _level(self, transaction: Transaction[Any]) -> str:
        """The isolation level, or AUTOCOMMIT: a single statement always sees one state."""
        if transaction.snapshot:
            return "REPEATABLE READ"
        if (transaction.write and not transaction.alone) or self._limit:
            return "READ COMMITTED"
        return _AUTOCOMMIT

    def _check_connection(self, connection: sa.Connection, error: BaseException) -> None:
        """End a connection that an error may have broken; SQLAlchemy does not see it if the driver ran a statement."""
        if isinstance(error, DRIVER_ERRORS):
            if not is_disconnect(error):
                return
            # When SQLAlchemy finds the connection broken, it replaces all that the pool opened before.
            with suppress(SQLAlchemyError):
                connection.exec_driver_sql("SELECT 1")
        elif isinstance(error, DynamiqMemoryError):
            return
        elif not connection.invalidated and connection.connection.driver_connection is not None:
            # A cancellation or an interrupt may leave the connection in any state.
            connection.connection.driver_connection.pgconn.finish()
        if not connection.invalidated:
            connection.invalidate(error)


def url_of(connection: Any) -> sa.URL:
    """Return the URL of a database.

    Args:
        connection: A URL, or an object with the attributes of `dynamiq_memory.connections.PostgreSQL`.

    Raises:
        ConfigurationError: It is neither; the error shows no password.
    """
    if isinstance(connection, str):
        try:
            url = sa.make_url(connection)
        except (ArgumentError, ValueError):
            raise ConfigurationError(
                "connection is not a URL: write postgresql://user:password@host:port/database"
            ) from None
        if "@" in (url.host or ""):
            raise ConfigurationError("the password in the URL has an @: write %40 for it")
        if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
            raise ConfigurationError(f"a URL for {url.drivername}:// is not for PostgreSQL: write postgresql://…")
        return url.set(drivername="postgresql+psycopg")
    try:
        return sa.URL.create(
            "postgresql+psycopg",
            username=connection.user,
            password=plain(connection.password),
            host=connection.host,
            port=int(connection.port),
            database=connection.database,
        )
    except (AttributeError, TypeError, ValueError):
        raise ConfigurationError(
            f"connection must be a dynamiq_memory.connections.PostgreSQL, a URL or an engine, not a "
            f"{type(connection).__name__}"
        ) from None


def _check_option(name: str) -> None:
    try:
        make_conninfo(**{name: ""})
    except psycopg.ProgrammingError as error:
        more = ": write prepared_statements=false" if name == "prepare_threshold" else ""
        raise ConfigurationError(
            f"the URL has the option {name!r}, which libpq does not have{more}. Those of this store are arguments "
            "of the class, or in the URL for create_backend"
        ) from error


def _url_of_engine(engine: sa.Engine, statement_timeout: float | None, *, prepared_statements: bool) -> sa.URL:
    if engine.dialect.name != "postgresql" or engine.dialect.driver != "psycopg":
        raise ConfigurationError(
            f"the engine is for {engine.dialect.name}+{engine.dialect.driver}: make one for postgresql+psycopg"
        )
    if "schema_translate_map" in engine.get_execution_options():
        raise ConfigurationError("the engine has a schema_translate_map: give the schema as schema=…")
    if statement_timeout is not None:
        raise ConfigurationError(
            "statement_timeout is for connections that are made here: set it for those of the engine "
            '(connect_args={"options": "-c statement_timeout=…"})'
        )
    if not prepared_statements:
        raise ConfigurationError(
            "prepared_statements is for connections that are made here: set it for those of the engine "
            '(connect_args={"prepare_threshold": None})'
        )
    return engine.url


def _driver_arguments(url: sa.URL, *, prepared_statements: bool) -> dict[str, Any]:
    # Whatever the database's encoding is, psycopg then sends and reads all characters.
    arguments = {"connect_timeout": 10, "application_name": "dynamiq-memory", "client_encoding": "utf8"}
    more = {} if prepared_statements else {"prepare_threshold": None}
    return {name: value for name, value in arguments.items() if name not in url.query} | more


class _Cursor(psycopg.AsyncCursor[Any]):
    """Lets the event loop have its turn between the rows that it decodes."""

    async def fetchall(self) -> list[Any]:
        """Return all rows."""
        rows: list[Any] = []
        while some := await self.fetchmany(_ROWS_AT_ONCE):
            rows += some
            if len(some) == _ROWS_AT_ONCE:
                await asyncio.sleep(0)
        return rows


class _LoopEngine:
    """The connections of an event loop.

    Args:
        url: The URL of the database.
        options: The options of an engine.
        count: Maximum number of connections.
        timeout: Seconds to wait for a free one.
    """

    def __init__(self, url: sa.URL, options: Mapping[str, Any], count: int, timeout: float) -> None:
        arguments = {**options["connect_args"], "cursor_factory": _Cursor}
        self._engine = create_async_engine(url, **{**options, "connect_args": arguments})
        _quiet(self._engine.sync_engine)
        self._places = asyncio.Semaphore(count)
        self._timeout = timeout
        self._is_open = True
        self._idle: list[AsyncConnection] = []
        self._drivers: weakref.WeakSet[Any] = weakref.WeakSet()
        sa.event.listen(self._engine.sync_engine, "connect", self._keep)

    async def run(self, work: Callable[Concatenate[sa.Connection, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call synchronous code with a connection.

        Raises:
            sqlalchemy.exc.TimeoutError: None was free in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._places.acquire()
        except TimeoutError as error:
            raise PoolTimeoutError from error
        try:
            connection = self._idle.pop() if self._idle else await self._engine.connect()
            try:
                result = await connection.run_sync(work, *arguments, **named)
            except BaseException as error:
                await connection.close()
                if _is_broken(error):
                    await self._close_idle()
                raise
            self._idle.append(connection)
            if not self._is_open:
                await self._close_idle()
            return result
        finally:
            self._places.release()

    async def close(self) -> None:
        self._is_open = False
        await self._close_idle()

    def abort(self) -> None:
        """End the connections without their loop: a server has only few."""
        for driver in self._drivers:
            driver.pgconn.finish()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    def _keep(self, adapted: Any, _: Any) -> None:
        self._drivers.add(adapted.driver_connection)


def _quiet(engine: sa.Engine) -> sa.Engine:
    """Keep an engine from asking the server about itself when it first connects, which takes six round trips.

    What SQLAlchemy wants to know besides the version is about older servers, and literals that no statement has.
    """

    def initialize(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        engine.dialect.server_version_info = divmod(driver.info.server_version, 10_000)

    engine.dialect.initialize = initialize  # type: ignore[method-assign]
    return engine


def _is_broken(error: BaseException) -> bool:
    """Whether a connection broke: those that are idle may have broken too, such as after a restart of the server."""
    return isinstance(error, DRIVER_ERRORS) and is_disconnect(error)


def _close_all(connections: list[sa.Connection]) -> None:
    while connections:
        connections.pop().close()
