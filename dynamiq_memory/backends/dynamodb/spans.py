"""Which parts of a table's order a filter needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dynamiq_memory.backends.dynamodb.keys import (
    AT_SESSION,
    AT_USER,
    BY_SESSION,
    BY_USER,
    FIRST,
    LAST,
    ItemKey,
    highest_position,
    key_part,
    lowest_position,
    message_key,
    partition,
)
from dynamiq_memory.filters import Filter, OneOf, Range
from dynamiq_memory.messages import LATEST, MESSAGE_ID_KEY, TIMESTAMP_KEY

# More ids than this are not looked up one by one.
_MOST_IDS = 1000


@dataclass(frozen=True, slots=True)
class Span:
    """Messages that are consecutive in an index: those of a session, or those of a user over sessions.

    Attributes:
        user_id: The user they belong to.
        session_id: The session they belong to, where `index` is `BY_SESSION`.
        index: The index.
    """

    user_id: str | None
    session_id: str | None
    index: str

    @property
    def partition(self) -> str:
        """The partition that contains it."""
        return partition(self.user_id, self.session_id)

    def between(self, low: str, high: str) -> tuple[str, str, str]:
        """Return the index's sort key, and its values from one position to another."""
        if self.index == BY_USER:
            return AT_USER, low, high
        prefix = f"{key_part(self.session_id)}/"
        return AT_SESSION, prefix + low, prefix + high


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of positions, and the direction in which it is read.

    Attributes:
        low: The first position in it.
        high: The last position in it.
        newest_first: Whether it is read from the end.
    """

    low: str = FIRST
    high: str = LAST
    newest_first: bool = True

    def narrowed(self, filter: Filter) -> Interval:
        """Return the part of it that a filter's times allow; the filter itself decides at the bounds."""
        low, high = self.low, self.high
        for condition in filter.conditions:
            if condition.key != TIMESTAMP_KEY:
                continue
            bounds: list[tuple[str, float]] = []
            if isinstance(condition, Range):
                bounds = list(condition.bounds)
            elif isinstance(condition, OneOf):
                times = [v for v in condition.values if isinstance(v, int | float) and not isinstance(v, bool)]
                if not times:
                    return replace(self, low=LAST, high=FIRST)
                bounds = [("gte", min(times)), ("lte", max(times))]
            for operator, bound in bounds:
                time = float(max(-LATEST - 1, min(LATEST + 1, bound)))
                if operator in ("gt", "gte"):
                    low = max(low, lowest_position(time))
                else:
                    high = min(high, highest_position(time))
        return replace(self, low=low, high=high)


def keys_of_ids(filter: Filter, spans: Sequence[Span]) -> list[ItemKey] | None:
    """Return the keys of the messages that a filter names by id; None if it names none, or too many."""
    conditions = [c for c in filter.conditions if c.key == MESSAGE_ID_KEY and isinstance(c, OneOf)]
    if not conditions or not all(span.index == BY_SESSION for span in spans):
        return None
    ids = [value for value in dict.fromkeys(conditions[0].values) if isinstance(value, str)]
    if len(ids) * len(spans) > _MOST_IDS:
        return None
    return [message_key(span.user_id, span.session_id, each) for span in spans for each in ids]
