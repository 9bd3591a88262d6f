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
