"""Contestants, the operations that they are timed in, and how they are timed: beside each other, in random order."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from benchmarks.speed.messages import SEED, Case, Row, cases, rows_of

Key = TypeVar("Key", bound=Hashable)

OURS = "ours"
WARM_UP = 2
_AT_ONCE = 1_000


class Contestant:
    """A store that is measured. A subclass has a method for each operation that it knows, of a case."""

    name: str

    def load(self, rows: Sequence[Row]) -> None:
        """Store messages of many sessions."""

    def prepare(self) -> None:
        """Do once, after loading, what a store in use has done."""

    def close(self) -> None:
        """Close what is open."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that is timed.

    Attributes:
        name: Its name in the tables.
        method: The contestants' method for it.
        repetitions: How often it is repeated.
        per_call: How many times one call does it.
    """

    name: str
    method: str
    repetitions: int = 100
    per_call: int = 1


@dataclass(frozen=True, slots=True)
class Contest:
    """Contestants that are measured beside each other.

    Attributes:
        name: Its name in the tables.
        sizes: The numbers of messages in the stores.
        contestants: Open the stores, in a folder; the first is ours.
        peers: Open stores that are measured in the smallest size alone.
        operations: What is measured.
    """

    name: str
    sizes: Sequence[int]
    contestants: Sequence[Callable[[Path], Contestant]]
    operations: Sequence[Operation]
    peers: Sequence[Callable[[Path], Contestant]] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """The result of a contestant in an operation.

    Attributes:
        contest: The contest.
        operation: The operation.
        contestant: The contestant.
        size: The number of messages in the store.
        microseconds: The median.
        ratio: The median of what ours took divided by what this one took in the same repetition.
    """

    contest: str
    operation: str
    contestant: str
    size: int
    microseconds: float
    ratio: float


def measure(contest: Contest, share: float) -> Iterator[Figure]:
    """Fill all stores of a contest, then time each operation on them in turn.

    Args:
        contest: The contest.
        share: The share of the repetitions that is made.
    """
    with ExitStack() as stack:
        stores: dict[tuple[str, int], Contestant] = {}
        for size in contest.sizes:
            peers = contest.peers if size == contest.sizes[0] else ()
            for opened in (*contest.contestants, *peers):
                folder = stack.enter_context(TemporaryDirectory(prefix="dm-bench-"))
                contestant = stack.enter_context(closing(opened(Path(folder))))
                load(contestant, size)
                stores[contestant.name, size] = contestant
        for number, operation in enumerate(contest.operations):
            given = cases(WARM_UP + max(5, round(operation.repetitions * share)), contest.sizes[0], SEED + number)
            methods = {key: getattr(each, operation.method, None) for key, each in stores.items()}
            times = interleaved({key: method for key, method in methods.items() if method is not None}, given)
            for (name, size), taken in times.items():
                ratios = [mine / its for mine, its in zip(times[OURS, size], taken, strict=True)]
                microseconds = median(taken) * 1e6 / operation.per_call
                yield Figure(contest.name, operation.name, name, size, microseconds, median(ratios))


def load(contestant: Contestant, size: int) -> None:
    """Fill a store."""
    rows = rows_of(size)
    while some := list(islice(rows, _AT_ONCE)):
        contestant.load(some)
    contestant.prepare()


def interleaved(calls: Mapping[Key, Callable[[Case], Any]], given: Sequence[Case]) -> dict[Key, list[float]]:
    """Time calls in turn, so that other load on the machine affects all of them. The first cases warm them up.

    The order is random, so that none always runs after the same other one and is affected by it.
    """
    times: dict[Key, list[float]] = {key: [] for key in calls}
    order = random.Random(SEED)
    for number, case in enumerate(given):
        for key in order.sample(list(calls), len(calls)):
            start = time.perf_counter()
            calls[key](case)
            elapsed = time.perf_counter() - start
            if number >= WARM_UP:
                times[key].append(elapsed)
    return times


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Fit time = a * size ** exponent: 0 is flat, 1 is proportional to the store."""
    x, y = [math.log(size) for size in sizes], [math.log(time) for time in times]
    above = sum((a - fmean(x)) * (b - fmean(y)) for a, b in zip(x, y, strict=True))
    return above / sum((a - fmean(x)) ** 2 for a in x)
