"""Translation of filters to Pinecone's.

A translation matches at least the messages that the filter matches. They are checked again, because the service stores
numbers as floats and cannot compare lists, dates or nulls.
https://docs.pinecone.io/guides/search/filter-by-metadata
"""

from __future__ import annotations

from typing import Any

from dynamiq_memory.backends.pinecone import keys, records
from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

PineconeFilter = dict[str, Any]

_MOST_VALUES = 1_000
_NOTHING: PineconeFilter = {records.KIND: {"$eq": "nothing"}}


def all_of(*filters: PineconeFilter) -> PineconeFilter:
    """Return a filter for the records that match all the filters."""
    present = [each for each in filters if each]
    return present[0] if len(present) == 1 else {"$and": present}


def of_kind(kind: str) -> PineconeFilter:
    """Return a filter for records of a kind: messages or parts."""
    return {records.KIND: {"$eq": kind}}


def of_scope(filter: Filter) -> list[PineconeFilter]:
    """Translate the conditions on user and session."""
    found: list[PineconeFilter] = []
    for name, field in ((USER_KEY, records.USER), (SESSION_KEY, records.SESSION)):
        allowed = filter.scope(name)
        if allowed is not None:
            found.append(_one_of(field, [keys.encoded(each) for each in allowed]))
    return found


def beyond_scope(filter: Filter) -> list[PineconeFilter]:
    """Translate the conditions on other keys, if the service can check them."""
    return [found for found in map(_translate, filter.beyond_scope) if found is not None]


def _translate(condition: Condition) -> PineconeFilter | None:
    if condition.key == TIMESTAMP_KEY:
        return _on_field(records.TIME, condition)
    if condition.key == MESSAGE_ID_KEY:
        if not isinstance(condition, OneOf) or len(condition.values) > _MOST_VALUES:
            return None
        return _one_of(records.ID, [keys.encoded(each) for each in condition.values if isinstance(each, str)])
    if not records.can_list(condition.key, None):
        return None
    found = _on_field(records.METADATA + condition.key, condition)
    # A message with more values than a record can list is marked, and checked later.
    return found and {"$or": [found, {records.UNLISTED: {"$eq": True}}]}


def _on_field(field: str, condition: Condition) -> PineconeFilter | None:
    if isinstance(condition, Absent):
        return {field: {"$exists": False}}
    if isinstance(condition, Range):
        return {field: {f"${_inclusive(operator)}": float(bound) for operator, bound in condition.bounds}}
    if len(condition.values) > _MOST_VALUES:
        return None
    texts = [each for each in condition.values if isinstance(each, str) and records.can_list("", each)]
    numbers = [float(each) for each in condition.values if isinstance(each, int | float) and not isinstance(each, bool)]
    options: list[PineconeFilter] = [{field: {"$eq": each}} for each in condition.values if isinstance(each, bool)]
    if texts:
        options.append(_one_of(field, texts))
    if numbers:
        options.append({field: {"$in": numbers}})
    if not options:
        return _NOTHING
    return options[0] if len(options) == 1 else {"$or": options}


def _inclusive(operator: str) -> str:
    """Return the operator with equality: the service's floats may equal a bound that the number does not."""
    return {"gt": "gte", "lt": "lte"}.get(operator, operator)


def _one_of(field: str, values: list[str]) -> PineconeFilter:
    return {field: {"$in": values}} if values else _NOTHING
