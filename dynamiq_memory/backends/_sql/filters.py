"""From the filter language to SQL, always by bound parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, false

from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

MetadataClause = Callable[[Sequence[Condition]], ColumnElement[bool]]
"""Translates conditions on the keys of the metadata column, in the store's own way."""
Among = Callable[[ColumnElement[Any], Sequence[Any]], ColumnElement[bool]]
"""Tells whether a column is one of many values, in the store's own way."""

# More values than this are passed as one parameter: SQLite takes 32,766 at most, PostgreSQL 65,535.
_MANY = 500
_MOST_PARAMETERS = 30_000


def clauses(where: Filter, table: Table, metadata_clause: MetadataClause, among: Among) -> list[ColumnElement[bool]]:
    """Translate a filter for the table of messages.

    Returns:
        What must hold, to be joined by AND.
    """
    result = scope_clauses(where, table, among)
    others: list[Condition] = []
    for condition in where.beyond_scope:
        if condition.key == TIMESTAMP_KEY:
            result.append(_timestamp(condition, table, among))
        elif condition.key == MESSAGE_ID_KEY:
            ids = condition.values if isinstance(condition, OneOf) else ()
            result.append(one_of(table.c.id, ids, among))
        else:
            others.append(condition)
    if others:
        result.append(metadata_clause(others))
    return result


def scope_clauses(where: Filter, table: Table, among: Among) -> list[ColumnElement[bool]]:
    """Translate what a filter says of user_id and session_id."""
    result: list[ColumnElement[bool]] = []
    for key, column in ((USER_KEY, table.c.user_id), (SESSION_KEY, table.c.session_id)):
        allowed = where.scope(key)
        if allowed is not None:
            result.append(one_of(column, [value or "" for value in allowed], among))
    return result


def one_of(column: ColumnElement[Any], values: Sequence[Any], among: Among) -> ColumnElement[bool]:
    """Whether a column equals one of some values, few or many."""
    if len(values) > _MANY:
        return among(column, values)
    same: ColumnElement[bool] = column == values[0] if len(values) == 1 else column.in_(values)
    return same


def _timestamp(condition: Condition, table: Table, among: Among) -> ColumnElement[bool]:
    column = table.c.timestamp
    if isinstance(condition, Range):
        compare = {"gt": column.__gt__, "gte": column.__ge__, "lt": column.__lt__, "lte": column.__le__}
        return and_(*(compare[operator](bound) for operator, bound in condition.bounds))
    if isinstance(condition, Absent):
        return false()
    numbers = [value for value in condition.values if not isinstance(value, str | bool)]
    # Not as one JSON parameter: a store may read its fractions inexactly.
    return column.in_(numbers) if len(numbers) <= _MOST_PARAMETERS else one_of(column, numbers, among)
