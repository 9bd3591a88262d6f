"""The neighbours of several messages, for stores that need a request for each place that they read from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dynamiq_memory.messages import Message, Scope, scope_of

T = TypeVar("T")

# Messages between anchors are read if they are at most this many times as much as their neighbours.
_TIMES = 4


def grouped(anchors: Sequence[Message]) -> list[list[int]]:
    """Return the numbers of anchors, in a group for each session."""
    numbers_of: dict[Scope, list[int]] = {}
    for number, anchor in enumerate(anchors):
        numbers_of.setdefault(scope_of(anchor), []).append(number)
    return list(numbers_of.values())


def alone(numbers: Sequence[int]) -> list[list[int]]:
    """Return a group for each anchor."""
    return [[number] for number in numbers]


def most_between(group: Sequence[Any], before: int, after: int) -> int:
    """Return how many messages may lie between the anchors of a group that are read together."""
    return _TIMES * len(group) * (before + after + 1) if len(group) > 1 else 0


def sides(
    line: Sequence[T], position: Any, key: Callable[[T], Any], before: int, after: int
) -> tuple[Sequence[T], Sequence[T]]:
    """Return what is directly before and after a position.

    Args:
        line: The stored messages around it, in order.
        position: The position.
        key: Returns the position of each.
        before: Maximum number before it.
        after: Maximum number after it.
    """
    start, stop = bisect_left(line, position, key=key), bisect_right(line, position, key=key)
    return line[max(0, start - before) : start], line[stop : stop + after]
