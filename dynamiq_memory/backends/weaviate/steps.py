"""Plans over a collection, written once and carried out with the synchronous or the asynchronous client.

A plan is a generator that yields what it needs (requests to a collection, vectors, other plans at once) and is sent
the results, or is thrown the client's error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dynamiq_memory.backends.plans import Plan

Request = Callable[[Any], Any]
"""Calls a method of a collection: with an asynchronous collection it returns an awaitable."""


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Asks for the results of several plans that do not depend on each other, and ask for no others at once."""

    plans: "Sequence[Plan[Any]]"  # noqa: UP037 - defined below


def ask(request: Request) -> Plan[Any]:
    """A plan of one request."""
    return (yield request)
