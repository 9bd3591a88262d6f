"""The step of a SQL store's plans: one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from dynamiq_memory.backends.plans import Step

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Transaction(Step[T_co]):
    """Work in a transaction that is committed at the end, and rolled back on an error.

    Attributes:
        work: Is called with the connection; its result is the step's.
        write: Whether it writes.
        snapshot: Whether its statements must all see the same state.
        large: Whether it would hold up an event loop for milliseconds.
    """

    work: Callable[[sa.Connection], T_co]
    write: bool = False
    snapshot: bool = False
    large: bool = False
