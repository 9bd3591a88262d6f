"""Tables of SQL databases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from dynamiq_memory.exceptions import ConfigurationError, TransferError
from dynamiq_memory.transfer.streams import File

_AT_ONCE = 500
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


def rows_of(file: File, table: str, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Read the rows of a table, in the order of its first column.

    Args:
        file: The path of a SQLite file, or the URL of any database that SQLAlchemy can open. It is only read.
        table: The table.
        columns: The columns to read.

    Raises:
        ConfigurationError: The URL is malformed; the error shows no password.
        TransferError: The database cannot be read, or has no such table.
    """
    if not isinstance(file, str | os.PathLike):
        raise TransferError("a database cannot be read from a stream: give its path or its URL")
    name = os.fspath(file)
    url = _url_of(name if "://" in name else f"sqlite:///file:{quote(os.path.abspath(name))}?mode=ro&uri=true")  # noqa: PTH100
    if "://" not in name and not Path(name).is_file():
        raise TransferError(f"the file {name!r} does not exist: check its name")
    fields: list[sa.ColumnClause[Any]] = [sa.column(column) for column in columns]
    statement = sa.select(*fields).select_from(sa.table(table)).order_by(fields[0])
    try:
        with _connected(url) as connection:
            for row in connection.execution_options(yield_per=_AT_ONCE).execute(statement):
                yield tuple(row)
    except (sa.exc.SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        # Only the driver's own words: those of SQLAlchemy and of Python may quote the URL.
        reason = str(getattr(error, "orig", None) or type(error).__name__)
        raise TransferError(f"the table {table!r} cannot be read ({reason}): check the database") from None


def _url_of(text: str) -> sa.URL:
    """Read the URL of a database.

    Raises:
        ConfigurationError: It is malformed; the error shows no password.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "this is not the URL of a database: write one such as postgresql://user:password@host:port/database"
        ) from None
    # The rest of a password would be taken for the host or the database, which drivers show.
    if url.host and "@" in f"{url.host}{url.database}":
        raise ConfigurationError("the user or the password in the URL has an @ or a /: write %40 and %2F for them")
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


@contextmanager
def _connected(url: sa.URL) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
