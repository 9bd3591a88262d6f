"""Tables of SQL databases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from dynamiq_memory.exceptions import TransferError
from dynamiq_memory.transfer.streams import File

_AT_ONCE = 500


def rows_of(file: File, table: str, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Read the rows of a table, in the order of its first column.

    Args:
        file: The path of a SQLite file, or the URL of any database that SQLAlchemy can open. It is only read.
        table: The table.
        columns: The columns to read.

    Raises:
        TransferError: The database cannot be read, or has no such table.
    """
    if not isinstance(file, str | os.PathLike):
        raise TransferError("a database cannot be read from a stream: give its path or its URL")
    name = os.fspath(file)
    url = name if "://" in name else f"sqlite:///file:{quote(os.path.abspath(name))}?mode=ro&uri=true"  # noqa: PTH100
    if "://" not in name and not Path(name).is_file():
        raise TransferError(f"the file {name!r} does not exist: check its name")
    fields: list[sa.ColumnClause[Any]] = [sa.column(column) for column in columns]
    statement = sa.select(*fields).select_from(sa.table(table)).order_by(fields[0])
    try:
        with _connected(url) as connection:
            for row in connection.execution_options(yield_per=_AT_ONCE).execute(statement):
                yield tuple(row)
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or type(error).__name__)
        raise TransferError(f"the table {table!r} cannot be read ({reason}): check the database") from error


@contextmanager
def _connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
