"""How much of a prompt is the same as in the prompt for the question before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from dynamiq_memory.backends.operations import Read
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.conversation.revisions import current
from dynamiq_memory.conversation.strategies import Explanation
from dynamiq_memory.conversation.tokens import TokenCounter, as_sent
from dynamiq_memory.conversation.turns import begins_turn, split_turns
from dynamiq_memory.filters import earlier_than, parse
from dynamiq_memory.messages import TIMESTAMP_KEY, Message

_PAGE = 100
# The one that is asked and the one before.
_QUESTIONS = 2

Picking = Callable[[str | None, Mapping[str, Any]], Plan[Explanation]]
"""Picks messages for a query, of those that match filters."""


def pick_and_compare(
    pick: Picking, query: str | None, filters: Mapping[str, Any], count_tokens: TokenCounter
) -> Plan[Explanation]:
    """Pick messages, and set which share of their tokens is unchanged since the question before.

    Args:
        pick: Picks with the settings of both questions.
        query: The question to the agent.
        filters: Only messages that match.
        count_tokens: Counts the tokens of a message.
    """
    explanation = yield from pick(query, filters)
    before = yield from _prompt_before(pick, filters)
    if before is not None and explanation:
        explanation.unchanged = _share(explanation.conversation, before, count_tokens)
    return explanation


def _prompt_before(pick: Picking, filters: Mapping[str, Any]) -> Plan[list[Message] | None]:
    """Pick what was given for the question before, with that question; None if it is the first."""
    latest = yield from Read(parse(filters), _PAGE)
    while latest and sum(map(begins_turn, current(latest))) < _QUESTIONS:
        page = yield from Read(parse(filters), len(latest), before=latest[0])
        if not page:
            break
        latest = [*page, *latest]
    questions = [message for message in current(latest) if begins_turn(message)]
    turns = split_turns(current(latest))
    asked = bool(turns) and turns[-1].opened and not turns[-1].answered
    if len(questions) <= asked:
        return None
    question = questions[-2 if asked else -1]
    at = question.timestamp or 0.0
    earlier = earlier_than(math.nextafter(at, math.inf) if asked else at, filters.get(TIMESTAMP_KEY))
    if earlier is None:
        return None
    before = (yield from pick(question.text, {**filters, **earlier})).conversation
    return before if asked else [*before, question]


def _share(conversation: Sequence[Message], before: Sequence[Message], count_tokens: TokenCounter) -> float:
    tokens = [count_tokens(as_sent(message)) for message in conversation]
    pairs = zip(conversation, before, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0].to_openai() == pair[1].to_openai(), pairs))
    return sum(tokens[:same]) / max(1, sum(tokens))
