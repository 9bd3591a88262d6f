"""The files of a database: noticing that they have been replaced, and reading where nothing can be written.

SQLite goes on in a file that was deleted or moved, where nobody finds what it writes. It also takes the write-ahead log
of the old file for that of a file put in its place (https://www.sqlite.org/howtocorrupt.html, 1.4 and 4.4).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from dynamiq_memory.exceptions import BackendError

# What SQLite says if it cannot create the write-ahead log and its index, which it needs for reading, too.
_UNWRITABLE = ("SQLITE_READONLY", "SQLITE_CANTOPEN")


class OpenFiles:
    """The file of a database and the two beside it, as a connection has them open.

    Args:
        file: The file's absolute path.
    """

    def __init__(self, file: str) -> None:
        """Read nothing yet."""
        self._file = file
        real = os.path.realpath(file)  # SQLite puts them beside the file that a link leads to
        self._beside = (f"{real}-wal", f"{real}-shm")
        # For each path, the device and the number of the file that is open.
        self._known: dict[str, tuple[int, int]] = {}

    def of_new_connection(self) -> OpenFiles:
        """Return the same for another connection, which must have opened the same file as the first one.

        Raises:
            BackendError: It has opened another one.
        """
        self.check(beside=False)
        files = OpenFiles(self._file)
        files._known.update(self._known)
        return files

    def check(self, *, beside: bool) -> None:
        """Check that the files that are open are still in their places.

        Args:
            beside: Whether to check the write-ahead log and its index, too. They exist once a transaction writes.

        Raises:
            BackendError: They have been moved, deleted or replaced.
        """
        for path in (self._file, *self._beside) if beside else (self._file,):
            try:
                found = os.stat(path)  # noqa: PTH116 - half the time
            except OSError as error:
                raise self._moved(path) from error
            identity = (found.st_dev, found.st_ino)
            if self._known.setdefault(path, identity) != identity:
                raise self._moved(path)

    def _moved(self, path: str) -> BackendError:
        fact = f"SQLite file {path!r} was moved, deleted or replaced while it was open, so no more is read or written: "
        if path != self._file:
            return BackendError(
                f"{fact}it belongs to {self._file!r}, whose newest messages are in its -wal file. If it was moved, "
                "move it back. If it was deleted, the `backup` of this object saves what both had; then close every "
                "program that uses the file, and put the backup in its place"
            )
        return BackendError(
            f"{fact}if it was moved, move it back. If it was deleted, the `backup` of this object saves what it had. "
            f"If you put a backup in its place, first close every program that uses {self._file!r}, move it away with "
            "the files beside it (-wal, -shm), and put the backup there again"
        )


def connect_to_read(file: str, **options: Any) -> sqlite3.Connection:
    """Connect to a file of which nothing is changed, and that may be where nothing can be written.

    Args:
        file: The file's absolute path.
        options: Options of `sqlite3.connect`.

    Raises:
        sqlite3.Error: The file cannot be read.
    """
    uri = Path(file).as_uri()
    options |= {"uri": True, "isolation_level": None}
    connection: sqlite3.Connection = sqlite3.connect(f"{uri}?mode=ro", **options)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        sqlite3.Connection.close(connection)
        if not is_unwritable(error, file):
            raise
        # SQLite then takes no locks, and would not notice a change: for one transaction only.
        connection = sqlite3.connect(f"{uri}?immutable=1", **options)
    return connection


def is_unwritable(error: sqlite3.Error, file: str) -> bool:
    """Whether an error says that nothing can be written beside a complete file, which can be read nonetheless."""
    log = Path(os.path.realpath(file) + "-wal")
    complete = not (log.exists() and log.stat().st_size)
    return error.sqlite_errorname.startswith(_UNWRITABLE) and complete and os.access(file, os.R_OK)
