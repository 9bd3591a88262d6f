"""Filters in PostgreSQL's SQL: metadata is filtered by a column of JSONB beside the metadata, which are stored as text.

JSONB keeps no order of keys and accepts no NUL, so it has only what a filter can be about: for each key its string,
number or boolean. Its numbers are exact, as in Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._sql.filters import SQLFilters, within
from dynamiq_memory.filters import Absent, Condition, OneOf
from dynamiq_memory.messages import Message

# Present, and not equal to any value of a filter.
_PRESENT = "{}"
_MOST_ALTERNATIVES = 50
_ANCHOR = {"user_id": sa.Text(), "session_id": sa.Text(), "id": sa.Text(), "timestamp": sa.Double()}


class PostgreSQLFilters(SQLFilters):
    """Translates filters for PostgreSQL."""

    concatenate = "string_agg"

    def metadata(self, conditions: Sequence[Condition]) -> sa.ColumnElement[bool]:
        """Check the column of JSONB."""
        return sa.and_(*(_clause(self._messages.c.filterable, condition) for condition in conditions))

    def among(
        self, column: sa.ColumnElement[Any], values: Sequence[Any] = (), name: str | None = None
    ) -> sa.ColumnElement[bool]:
        """Whether a column is in an array."""
        return column == sa.any_(sa.bindparam(name, self.packed(values), type_=sa.ARRAY(column.type)))

    def listed(self, name: str) -> sa.FromClause:
        """Read an array."""
        array = sa.bindparam(name, type_=sa.ARRAY(sa.BigInteger))
        each = sa.func.unnest(array).table_valued(
            sa.column("value", sa.BigInteger), with_ordinality="place", name="each"
        )
        return each.render_derived()

    def packed(self, values: Sequence[Any]) -> list[Any]:
        """Make many values an array."""
        return list(values)

    def anchors(self) -> sa.FromClause:
        """Read the anchors from an array for each column."""
        arrays = [sa.bindparam(f"anchor_{name}", type_=sa.ARRAY(kind)) for name, kind in _ANCHOR.items()]
        each = sa.func.unnest(*arrays).table_valued(
            *(sa.column(name, kind) for name, kind in _ANCHOR.items()), with_ordinality="place", name="each"
        )
        each = each.render_derived()
        return sa.select((each.c.place - 1).label("number"), *(each.c[name] for name in _ANCHOR)).subquery()

    def packed_anchors(self, anchors: Sequence[Message]) -> dict[str, Any]:
        """Make messages an array for each column."""
        rows = [(each.user_id or "", each.session_id or "", each.id, each.timestamp or 0.0) for each in anchors]
        return {f"anchor_{name}": list(values) for name, values in zip(_ANCHOR, zip(*rows, strict=True), strict=True)}

    def each(self, rows: sa.FromClause, numbers: sa.Select[Any]) -> tuple[sa.FromClause, sa.ColumnElement[int]]:
        """Join laterally."""
        near = numbers.lateral()
        return rows.join(near, sa.true()), near.c.seq


def filterable(metadata: Mapping[str, Any]) -> str:
    """Return the JSON of what filters can match in metadata.

    Args:
        metadata: A prepared message's metadata; null counts as absent.
    """
    items = ((key, value) for key, value in metadata.items() if value is not None and is_clean(key))
    return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_json(value)}" for key, value in items) + "}"


def _json(value: Any) -> str:
    """Write a value as JSON, with exactly Python's number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if is_clean(value) else _PRESENT
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        # The shortest text of a large float is another number.
        return str(int(value)) if value.is_integer() else repr(value)
    return _PRESENT


def _clause(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    key = sa.literal(condition.key, sa.Text)
    if isinstance(condition, Absent):
        absent: sa.ColumnElement[bool] = sa.not_(column.op("?", is_comparison=True)(key))
        return absent
    value = column.op("->")(key)
    if isinstance(condition, OneOf):
        if len(condition.values) > _MOST_ALTERNATIVES:
            texts = [_json(each) for each in condition.values]
            equal: sa.ColumnElement[bool] = sa.cast(value, JSONB) == sa.any_(
                sa.cast(sa.literal(texts, sa.ARRAY(sa.Text)), sa.ARRAY(JSONB))
            )
            return equal
        # Containment, for which there is an index.
        objects = (sa.cast(sa.literal(filterable({condition.key: each}), sa.Text), JSONB) for each in condition.values)
        return sa.or_(sa.false(), *(column.op("@>", is_comparison=True)(each) for each in objects))
    number = sa.cast(column.op("->>")(key), sa.Numeric)
    bounds = [(name, sa.cast(sa.literal(_json(bound), sa.Text), sa.Numeric)) for name, bound in condition.bounds]
    # CASE keeps values that are not numbers from the cast.
    return sa.case((sa.func.jsonb_typeof(value) == "number", within(number, bounds)), else_=sa.false())
