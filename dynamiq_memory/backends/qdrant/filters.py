"""Translation of filters to Qdrant's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends.qdrant import records
from dynamiq_memory.filters import Absent, Condition, Filter, Number, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

_LARGEST = 1.7976931348623157e308
# Seconds that no message has; in microseconds they fit in 64 bits.
_FAR = 1e12


@dataclass(frozen=True, slots=True)
class Translation:
    """A filter in Qdrant's terms.

    Attributes:
        must: Conditions that must hold.
        must_not: Conditions that must not hold.
        exact: Whether it matches the same messages as the filter. Otherwise it matches a few more, which must be
            checked again.
    """

    must: tuple[Any, ...] = ()
    must_not: tuple[Any, ...] = ()
    exact: bool = True

    def narrowed(self, *must: Any, must_not: Sequence[Any] = ()) -> Translation:
        """Return the same with more conditions."""
        return replace(self, must=(*self.must, *must), must_not=(*self.must_not, *must_not))

    @property
    def filter(self) -> models.Filter:
        """The filter for the client, which excludes points that are being deleted."""
        return models.Filter(must=[*self.must, _ALIVE], must_not=list(self.must_not) or None)

    def marked_except(self, periods: Sequence[str]) -> models.Filter:
        """Return the filter for matching points that are being deleted, except those marked in some periods."""
        kept = matches(records.GONE, *periods, records.NEVER_GONE)
        return models.Filter(must=list(self.must) or None, must_not=[*self.must_not, _ALIVE, kept])


def translate(filter: Filter) -> Translation:
    """Translate a filter."""
    found = [_translate(condition) for condition in filter.conditions]
    return Translation(
        tuple(chain.from_iterable(each.must for each in found)),
        tuple(chain.from_iterable(each.must_not for each in found)),
        all(each.exact for each in found),
    )


def near(first: int, last: int) -> models.FieldCondition:
    """Return a condition for a range of microseconds.

    The store compares bounds as doubles, so that it may match the microseconds before and after the range, too.
    """
    return _within(records.ORDER, gte=float(first - 1), lte=float(last + 1))


def marked_by(token: str) -> models.Filter:
    """Return the filter for the points that one deletion has marked."""
    return models.Filter(must=[matches(records.GONE, token)])


def matches(key: str, *values: str) -> models.FieldCondition:
    """Return a condition for a field that contains one of several texts."""
    match = models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=list(values))
    return models.FieldCondition(key=key, match=match)


def _within(key: str, **bounds: float) -> models.FieldCondition:
    return models.FieldCondition(key=key, range=models.Range(**bounds))


def is_empty(key: str) -> models.IsEmptyCondition:
    """Return a condition for a field that a point does not have."""
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))


_ALIVE = is_empty(records.GONE)
_NOTHING = Translation((models.HasIdCondition(has_id=[]),))


def _translate(condition: Condition) -> Translation:
    key = condition.key
    if key == TIMESTAMP_KEY:
        return _of_time(condition)
    if key in (MESSAGE_ID_KEY, USER_KEY, SESSION_KEY):
        if isinstance(condition, Absent) and key != MESSAGE_ID_KEY:
            return Translation((is_empty(key),))
        texts = [value for value in getattr(condition, "values", ()) if isinstance(value, str)]
        return Translation((matches(key, *texts),)) if texts else _NOTHING
    if isinstance(condition, Absent):
        return Translation(must_not=(matches(records.LABELS, records.key_label(key)),))
    if isinstance(condition, OneOf):
        labels = [records.value_label(key, value) for value in condition.values]
        return Translation((matches(records.LABELS, *labels),)) if labels else _NOTHING
    lower, upper = _ends(condition)
    between = _within("value", gte=_widened(lower, -math.inf), lte=_widened(upper, math.inf))
    number = models.Filter(must=[matches("key", records.key_label(key)), between])
    nested = models.NestedCondition(nested=models.Nested(key=records.NUMBERS, filter=number))
    return Translation((nested,), exact=False)


def _of_time(condition: Condition) -> Translation:
    if isinstance(condition, Range):
        first, last = map(_order, _ends(condition))
    else:
        values = getattr(condition, "values", ())
        orders = [_order(each) for each in values if isinstance(each, Number) and not isinstance(each, bool)]
        if not orders:
            return _NOTHING
        first, last = min(orders), max(orders)
    return Translation((near(first, last),), exact=False)


def _order(time: Number) -> int:
    return records.order_of(max(-_FAR, min(_FAR, float(time))))


def _ends(condition: Range) -> tuple[float, float]:
    """Return the bounds of a range, infinite if there are none."""
    lower = [float(bound) for operator, bound in condition.bounds if operator in ("gt", "gte")]
    upper = [float(bound) for operator, bound in condition.bounds if operator in ("lt", "lte")]
    return max(lower, default=-math.inf), min(upper, default=math.inf)


def _widened(bound: float, direction: float) -> float:
    """Return a bound that is a few units in the last place wider: the store's numbers may be off by that much."""
    for _ in range(4):
        bound = math.nextafter(bound, direction)
    return max(-_LARGEST, min(_LARGEST, bound))
