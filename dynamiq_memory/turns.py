"""Turns of a conversation: cutting it only where every LLM API accepts the cut. Pure functions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dynamiq_memory.messages import Message, MessageRole

TokenCounter = Callable[[Message], int]

Key = tuple[str | None, str | None, str]
"""What tells stored messages apart: user_id, session_id, id."""

# Providers count some tokens for the frame of each message, and about a thousand for an image.
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_OTHER_PART = 1_000
_LETTERS_PER_TOKEN = 4
_OTHER_CHARACTERS_PER_TOKEN = 1.5


def key_of(message: Message) -> Key:
    """The message's identity within a store."""
    return (message.user_id, message.session_id, message.id)


def count_tokens_approximately(message: Message) -> int:
    """Estimate the tokens of a message, without a tokenizer: a rule of thumb, on the high side for English.

    Four ASCII characters count as a token (OpenAI's rule of thumb), three others as two; the calls of tools count
    with their JSON, an image or file as 1,000 tokens.
    """
    text = message.text
    if message.tool_calls:
        text += json.dumps(message.tool_calls, default=str)
    ascii_only = len(text.encode("ascii", "ignore"))
    tokens = ascii_only / _LETTERS_PER_TOKEN + (len(text) - ascii_only) / _OTHER_CHARACTERS_PER_TOKEN
    if not isinstance(message.content, str):
        others = sum(1 for part in message.content if not isinstance(part.get("text"), str))
        tokens += others * _TOKENS_PER_OTHER_PART
    return _TOKENS_PER_MESSAGE + math.ceil(tokens)


@dataclass(slots=True)
class Budget:
    """What may still be taken.

    Attributes:
        messages: How many messages.
        tokens: How many tokens, or None for any number.
        count_tokens: Counts the tokens of a message.
    """

    messages: int
    tokens: int | None = None
    count_tokens: TokenCounter = count_tokens_approximately

    def share(self, part: float) -> Budget:
        """A part of the budget, at least one message."""
        tokens = None if self.tokens is None else math.floor(self.tokens * part)
        return Budget(max(1, math.floor(self.messages * part)), tokens, self.count_tokens)

    def take(self, messages: Sequence[Message]) -> bool:
        """Take messages if they fit.

        Returns:
            Whether they did.
        """
        tokens = 0 if self.tokens is None else sum(map(self.count_tokens, messages))
        if len(messages) > self.messages or (self.tokens is not None and tokens > self.tokens):
            return False
        self.messages -= len(messages)
        if self.tokens is not None:
            self.tokens -= tokens
        return True


@dataclass(slots=True)
class Turn:
    """A user's message and all that follows it until the next one.

    Attributes:
        rounds: What must stay together: a single message, or an assistant's tool calls with their results.
    """

    rounds: list[list[Message]] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """All messages of the turn."""
        return list(itertools.chain.from_iterable(self.rounds))

    @property
    def opened(self) -> bool:
        """Whether it begins with a user's message, so that a conversation can begin with it."""
        return bool(self.rounds) and self.rounds[0][0].role is MessageRole.USER

    @property
    def instructions(self) -> bool:
        """Whether it is a system message that stands before the first user's message."""
        return bool(self.rounds) and self.rounds[0][0].role is MessageRole.SYSTEM

    def cut(self, budget: Budget, keep: Key | None = None) -> list[Message]:
        """Take as much of the turn as fits: the user's message, then the latest rounds.

        Args:
            budget: What may be taken; reduced by what is.
            keep: A message that the part must hold; without it the part is of no use.

        Returns:
            The messages in order; empty if not even the indispensable ones fit.
        """
        kept, rest = (self.rounds[:1], self.rounds[1:]) if self.opened else ([], self.rounds[:])
        for number, candidate in enumerate(rest):
            if keep is not None and any(key_of(message) == keep for message in candidate):
                kept.append(rest.pop(number))
                break
        if not budget.take(list(itertools.chain.from_iterable(kept))):
            return []
        while rest and budget.take(rest[-1]):
            kept.append(rest.pop())
        chosen = {key_of(message) for part in kept for message in part}
        return [message for message in self.messages if key_of(message) in chosen]


def split_turns(messages: Iterable[Message]) -> list[Turn]:
    """Split messages into turns, session by session, in the order in which the turns begin.

    A tool's result stands right behind the call that it answers. A result without its call is left out, and so is
    a call of which a result is missing: no LLM API accepts them.

    Args:
        messages: Messages in chronological order, of one session or several.
    """
    sessions: dict[tuple[str | None, str | None], list[Message]] = {}
    place: dict[Key, int] = {}
    for number, message in enumerate(messages):
        sessions.setdefault((message.user_id, message.session_id), []).append(message)
        place[key_of(message)] = number
    turns: list[Turn] = []
    for session in sessions.values():
        current: Turn | None = None
        for part in _rounds(session):
            # Before the first user's message, each part stands alone: system ones may be kept without the others.
            if current is None or not current.opened or part[0].role is MessageRole.USER:
                current = Turn()
                turns.append(current)
            current.rounds.append(part)
    return sorted(turns, key=lambda turn: place[key_of(turn.rounds[0][0])])


def _rounds(session: Sequence[Message]) -> list[list[Message]]:
    results: dict[str | None, list[Message]] = {}
    position = {id(message): number for number, message in enumerate(session)}
    for message in session:
        if message.role is MessageRole.TOOL:
            results.setdefault(message.tool_call_id, []).append(message)
    rounds: list[list[Message]] = []
    for message in session:
        if message.role is MessageRole.TOOL:
            continue
        answers = _answers(message, results, position)
        if answers is not None:
            rounds.append([message, *answers])
    return rounds


def _answers(
    message: Message, results: dict[str | None, list[Message]], position: dict[int, int]
) -> list[Message] | None:
    """The results of a message's calls, taken out of `results`; None if one is missing."""
    if message.role is not MessageRole.ASSISTANT or not message.tool_calls:
        return []
    here = position[id(message)]
    answers = []
    for call in message.tool_calls:
        # Ids may repeat in a long session: a call's result is the first one of that id behind it.
        waiting = results.get(call.get("id"), [])
        found = next((result for result in waiting if position[id(result)] > here), None)
        if found is None:
            return None
        answers.append(found)
    for found in answers:
        results[found.tool_call_id] = [r for r in results[found.tool_call_id] if r is not found]
    return sorted(answers, key=lambda result: position[id(result)])


def latest_turns(turns: Sequence[Turn], budget: Budget) -> tuple[list[Message], bool]:
    """Take the most recent whole turns.

    A turn that does not fit ends the choice. Where none has been taken yet, as much of it as fits is taken, or,
    where nothing of it fits, the turn before it is tried.

    Args:
        turns: All turns in order; an unopened one at the beginning may be the rest of a turn cut off.
        budget: What may be taken; reduced by what is.

    Returns:
        The messages in order, and whether a turn that was there did not fit.
    """
    taken: list[list[Message]] = []
    full = False
    for turn in reversed(turns):
        if not turn.opened and not turn.instructions:
            continue
        if budget.take(turn.messages):
            taken.append(turn.messages)
            continue
        full = True
        if taken:
            break
        part = turn.cut(budget) if turn.opened else []
        if part:
            taken.append(part)
            break
    return list(itertools.chain.from_iterable(reversed(taken))), full


def arrange(messages: Iterable[Message]) -> list[Message]:
    """Put results right behind the calls that they answer, in an otherwise chronological conversation."""
    ordered = list(messages)
    kept: list[Message] = []
    answers: dict[int, list[Message]] = {}
    behind: set[int] = set()
    for turn in split_turns(ordered):
        for first, *others in turn.rounds:
            answers[id(first)] = others
            behind.update(map(id, others))
    for message in ordered:
        if id(message) in answers and id(message) not in behind:
            kept += [message, *answers[id(message)]]
    return kept
