"""Messages in a SQLite file: constructor, URLs, opening and closing."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlencode, urlsplit

from sqlalchemy import Connection, column, literal_column

from dynamiq_memory._checks import check_seconds, check_whole_number
from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.backend import MAX_MESSAGE_BYTES, SQLBackend, Transaction
from dynamiq_memory.backends._sql.legacy import LegacyTable
from dynamiq_memory.backends._sql.schema import SQLSchema
from dynamiq_memory.backends._sql.writer import SQLWriter
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.sqlite.backup import Progress, copy
from dynamiq_memory.backends.sqlite.client import DRIVER_ERRORS, MEMORY, SQLiteClient, Synchronous
from dynamiq_memory.backends.sqlite.errors import translated
from dynamiq_memory.backends.sqlite.tables import SQLiteTables
from dynamiq_memory.exceptions import BackendError, ConfigurationError, DynamiqMemoryError, StoreNotFoundError
from dynamiq_memory.ranking import BM25, Tokenize

# SQLite counts milliseconds in 32 bits.
_LONGEST_TIMEOUT = 2_000_000.0
_READERS: Readers = {
    "index_name": str,
    "timeout": float,
    "synchronous": str,
    "create_if_not_exist": yes_or_no,
    "embedder": str,
    "reindex": yes_or_no,
}
_LEGACY = LegacyTable(("id", "role", "content", "metadata", "timestamp"), column("metadata"), literal_column("rowid"))


class SQLite(SQLBackend):
    """Keeps messages in a SQLite file, safe for many threads and for several processes at once.

    An acknowledged message survives a crash of the process, a crash of the system, and a power cut: the file is in WAL
    mode and each commit is synced to the disk (`synchronous="FULL"`). With `synchronous="NORMAL"`, a commit is not
    synced: it survives a crash of the process, but a power cut may lose the last commits (never a part of one, and
    never the file: https://www.sqlite.org/pragma.html#pragma_synchronous).

    A table that the `dynamiq` package wrote is upgraded in place when it is opened, in one transaction.

    Args:
        db_path: The file; `:memory:` for a database that only this object has and that ends with it.
        index_name: Name of the table of messages. It comes with two tables that have the suffixes `_terms` and `_meta`.
        embedder: Anything that `dynamiq_memory.embedders.as_embedder` accepts. With one, messages are ranked by words
            and by meaning together, which needs numpy. The vectors are in a table with the suffix `_vectors`. Without
            one, messages are ranked by words.
        timeout: Seconds to wait while another process writes.
        synchronous: When a commit is on the disk: "FULL" (before it returns) or "NORMAL".
        max_message_bytes: Maximum size of a message, in bytes of its JSON. Defaults to 256 MiB.
        tokenizer: Splits a text into the terms of keyword ranking. Defaults to English words. A file remembers the one
            that it was written with.
        bm25: The parameters of keyword ranking.
        reindex: Index the stored messages again if they were written with another tokenizer; with an embedder, embed
            the messages without a vector, or all if their vectors are of another embedder.
        create_if_not_exist: Whether to create a missing file; otherwise that is an error.

    Raises:
        ConfigurationError: An argument is wrong, or the file was written with another tokenizer or embedder.
        MissingDependencyError: There is an embedder, and numpy is not installed.
        BackendConnectionError: The file cannot be opened or is not a SQLite database.
    """

    traces = (
        "free pages of the file until VACUUM overwrites them, the file's -wal until its next checkpoint, and backups"
    )
    driver_errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS
    described = ("db_path", "index_name", "timeout", "synchronous")

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "conversations.db",
        index_name: str = "conversations",
        *,
        embedder: Any = None,
        timeout: float = 5.0,
        synchronous: Synchronous = "FULL",
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
        reindex: bool = False,
        create_if_not_exist: bool = True,
    ) -> None:
        """Open the file and create or upgrade its tables."""
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f'synchronous must be "FULL" or "NORMAL", not {synchronous!r}')
        self.timeout = min(check_seconds("timeout", timeout, zero=True), _LONGEST_TIMEOUT)
        self.max_message_bytes = check_whole_number("max_message_bytes", max_message_bytes)
        self.db_path = _checked_path(db_path)
        self.index_name = _checked_name(index_name)
        self.synchronous = synchronous
        # The file that the path names now, even if the process changes its folder.
        self._file = MEMORY if self.db_path == MEMORY else os.path.abspath(self.db_path)  # noqa: PTH100 - no links resolved
        if not (create_if_not_exist or self._file == MEMORY or Path(self._file).exists()):
            raise StoreNotFoundError(
                f"there is no SQLite file {self._file!r}: correct its name, put it back, or open it with "
                "create_if_not_exist=True to begin an empty one"
            )
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        if embedder is not None:
            location = f"the table {index_name!r} in {self.db_path!r}"
            self._embedder = MessageEmbedder.compared_here(embedder, location, reindexes=True)
        self._client = SQLiteClient(self._file, self.timeout, synchronous)
        tables = SQLiteTables(index_name, self._client.dialect, self.tokenizer, self._embedder)
        self._use(tables)
        self._writer = SQLWriter(tables)
        with self._opening():
            SQLSchema(tables, self._writer, _LEGACY).open(self._ask, reindex=reindex)

    @classmethod
    def from_url(cls, url: str) -> SQLite:
        """Make a backend for `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///:memory:`.

        Args:
            url: The URL; its query may set `index_name`, `timeout`, `synchronous`, `create_if_not_exist` and
                `reindex` ("true" or "false"), and `embedder` ("local" or a model of OpenAI).

        Raises:
            ConfigurationError: The URL names a host, or an unknown option.
        """
        path, query = path_in(url)
        return cls(path, **options_in(query, "sqlite", _READERS))

    def to_url(self) -> str | None:
        """The URL of the file, which must exist.

        None for `:memory:`, or if an embedder, a tokenizer or BM25 was passed as an object.
        """
        if self._file == MEMORY or not self._fits_in_a_url:
            return None
        options = {"index_name": self.index_name, "timeout": self.timeout, "synchronous": self.synchronous}
        options["create_if_not_exist"] = "false"  # an empty store would be mistaken for this one
        if self._embedder is not None:
            options["embedder"] = str(self._embedder.given_name)
        return f"sqlite:///{quote(self._file)}?{urlencode(options)}"

    @property
    def _is_asynchronous(self) -> bool:
        # Each transaction runs in a thread. With an embedder, its asynchronous methods come before that.
        return self._embedder is not None

    def backup(self, file: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copy the whole database, with all its tables, as it is now. Meanwhile, others may read and write.

        The copy is checked and put on the disk before it gets its name. It works even if the file itself has been
        deleted or replaced: what was acknowledged is in the copy.

        Args:
            file: The copy, which must not exist.
            progress: Is called with the number of pages that have been copied, and the number of all pages.

        Raises:
            ConfigurationError: The copy exists already.
            BackendError: The database cannot be read, or the copy cannot be written; nothing is left of the copy.
        """
        target = Path(_checked_path(file))
        work = partial(_copy, target=target, progress=progress)
        try:
            self._client.run(Transaction(work), self._check_open, even_moved=True)
        except self.driver_errors as error:
            raise BackendError(f"{self.db_path!r} cannot be copied to {str(target)!r}: {error}") from error

    async def abackup(self, file: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copy the whole database; see `backup`. `progress` is called in another thread."""
        await self._in_thread(self.backup, file, progress)

    def _ask(self, request: Transaction[Any]) -> Any:
        return self._client.run(request, self._check_open)

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        return translated(error, self.db_path, self.timeout)

    def _close(self) -> None:
        super()._close()
        self._client.close()


def _copy(connection: Connection, target: Path, progress: Progress | None) -> None:
    driver: Any = connection.connection.dbapi_connection
    copy(driver, target, progress)


def path_in(url: str) -> tuple[str, str]:
    """Return the path and the query of a URL for SQLite.

    Raises:
        ConfigurationError: It is not such a URL.
    """
    if not url.isprintable() or "#" in url:
        raise ConfigurationError(f"{url!r} has a character that must be escaped in a URL: write # as %23")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a URL: {error}") from None
    if parts.netloc:
        raise ConfigurationError(
            f"{url!r} names the host {parts.netloc!r}: write three slashes before a relative path "
            "(sqlite:///conversations.db), four before an absolute one"
        )
    return unquote(parts.path)[1:] or MEMORY, parts.query


def _checked_path(path: Any) -> str:
    """Check the path of a file.

    Raises:
        ConfigurationError: It is not a path that SQLite can open.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str):
        raise ConfigurationError(f"db_path must be a path, as a string or a pathlib.Path, not {path!r}")
    if not text or "\0" in text:
        raise ConfigurationError(f"db_path={text!r} does not name a file: give a path, or :memory:")
    if text.startswith("sqlite:"):
        raise ConfigurationError(f"db_path={text!r} is a URL: give a path, or use create_backend(url)")
    return text


def _checked_name(name: str) -> str:
    """Check the name of a table; quotes, spaces and all letters are allowed.

    Raises:
        ConfigurationError: SQLite cannot have a table of that name.
    """
    if not isinstance(name, str) or not name or not is_clean(name) or name.lower().startswith("sqlite_"):
        raise ConfigurationError(
            f"index_name={name!r} cannot name a table: give a non-empty string that does not begin with sqlite_"
        )
    return name
