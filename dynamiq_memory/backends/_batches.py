"""Batches of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from dynamiq_memory.backends.plans import Plan, Step
from dynamiq_memory.exceptions import DynamiqMemoryError, PartialWriteError

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


def stored_in_batches(
    batches: Sequence[list[T]], store: Callable[[list[T]], Plan[Any] | Step[Any]], id_of: Callable[[T], str]
) -> Plan[None]:
    """Store messages in batches, in a store without transactions.

    Args:
        batches: The batches, which are stored one after the other.
        store: Stores a batch.
        id_of: Returns the id of a message in a batch.

    Raises:
        PartialWriteError: A batch failed after some messages had been stored.
    """
    stored: list[str] = []
    for batch in batches:
        try:
            yield from store(batch)
        except DynamiqMemoryError as error:
            if isinstance(error, PartialWriteError):
                stored += error.stored_ids
            if not stored:
                raise
            raise PartialWriteError(
                f"{error}. {len(stored)} of {sum(map(len, batches))} messages are stored: adding the same messages "
                "again is safe",
                stored,
            ) from error
        stored += map(id_of, batch)
