"""From the filter language to SQL, always by bound parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, Table, and_, false, or_

from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

MetadataClause = Callable[[Sequence[Condition]], ColumnElement[bool]]


def clauses(where: Filter, table: Table, metadata_clause: MetadataClause) -> list[ColumnElement[bool]]:
    """Translate a filter.

    Args:
        where: The filter.
        table: The table of messages.
        metadata_clause: Translates conditions on the keys of the metadata column, in the store's own way.

    Returns:
        What must hold, to be joined by AND.
    """
    result = scope_clauses(where, table)
    others: list[Condition] = []
    for condition in where.beyond_scope:
        if condition.key == TIMESTAMP_KEY:
            result.append(_timestamp(condition, table))
        elif condition.key == MESSAGE_ID_KEY:
            result.append(table.c.id.in_(condition.values) if isinstance(condition, OneOf) else false())
        else:
            others.append(condition)
    if others:
        result.append(metadata_clause(others))
    return result


def scope_clauses(where: Filter, table: Table) -> list[ColumnElement[bool]]:
    """Translate what a filter says of user_id and session_id."""
    result: list[ColumnElement[bool]] = []
    for key, column in ((USER_KEY, table.c.user_id), (SESSION_KEY, table.c.session_id)):
        allowed = where.scope(key)
        if allowed is not None:
            values = [value or "" for value in allowed]
            result.append(column == values[0] if len(values) == 1 else column.in_(values))
    return result


def _timestamp(condition: Condition, table: Table) -> ColumnElement[bool]:
    column = table.c.timestamp
    if isinstance(condition, Range):
        compare = {"gt": column.__gt__, "gte": column.__ge__, "lt": column.__lt__, "lte": column.__le__}
        return and_(*(compare[operator](bound) for operator, bound in condition.bounds))
    if isinstance(condition, Absent):
        return false()
    numbers = [value for value in condition.values if not isinstance(value, str | bool)]
    return or_(false(), column.in_(numbers))
