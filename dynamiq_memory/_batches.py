"""Batches of values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(values: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Split values into batches, like `itertools.batched` of Python 3.12."""
    iterator = iter(values)
    while batch := tuple(islice(iterator, size)):
        yield batch


def limited(values: Iterable[tuple[T, int]], max_count: int, max_size: int) -> Iterator[list[T]]:
    """Split values into batches of limited count and total size.

    Args:
        values: Values with their sizes. A value that exceeds the maximum size gets its own batch.
        max_count: Maximum number of values in a batch.
        max_size: Maximum total size of a batch.
    """
    batch: list[T] = []
    total = 0
    for value, size in values:
        if batch and (len(batch) == max_count or total + size > max_size):
            yield batch
            batch, total = [], 0
        batch.append(value)
        total += size
    if batch:
        yield batch
