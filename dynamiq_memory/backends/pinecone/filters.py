"""Filters in the service's language.

What is translated finds at least what matches; the messages found are then checked by the filter language's own
evaluator, since the service keeps numbers as floats and has no lists, dates or nulls to compare with.
https://docs.pinecone.io/guides/search/filter-by-metadata
"""

from __future__ import annotations

from typing import Any

from dynamiq_memory.backends.pinecone import keys, records
from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

Native = dict[str, Any]
MOST_VALUES = 1_000
_NOTHING: Native = {records.KIND: {"$eq": "nothing"}}


def all_of(*conditions: Native) -> Native:
    """What meets all of the conditions."""
    given = [each for each in conditions if each]
    return given[0] if len(given) == 1 else {"$and": given}


def scope(where: Filter) -> list[Native]:
    """The conditions on user and session."""
    found: list[Native] = []
    for name, field in ((USER_KEY, records.USER), (SESSION_KEY, records.SESSION)):
        allowed = where.scope(name)
        if allowed is not None:
            found.append(_in(field, [keys.encoded(each) for each in allowed]))
    return found


def beyond(where: Filter) -> list[Native]:
    """The conditions on other keys, as far as the service can tell."""
    return [found for found in map(_translated, where.beyond_scope) if found is not None]


def _translated(condition: Condition) -> Native | None:
    if condition.key == TIMESTAMP_KEY:
        return _native(records.TIME, condition)
    if condition.key == MESSAGE_ID_KEY:
        if not isinstance(condition, OneOf) or len(condition.values) > MOST_VALUES:
            return None
        return _in(records.ID, [keys.encoded(each) for each in condition.values if isinstance(each, str)])
    if not records.can_list(condition.key, None):
        return None
    native = _native(records.OWN + condition.key, condition)
    # A message with more values than can be given to the service says so, and is looked at here.
    return native and {"$or": [native, {records.UNLISTED: {"$eq": True}}]}


def _native(field: str, condition: Condition) -> Native | None:
    if isinstance(condition, Absent):
        return {field: {"$exists": False}}
    if isinstance(condition, Range):
        bounds = {f"${_wider(operator)}": float(bound) for operator, bound in condition.bounds}
        return {field: bounds}
    if len(condition.values) > MOST_VALUES:
        return None
    texts = [each for each in condition.values if isinstance(each, str) and records.can_list("", each)]
    numbers = [float(each) for each in condition.values if isinstance(each, int | float) and not isinstance(each, bool)]
    options: list[Native] = [{field: {"$eq": each}} for each in condition.values if isinstance(each, bool)]
    if texts:
        options.append(_in(field, texts))
    if numbers:
        options.append({field: {"$in": numbers}})
    if not options:
        return _NOTHING
    return options[0] if len(options) == 1 else {"$or": options}


def _wider(operator: str) -> str:
    """Numbers that differ beyond a float's precision are equal at the service."""
    return {"gt": "gte", "lt": "lte"}.get(operator, operator)


def _in(field: str, values: list[str]) -> Native:
    return {field: {"$in": values}} if values else _NOTHING
