"""What a check has counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random
from typing import Any, Self


@dataclass
class Tally:
    """Counts of one promise on one store.

    Attributes:
        runs: Number of times that the check was made.
        faults: Processes that were killed, and connections, requests, disks or locks that failed.
        operations: Operations whose outcome was checked.
        lost: Messages that should have been there and were not.
        doubled: Messages that were there more than once.
        leaked: Messages that somebody else saw, or that were changed by an operation on others.
        wrong: Anything else: half a batch, another order or content, another answer, a foreign error.
        seen: What was lost, doubled, leaked or wrong, in words.
    """

    runs: int = 0
    faults: int = 0
    operations: int = 0
    lost: int = 0
    doubled: int = 0
    leaked: int = 0
    wrong: int = 0
    seen: list[str] = field(default_factory=list)

    def __iadd__(self, other: Tally) -> Self:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.doubled or self.leaked or self.wrong or self.seen)

    def compare(self, found: Sequence[Any], allowed: Sequence[Sequence[Any]], where: str) -> None:
        """Count what distinguishes what was found from the nearest of what is allowed."""
        self.operations += 1
        if any(list(found) == list(each) for each in allowed):
            return
        nearest = min(allowed, key=lambda each: _distance(found, each))
        has, had = Counter(found), Counter(nearest)
        lost = (had - has).total()
        doubled = sum(count - 1 for count in has.values() if count > 1)
        self.lost += lost
        self.doubled += doubled
        if not lost and not doubled:
            self.wrong += 1
        self.seen.append(f"{where}: found {_short(found)}, nearest of {len(allowed)} allowed: {_short(nearest)}")

    def expect(self, holds: bool, what: str, kind: str = "wrong") -> None:
        """Count something that must hold; `kind` is the counter that grows if it does not."""
        self.operations += 1
        if not holds:
            setattr(self, kind, getattr(self, kind) + 1)
            self.seen.append(what)


def _distance(found: Sequence[Any], other: Sequence[Any]) -> int:
    has, had = Counter(found), Counter(other)
    return (has - had).total() + (had - has).total()


def _short(values: Sequence[Any]) -> str:
    text = str([str(value)[:20] for value in values])
    return text if len(text) < 1200 else f"{text[:600]}…{text[-600:]} ({len(values)})"


Check = Callable[[Random], Tally]
"""Makes one run of a check, with random choices."""

Opener = Callable[[Path], AbstractContextManager[Check]]
"""Sets up what a check needs, in a folder that is empty."""

Checks = dict[str, Opener]
"""The checks of one promise, by the name of the store."""

Opened = Iterator[Check]
