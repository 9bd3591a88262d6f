"""Connections to a SQLite file, and transactions on them."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, Engine, QueuePool, StaticPool, create_engine

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends.sqlite.filters import register_function, take_interrupt

Synchronous = Literal["FULL", "NORMAL"]

MEMORY = ":memory:"
_KEPT_CONNECTIONS = 8


class SQLiteClient(WatchesForks):
    """Connections to a file, shared by all threads; one thread writes at a time.

    Args:
        file: The file's absolute path, or `:memory:`.
        timeout: Seconds to wait while another process writes.
        synchronous: When a commit is on the disk.
    """

    def __init__(self, file: str, timeout: float, synchronous: Synchronous) -> None:
        """Open no connection yet, except in memory."""
        self._in_memory = file == MEMORY
        # Waiting for a lock of this process is fair and exact, whereas SQLite polls.
        self._lock = threading.Lock()
        self._gate = _Gate()
        self._database: _Unclosed | None = None
        # The engine must not refer to this object, or the finalizer below would keep it alive.
        connect: Callable[..., Any] = partial(_connect, file, timeout, synchronous)
        if self._in_memory:
            # SQLAlchemy replaces a connection that was interrupted, but this one is the database itself.
            self._database = database = connect(factory=_Unclosed)
            # When the interpreter exits, a daemon thread may still be using it.
            weakref.finalize(self, database.end).atexit = False
            self.engine = _engine(lambda: database, poolclass=StaticPool)
        else:
            self.engine = _engine(connect, poolclass=QueuePool, pool_size=_KEPT_CONNECTIONS, max_overflow=-1)
        weakref.finalize(self, self.engine.dispose)

    @contextmanager
    def transaction(self, check_open: Callable[[], None], *, write: bool) -> Iterator[Connection]:
        """Yield a connection in a transaction, which is committed at the end and rolled back on an error.

        Args:
            check_open: Raises an error if the backend has been closed while this waited.
            write: Whether it writes.
        """
        lock = self._lock if write or self._in_memory else nullcontext()
        gate, visitor = self._gate, object()
        try:
            gate.enter(visitor)
            with lock:
                check_open()
                with self.engine.connect() as connection, _rolled_back(connection) as driver:
                    driver.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    yield connection
                    driver.commit()
        finally:
            gate.leave(visitor)

    def close(self) -> None:
        """Close all connections, after the transactions that are running."""
        self._gate.shut()
        try:
            self.engine.dispose()
            if self._database is not None:
                self._database.end()
        finally:
            self._gate.open()

    def _before_fork(self) -> None:
        # A SQLite connection must not be carried into a child process (https://www.sqlite.org/howtocorrupt.html, 2.6):
        # all are closed, after the transactions that are running. Both sides open new ones when they need them.
        self._gate.shut()
        if not self._in_memory:
            self.engine.dispose()

    def _after_fork_in_parent(self) -> None:
        self._gate.open()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._gate = _Gate()


class _Gate:
    """Lets many transactions through at a time, until it is shut; shutting waits for those inside.

    An interrupt may come at any moment, so each of its steps happens completely or not at all. A condition variable
    would not do: an interrupt can leave its lock locked.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._inside: set[object] = set()

    def enter(self, visitor: object) -> None:
        with self._door:
            self._inside.add(visitor)

    def leave(self, visitor: object) -> None:
        self._inside.discard(visitor)

    def shut(self) -> None:
        self._door.acquire()
        while self._inside:
            time.sleep(0.001)

    def open(self) -> None:
        self._door.release()


class _Unclosed(sqlite3.Connection):
    """A connection that SQLAlchemy cannot close."""

    def close(self) -> None:
        """Stay open."""

    def end(self) -> None:
        """Close after all."""
        super().close()


def _engine(connect: Callable[[], Any], **options: Any) -> Engine:
    return create_engine("sqlite://", creator=connect, hide_parameters=True, **options)


def _connect(file: str, timeout: float, synchronous: Synchronous, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(
        file, timeout=timeout, isolation_level=None, check_same_thread=False, **options
    )
    try:
        _use_wal(connection, timeout)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        register_function(connection)
    except BaseException:
        connection.close()
        raise
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


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[Any]:
    """Yield the driver connection; roll back on any error, including an interrupt."""
    driver: Any = connection.connection.dbapi_connection
    try:
        yield driver
    except BaseException:
        # If the error is an interrupt, SQLAlchemy may have closed it: then nothing is left to undo.
        with suppress(sqlite3.Error):
            driver.rollback()
        interrupt = take_interrupt()
        if interrupt is not None:
            raise interrupt from None
        raise
