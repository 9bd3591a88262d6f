"""Calls of tools and their results, wherever a message has them: in its fields, or in blocks of its content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dynamiq_memory._blocks import block_call, block_result, call_of, calls_in, results_in
from dynamiq_memory._openai import result_content
from dynamiq_memory.messages import Message, MessageRole

# Providers refuse a message that ends with one.
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


class ToolReference(NamedTuple):
    """A call, or the call that a result answers.

    Attributes:
        id: The call's id; empty if there is none.
        name: The tool's name; empty if it is not known.
    """

    id: str
    name: str


def calls_of(message: Message) -> list[ToolReference]:
    """Return the calls that somebody has to answer, in order."""
    if message.role is not MessageRole.ASSISTANT or (not message.tool_calls and isinstance(message.content, str)):
        return []
    if isinstance(message.content, str):
        return list(map(_reference, message.tool_calls or ()))
    return [ToolReference(call.id, call.name) for call in calls_in(message.tool_calls, message.content)]


def results_of(message: Message) -> list[ToolReference]:
    """Return the calls that a message answers, in order."""
    if message.role is MessageRole.TOOL:
        return [ToolReference(message.tool_call_id or "", message.name or "")]
    if message.role is not MessageRole.USER or isinstance(message.content, str):
        return []
    return [ToolReference(result.id, result.name) for result in results_in(message.content)]


def is_question(message: Message) -> bool:
    """Whether a message is a user's own words, and so begins a turn, rather than the result of a call."""
    return message.role is MessageRole.USER and (isinstance(message.content, str) or not results_of(message))


def says_something(message: Message) -> bool:
    """Whether a message has content besides its calls: no provider accepts one that has neither."""
    if isinstance(message.content, str):
        return bool(message.content.strip())
    return any(block_call(part) is None and not _is_blank(part) for part in message.content)


def without_calls(message: Message) -> Message:
    """Copy a message without its calls, and without the thoughts at its end that led to them.

    What its framework keeps beside the canonical fields is then ignored, since it has these calls too (see
    `dynamiq_memory.integrations.native`).
    """
    content = message.content
    if not isinstance(content, str):
        content = [part for part in content if block_call(part) is None]
        while content and content[-1].get("type") in _THOUGHTS:
            content.pop()
    return message.model_copy(update={"tool_calls": None, "content": content})


def without_results(message: Message, kept: Collection[int] = ()) -> Message:
    """Copy a message without the results in its content.

    Args:
        message: The message; not changed.
        kept: Positions in `results_of(message)` of results that stay.
    """
    if isinstance(message.content, str):
        return message
    content, number = [], -1
    for part in message.content:
        is_result = block_result(part) is not None
        number += is_result
        if not is_result or number in kept:
            content.append(part)
    return message.model_copy(update={"content": content})


def split_results(message: Message) -> list[Message]:
    """Split a message with results in its content into one of the tool for each, and one with what the user says.

    Any other message comes back as it is. What the framework keeps beside the canonical fields is then ignored.
    """
    if message.role not in (MessageRole.TOOL, MessageRole.USER) or not (results := results_in(message.content)):
        return [message]
    id_, name = None, None
    if message.role is MessageRole.TOOL:
        if len(results) < len(message.content) or (len(results) == 1 and message.tool_call_id):
            return [message]  # it is one result, of the call that its fields name
        id_, name = message.tool_call_id, message.name
    apart = [
        message.model_copy(
            update={
                "role": MessageRole.TOOL,
                "content": result_content(result.content),
                "tool_call_id": result.id or id_,
                "name": result.name or name,
            }
        )
        for result in results
    ]
    rest = without_results(message)
    return [*apart, rest] if says_something(rest) else apart


def calls_without_ids(message: Message) -> set[int]:
    """Return the numbers of a message's calls with ids that are not unique in it."""
    calls = calls_of(message)
    times = Counter(call.id for call in calls)
    return {number for number, call in enumerate(calls) if not call.id or times[call.id] > 1}


def made_id(message: Message, number: int) -> str:
    """Make an id for a call that has none, from its message only, so that prompts can be cached.

    OpenAI allows 40 characters.
    """
    return "call_" + hashlib.blake2b(f"{message.id}/{number}".encode(), digest_size=12).hexdigest()


def _reference(call: Any) -> ToolReference:
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict):  # OpenAI's shape, without looking at the arguments
        id_, name = call.get("id"), function.get("name")
        if isinstance(id_, str) and id_ and isinstance(name, str):
            return ToolReference(id_, name)
    other = call_of(call)
    return ToolReference(other.id, other.name)


def _is_blank(part: Mapping[str, Any]) -> bool:
    """Whether a part is blank text, or a model's thoughts, which are not said."""
    if part.get("type") in _THOUGHTS:
        return True
    text = part.get("text")
    return isinstance(text, str) and not text.strip()
