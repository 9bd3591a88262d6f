"""Answers and calls that were cut off: the messages given instead of the missing part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from dynamiq_memory.conversation.calls import ToolReference, calls_of, is_question, results_of, says_something
from dynamiq_memory.messages import INTERRUPTED_KEY, SESSION_KEY, USER_KEY, Message, MessageRole

# Given after the text of an answer that was interrupted.
ANSWER_NOTE = "[The answer was interrupted here.]"
# Given as the result of a call that was interrupted.
CALL_NOTE = "[The call was interrupted. Its outcome is unknown.]"


def with_open_calls(messages: Sequence[Message], *, ended: bool = False) -> list[Message]:
    """Return the messages with calls that nothing had answered when the user spoke again.

    Args:
        messages: Messages of one session, in order.
        ended: Whether calls at the end are meant too, since nothing will answer them.
    """
    found: list[Message] = []
    results, over = 0, ended
    for message in reversed(messages):
        answered = results_of(message)
        if answered:
            results += len(answered)
            continue
        if over and len(calls_of(message)) > results:
            found.append(message)
        results, over = 0, is_question(message)
    return found[::-1]


def mark_interrupted(messages: Iterable[Message]) -> None:
    """Mark messages as cut off."""
    for message in messages:
        message.metadata[INTERRUPTED_KEY] = True


def with_note(message: Message) -> Message:
    """Copy a message with the note that it was interrupted, once.

    It has no `native`, which lacks the note.
    """
    if not says_something(message) or message.text.endswith(ANSWER_NOTE):
        return message
    content: str | list[dict[str, Any]]
    if isinstance(message.content, str):
        content = f"{message.content}\n\n{ANSWER_NOTE}"
    else:
        content = [*message.content, {"type": "text", "text": ANSWER_NOTE}]
    return message.model_copy(update={"content": content, "native": None})


def closing_result(message: Message, number: int, call: ToolReference, last: Message) -> Message:
    """Make the result of a call that was interrupted.

    Args:
        message: The message with the call.
        number: The call's number in it.
        call: The call.
        last: The message that the result follows.
    """
    return _following(
        last,
        role=MessageRole.TOOL,
        content=CALL_NOTE,
        id=f"{message.id}/{number}",
        tool_call_id=call.id or None,
        name=call.name or None,
    )


def closing_answer(messages: Sequence[Message]) -> list[Message]:
    """Make the answer of a turn that ends with the result of an interrupted call.

    Some providers refuse a question directly after a result.

    Args:
        messages: The messages of the turn.

    Returns:
        The answer; empty if the turn ends otherwise.
    """
    last = messages[-1] if messages else None
    if last is None or last.role is not MessageRole.TOOL or not last.interrupted:
        return []
    return [_following(last, role=MessageRole.ASSISTANT, content=ANSWER_NOTE, id=f"{last.id}/answer")]


def _following(message: Message, **fields: Any) -> Message:
    scope = {key: message.metadata[key] for key in (USER_KEY, SESSION_KEY) if key in message.metadata}
    timestamp = math.nextafter(message.timestamp or 0.0, math.inf)
    return Message(timestamp=timestamp, metadata={**scope, INTERRUPTED_KEY: True}, **fields)
