"""Copying a database while others read and write it (https://www.sqlite.org/backup.html)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from dynamiq_memory.backends.sqlite.files import connect_to_read
from dynamiq_memory.exceptions import BackendConnectionError, BackendError, ConfigurationError

Progress = Callable[[int, int], object]
"""Is called with the number of pages copied so far, and that of all pages."""

_PAGES_AT_ONCE = 1_000


def back_up(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy a file, which is not changed or upgraded.

    Args:
        source: The file.
        target: The copy, which must not exist.
        progress: Is called from time to time.

    Raises:
        ConfigurationError: The copy exists already.
        BackendError: The file cannot be read, or the copy cannot be written; nothing is left of the latter.
    """
    if not source.is_file():
        raise BackendConnectionError(f"there is no SQLite file {str(source)!r}: correct the path")
    try:
        connection = connect_to_read(str(source.absolute()))
        try:
            connection.execute("BEGIN")
            copy(connection, target, progress)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise BackendError(f"SQLite file {str(source)!r} cannot be copied to {str(target)!r}: {error}") from error


def copy(connection: sqlite3.Connection, target: Path, progress: Progress | None = None) -> None:
    """Copy a database as a transaction sees it, check the copy, and put it on the disk.

    Args:
        connection: A connection in a transaction.
        target: The copy, which must not exist.
        progress: Is called from time to time.

    Raises:
        ConfigurationError: The copy exists already, its folder does not, or another copying to it runs or was broken
            off.
        BackendError: The copy cannot be written, or it is damaged, as the database is. Nothing is left of it.
        sqlite3.Error: The database cannot be read or the copy cannot be written. Nothing is left of the copy.
    """
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {str(target.parent)!r} for the copy does not exist: make it first")
    # Under its own name only once it is complete.
    part = target.with_name(f"{target.name}.part")
    for file in (target, part):
        if file.exists():
            raise ConfigurationError(f"{str(file)!r} exists: choose another name, or delete it first")
    try:
        part.open("xb").close()
        try:
            _fill(connection, part, progress)
            _sync(part)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        if os.name == "posix":
            _sync(target.parent)
    except OSError as error:
        raise BackendError(f"the copy {str(target)!r} cannot be written: {error}") from error


def _fill(connection: sqlite3.Connection, part: Path, progress: Progress | None) -> None:
    def report(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on the transaction sees one state
    copied = sqlite3.connect(part, isolation_level=None)
    try:
        connection.backup(copied, pages=_PAGES_AT_ONCE, progress=report)
        problems = [row[0] for row in copied.execute("PRAGMA quick_check(1)")]
    finally:
        copied.close()
    if problems != ["ok"]:
        raise BackendError(f"the database is damaged ({problems[0]}): use an earlier backup")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
