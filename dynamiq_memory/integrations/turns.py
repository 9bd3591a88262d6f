"""Turns, budgets, and cutting a conversation only where every LLM API accepts it."""

from dynamiq_memory.conversation.calls import calls_of
from dynamiq_memory.conversation.dating import as_stored
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
