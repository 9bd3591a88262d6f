"""Content blocks that are calls of tools or results, as providers and frameworks write them.

OpenAI's Responses API has `function_call` and `function_call_output`, Anthropic `tool_use` and `tool_result` (the
latter in a user's message), Gemini parts with `functionCall` and `functionResponse`. Calls that the provider answers
itself, such as `server_tool_use` or `web_search_call`, are not calls here: nobody else answers them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

TEXT_KINDS = ("text", "input_text", "output_text")
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
# Cohere has parameters, LangChain args, LlamaIndex tool_kwargs, OpenAI's shell and computer an action.
_ARGUMENTS = ("arguments", "input", "args", "parameters", "tool_kwargs", "action", "operation")
_OUTPUTS = ("content", "output", "response")


class Call(NamedTuple):
    """A call of a tool.

    Attributes:
        id: Its id; empty if there is none.
        name: The tool's name; empty if it is not known.
        arguments: Its arguments, as JSON text or a value.
        is_free_text: Whether the arguments are text that need not be JSON.
    """

    id: str
    name: str
    arguments: Any
    is_free_text: bool


class Result(NamedTuple):
    """A result of a call.

    Attributes:
        id: The id of the call; empty if there is none.
        name: The tool's name; empty if it is not known.
        content: The result: text, content parts, or any other value.
    """

    id: str
    name: str
    content: Any


def kind_of(part: Mapping[str, Any]) -> str | None:
    """Return the type of a content part; None for Gemini's, which have none."""
    kind = part.get("type", part.get("block_type"))
    return kind if isinstance(kind, str) else None


def calls_in(tool_calls: Sequence[Any] | None, content: str | Sequence[Mapping[str, Any]]) -> list[Call]:
    """Return the calls of an assistant's message, in order: those of the field, then those in its blocks only."""
    calls = [call_of(each) for each in tool_calls or ()]
    if isinstance(content, str):
        return calls
    known = {call.id for call in calls}
    in_blocks = [call for part in content if (call := block_call(part)) is not None]
    # Blocks may repeat the calls of the field.
    return calls + [call for call in in_blocks if call.id not in known and (call.id or not calls)]


def results_in(content: str | Sequence[Mapping[str, Any]]) -> list[Result]:
    """Return the results in the blocks of a content, in order."""
    if isinstance(content, str):
        return []
    return [result for part in content if (result := block_result(part)) is not None]


def call_of(call: Any) -> Call:
    """Read a call in OpenAI's shape, or in Cohere's, which has no id and no `function`."""
    fields = call if isinstance(call, Mapping) else {}
    inner = next((fields[key] for key in ("function", "custom") if isinstance(fields.get(key), Mapping)), fields)
    return _call(fields.get("id") or fields.get("call_id"), inner, is_free_text=inner is fields.get("custom"))


def block_call(part: Mapping[str, Any]) -> Call | None:
    """Read a block as a call; None if it is not one."""
    kind = kind_of(part)
    if kind is None:
        inner = _gemini(part, _GEMINI_CALLS)
        return None if inner is None else _call(inner.get("id"), inner)
    if kind not in _CALLS:
        return None
    inner = part["function"] if isinstance(part.get("function"), Mapping) else part
    id_ = part.get(_CALLS[kind]) or part.get("id") or part.get("tool_call_id")
    # OpenAI's own tools, such as its shell, have no name.
    return _call(id_, {"name": kind, **inner}, is_free_text=kind == "custom_tool_call")


def block_result(part: Mapping[str, Any]) -> Result | None:
    """Read a block as a result; None if it is not one."""
    kind = kind_of(part)
    if kind is None:
        inner = _gemini(part, _GEMINI_RESULTS)
        return None if inner is None else Result(_text(inner.get("id")), _text(inner.get("name")), _output(inner))
    if kind not in _RESULTS:
        return None
    return Result(_text(part.get(_RESULTS[kind])), _text(part.get("name")), _output(part))


def _call(id_: Any, inner: Mapping[str, Any], *, is_free_text: bool = False) -> Call:
    arguments = next((inner[key] for key in _ARGUMENTS if inner.get(key) is not None), None)
    return Call(_text(id_), _text(inner.get("tool_name") or inner.get("name")), arguments, is_free_text)


def _output(result: Mapping[str, Any]) -> Any:
    """The result itself, or all values of a block without one, such as an approval."""
    found = next((result[key] for key in _OUTPUTS if key in result), None)
    if found is None and kind_of(result) == "mcp_approval_response":
        return {key: result[key] for key in ("approve", "reason") if key in result}
    return found


def _gemini(part: Mapping[str, Any], keys: Collection[str]) -> Mapping[str, Any] | None:
    return next((part[key] for key in keys if isinstance(part.get(key), Mapping)), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
