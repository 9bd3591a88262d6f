"""Filters in SQLite's SQL: metadata is checked by a Python function that SQLite calls.

SQLite's JSON functions cannot address every key, and read some floats inexactly.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    func,
    literal_column,
    select,
)

from dynamiq_memory._json import loads
from dynamiq_memory.backends._sql.filters import SQLFilters
from dynamiq_memory.filters import Condition
from dynamiq_memory.messages import Message

_FUNCTION = "dynamiq_memory_matches"
_FAILED = "user-defined function raised exception"


class SQLiteFilters(SQLFilters):
    """Translates filters for a SQLite file."""

    concatenate = "group_concat"

    def metadata(self, conditions: Sequence[Condition]) -> ColumnElement[bool]:
        """Call our function with the conditions."""
        call = getattr(func, _FUNCTION)
        number = bindparam(None, _Conditions(conditions), _Number, unique=True)
        matches: ColumnElement[bool] = call(self._messages.c.metadata, number, type_=Boolean)
        return matches

    def owned(self, owner: str) -> list[ColumnElement[bool]]:
        """Whether the part of the user_id before the first slash is the owner, for which there is an index."""
        return [owner_of(self._messages) == owner]

    def among(
        self, column: ColumnElement[Any], values: Sequence[Any] = (), name: str | None = None
    ) -> ColumnElement[bool]:
        """Whether a column is in a JSON array."""
        array = bindparam(name, self.packed(values), type_=Text)
        return column.in_(select(func.json_each(array).table_valued("value").c.value))

    def listed(self, name: str) -> FromClause:
        """Read a JSON array."""
        each = func.json_each(bindparam(name, type_=Text)).table_valued("key", "value")
        return select(each.c.key.label("place"), each.c.value).subquery()

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


def owner_of(messages: Table) -> ColumnElement[str]:
    """The part of the user_id before the first slash. It must be the same text in a statement as in its index."""
    slash: ColumnElement[str] = literal_column("'/'")
    position = func.instr(messages.c.user_id.op("||")(slash), slash, type_=Integer)
    part: ColumnElement[str] = func.substr(
        messages.c.user_id, literal_column("1"), position - literal_column("1", Integer), type_=Text
    )
    return part


def register_function(connection: sqlite3.Connection) -> None:
    """Make the function for metadata known to a connection."""
    connection.create_function(_FUNCTION, 2, _matches, deterministic=True)


def raised_within(error: BaseException) -> BaseException:
    """Return what our function raised, if that caused an error of SQLite, and otherwise the error itself.

    SQLite turns whatever its function raises into an error of its own; an interrupt must reach the caller as itself.
    """
    raised, _raised.error = getattr(_raised, "error", None), None
    if raised is None and _FAILED in str(error):
        # It came before the function's first line.
        return KeyboardInterrupt()
    return raised or error


_raised = threading.local()


class _Conditions:
    """Conditions on metadata, which statements name by a number: SQLite would copy them for each row."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = conditions

    def hold(self, values: dict[str, Any]) -> bool:
        return all(condition.holds(values.get(condition.key)) for condition in self._conditions)


class _Number(TypeDecorator[_Conditions]):
    """Passes conditions by their number, which is known as long as the statement with the conditions exists."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: _Conditions | None, dialect: Any) -> int:  # noqa: ARG002
        _known[id(value)] = value
        return id(value)


# Of statements that run now.
_known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def _matches(metadata: str, number: int) -> bool:
    try:
        holds: bool = _known[number].hold(loads(metadata))
    except BaseException as error:
        _raised.error = error
        raise
    return holds
