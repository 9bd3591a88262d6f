"""Filters in SQLite's SQL: metadata is checked by a Python function that SQLite calls.

SQLite's JSON functions cannot address every key, and read some floats inexactly.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    FromClause,
    Select,
    Text,
    bindparam,
    func,
    select,
)

from dynamiq_memory._json import dumps, loads
from dynamiq_memory.backends._sql.filters import SQLFilters
from dynamiq_memory.filters import Absent, Condition, OneOf, Range
from dynamiq_memory.messages import Message

_FUNCTION = "dynamiq_memory_matches"
_CONDITIONS = {kind.__name__: kind for kind in (OneOf, Range, Absent)}


class SQLiteFilters(SQLFilters):
    """Translates filters for a SQLite file."""

    concatenate = "group_concat"

    def metadata(self, conditions: Sequence[Condition]) -> ColumnElement[bool]:
        """Call our function with the conditions."""
        call = getattr(func, _FUNCTION)
        matches: ColumnElement[bool] = call(self._messages.c.metadata, _encode(conditions), type_=Boolean)
        return matches

    def among(
        self, column: ColumnElement[Any], values: Sequence[Any] = (), name: str | None = None
    ) -> ColumnElement[bool]:
        """Whether a column is in a JSON array."""
        array = bindparam(name, self.packed(values), type_=Text)
        return column.in_(select(func.json_each(array).table_valued("value").c.value))

    def packed(self, values: Sequence[Any]) -> str:
        """Make many values a JSON array."""
        return json.dumps(values)

    def anchors(self) -> FromClause:
        """Read the anchors from a JSON array."""
        each = func.json_each(bindparam("anchors", type_=Text)).table_valued("key", "value")
        names = ("user_id", "session_id", "id", "numerator", "denominator")
        values: dict[str, ColumnElement[Any]] = {
            name: func.json_extract(each.c.value, f"$[{place}]") for place, name in enumerate(names)
        }
        values["timestamp"] = values.pop("numerator") / values.pop("denominator")
        return select(each.c.key.label("number"), *(value.label(name) for name, value in values.items())).subquery()

    def packed_anchors(self, anchors: Sequence[Message]) -> dict[str, Any]:
        """Make messages a JSON array. A time is a fraction of whole numbers, which SQLite reads exactly."""
        rows = [
            (each.user_id or "", each.session_id or "", each.id, *(each.timestamp or 0.0).as_integer_ratio())
            for each in anchors
        ]
        return {"anchors": json.dumps(rows)}

    def each(self, rows: FromClause, numbers: Select[Any]) -> tuple[FromClause, ColumnElement[int]]:
        """Join by a list of numbers, since SQLite has no LATERAL."""
        near = self._messages.alias("near")
        return rows.join(near, near.c.seq.in_(numbers.correlate(rows))), near.c.seq


def register_function(connection: sqlite3.Connection) -> None:
    """Make the function for metadata known to a connection."""
    connection.create_function(_FUNCTION, 2, _matches, deterministic=True)


def take_interrupt() -> BaseException | None:
    """Return the exception that the function raised in this thread, once.

    SQLite turns whatever its function raises into an error of its own; an interrupt must reach the caller as itself.
    """
    error, _raised.error = getattr(_raised, "error", None), None
    return error


_raised = threading.local()


def _matches(metadata: str, encoded: str) -> bool:
    try:
        values = loads(metadata)
        return all(condition.holds(values.get(condition.key)) for condition in _decode(encoded))
    except BaseException as error:
        _raised.error = error
        raise


def _encode(conditions: Sequence[Condition]) -> str:
    return dumps([[type(each).__name__, *(getattr(each, name) for name in each.__match_args__)] for each in conditions])


@lru_cache(16)  # for the statements that run now: many long filters would fill the memory
def _decode(encoded: str) -> tuple[Condition, ...]:
    return tuple(_CONDITIONS[kind](key, *map(tuple, values)) for kind, key, *values in loads(encoded))
