"""Connections to a SQLite file, and transactions on them.

An interrupt (Ctrl-C) may come after any call of a Python function, but neither within nor right before a call of a
function written in C. So what must be undone is undone by a single call of such a function, in a `finally` or `except`
of the frame that did it, and locks are held by `with` alone. Context managers written in Python, condition variables
and SQLAlchemy's pools do not have this property: an interrupt can leave them locked.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends._sql.backend import Transaction
from dynamiq_memory.backends._threads import stoppable
from dynamiq_memory.backends.sqlite.files import OpenFiles, connect_to_read, is_unwritable
from dynamiq_memory.backends.sqlite.filters import raised_within, register_function
from dynamiq_memory.exceptions import DynamiqMemoryError

T = TypeVar("T")

Synchronous = Literal["FULL", "NORMAL"]

DRIVER_ERRORS = (SQLAlchemyError, sqlite3.Error)
MEMORY = ":memory:"
_KEPT_CONNECTIONS = 8


# The connection class of the driver has a `close` that SQLAlchemy may call; this is the one that closes.
_close = sqlite3.Connection.close


@dataclass(frozen=True, slots=True)
class _Opened:
    """A connection that one transaction at a time uses, the driver's below it, and the files that it has open."""

    connection: sa.Connection
    driver: _Driver
    files: OpenFiles | None


class SQLiteClient(WatchesForks):
    """Connections to a file, shared by all threads; one thread writes at a time.

    Args:
        file: The file's absolute path, or `:memory:`.
        timeout: Seconds to wait while another process writes.
        synchronous: When a commit is on the disk.

    Attributes:
        dialect: The SQL dialect.
    """

    def __init__(self, file: str, timeout: float, synchronous: Synchronous) -> None:
        """Open no connection yet, except in memory."""
        self._in_memory = file == MEMORY
        # Waiting for a lock of this process is fair and exact, whereas SQLite polls.
        self._writing = threading.Lock()
        # Whoever has locked the door waits for those inside: the transactions that run.
        self._door = threading.Lock()
        self._inside: set[object] = set()
        self._idle: list[_Opened] = []
        self._files = None if self._in_memory else OpenFiles(file)
        self._connect: Callable[[], sqlite3.Connection] = partial(_connect, file, timeout, synchronous)
        if self._in_memory:
            # Connections come and go on this one, since it is the database itself.
            database = self._connect()
            self._end: Callable[[], None] = partial(_close, database)
            self._connect = partial(_same, database)
        else:
            self._end = partial(_close_all, self._idle)
        # When the interpreter exits, a daemon thread may still be using the one connection.
        weakref.finalize(self, self._end).atexit = not self._in_memory
        self.dialect = _engine().dialect

    def run(self, transaction: Transaction[T], check_open: Callable[[], None], *, even_moved: bool = False) -> T:
        """Carry out a transaction, which is committed at the end and rolled back on an error.

        Args:
            transaction: The transaction. It sees one state.
            check_open: Raises an error if the backend has been closed while this waited.
            even_moved: Whether the file may have been moved or replaced since it was opened.

        Raises:
            BackendError: The file has been moved, deleted or replaced since it was opened.
        """
        visitor = object()
        try:
            with self._door:
                self._inside.add(visitor)
            with self._writing if transaction.write or self._in_memory else nullcontext():
                check_open()
                return self._run(transaction, even_moved=even_moved)
        finally:
            self._inside.discard(visitor)

    def close(self) -> None:
        """Close all connections, after the transactions that are running."""
        with self._door:
            self._wait()
            self._end()

    def _run(self, transaction: Transaction[T], *, even_moved: bool) -> T:
        opened = self._take()
        driver = opened.driver
        try:
            driver.execute("BEGIN IMMEDIATE" if transaction.write else "BEGIN")
            with nullcontext() if transaction.write else stoppable(driver.interrupt):
                result = transaction.work(opened.connection)
            if opened.files is not None and not even_moved:
                opened.files.check(beside=transaction.write)
            driver.commit()
        except BaseException as error:
            driver.rollback()
            raised = raised_within(error)
            # After an interrupt, SQLAlchemy's side of the connection may be in any state.
            if driver.lasting and isinstance(raised, (*DRIVER_ERRORS, DynamiqMemoryError)):
                self._idle.append(opened)
            elif not self._in_memory:
                _close(driver)
            if raised is not error:
                raise raised from None
            raise
        if driver.lasting and len(self._idle) < _KEPT_CONNECTIONS:
            self._idle.append(opened)
        else:
            _close(driver)
        return result

    def _take(self) -> _Opened:
        try:
            return self._idle.pop()
        except IndexError:
            _connecting.connect = self._connect
            connection = _engine().connect()
            driver: Any = connection.connection.dbapi_connection
            return _Opened(connection, driver, self._files and self._files.of_new_connection())

    def _wait(self) -> None:
        while self._inside:
            time.sleep(0.001)

    def _before_fork(self) -> None:
        # A SQLite connection must not be carried into a child process (https://www.sqlite.org/howtocorrupt.html, 2.6):
        # all are closed, after the transactions that are running. Both sides open new ones when they need them.
        self._door.acquire()
        self._wait()
        if not self._in_memory:
            self._end()

    def _after_fork_in_parent(self) -> None:
        self._door.release()

    def _after_fork(self) -> None:
        self._writing = threading.Lock()
        self._door = threading.Lock()


class _Driver(sqlite3.Connection):
    """A connection that SQLAlchemy cannot close: it would do so before the transaction is rolled back.

    Attributes:
        lasting: Whether it can be used for more than one transaction.
    """

    lasting = True

    def __init__(self, *args: Any, **options: Any) -> None:
        """Connect."""
        super().__init__(*args, **options)
        self._functions: set[tuple[str, int]] = set()

    def create_function(self, name: str, narg: int, func: Callable[..., Any] | None, **options: Any) -> None:
        """Create a function once.

        SQLAlchemy does so for each of its connections, and SQLite refuses to do it again while a statement is half
        read, as that of an interrupted call may be for as long as its traceback exists.
        """
        if (name, narg) not in self._functions:
            super().create_function(name, narg, func, **options)
            self._functions.add((name, narg))

    def close(self) -> None:
        """Stay open."""


# How the engine connects in this thread.
_connecting = threading.local()


@cache
def _engine() -> sa.Engine:
    """Return the engine of all clients, which keeps no connections: to make one takes as long as several appends."""

    def connect() -> sqlite3.Connection:
        connection: sqlite3.Connection = _connecting.connect()
        return connection

    return sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.NullPool, pool_reset_on_return=None, hide_parameters=True
    )


def _same(database: sqlite3.Connection) -> sqlite3.Connection:
    return database


def _close_all(idle: list[_Opened]) -> None:
    while idle:
        _close(idle.pop().driver)


def _connect(file: str, timeout: float, synchronous: Synchronous) -> sqlite3.Connection:
    options: dict[str, Any] = {"timeout": timeout, "check_same_thread": False, "factory": _Driver}
    connection: sqlite3.Connection = sqlite3.connect(file, isolation_level=None, **options)
    try:
        _use_wal(connection, timeout)
        connection.execute(f"PRAGMA synchronous={synchronous}")
    except sqlite3.OperationalError as error:
        _close(connection)
        if not is_unwritable(error, file):
            raise
        connection = connect_to_read(file, **options)
        connection.lasting = False  # type: ignore[attr-defined]
    except BaseException:
        _close(connection)
        raise
    register_function(connection)
    return connection


def _use_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Put the file into WAL mode. SQLite does not wait for a lock here, so several first users must."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
