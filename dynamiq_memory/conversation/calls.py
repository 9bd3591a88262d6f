"""Calls of tools and their results, wherever a message has them: in its fields, or in blocks of its content.

Providers name their blocks differently. OpenAI's Responses API has `function_call` and `function_call_output`,
Anthropic `tool_use` and `tool_result` (the latter in a user's message), Gemini parts with `functionCall` and
`functionResponse`. Calls that the provider answers itself, such as `server_tool_use` or `web_search_call`, are not
calls here: nobody else answers them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dynamiq_memory.messages import Message, MessageRole

# The key of the id that a result names, by the type of the block that makes the call.
_CALLS = {
    "apply_patch_call": "call_id",
    "computer_call": "call_id",
    "custom_tool_call": "call_id",
    "function_call": "call_id",
    "local_shell_call": "call_id",
    "mcp_approval_request": "id",
    "shell_call": "call_id",
    "tool_call": "id",
    "tool_use": "id",
}
# The key of the call's id, by the type of the block that answers it.
_RESULTS = {
    "apply_patch_call_output": "call_id",
    "computer_call_output": "call_id",
    "custom_tool_call_output": "call_id",
    "function_call_output": "call_id",
    "local_shell_call_output": "call_id",
    "mcp_approval_response": "approval_request_id",
    "shell_call_output": "call_id",
    "tool_result": "tool_use_id",
}
# Gemini's parts have no type, but one of these keys.
_GEMINI_CALLS = ("functionCall", "function_call")
_GEMINI_RESULTS = ("functionResponse", "function_response")
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
    calls = [_call_of(each) for each in message.tool_calls or ()]
    if isinstance(message.content, str):
        return calls
    known = {call.id for call in calls}
    in_blocks = [call for part in message.content if (call := _block_call(part)) is not None]
    # Blocks may repeat the calls of the field.
    return calls + [call for call in in_blocks if call.id not in known and (call.id or not calls)]


def results_of(message: Message) -> list[ToolReference]:
    """Return the calls that a message answers, in order."""
    if message.role is MessageRole.TOOL:
        return [ToolReference(message.tool_call_id or "", message.name or "")]
    if message.role is not MessageRole.USER or isinstance(message.content, str):
        return []
    return [result for part in message.content if (result := _block_result(part)) is not None]


def is_question(message: Message) -> bool:
    """Whether a message is a user's own words, and so begins a turn, rather than the result of a call."""
    return message.role is MessageRole.USER and (isinstance(message.content, str) or not results_of(message))


def says_something(message: Message) -> bool:
    """Whether a message has content besides its calls: no provider accepts one that has neither."""
    if isinstance(message.content, str):
        return bool(message.content.strip())
    return any(_block_call(part) is None and not _is_blank(part) for part in message.content)


def without_calls(message: Message) -> Message:
    """Copy a message without its calls, and without the thoughts at its end that led to them.

    What its framework keeps beside the canonical fields is then ignored, since it has these calls too (see
    `dynamiq_memory.integrations.native`).
    """
    content = message.content
    if not isinstance(content, str):
        content = [part for part in content if _block_call(part) is None]
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
        is_result = _block_result(part) is not None
        number += is_result
        if not is_result or number in kept:
            content.append(part)
    return message.model_copy(update={"content": content})


def _call_of(call: Any) -> ToolReference:
    """A call in OpenAI's shape, or in Cohere's, which has no id and no `function`."""
    fields = call if isinstance(call, Mapping) else {}
    inner = next((fields[key] for key in ("function", "custom") if isinstance(fields.get(key), Mapping)), fields)
    return ToolReference(_text(fields.get("id") or fields.get("call_id")), _text(inner.get("name")))


def _block_call(part: Mapping[str, Any]) -> ToolReference | None:
    kind = part.get("type")
    if isinstance(kind, str) and kind in _CALLS:
        inner = part.get("function") if isinstance(part.get("function"), Mapping) else part
        return ToolReference(_text(part.get(_CALLS[kind]) or part.get("id")), _text((inner or part).get("name")))
    return _gemini(part, _GEMINI_CALLS) if kind is None else None


def _block_result(part: Mapping[str, Any]) -> ToolReference | None:
    kind = part.get("type")
    if isinstance(kind, str) and kind in _RESULTS:
        return ToolReference(_text(part.get(_RESULTS[kind])), _text(part.get("name")))
    return _gemini(part, _GEMINI_RESULTS) if kind is None else None


def _gemini(part: Mapping[str, Any], keys: Collection[str]) -> ToolReference | None:
    inner = next((part[key] for key in keys if isinstance(part.get(key), Mapping)), None)
    return None if inner is None else ToolReference(_text(inner.get("id")), _text(inner.get("name")))


def _is_blank(part: Mapping[str, Any]) -> bool:
    """Whether a part is blank text, or a model's thoughts, which are not said."""
    if part.get("type") in _THOUGHTS:
        return True
    text = part.get("text")
    return isinstance(text, str) and not text.strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
