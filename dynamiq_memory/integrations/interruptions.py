"""Answers and calls that were cut off: how they are marked, and the messages given instead of the missing part."""

from __future__ import annotations

from collections.abc import Sequence

from dynamiq_memory.conversation.calls import calls_of, results_of
from dynamiq_memory.conversation.interruptions import ANSWER_NOTE, CALL_NOTE, mark_interrupted, with_open_calls
from dynamiq_memory.integrations.plans import Plan, UpdateMany, get_latest
from dynamiq_memory.messages import INTERRUPTED_KEY, Message

__all__ = [
    "ANSWER_NOTE",
    "CALL_NOTE",
    "INTERRUPTED_KEY",
    "interrupt_open_calls",
    "mark_interrupted",
    "with_open_calls",
]

# More messages than a round has.
_ROUND = 32


def interrupt_open_calls(latest: Sequence[Message]) -> Plan[None]:
    """Mark the session's last calls as interrupted, if they have no results; a plan over a scoped `Memory`.

    For a framework that stores calls before it has their results: when the user speaks again, they will have none.

    Args:
        latest: The session's last message; empty if it has none.
    """
    if not any(calls_of(message) or results_of(message) for message in latest):
        return
    cut_off = with_open_calls((yield from get_latest(_ROUND)), ended=True)
    new = [message for message in cut_off[-1:] if not message.interrupted]
    mark_interrupted(new)
    if new:
        yield from UpdateMany(new)
