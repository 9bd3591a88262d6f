"""The messages that the memory has given to an agent's run.

An agent reads its memory when its run begins and passes its whole prompt when it ends, both within one context (of
`contextvars`). The messages given at the beginning show which part of the prompt is old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

from dynamiq.prompts import Message as DynamiqMessage

LoadKey = tuple[int, str | None, str | None]
"""The identity of the backend, a user and a session."""

# Failed runs leave their loads in a context that may live as long as the process.
_MOST_KEYS = 64
_MOST_LOADS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """One reading of the memory by an agent.

    Attributes:
        query: The agent's input; None if it must not be stored.
        messages: The messages that it was given, except instructions, which it does not pass back.
    """

    query: str | None
    messages: tuple[DynamiqMessage, ...]


_loads: ContextVar[Mapping[LoadKey, tuple[Load, ...]]] = ContextVar(
    "dynamiq_memory_agents_loads", default=MappingProxyType({})
)


def remember(key: LoadKey, load: Load) -> None:
    """Add a load to those of this context; there may be several, since a tool may read the memory too."""
    known = dict(_loads.get())
    kept = (*known.pop(key, ()), load)[-_MOST_LOADS:]
    known[key] = kept
    for oldest in list(known)[:-_MOST_KEYS]:
        del known[oldest]
    _loads.set(known)


def recall(key: LoadKey) -> Sequence[Load]:
    """Return the loads of this context, oldest first."""
    return _loads.get().get(key, ())


def forget(key: LoadKey) -> None:
    """Drop the loads of a run that has been saved."""
    _loads.set({known: loads for known, loads in _loads.get().items() if known != key})
