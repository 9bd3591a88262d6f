"""Turns, budgets, and cutting a conversation only where every LLM API accepts it."""

from collections.abc import Iterable

from dynamiq_memory.conversation.calls import calls_of
from dynamiq_memory.conversation.dating import as_stored as _as_stored
from dynamiq_memory.conversation.dating import dating_for
from dynamiq_memory.conversation.placement import last_question
from dynamiq_memory.conversation.revisions import current
from dynamiq_memory.conversation.turns import (
    OPENING,
    Budget,
    Turn,
    arrange,
    begins_turn,
    latest_turns,
    opening_turn,
    split_turns,
    whole_turns,
)
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message

__all__ = [
    "OPENING",
    "Budget",
    "Turn",
    "arrange",
    "as_stored",
    "begins_turn",
    "calls_of",
    "current",
    "last_question",
    "latest_turns",
    "opening_turn",
    "split_turns",
    "whole_turns",
]


def as_stored(memory: Memory, given: Iterable[Message], stored: Iterable[Message]) -> list[Message]:
    """Return messages that a framework gives back without what agents are given in front of questions.

    That is a block of recalled messages, and the date of one of the session's questions.

    Args:
        memory: The memory of the session, which chose what was given.
        given: The messages.
        stored: The messages of the session.
    """
    dating = dating_for(memory.dates, memory.timezone, memory.filters)
    labels = set() if dating is None else {dating.label(message) for message in stored} - {""}
    return [_as_stored(message, labels) for message in given]
