"""The filter language in Qdrant's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends.qdrant import records as points
from dynamiq_memory.filters import Absent, Condition, Filter, Number, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

_LARGEST = 1.7976931348623157e308
# Seconds that no message has; in microseconds they fit in 64 bits.
_FAR = 1e12


@dataclass(frozen=True, slots=True)
class Native:
    """A filter for the store.

    Attributes:
        must: Conditions that hold.
        must_not: Conditions that do not.
        exact: Whether what it lets through is what the filter means; else that must be looked at again.
    """

    must: tuple[Any, ...] = ()
    must_not: tuple[Any, ...] = ()
    exact: bool = True

    def and_(self, *must: Any, must_not: Sequence[Any] = ()) -> Native:
        """The same with more conditions."""
        return replace(self, must=(*self.must, *must), must_not=(*self.must_not, *must_not))

    @property
    def filter(self) -> models.Filter:
        """The client's object, which leaves out what is being deleted."""
        return models.Filter(must=[*self.must, _ALIVE], must_not=list(self.must_not) or None)

    def left_behind(self, periods: Sequence[str]) -> models.Filter:
        """What matches and was marked as gone, in none of some periods."""
        kept = models.FieldCondition(key=points.GONE, match=models.MatchAny(any=[*periods, points.NEVER_GONE]))
        return models.Filter(must=list(self.must) or None, must_not=[*self.must_not, _ALIVE, kept])


def native(where: Filter) -> Native | None:
    """Translate a filter.

    Returns:
        The filter, or None if nothing can match.
    """
    translated = Native()
    for condition in where.conditions:
        own = _translated(condition)
        if own is None:
            return None
        translated = Native(
            (*translated.must, *own.must), (*translated.must_not, *own.must_not), translated.exact and own.exact
        )
    return translated


def matches(key: str, *values: str) -> models.FieldCondition:
    """A field holds one of several texts."""
    match = models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=list(values))
    return models.FieldCondition(key=key, match=match)


def within(key: str, **bounds: float) -> models.FieldCondition:
    """A field is in a range."""
    return models.FieldCondition(key=key, range=models.Range(**bounds))


def near(first: int, last: int) -> models.FieldCondition:
    """What is from one microsecond to another, and perhaps the one before or after: bounds are doubles to the store."""
    return within(points.ORDER, gte=float(first - 1), lte=float(last + 1))


def is_deleted_by(token: str) -> models.Filter:
    """What one deletion has taken."""
    return models.Filter(must=[matches(points.GONE, token)])


def _empty(key: str) -> models.IsEmptyCondition:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))


_ALIVE = _empty(points.GONE)


def _translated(condition: Condition) -> Native | None:
    key = condition.key
    if key == TIMESTAMP_KEY:
        return _of_time(condition)
    if key == MESSAGE_ID_KEY:
        return _one_of(points.MESSAGE_ID, condition)
    if key in (USER_KEY, SESSION_KEY):
        return Native((_empty(key),)) if isinstance(condition, Absent) else _one_of(key, condition)
    if isinstance(condition, Absent):
        return Native(must_not=(matches(points.LABELS, points.key_label(key)),))
    if isinstance(condition, OneOf):
        labels = [points.value_label(key, value) for value in condition.values]
        return Native((matches(points.LABELS, *labels),)) if labels else None
    number = models.Filter(must=[matches("key", points.key_label(key)), within("value", **_widened(condition))])
    nested = models.NestedCondition(nested=models.Nested(key=points.NUMBERS, filter=number))
    return Native((nested,), exact=False)


def _one_of(field: str, condition: Condition) -> Native | None:
    values = [value for value in getattr(condition, "values", ()) if isinstance(value, str)]
    return Native((matches(field, *values),)) if values else None


def _of_time(condition: Condition) -> Native | None:
    if isinstance(condition, Range):
        lower = [_order(bound) for operator, bound in condition.bounds if operator in ("gt", "gte")]
        upper = [_order(bound) for operator, bound in condition.bounds if operator in ("lt", "lte")]
        return Native((near(max(lower, default=_order(-_FAR)), min(upper, default=_order(_FAR))),), exact=False)
    numbers = [v for v in getattr(condition, "values", ()) if isinstance(v, Number) and not isinstance(v, bool)]
    if not numbers:
        return None
    return Native((near(_order(min(numbers)), _order(max(numbers))),), exact=False)


def _order(time: Number) -> int:
    return points.order_of(max(-_FAR, min(_FAR, float(time))))


def _widened(condition: Range) -> dict[str, float]:
    """The bounds, some units in the last place further: the store's numbers may be off by as much."""
    bounds: dict[str, float] = {}
    for operator, bound in condition.bounds:
        lower = operator in ("gt", "gte")
        wide = float(bound)
        for _ in range(4):
            wide = math.nextafter(wide, -math.inf if lower else math.inf)
        wide = max(-_LARGEST, min(_LARGEST, wide))
        name = "gte" if lower else "lte"
        if name in bounds:
            wide = max(bounds[name], wide) if lower else min(bounds[name], wide)
        bounds[name] = wide
    return bounds
