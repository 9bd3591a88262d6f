"""The new messages in a prompt that an agent passes to its memory."""

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

# Agents replace an empty text with one of their own.
_EMPTY = re.compile(r"\s*(\[System: Empty message content .*)?", re.DOTALL)
# Texts that agents leave out of their prompt when only input and output are saved.
_TRACE = re.compile(r'\s*(Observation:|Thought:|Function call:|\{.*"thought"|.*<thought)', re.DOTALL)

_OBSERVED = re.compile(r"\s*Observation:")

_Key = tuple[str, str, str, str | None]


class PromptTranscript(Transcript):
    """A prompt. Its messages have no ids: stored ones are found by their text."""

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
    """How much of a load a prompt begins with.

    Attributes:
        load: The load.
        start: The position in the prompt after the messages of the load.
        count: The number of the load's messages that are in the prompt.
        summary: Whether the prompt begins with a summary that replaces the others.
    """

    load: Load
    start: int
    count: int
    summary: bool = False


def new_messages(prompt: Sequence[DynamiqMessage], loads: Sequence[Load], memory: Memory) -> list[Message]:
    """Find the messages of a prompt that are to be stored.

    A prompt consists of the messages given to the run, the user's input, and the work on it. If the run summarised, it
    consists of the summary and the last messages. If the run continues where another process stopped, it begins with
    the messages given to that process; then stored messages are found by their text.

    Args:
        prompt: The prompt, without instructions.
        loads: The loads of the run, oldest first; not empty.
        memory: The session's memory. Its save mode decides which messages are kept.

    Returns:
        New messages, without metadata.

    Raises:
        InvalidArgumentError: The prompt is that of another run.
    """
    mode = memory.save_mode
    dropped = _dropped_question(prompt, loads[-1], mode)
    if dropped is not None:
        return select_to_save([dropped, *to_messages(prompt[-1:], begun=True)], mode)
    matches = [_match(load, prompt, mode) for load in loads]
    # A program may also have read the memory before the run, or a tool during it. The run's question follows its load.
    match = max(reversed(matches), key=lambda one: (_asks(prompt[one.start :], one.load), one.count))
    rest = list(prompt[match.start :])
    foreign = match.load.messages and not (match.count or match.summary)
    if not foreign or len(list(filter(is_question, rest))) < 2:
        return select_to_save(_turn(rest, prompt[0] if match.summary else None, match.load), mode)
    if match.load.query and not _asks(prompt, match.load):
        raise InvalidArgumentError(
            "the prompt is that of another run, so it is not stored in this session: an Agent object can run only "
            "once at a time, so give each thread its own"
        )
    return select_to_save(_by_text(rest, memory), mode)


def _asks(messages: Sequence[DynamiqMessage], load: Load) -> bool:
    """Whether messages contain the question of a load."""
    return bool(load.query) and any(
        load.query in message.content for message in messages if message.role == DynamiqRole.USER
    )


def _dropped_question(prompt: Sequence[DynamiqMessage], load: Load, mode: MemorySaveMode) -> Message | None:
    """The question, if the agent has mistaken it for an observation and left it out of its prompt."""
    if mode is MemorySaveMode.FULL or not load.query or not _OBSERVED.match(load.query) or _asks(prompt, load):
        return None
    answered = prompt and prompt[-1].role == DynamiqRole.ASSISTANT
    return Message(role=MessageRole.USER, content=load.query) if answered else None


def _match(load: Load, prompt: Sequence[DynamiqMessage], mode: MemorySaveMode) -> _Match:
    # The last message is the run's result, even if an older one has the same text.
    loaded, keys = [_key(message) for message in load.messages], [_key(message) for message in prompt[:-1]]
    # A summary leaves the last messages of the load.
    for skipped in range(len(loaded)):
        matched = _prefix(loaded[skipped:], keys, mode)
        if matched:
            return _Match(load, matched, len(loaded) - skipped)
    if prompt and is_observation(prompt[0]) and prompt[0].content != load.query:
        for skipped in range(len(loaded)):
            matched = _prefix(loaded[skipped:], keys[1:], mode)
            if matched:
                return _Match(load, 1 + matched, len(loaded) - skipped, summary=True)
        return _Match(load, 1, 0, summary=True)
    return _Match(load, 0, 0)


def _prefix(loaded: Sequence[_Key], keys: Sequence[_Key], mode: MemorySaveMode) -> int:
    """The number of messages at the beginning of a prompt that are the loaded ones; 0 if it begins otherwise."""
    place = 0
    for key in loaded:
        if place < len(keys) and keys[place] == key:
            place += 1
        elif mode is MemorySaveMode.FULL or not _TRACE.match(key[1]):
            return 0
    return place


def _turn(rest: Sequence[DynamiqMessage], summary: DynamiqMessage | None, load: Load) -> list[Message]:
    """Convert a turn; a question that was summarised away is added again."""
    asked = bool(rest) and rest[0].role == DynamiqRole.USER and (not is_observation(rest[0]) or summary is None)
    last = load.messages[-1] if load.messages else None
    # A run that continues: its question was stored when it broke off.
    stored = last is not None and is_question(last) and (summary is None or last.content == load.query)
    if asked or not (rest or summary):
        return to_messages(rest)
    new = to_messages([summary, *rest] if summary is not None else rest, begun=True)
    if load.query and not stored:
        new.insert(0, Message(role=MessageRole.USER, content=load.query))
    return new


def _by_text(messages: Sequence[DynamiqMessage], memory: Memory) -> list[Message]:
    transcript = PromptTranscript(to_messages(messages))
    return run(memory, align(transcript)).new_messages(transcript)


def _key(message: DynamiqMessage) -> _Key:
    content = "" if _EMPTY.fullmatch(message.content) else message.content
    calls = json.dumps(message.tool_calls or None, sort_keys=True, default=str)
    return (message.role.value, content, calls, message.tool_call_id)
