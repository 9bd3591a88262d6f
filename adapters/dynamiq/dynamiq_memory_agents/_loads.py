"""What an agent's run has been given of a session.

An agent reads its memory when its run begins and hands over its whole prompt when it ends, both within one context
(of `contextvars`). What was given then tells, now, what of the prompt is old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

from dynamiq.prompts import Message as DynamiqMessage

Scope = tuple[int, str | None, str | None]
"""A store (by the identity of its backend), a user and a session."""

# Runs that failed leave theirs behind, in a context that may live as long as the process.
_MOST_SCOPES = 64
_MOST_LOADS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """What was given.

    Attributes:
        query: What the agent is asked; None if that is not what may be stored.
        messages: What it was given, without instructions: these are not handed over.
    """

    query: str | None
    messages: tuple[DynamiqMessage, ...]


_loads: ContextVar[Mapping[Scope, tuple[Load, ...]]] = ContextVar(
    "dynamiq_memory_agents_loads", default=MappingProxyType({})
)


def remember(scope: Scope, load: Load) -> None:
    """Keep what was given in this context, besides what was given before: a tool may read the memory too."""
    known = dict(_loads.get())
    kept = (*known.pop(scope, ()), load)[-_MOST_LOADS:]
    known[scope] = kept
    for oldest in list(known)[:-_MOST_SCOPES]:
        del known[oldest]
    _loads.set(known)


def recall(scope: Scope) -> Sequence[Load]:
    """What was given in this context, oldest first."""
    return _loads.get().get(scope, ())


def forget(scope: Scope) -> None:
    """Drop what was given: the run has been saved."""
    _loads.set({known: loads for known, loads in _loads.get().items() if known != scope})
