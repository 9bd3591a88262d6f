"""How much work data makes, to decide whether a thread does it instead of an event loop."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

LARGE = 20_000
"""The weight of data that takes milliseconds to check, convert, tokenize or rank. Handing it to a thread takes some 80
microseconds."""
_EACH = 10
_LIGHT = frozenset({bool, float, int, type(None)})
# Not written as unions, which Python would make again for each value.
_TEXTS = (str, bytes)
_COLLECTIONS = (list, tuple, set, frozenset)


def weigh(value: Any, most: int = LARGE) -> int:
    """Estimate the size of messages, operations, filters, rows or a client's objects, with all that they consist of.

    Args:
        value: The data.
        most: The weight from which on the rest is not looked at.

    Returns:
        The number of characters, and 10 for each object; for heavy data any number that is not below `most`.
    """
    weight, waiting = 0, [value]
    while waiting and weight < most:
        each = waiting.pop()
        if isinstance(each, _TEXTS):
            weight += len(each)
            continue
        parts = _parts(each)
        weight += _EACH * len(parts)
        if weight >= most:
            break
        for part in parts:
            if type(part) is str:  # the most frequent, so without the list
                weight += len(part)
            elif type(part) not in _LIGHT:
                waiting.append(part)
    return weight


def _parts(value: Any) -> Collection[Any]:
    if isinstance(value, _COLLECTIONS):
        return value
    if isinstance(value, dict):
        return value.values()
    if hasattr(value, "__dict__"):
        fields_of_object: dict[str, Any] = value.__dict__
        return fields_of_object.values()
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    rows: Collection[Any] = value if isinstance(value, Sequence) else ()  # such as a row of SQLAlchemy
    return rows
