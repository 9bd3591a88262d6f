"""Statements that are compiled once and run by the driver.

For a small read or write, SQLAlchemy's own way to the driver costs more than SQLite itself. Within a transaction, both
ways can be mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import ClauseElement


class Prepared:
    """A statement of SQLAlchemy Core, compiled for a dialect and run with named parameters.

    It is only for statements with values that the driver takes and returns unchanged (text, numbers, bytes).

    Args:
        statement: The statement; each value in it is a `bindparam`.
        dialect: The dialect that will run it.
    """

    def __init__(self, statement: ClauseElement, dialect: sa.Dialect) -> None:
        """Compile the statement."""
        compiled = statement.compile(dialect=dialect)
        self.sql = compiled.string
        # None if the driver takes parameters by name.
        self._order: Sequence[str] | None = getattr(compiled, "positiontup", None)
        # Values that the compiler adds, such as SQLite's OFFSET 0.
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def fetch(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """Run the statement once and return its rows."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self.sql, self._ordered(parameters))
            return list(cursor.fetchall())
        finally:
            cursor.close()

    def run(self, connection: sa.Connection, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement for each set of parameters."""
        cursor = connection.connection.cursor()
        try:
            if len(parameters) == 1:
                cursor.execute(self.sql, self._ordered(parameters[0]))
            else:
                cursor.executemany(self.sql, [self._ordered(each) for each in parameters])
        finally:
            cursor.close()

    def _ordered(self, parameters: Mapping[str, Any]) -> Any:
        values = {**self._constants, **parameters}
        return values if self._order is None else tuple([values[name] for name in self._order])
