"""The portable filter language.

    {"k": "v"}                  equals
    {"k": ["a", "b"]}           one of
    {"k": {"gte": 1, "lt": 5}}  range (gt, gte, lt, lte)
    {"k": None}                 absent or null
    {"k": 1, "l": True}         all of these

Keys are metadata keys, taken literally: a dot is just a character. `timestamp` and `message_id` are the message's own
fields. Numbers compare by value, booleans are not numbers, and strings must match exactly.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynamiq_memory._json import MAX_INTEGER, is_clean
from dynamiq_memory.exceptions import FilterError
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

if TYPE_CHECKING:
    from dynamiq_memory.messages import Message

Scalar = str | int | float | bool
Number = int | float

_TEXT_KEYS = (USER_KEY, SESSION_KEY, MESSAGE_ID_KEY)
_OPERATORS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_SHAPES = (
    "a string, number or boolean (equals), a list of them (one of), "
    "a dict of gt, gte, lt, lte with numbers (range), or None (absent or null)"
)


@dataclass(frozen=True, slots=True)
class OneOf:
    """The key's value equals one of `values`; plain equality has a single value."""

    key: str
    values: tuple[Scalar, ...]
    _typed: frozenset[tuple[type | None, Scalar]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the set for fast look-ups."""
        object.__setattr__(self, "_typed", frozenset((_kind(value), value) for value in self.values))

    def holds(self, value: Any) -> bool:
        """Whether a metadata value meets the condition."""
        kind = _kind(value)
        return kind is not None and (kind, value) in self._typed


@dataclass(frozen=True, slots=True)
class Range:
    """The key's value is a number within the bounds, which are pairs of operator and number."""

    key: str
    bounds: tuple[tuple[str, Number], ...]

    def holds(self, value: Any) -> bool:
        """Whether a metadata value meets the condition."""
        return _kind(value) is float and all(_OPERATORS[name](value, bound) for name, bound in self.bounds)


@dataclass(frozen=True, slots=True)
class Absent:
    """The key is missing or null."""

    key: str

    def holds(self, value: Any) -> bool:
        """Whether a metadata value meets the condition."""
        return value is None


Condition = OneOf | Range | Absent


@dataclass(frozen=True, slots=True)
class Filter:
    """A checked filter: all of its conditions must hold.

    Attributes:
        conditions: One condition per key.
        owner: The part before the first slash of the `user_id` of all messages that match, if it is known. It follows
            from the conditions: a store may use it to find the messages, and need not check it.
    """

    conditions: tuple[Condition, ...] = ()
    owner: str | None = None

    def matches(self, message: Message) -> bool:
        """Whether a stored message meets all conditions."""
        return all(condition.holds(_value(message, condition.key)) for condition in self.conditions)

    def scope(self, key: str) -> tuple[str | None, ...] | None:
        """The values that the filter allows for `user_id` or `session_id`.

        Returns:
            The allowed ids, where None means messages without one; or None if any id is allowed.
        """
        allowed: tuple[str | None, ...] | None = None
        for condition in self.conditions:
            if condition.key != key:
                continue
            values = condition.values if isinstance(condition, OneOf) else (None,)
            allowed = tuple(
                value
                for value in values
                if not isinstance(value, int | float) and (allowed is None or value in allowed)
            )
        return allowed

    @property
    def beyond_scope(self) -> tuple[Condition, ...]:
        """The conditions on keys other than `user_id` and `session_id`."""
        return tuple(c for c in self.conditions if c.key not in (USER_KEY, SESSION_KEY))


def parse(filters: Mapping[str, Any] | None) -> Filter:
    """Check a filter and convert it to a `Filter`.

    Args:
        filters: The filter as users write it; None or an empty dict matches everything.

    Raises:
        FilterError: The filter is malformed; the error names the key.
    """
    if filters is None:
        return Filter()
    if not isinstance(filters, Mapping):
        raise FilterError(f"filters must be a dict, not {type(filters).__name__}")
    return Filter(tuple(_condition(key, value) for key, value in filters.items()))


def to_mapping(filter: Filter) -> dict[str, Any]:
    """Convert a `Filter` back to the dict that users write, merging conditions on the same key into one."""
    merged: dict[str, Condition] = {}
    for condition in filter.conditions:
        earlier = merged.get(condition.key)
        merged[condition.key] = condition if earlier is None else _both(earlier, condition)
    return {key: _to_value(condition) for key, condition in merged.items()}


def _to_value(condition: Condition) -> Any:
    if isinstance(condition, Absent):
        return None
    return dict(condition.bounds) if isinstance(condition, Range) else list(condition.values)


def _both(one: Condition, other: Condition) -> Condition:
    """Merge two conditions on the same key into one that holds when both do."""
    if isinstance(other, OneOf):
        one, other = other, one
    if isinstance(one, OneOf):
        return OneOf(one.key, tuple(value for value in one.values if other.holds(value)))
    if isinstance(one, Range) and isinstance(other, Range):
        bounds = dict(one.bounds)
        for name, bound in other.bounds:
            tighter = max if name.startswith("g") else min
            bounds[name] = tighter(bound, bounds.get(name, bound))
        return Range(one.key, tuple(bounds.items()))
    return one if one == other else OneOf(one.key, ())


def _condition(key: Any, value: Any) -> Condition:
    if not isinstance(key, str) or not is_clean(key):
        raise FilterError(f"a filter key must be a string without NUL or lone surrogates, not {key!r}")
    if value is None:
        return Absent(key)
    if isinstance(value, Mapping):
        return Range(key, _bounds(key, value))
    values = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    for item in values:
        _check_scalar(key, item)
    return OneOf(key, values)


def _check_scalar(key: str, value: Any) -> None:
    kind = _kind(value)
    if kind is None:
        raise FilterError(f"filters[{key!r}] contains {value!r}, a {type(value).__name__}: use {_SHAPES}")
    if kind is str and not is_clean(value):
        raise FilterError(f"filters[{key!r}] must not contain NUL or lone surrogates: {value!r}")
    if kind is float:
        _check_number(key, value)
    if key in _TEXT_KEYS and kind is not str:
        raise FilterError(f"filters[{key!r}] is always a string, so {value!r} cannot match: use {str(value)!r}")


def _check_number(key: str, value: Number) -> None:
    if not math.isfinite(value):
        raise FilterError(f"filters[{key!r}] is {value}: use a finite number")
    if isinstance(value, int) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        raise FilterError(f"filters[{key!r}] does not fit in 64 bits, so no stored number can match it")


def _bounds(key: str, value: Mapping[Any, Any]) -> tuple[tuple[str, Number], ...]:
    if not value:
        raise FilterError(f"filters[{key!r}] is an empty dict: use a range such as {{'gte': 1, 'lt': 5}}")
    for name, bound in value.items():
        if name not in _OPERATORS:
            raise FilterError(
                f"filters[{key!r}] has the unknown operator {name!r}: use gt, gte, lt or lte for a range, "
                "a plain value for equality, or a list for one of several values"
            )
        if _kind(bound) is not float:
            raise FilterError(f"filters[{key!r}][{name!r}] must be a number, not {bound!r}")
        _check_number(key, bound)
    if key in _TEXT_KEYS:
        raise FilterError(f"filters[{key!r}] is always a string, so a range cannot match: use a string or a list")
    return tuple(value.items())


def _kind(value: Any) -> type | None:
    """Classify a value, since only values of one kind can be equal: `str`, `bool`, `float` (any number), or None."""
    if isinstance(value, str):
        return str
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, int | float) else None


def _value(message: Message, key: str) -> Any:
    if key == TIMESTAMP_KEY:
        return message.timestamp
    return message.id if key == MESSAGE_ID_KEY else message.metadata.get(key)


def earlier_than(timestamp: float, default: Any = None) -> dict[str, Any] | None:
    """Make a filter for messages before a time that keeps the bounds of the memory's default filter.

    Args:
        timestamp: POSIX seconds.
        default: The condition on `timestamp` in the memory's default filters. A filter passed to a call replaces it,
            so its bounds are repeated in the result.

    Returns:
        The filter, or None if the default already names exact times.
    """
    if default is not None and not isinstance(default, Mapping):
        return None
    bounds = dict(default or {})
    return {TIMESTAMP_KEY: {**bounds, "lt": min(bounds.get("lt", math.inf), timestamp)}}
