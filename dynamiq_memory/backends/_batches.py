"""Taking a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(values: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Cut values into groups, as Python 3.12's `itertools.batched` does."""
    iterator = iter(values)
    while group := tuple(islice(iterator, size)):
        yield group


def limited(values: Iterable[tuple[T, int]], most: int, most_in_all: int) -> Iterator[list[T]]:
    """Cut values into groups of at most so many, and of at most such a size in all.

    Args:
        values: Each with its size; one that is larger than the limit makes a group of its own.
        most: How many.
        most_in_all: How large.
    """
    group: list[T] = []
    total = 0
    for value, size in values:
        if group and (len(group) == most or total + size > most_in_all):
            yield group
            group, total = [], 0
        group.append(value)
        total += size
    if group:
        yield group
