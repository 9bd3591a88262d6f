"""What of a prompt that an agent hands over is new."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dynamiq.prompts import Message as DynamiqMessage
from dynamiq.prompts import MessageRole as DynamiqRole

from dynamiq_memory import InvalidArgumentError, Memory, MemorySaveMode, Message, MessageRole, select_to_save
from dynamiq_memory.integrations.alignment import Transcript, align
from dynamiq_memory.integrations.plans import run
from dynamiq_memory_agents._loads import Load
from dynamiq_memory_agents._messages import is_observation, is_question, to_messages

# Agents put a text of theirs in the place of an empty one.
_EMPTY = re.compile(r"\s*(\[System: Empty message content .*)?", re.DOTALL)
# What agents leave out of their prompt when only input and output are saved.
_TRACE = re.compile(r'\s*(Observation:|Thought:|Function call:|\{.*"thought"|.*<thought)', re.DOTALL)

_OBSERVED = re.compile(r"\s*Observation:")

_Key = tuple[str, str, str, str | None]


class PromptTranscript(Transcript):
    """A prompt, whose messages have no ids: those that are stored are found by their text."""

    def __init__(self, messages: Sequence[Message]) -> None:
        """Take our messages of the prompt."""
        self._messages = messages

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self._messages)

    def id(self, position: int) -> str:
        """Return the id of a message, which is new and so not that of a stored one."""
        return self._messages[position].id

    def message(self, position: int) -> Message:
        """Return the message at a position."""
        return self._messages[position]

    def is_question(self, position: int) -> bool:
        """Whether it is a message of the user."""
        return self._messages[position].role is MessageRole.USER


@dataclass(frozen=True, slots=True)
class _Match:
    """How a prompt stands to what its run was given.

    Attributes:
        load: What was given.
        start: Where in the prompt what follows it begins.
        found: How many of the given messages the prompt has.
        summary: Whether it begins with a summary that stands for the others.
    """

    load: Load
    start: int
    found: int
    summary: bool = False


def new_messages(said: Sequence[DynamiqMessage], loads: Sequence[Load], memory: Memory) -> list[Message]:
    """Find what of a prompt is to be stored.

    A prompt is what the run was given, what the user asks, and what was done for it. Of a run that summarised, it is
    the summary and the last messages. Of a run that goes on where another process stopped, it begins with what that
    one was given; then what is stored is found by what it says.

    Args:
        said: The prompt, without instructions.
        loads: What was given to the run, oldest first; not empty.
        memory: The session's memory. Its save mode says what is kept.

    Returns:
        New messages, without metadata.

    Raises:
        InvalidArgumentError: The prompt is that of another run.
    """
    mode = memory.save_mode
    dropped = _dropped_question(said, loads[-1], mode)
    if dropped is not None:
        return select_to_save([dropped, *to_messages(said[-1:], begun=True)], mode)
    matches = [_match(load, said, mode) for load in loads]
    # A program may have read the memory before the run, a tool within it: the run's own load leaves its question over.
    match = max(reversed(matches), key=lambda one: (_asks(said[one.start :], one.load), one.found))
    rest = list(said[match.start :])
    strange = match.load.messages and not (match.found or match.summary)
    if not strange or len(list(filter(is_question, rest))) < 2:
        return select_to_save(_turn(rest, said[0] if match.summary else None, match.load), mode)
    if match.load.query and not _asks(said, match.load):
        raise InvalidArgumentError(
            "the prompt is that of another run, and is not stored in this session: an Agent object runs once at a "
            "time, so give each thread its own"
        )
    return select_to_save(_by_content(rest, memory), mode)


def _asks(said: Sequence[DynamiqMessage], load: Load) -> bool:
    """Whether a part of a prompt holds what a load was for."""
    return bool(load.query) and any(
        load.query in message.content for message in said if message.role == DynamiqRole.USER
    )


def _dropped_question(said: Sequence[DynamiqMessage], load: Load, mode: MemorySaveMode) -> Message | None:
    """The question, where the agent has taken it for a trace and left it out of its prompt, and of that alone."""
    if mode is MemorySaveMode.FULL or not load.query or not _OBSERVED.match(load.query) or _asks(said, load):
        return None
    answered = said and said[-1].role == DynamiqRole.ASSISTANT
    return Message(role=MessageRole.USER, content=load.query) if answered else None


def _match(load: Load, said: Sequence[DynamiqMessage], mode: MemorySaveMode) -> _Match:
    # The last message is what the run has come to, even if it says what an older one says.
    given, keys = [_key(message) for message in load.messages], [_key(message) for message in said[:-1]]
    # A summary leaves the last messages of what was given.
    for skipped in range(len(given)):
        matched = _prefix(given[skipped:], keys, mode)
        if matched:
            return _Match(load, matched, len(given) - skipped)
    if said and is_observation(said[0]) and said[0].content != load.query:
        for skipped in range(len(given)):
            matched = _prefix(given[skipped:], keys[1:], mode)
            if matched:
                return _Match(load, 1 + matched, len(given) - skipped, summary=True)
        return _Match(load, 1, 0, summary=True)
    return _Match(load, 0, 0)


def _prefix(given: Sequence[_Key], keys: Sequence[_Key], mode: MemorySaveMode) -> int:
    """How many messages of a prompt are the given ones; 0 if it does not begin with them."""
    place = 0
    for key in given:
        if place < len(keys) and keys[place] == key:
            place += 1
        elif mode is MemorySaveMode.FULL or not _TRACE.match(key[1]):
            return 0
    return place


def _turn(rest: Sequence[DynamiqMessage], summary: DynamiqMessage | None, load: Load) -> list[Message]:
    """Our messages of a turn; of one whose question was summarised away, with the question."""
    asked = bool(rest) and rest[0].role == DynamiqRole.USER and (not is_observation(rest[0]) or summary is None)
    last = load.messages[-1] if load.messages else None
    # A run that goes on: its question was stored when it broke off.
    stored = last is not None and is_question(last) and (summary is None or last.content == load.query)
    if asked or not (rest or summary):
        return to_messages(rest)
    new = to_messages([summary, *rest] if summary is not None else rest, begun=True)
    if load.query and not stored:
        new.insert(0, Message(role=MessageRole.USER, content=load.query))
    return new


def _by_content(said: Sequence[DynamiqMessage], memory: Memory) -> list[Message]:
    transcript = PromptTranscript(to_messages(said))
    return run(memory, align(transcript)).new_messages(transcript)


def _key(message: DynamiqMessage) -> _Key:
    content = "" if _EMPTY.fullmatch(message.content) else message.content
    calls = json.dumps(message.tool_calls or None, sort_keys=True, default=str)
    return (message.role.value, content, calls, message.tool_call_id)
