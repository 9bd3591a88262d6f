"""Turns of a conversation: cutting it only where every LLM API accepts the cut. Pure functions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dynamiq_memory.messages import Key, Message, MessageRole, key_of

TokenCounter = Callable[[Message], int]

# Providers count some tokens for the frame of each message, and about a thousand for an image.
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_OTHER_PART = 1_000
_LETTERS_PER_TOKEN = 4
_OTHER_CHARACTERS_PER_TOKEN = 1.5


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

    @property
    def spent(self) -> bool:
        """Whether nothing more can be taken."""
        return self.messages <= 0 or (self.tokens is not None and self.tokens <= 0)

    def take(self, messages: Sequence[Message]) -> bool:
        """Take messages if they fit.

        Returns:
            Whether they did.
        """
        if len(messages) > self.messages:
            return False
        if self.tokens is not None:
            tokens = sum(map(self.count_tokens, messages))
            if tokens > self.tokens:
                return False
            self.tokens -= tokens
        self.messages -= len(messages)
        return True

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether messages could be taken."""
        return Budget(self.messages, self.tokens, self.count_tokens).take(messages)


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
    place: dict[int, int] = {}
    for number, message in enumerate(messages):
        sessions.setdefault((message.user_id, message.session_id), []).append(message)
        place[id(message)] = number
    turns: list[Turn] = []
    for session in sessions.values():
        current: Turn | None = None
        for part in _rounds(session):
            # Before the first user's message, each part stands alone: system ones may be kept without the others.
            if current is None or not current.opened or part[0].role is MessageRole.USER:
                current = Turn()
                turns.append(current)
            current.rounds.append(part)
    if len(sessions) > 1:
        turns.sort(key=lambda turn: place[id(turn.rounds[0][0])])
    return turns


def _rounds(session: Sequence[Message]) -> list[list[Message]]:
    """The parts of a session that must stay together."""
    # Ids may repeat in a session: some providers number the calls of each turn anew. A result belongs to the last
    # call of its id; an earlier one without a result broke off, and must not take what answers another.
    calling: dict[str, list[Message]] = {}
    missing: dict[int, set[str]] = {}
    parts: list[list[Message]] = []
    for message in session:
        if message.role is MessageRole.TOOL:
            part = calling.pop(message.tool_call_id or "", None)
            if part is not None:
                part.append(message)
                missing[id(part[0])].discard(message.tool_call_id or "")
            continue
        part = [message]
        parts.append(part)
        if message.role is MessageRole.ASSISTANT and message.tool_calls:
            ids = {str(call.get("id") or "") for call in message.tool_calls}
            missing[id(message)] = ids
            calling |= dict.fromkeys(ids, part)
    return [part for part in parts if not missing.get(id(part[0]))] if missing else parts


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
    taken: list[Turn] = []
    full = False
    for turn in reversed(turns):
        if not turn.opened:
            continue
        if budget.take(turn.messages):
            taken.append(turn)
            continue
        full = True
        if taken:
            break
        part = turn.cut(budget)
        if part:
            taken.append(Turn([part]))
            break
    if not full:
        instructions = [turn for turn in turns if turn.instructions]
        fitting = [turn for turn in instructions if budget.take(turn.messages)]
        full = len(fitting) < len(instructions)
        taken += fitting
        place = {id(turn): number for number, turn in enumerate(turns)}
        taken.sort(key=lambda turn: place[id(turn)], reverse=True)
    return [message for turn in reversed(taken) for message in turn.messages], full


def arrange(messages: Iterable[Message]) -> list[Message]:
    """Put results right behind the calls that they answer, in an otherwise chronological conversation."""
    ordered = list(messages)
    if not any(message.tool_calls or message.role is MessageRole.TOOL for message in ordered):
        return ordered
    parts = {id(part[0]): part for turn in split_turns(ordered) for part in turn.rounds}
    return [message for first in ordered for message in parts.get(id(first), ())]
