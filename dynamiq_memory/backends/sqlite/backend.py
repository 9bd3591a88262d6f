"""Messages in a SQLite file."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast
from urllib.parse import quote, unquote, urlencode, urlsplit

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    QueuePool,
    StaticPool,
    Text,
    column,
    create_engine,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.types import TypeEngine

from dynamiq_memory._json import dumps, is_clean, loads
from dynamiq_memory.backends._sql.backend import SQLBackend
from dynamiq_memory.backends._sql.opening import Legacy, open_tables
from dynamiq_memory.backends._sql.schema import make_tables
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.exceptions import BackendConnectionError, BackendError, ConfigurationError, DynamiqMemoryError
from dynamiq_memory.filters import Absent, Condition, OneOf, Range
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import signature_of

Synchronous = Literal["FULL", "NORMAL"]

_MEMORY = ":memory:"
_KEPT_CONNECTIONS = 8
# SQLite counts milliseconds in 32 bits.
_LONGEST_TIMEOUT = 2_000_000.0
_MATCHES = "dynamiq_memory_matches"
_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_LEGACY = Legacy(("id", "role", "content", "metadata", "timestamp"), column("metadata"), literal_column("rowid"))


class SQLite(SQLBackend):
    """Keeps messages in a SQLite file, safe for many threads and for several processes at once.

    An acknowledged message survives a crash of the process, of the system, and a power cut: the file is in WAL
    mode and each commit is synced to the disk (`synchronous="FULL"`). With `synchronous="NORMAL"` a commit is not
    synced: it survives a crash of the process, but a power cut may take the last commits with it (never a part of
    one, and never the file: https://www.sqlite.org/pragma.html#pragma_synchronous).

    A table that the `dynamiq` package wrote is upgraded in place when it is opened, in one transaction.

    Args:
        db_path: The file; `:memory:` for a database of this object alone, gone when it is closed.
        index_name: The name of the table of messages. Tables with the suffixes `_terms` and `_meta` go with it.
        timeout: Seconds to wait while another process writes.
        synchronous: When a commit is on the disk: "FULL" (before it returns) or "NORMAL".
        max_message_bytes: The largest message taken, in bytes of its JSON; 256 MiB by default.
        tokenizer: Turns a text into the terms of keyword ranking; English words by default. A file remembers
            which one it was written with.
        bm25: The parameters of keyword ranking.
        reindex: Index the stored messages anew if they were written with another tokenizer.
        create_if_not_exist: Whether to make the file if there is none; else it is an error.

    Raises:
        ConfigurationError: An argument is wrong, or the file was written with another tokenizer.
        BackendConnectionError: The file cannot be opened or is no SQLite database.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, sqlite3.Error)

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "conversations.db",
        index_name: str = "conversations",
        *,
        timeout: float = 5.0,
        synchronous: Synchronous = "FULL",
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
        reindex: bool = False,
        create_if_not_exist: bool = True,
    ) -> None:
        """Open the file and create or upgrade its tables."""
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f'synchronous must be "FULL" or "NORMAL", not {synchronous!r}')
        if not isinstance(timeout, int | float) or not 0 <= timeout < math.inf:
            raise ConfigurationError(f"timeout must be 0 seconds or more, not {timeout!r}")
        if not isinstance(max_message_bytes, int) or max_message_bytes < 1:
            raise ConfigurationError(
                f"max_message_bytes must be a whole number of 1 or more, not {max_message_bytes!r}"
            )
        if not isinstance(db_path, str | os.PathLike):
            raise ConfigurationError(f"db_path must be a path, not {db_path!r}")
        self.db_path = os.fspath(db_path)
        if not isinstance(self.db_path, str):
            raise ConfigurationError(f"db_path must be a path of text, not {db_path!r}")
        if not self.db_path or "\0" in self.db_path:
            raise ConfigurationError(f"db_path={self.db_path!r} names no file: give a path, or :memory:")
        if self.db_path.startswith("sqlite:"):
            raise ConfigurationError(f"db_path={self.db_path!r} is a URL: give a path, or use create_backend(url)")
        self.index_name = _check_name(index_name)
        self.timeout = min(timeout, _LONGEST_TIMEOUT)
        self.synchronous = synchronous
        self.max_message_bytes = max_message_bytes
        self._in_memory = self.db_path == _MEMORY
        # The file is the one that the path names now, wherever the process goes.
        self._file = _MEMORY if self._in_memory else os.path.abspath(self.db_path)  # noqa: PTH100 - no links resolved
        if not (create_if_not_exist or self._in_memory or Path(self._file).exists()):
            raise BackendConnectionError(
                f"there is no SQLite file {self._file!r}: put it back, or open it with create_if_not_exist=True to "
                "begin an empty one"
            )
        # One writer at a time within the process: waiting on a lock is fair and exact, SQLite's own polls.
        self._lock = threading.Lock()
        self._gate = _Gate()
        self._engine = self._make_engine()
        super().__init__(make_tables(index_name), self._engine.dialect, insert, tokenizer=tokenizer, bm25=bm25)
        try:
            self._open(reindex=reindex)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> SQLite:
        """Make a backend for `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///:memory:`.

        Args:
            url: The URL; its query may set `index_name`, `timeout`, `synchronous` and `create_if_not_exist` ("true"
                or "false").

        Raises:
            ConfigurationError: The URL names a host, or an unknown option.
        """
        if not url.isprintable() or "#" in url:
            raise ConfigurationError(f"{url!r} holds a character that must be escaped in a URL: write # as %23")
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigurationError(f"{url!r} is no URL: {error}") from None
        if parts.netloc:
            raise ConfigurationError(
                f"{url!r} names the host {parts.netloc!r}: write three slashes before a relative path "
                "(sqlite:///conversations.db), four before an absolute one"
            )
        readers: Readers = {"index_name": str, "timeout": float, "synchronous": str, "create_if_not_exist": yes_or_no}
        options = options_in(parts.query, "sqlite", readers)
        return cls(unquote(parts.path)[1:] or _MEMORY, **options)

    def to_url(self) -> str | None:
        """The URL of the file, which must be there; None for `:memory:`, and with a ranking of the caller's own."""
        standard = signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()
        if self._in_memory or not standard:
            return None
        options = {"index_name": self.index_name, "timeout": self.timeout, "synchronous": self.synchronous}
        options["create_if_not_exist"] = "false"  # an empty store in its place would be mistaken for it
        return f"sqlite:///{quote(self._file)}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        return Capabilities(transactions=True, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its messages."""
        return super().to_dict() | {
            "db_path": self.db_path,
            "index_name": self.index_name,
            "timeout": self.timeout,
            "synchronous": self.synchronous,
        }

    def __repr__(self) -> str:
        """Name the file and the table."""
        return f"SQLite(db_path={self.db_path!r}, index_name={self.index_name!r})"

    def _open(self, *, reindex: bool) -> None:
        try:
            with self._transaction(write=True) as connection:
                open_tables(connection, self._tables, self.tokenizer, self._store, insert, _LEGACY, reindex=reindex)
        except self.driver_errors as error:
            raise self._translate(error) from error

    def _store(self, connection: Connection, messages: Sequence[Message]) -> None:
        self._insert(connection, *self._rows(messages))

    @contextmanager
    def _transaction(self, *, write: bool, snapshot: bool = True) -> Iterator[Connection]:  # noqa: ARG002 - always one
        lock = self._lock if write or self._in_memory else nullcontext()
        gate, visitor = self._gate, object()
        try:
            gate.enter(visitor)
            with lock:
                self._check_open()  # closing waits for those inside, and lets nobody in behind them
                with self._engine.connect() as connection, _rolled_back(connection) as driver:
                    driver.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    yield connection
                    driver.commit()
        finally:
            gate.leave(visitor)

    def _metadata_clause(self, conditions: Sequence[Condition]) -> ColumnElement[bool]:
        # The filter language's own evaluator, called by SQLite: SQLite's JSON functions cannot address every
        # key, and read some floats inexactly.
        matches: ColumnElement[bool] = getattr(func, _MATCHES)(
            self._tables.messages.c.metadata, _encode(conditions), type_=Boolean
        )
        return matches

    def _among(self, column: ColumnElement[Any], many: ColumnElement[Any]) -> ColumnElement[bool]:
        return column.in_(select(func.json_each(many).table_valued("value").c.value))

    def _many_type(self, column: ColumnElement[Any]) -> TypeEngine[Any]:  # noqa: ARG002 - JSON, whatever they are
        return Text()

    def _many(self, values: Sequence[Any]) -> str:
        return json.dumps(values)

    def _make_engine(self) -> Engine:
        self._database: _Unclosed | None = None
        # The engine must not refer to this object, or the finalizer below would keep it alive.
        connect: Any = partial(_connect, self._file, self.timeout, self.synchronous)
        options: Mapping[str, Any] = {"poolclass": StaticPool}
        if self._in_memory:
            # SQLAlchemy replaces a connection on which an interrupt fell. This one is the database itself.
            database = cast("_Unclosed", connect(factory=_Unclosed))
            # At the exit of the interpreter, a daemon's thread may still use it.
            weakref.finalize(self, database.end).atexit = False
            self._database = database
            connect = partial(_itself, database)
        if not self._in_memory:
            options = {"poolclass": QueuePool, "pool_size": _KEPT_CONNECTIONS, "max_overflow": -1}
        engine = create_engine("sqlite://", creator=connect, hide_parameters=True, **options)
        weakref.finalize(self, engine.dispose)
        return engine

    def _close(self) -> None:
        self._gate.shut()
        try:
            self._engine.dispose()
            if self._database is not None:
                self._database.end()
        finally:
            self._gate.open()

    def _before_fork(self) -> None:
        # A SQLite connection must not be carried into a child process: no operation may run, none be open
        # (https://www.sqlite.org/howtocorrupt.html, 2.6). Both sides open new ones when they need them.
        self._gate.shut()
        if not self._in_memory:
            self._engine.dispose()

    def _after_fork_in_parent(self) -> None:
        self._gate.open()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._lock = threading.Lock()
        self._gate = _Gate()

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorname", None) or ""
        where = f"SQLite file {self.db_path!r}"
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return BackendError(
                f"{where} is locked: another process has been writing for more than {self.timeout:g} s; "
                "try again, or raise timeout"
            )
        if code.startswith("SQLITE_NOTADB"):
            return BackendConnectionError(f"{where} is not a SQLite database: choose another db_path")
        if code.startswith("SQLITE_CANTOPEN"):
            return BackendConnectionError(f"{where} cannot be opened: {_why_unopenable(self.db_path)}")
        if code.startswith("SQLITE_READONLY"):
            return BackendError(f"{where} is read-only: give this process the right to write it and its folder")
        if code.startswith("SQLITE_CORRUPT"):
            return BackendError(f"{where} is damaged ({cause}): restore it from a backup")
        if code.startswith("SQLITE_FULL"):
            return BackendError(f"{where} cannot grow: the disk is full")
        return BackendError(f"{where}: {cause}")


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[Any]:
    """Give the driver's connection; on an error, even an interrupt, roll back."""
    driver: Any = connection.connection.dbapi_connection
    try:
        yield driver
    except BaseException:
        # SQLAlchemy may have closed it, if the error is an interrupt: then nothing is left to undo.
        with suppress(sqlite3.Error):
            driver.rollback()
        interrupt, _interrupted.error = getattr(_interrupted, "error", None), None
        if interrupt is not None:
            raise interrupt from None
        raise


class _Gate:
    """Lets operations through, many at a time, until it is shut; shutting waits for those inside.

    An interrupt may fall anywhere, so it is made of steps that are whole or not at all: no condition variable, of
    which an interrupt at the wrong moment leaves the lock held.
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


def _check_name(name: str) -> str:
    """Check the name of a table; quotes, spaces and any letters are allowed.

    Raises:
        ConfigurationError: SQLite cannot have a table of that name.
    """
    if not isinstance(name, str) or not name or not is_clean(name) or name.lower().startswith("sqlite_"):
        raise ConfigurationError(
            f"index_name={name!r} cannot name a table: give a non-empty string that does not begin with sqlite_"
        )
    return name


def _itself(database: _Unclosed) -> _Unclosed:
    return database


def _connect(path: str, timeout: float, synchronous: Synchronous, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False, **options
    )
    try:
        _use_wal(connection, timeout)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.create_function(_MATCHES, 2, _matches, deterministic=True)
    except BaseException:
        connection.close()
        raise
    return connection


class _Unclosed(sqlite3.Connection):
    """A connection that SQLAlchemy cannot close."""

    def close(self) -> None:
        """Stay open."""

    def end(self) -> None:
        """Close after all."""
        super().close()


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


def _why_unopenable(path: str) -> str:
    file = Path(path)
    if file.is_dir():
        return "it is a folder; give the path of a file"
    if not file.parent.is_dir():
        return f"the folder {str(file.parent)!r} does not exist; create it first"
    return f"the folder {str(file.parent)!r} or the file does not allow writing"


def _encode(conditions: Sequence[Condition]) -> str:
    parts: list[list[Any]] = []
    for condition in conditions:
        if isinstance(condition, OneOf):
            parts.append(["one_of", condition.key, condition.values])
        elif isinstance(condition, Range):
            parts.append(["range", condition.key, condition.bounds])
        else:
            parts.append(["absent", condition.key])
    return dumps(parts)


def _decode(encoded: str) -> tuple[Condition, ...]:
    # A long filter is kept for its own statement alone: many would fill the memory.
    return _decode_short(encoded) if len(encoded) < _LONG_FILTER else _decode_long(encoded)


def _decoded(encoded: str) -> tuple[Condition, ...]:
    conditions: list[Condition] = []
    for kind, key, *values in loads(encoded):
        if kind == "one_of":
            conditions.append(OneOf(key, tuple(values[0])))
        elif kind == "range":
            conditions.append(Range(key, tuple((operator, bound) for operator, bound in values[0])))
        else:
            conditions.append(Absent(key))
    return tuple(conditions)


_LONG_FILTER = 10_000
_decode_short = lru_cache(256)(_decoded)
_decode_long = lru_cache(4)(_decoded)


# SQLite turns whatever its function raises into an error of its own; an interrupt must come out as itself.
_interrupted = threading.local()


def _matches(metadata: str, encoded: str) -> bool:
    try:
        values = loads(metadata)
        return all(condition.holds(values.get(condition.key)) for condition in _decode(encoded))
    except BaseException as error:
        _interrupted.error = error
        raise
