"""Conversion between LangChain's messages and ours, without loss.

The canonical fields of a stored message are those that every framework understands: role, text, content parts and tool
calls in OpenAI's shape. Its `native` has LangChain's fields beyond these, so that messages come back equal.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeGuard, TypeVar
from uuid import NAMESPACE_OID, uuid5

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call

from dynamiq_memory import ConfigurationError, Memory, Message, MessageError, MessageRole
from dynamiq_memory.integrations.blocks import in_fields
from dynamiq_memory.integrations.interruptions import INTERRUPTED_KEY
from dynamiq_memory.integrations.messages import new_id
from dynamiq_memory.integrations.native import (
    Default,
    Kinds,
    decode,
    encode,
    may_say_more,
    pack,
    plain,
    says_the_same,
    unpack,
    unsaid,
)

FRAMEWORK = "langchain"

M = TypeVar("M", bound=BaseMessage)

logger = logging.getLogger(__name__)

# Errors of reading fields that have unexpected values.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, MessageError, RecursionError, TypeError, ValueError)

# Chunks come before the class that they derive from, since the first match counts.
_CLASSES: tuple[type[BaseMessage], ...] = (
    HumanMessageChunk,
    HumanMessage,
    AIMessageChunk,
    AIMessage,
    SystemMessageChunk,
    SystemMessage,
    ToolMessageChunk,
    ToolMessage,
    FunctionMessageChunk,
    FunctionMessage,
    ChatMessageChunk,
    ChatMessage,
    RemoveMessage,
    BaseMessage,
)
# Not written as unions, which Python would make again for each message.
_TEXT_OR_NONE, _DICT_OR_NONE = (str, type(None)), (dict, type(None))
_BY_NAME = {kind.__name__: kind for kind in _CLASSES}
_ROLES = {
    "human": MessageRole.USER,
    "user": MessageRole.USER,
    "ai": MessageRole.ASSISTANT,
    "assistant": MessageRole.ASSISTANT,
    "system": MessageRole.SYSTEM,
    "developer": MessageRole.SYSTEM,
}
_TEXT_BLOCKS = frozenset({"text", "text-plain", "input_text", "output_text"})
# Blocks that repeat `tool_calls`, and a model's thoughts, which only that model's provider accepts.
_CALL_BLOCKS = frozenset({"tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "function_call"})
_THOUGHT_BLOCKS = frozenset({"reasoning", "thinking", "redacted_thinking"})
_MEDIA = frozenset({"image", "audio", "file"})
# Fields that say nothing to a model: names, and how providers cache a block or number it.
_NAMING = frozenset({"type", "source_type", "mime_type", "media_type", "status", "phase"})
_NOT_FOR_MODELS = frozenset({"cache_control", "index"})
# A message that has only these fields beyond its defaults is its role and its text.
_ASIDE = frozenset({"content", "id", "response_metadata", "usage_metadata"})
_PLAIN_ROLES = {
    "HumanMessage": MessageRole.USER,
    "AIMessage": MessageRole.ASSISTANT,
    "SystemMessage": MessageRole.SYSTEM,
}
# The arguments of a call in a block, as providers name them.
_ARGUMENTS = ("args", "arguments", "input", "partial_json")


def to_message(message: BaseMessage, default: Default | None = None) -> Message:
    """Convert a LangChain message to ours.

    Args:
        message: The message; not changed.
        default: Called for a value, such as a tool's artifact, that cannot be stored; see `json.dumps`.

    Returns:
        The message, with a new id. LangChain's id cannot serve: it may be missing, and some models give the same id to
        all their answers.

    Raises:
        MessageError: It is not a LangChain message, or has a value that cannot be stored.
    """
    if not isinstance(message, BaseMessage):
        raise MessageError(
            f"a {type(message).__name__} is not a LangChain message: give HumanMessage(…) or AIMessage(…), or "
            "convert it by langchain_core.messages.convert_to_messages"
        )
    kind = _kind(type(message))
    calls = _calls(message, default)
    result = Message(
        role=_role(message),
        content=_content(message, calls, default),
        tool_calls=calls or None,
        tool_call_id=_answered(message),
        name=_speaker(message),
    )
    fields = _without_defaults(kind, _fields(message))
    if result.content == message.content:
        fields.pop("content", None)
    where = kind.__name__ + (f" of {message.name!r}" if message.name else "")
    data = {"class": kind.__name__, "fields": encode(fields, where, _KINDS, default, _HINT)}
    result.native = pack(FRAMEWORK, data, result)
    return result


def to_messages(messages: Any, default: Default | None = None) -> list[Message]:
    """Convert LangChain messages to ours.

    Raises:
        MessageError: It is not a list of LangChain messages, or one has a value that cannot be stored.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise MessageError(f"messages must be a list of messages, not a {type(messages).__name__}: give [message]")
    return [to_message(message, default) for message in messages]


def check_default(default: Default | None) -> Default | None:
    """Check the function for values that cannot be stored.

    Raises:
        ConfigurationError: It is not a function.
    """
    if default is not None and not callable(default):
        raise ConfigurationError(f"default must be a function of a value, such as repr, not {default!r}")
    return default


def langchain_id(message: Message) -> str | None:
    """The id that LangChain gave to a message; None if it gave none."""
    data = unpack(FRAMEWORK, message)
    fields = data.get("fields") if data else None
    id_ = fields.get("id") if isinstance(fields, dict) else None
    return id_ if isinstance(id_, str) else None


def stable_id(*parts: str) -> str:
    """An id that is always the same for the same texts."""
    return str(uuid5(NAMESPACE_OID, json.dumps(parts)))


def fixed_filters(memory: Memory) -> str:
    """The default filters that fix a value, as JSON: all messages of the memory have these values."""
    fixed = {
        key: value for key, value in memory.filters.items() if value is None or isinstance(value, str | int | float)
    }
    return json.dumps(fixed, sort_keys=True)


def from_messages(messages: Iterable[Message]) -> list[BaseMessage]:
    """Convert our messages to LangChain's; see `split` and `from_message`."""
    return list(map(from_message, split(messages)))


def split(messages: Iterable[Message]) -> list[Message]:
    """Return our messages with calls in their fields, and one for each result, unless LangChain wrote them."""
    return list(chain.from_iterable(in_fields(messages, FRAMEWORK)))


def from_message(message: Message) -> BaseMessage:
    """Convert a message of `split` to LangChain's: as LangChain wrote it, or by its canonical fields."""
    data = unpack(FRAMEWORK, message)
    if data is not None:
        try:
            fields = {"content": message.content, **decode(data["fields"], _KINDS)}
            restored = _restore(_BY_NAME[data["class"]], fields)
            return _checked(restored, message, plain=_is_plain(data["class"], fields, message))
        except _UNREADABLE as error:  # not written by this module
            logger.warning("the LangChain fields of message %s cannot be read (%r)", message.id, error)
    common: dict[str, Any] = {"content": message.content, "id": message.id, "name": message.name}
    if message.role is MessageRole.USER:
        return HumanMessage(**common)
    if message.role is MessageRole.SYSTEM:
        return SystemMessage(**common)
    if message.role is MessageRole.TOOL:
        return ToolMessage(**common, tool_call_id=message.tool_call_id or "")
    return AIMessage(**common, **_parsed_calls(message.tool_calls or ()))


# Copied, since pydantic takes long to make one.
_OUTLINE = Message.model_construct(role=MessageRole.USER, content="")


def outline(message: BaseMessage, scope: Mapping[str, Any], stored: Message | None, id_: str | None = None) -> Message:
    """Describe a message by what decides where it may be in a conversation; faster than `to_message`.

    Args:
        message: The message.
        scope: The user_id and session_id of its conversation.
        stored: The message as stored, if it is.
        id_: The id of one that is not stored. Defaults to a new one.
    """
    content = message.content if isinstance(message.content, str) else list(map(_part, message.content))
    described = {
        "role": _role(message),
        "content": content,
        "id": stored.id if stored is not None else new_id() if id_ is None else id_,
        "timestamp": None if stored is None else stored.timestamp,
        "metadata": {**scope, INTERRUPTED_KEY: stored is not None and stored.interrupted},
        "tool_calls": _calls(message, repr) or None,
        "tool_call_id": _answered(message),
        "name": _speaker(message),
    }
    return _OUTLINE.model_copy(update=described)


def is_plain(message: BaseMessage) -> bool:
    """Whether the outline of a message has all of its canonical fields, exactly: it is text without calls."""
    return isinstance(message.content, str) and not (
        _is(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls or message.additional_kwargs)
    )


def for_model(messages: Iterable[Message]) -> list[BaseMessage]:
    """Convert our messages to LangChain's, for a model.

    Directives are left out, since no provider accepts them, and instructions come first, since some providers refuse
    them later.
    """
    spoken = [message for message in from_messages(messages) if not _is(message, RemoveMessage)]
    return sorted(spoken, key=lambda message: not _is(message, SystemMessage))


# --- the framework's own fields --------------------------------------------------------------------------------


def _fields(message: BaseMessage) -> dict[str, Any]:
    return {**{name: getattr(message, name) for name in _names(type(message))}, **(message.model_extra or {})}


def _without_defaults(kind: type[BaseMessage], fields: Mapping[str, Any]) -> dict[str, Any]:
    defaults = _defaults(kind)
    return {
        name: value
        for name, value in fields.items()
        if not (name in defaults and type(defaults[name]) is type(value) and defaults[name] == value)
    }


@cache
def _defaults(kind: type[BaseMessage]) -> dict[str, Any]:
    """The default values of a class, to compare with and to copy: pydantic takes long to make them."""
    fields = kind.model_fields.items()
    return {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}


@cache
def _mutable_defaults(kind: type[BaseMessage]) -> dict[str, Any]:
    return {name: value for name, value in _defaults(kind).items() if isinstance(value, dict | list)}


@cache
def _empty(kind: type[BaseMessage]) -> dict[str, Any]:
    """What pickle keeps of a message without values: pydantic takes long to make or copy one."""
    fields = {name: _defaults(kind).get(name, "") for name in _names(kind)}
    state: dict[str, Any] = kind.model_construct(set(), **fields).__getstate__()
    return state


@cache
def _names(kind: type[BaseMessage]) -> tuple[str, ...]:
    return tuple(kind.model_fields)


@cache
def _required(kind: type[BaseMessage]) -> frozenset[str]:
    return frozenset(name for name, field in kind.model_fields.items() if field.is_required())


def _restore(kind: type[BaseMessage], fields: Mapping[str, Any]) -> BaseMessage:
    missing = _required(kind) - fields.keys()
    if missing or not isinstance(fields["content"], (str, list)):
        raise ValueError(f"{kind.__name__} without {', '.join(sorted(missing)) or 'content'}")
    state = _empty(kind)
    values = state["__dict__"] | {name: value.copy() for name, value in _mutable_defaults(kind).items()}
    extra: dict[str, Any] = {}
    for name, value in dict(**fields).items():
        (values if name in values else extra)[name] = value
    # Validating would parse tool calls again, and so change the message.
    message = kind.__new__(kind)
    message.__setstate__(
        {
            **state,
            "__dict__": values,
            "__pydantic_extra__": extra,
            "__pydantic_fields_set__": set(fields),
        }
    )
    return message


def _is_plain(kind: str, fields: Mapping[str, Any], message: Message) -> bool:
    """Whether a message is its role and its text, so that comparing them is all that `_checked` would find out."""
    return (
        fields.keys() <= _ASIDE
        and _PLAIN_ROLES.get(kind) is message.role
        and isinstance(message.content, str)
        and fields["content"] == message.content
        and not message.tool_calls
        and message.tool_call_id is None
        and message.name is None
    )


def _checked(restored: BaseMessage, message: Message, *, plain: bool = False) -> BaseMessage:
    """Check that LangChain's fields say what the canonical ones do: anyone who stores messages can store any `native`.

    Args:
        restored: The message with LangChain's fields.
        message: The message as stored.
        plain: Whether only the types of fields that say nothing may be wrong; see `_is_plain`.

    Raises:
        ValueError: They do not.
    """
    if not (plain or _says_the_same(restored, message)) or not _has_types(restored):
        raise ValueError("they differ from the message")
    return restored


def _says_the_same(restored: BaseMessage, message: Message) -> bool:
    return (
        _role(restored) is message.role
        and _ROLES.get(restored.type, message.role) is message.role
        and _answered(restored) == message.tool_call_id
        and _speaker(restored) == message.name
        and _same_calls(restored, message.tool_calls or [])
        and _same_content(restored, message)
    )


def _same_content(restored: BaseMessage, message: Message) -> bool:
    if isinstance(restored.content, str) and restored.content == message.content and not restored.additional_kwargs:
        return True
    if _content(restored, message.tool_calls or [], repr) == message.content:
        return True
    return may_say_more(message) and _content_of_before(restored) == message.content


def _content_of_before(message: BaseMessage) -> str | list[dict[str, Any]]:
    """What an earlier version took of the content."""
    if not isinstance(message.content, list):
        return message.content
    called = _is(message, AIMessage) and bool(message.tool_calls or message.invalid_tool_calls)
    without = _THOUGHT_BLOCKS | _CALL_BLOCKS if called else _THOUGHT_BLOCKS
    parts = [
        {"type": "text", "text": block} if isinstance(block, str) else _in_openais_shape(block) or dict(block)
        for block in message.content
    ]
    kept = [part for part in parts if not (isinstance(part.get("type"), str) and part["type"] in without)]
    plain: list[dict[str, Any]] = encode(kept, "content", _KINDS, repr, _HINT)
    return plain or ""


def _has_types(restored: BaseMessage) -> bool:
    """Whether the fields that LangChain and its integrations read have the types that they expect."""
    return (
        isinstance(restored.id, _TEXT_OR_NONE)
        and isinstance(restored.name, _TEXT_OR_NONE)
        and isinstance(restored.additional_kwargs, dict)
        and isinstance(restored.response_metadata, dict)
        and isinstance(restored.__dict__.get("usage_metadata"), _DICT_OR_NONE)
    )


def _same_calls(restored: BaseMessage, stored: Sequence[Mapping[str, Any]]) -> bool:
    if _calls(restored, None) == stored:
        return True
    own = _calls(restored, repr)
    arguments = [call["args"] for call in restored.tool_calls] if _is(restored, AIMessage) else []
    return len(own) == len(stored) and all(
        call == other
        or (
            number < len(arguments)
            and {**call, "function": None} == {**other, "function": None}
            and call["function"]["name"] == other["function"]["name"]
            and says_the_same(arguments[number], _parsed(other["function"]["arguments"]))
        )
        for number, (call, other) in enumerate(zip(own, stored, strict=True))
    )


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _plain_document(document: Document) -> dict[str, Any]:
    return {"id": document.id, "page_content": document.page_content, "metadata": document.metadata}


def _plain_message(message: BaseMessage) -> dict[str, Any]:
    kind = _kind(type(message))
    return {"class": kind.__name__, "fields": _fields(message)}


_HINT = "or pass default=repr, or a function of your own, to store its result"
# The classes in artifacts of retrievers and sub-agents.
_KINDS: Kinds = {
    "Document": (Document, _plain_document, lambda plain: Document(**plain)),
    "BaseMessage": (BaseMessage, _plain_message, lambda plain: _restore(_BY_NAME[plain["class"]], plain["fields"])),
}


# --- the canonical fields --------------------------------------------------------------------------------------


@cache
def _derives(kind: type, base: type) -> bool:
    return issubclass(kind, base)


def _is(message: BaseMessage, kind: type[M]) -> TypeGuard[M]:
    """Whether a message is of a class or derives from it: `isinstance` takes long with pydantic's classes."""
    return _derives(type(message), kind)


@cache
def _kind(kind: type[BaseMessage]) -> type[BaseMessage]:
    """The class of LangChain's that a message counts as."""
    return next(known for known in _CLASSES if issubclass(kind, known))


@cache
def _role_of(kind: type[BaseMessage]) -> MessageRole | None:
    """The role of all messages of a class; None if they differ."""
    if issubclass(kind, ToolMessage | FunctionMessage):
        return MessageRole.TOOL
    if issubclass(kind, AIMessage):
        return MessageRole.ASSISTANT
    return MessageRole.SYSTEM if issubclass(kind, SystemMessage | RemoveMessage) else None


def _role(message: BaseMessage) -> MessageRole:
    by_class = _role_of(_kind(type(message)))
    if by_class is not None:
        return by_class
    if not (message.model_extra or _is(message, ChatMessage)):
        return _ROLES.get(message.type, MessageRole.USER)
    return _ROLES.get(getattr(message, "role", message.type), MessageRole.USER)


def _speaker(message: BaseMessage) -> str | None:
    """The name, or the free role of a ChatMessage, which no other framework knows as a role."""
    # Looking for a field that is not there takes long.
    role = getattr(message, "role", None) if message.model_extra or _is(message, ChatMessage) else None
    if message.name is None and isinstance(role, str) and role not in _ROLES:
        return role
    named = message.additional_kwargs.get("name") if message.name is None else None
    return named if isinstance(named, str) else message.name


def _content(
    message: BaseMessage, calls: Sequence[Mapping[str, Any]], default: Default | None
) -> str | list[dict[str, Any]]:
    """All that the content says, except for a model's thoughts, and blocks that only repeat the calls."""
    beside = _beside(message)
    if isinstance(message.content, str) and not beside:
        return message.content
    blocks = ([message.content] if message.content else []) if isinstance(message.content, str) else message.content
    if not isinstance(blocks, list):
        raise MessageError(f"content of a {type(message).__name__} must be text or a list, not {message.content!r}")
    if _is(message, AIMessage):
        blocks = [block for block in blocks if not (isinstance(block, dict) and _is_left_out(block, calls))]
    plain: list[dict[str, Any]] = encode([*map(_part, blocks), *beside], "content", _KINDS, default, _HINT)
    return plain or ""  # OpenAI refuses an empty list


def _beside(message: BaseMessage) -> list[dict[str, Any]]:
    """What older versions of LangChain's OpenAI integration keep beside the content, and send with it."""
    kwargs = message.additional_kwargs if _is(message, AIMessage) else {}
    if not kwargs:
        return []
    refusal, outputs = kwargs.get("refusal"), kwargs.get("tool_outputs")
    parts = [{"type": "refusal", "refusal": refusal}] if isinstance(refusal, str) and refusal else []
    return parts + [dict(each) for each in outputs if isinstance(each, dict)] if isinstance(outputs, list) else parts


def _is_left_out(block: Mapping[Any, Any], calls: Sequence[Mapping[str, Any]]) -> bool:
    kind = block.get("type")
    if not isinstance(kind, str):
        return False
    return kind in _THOUGHT_BLOCKS or (kind in _CALL_BLOCKS and any(_repeats(block, call) for call in calls))


def _repeats(block: Mapping[Any, Any], call: Mapping[str, Any]) -> bool:
    """Whether a block says nothing but a call: providers send what the block says."""
    id_, function = block.get("call_id") or block.get("id"), call["function"]
    if (id_ and id_ != call["id"]) or block.get("name") not in (None, "", function["name"]):
        return False
    arguments = _parsed(function["arguments"])
    # A model's stream leaves some of them empty.
    given = [block[key] for key in _ARGUMENTS if block.get(key)]
    same = [says_the_same(_parsed(value) if isinstance(value, str) else value, arguments) for value in given]
    if not all(same) or (arguments and not same):
        return False
    rest = {key: block[key] for key in block.keys() - {*_ARGUMENTS, *_NOT_FOR_MODELS}}
    return not unsaid(rest, [call, arguments], _NAMING | {"id", "error"})


def _part(block: str | Mapping[Any, Any]) -> dict[str, Any]:
    """A content block in OpenAI's shape, with what that does not say; unchanged if OpenAI has no such block."""
    if isinstance(block, str):
        return {"type": "text", "text": block}
    shape = _in_openais_shape(block)
    if shape is None:
        return dict(block)
    naming = _NAMING | {"id"} if shape["type"] == "text" else _NAMING
    rest = unsaid({key: block[key] for key in block.keys() - _NOT_FOR_MODELS - {"type"}}, shape, naming)
    return dict(block) if rest.keys() & shape.keys() else {**shape, **rest}


def _in_openais_shape(block: Mapping[Any, Any]) -> dict[str, Any] | None:
    kind = block.get("type")
    if not isinstance(kind, str):
        return None
    if kind in _TEXT_BLOCKS and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    if kind == "image_url" and isinstance(block.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": block["image_url"]}}
    return _media(kind, block) if kind in _MEDIA else None


def _media(kind: str, block: Mapping[Any, Any]) -> dict[str, Any] | None:
    """An image, sound or file in LangChain's standard shape (either version) or in Anthropic's."""
    source = block["source"] if isinstance(block.get("source"), dict) else block
    data = source.get("base64") or source.get("data")
    url, mime = source.get("url"), source.get("mime_type") or source.get("media_type")
    if not isinstance(url, str) and isinstance(data, str) and isinstance(mime, str):
        url = f"data:{mime};base64,{data}"
    if kind == "image" and isinstance(url, str):
        return {"type": "image_url", "image_url": {"url": url}}
    if kind == "audio" and isinstance(data, str) and isinstance(mime, str):
        return {"type": "input_audio", "input_audio": {"data": data, "format": mime.partition("/")[2]}}
    if kind == "file" and isinstance(data, str) and isinstance(url, str):
        extras = block.get("extras")
        named = block.get("filename") or (extras.get("filename") if isinstance(extras, dict) else None)
        return {"type": "file", "file": {"file_data": url, **({"filename": named} if named else {})}}
    by_id = block.get("file_id") or (block.get("id") if block.get("source_type") == "id" else None)
    return {"type": "file", "file": {"file_id": by_id}} if kind == "file" and isinstance(by_id, str) else None


def _calls(message: BaseMessage, default: Default | None) -> list[dict[str, Any]]:
    if not _is(message, AIMessage):
        return []
    calls = [_call(call["id"], call["name"], _arguments(call["args"], default)) for call in message.tool_calls]
    calls += [_call(call.get("id"), call.get("name"), call.get("args")) for call in message.invalid_tool_calls]
    if calls or not message.additional_kwargs:
        return calls
    # Integrations send these if there are no others.
    given = message.additional_kwargs.get("tool_calls")
    for each in given if isinstance(given, list) else ():
        function = each.get("function") if isinstance(each, dict) else None
        if isinstance(function, dict):
            calls.append(_call(each.get("id"), function.get("name"), function.get("arguments")))
    function = message.additional_kwargs.get("function_call")
    if not calls and isinstance(function, dict):
        # An older shape without ids: a FunctionMessage of that name answers it.
        calls.append(_call(_function_id(function.get("name")), function.get("name"), function.get("arguments")))
    return calls


def _arguments(value: Any, default: Default | None) -> str:
    try:
        return json.dumps(value, default=default or plain)
    except (TypeError, ValueError):  # keys that JSON does not know, or a value that contains itself
        return json.dumps(encode(value, "args", _KINDS, default, _HINT), default=plain)


def _call(id_: Any, name: Any, arguments: Any) -> dict[str, Any]:
    function = {"name": str(name or ""), "arguments": arguments if isinstance(arguments, str) else ""}
    return {"id": str(id_ or ""), "type": "function", "function": function}


def _function_id(name: Any) -> str:
    return f"function_call:{name}"


def _answered(message: BaseMessage) -> str | None:
    if _is(message, ToolMessage):
        return message.tool_call_id
    return _function_id(message.name) if _is(message, FunctionMessage) else None


def _parsed_calls(calls: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Convert tool calls in OpenAI's shape to LangChain's; invalid ones if their arguments are not a JSON object."""
    valid, invalid = [], []
    for call in calls:
        function = call.get("function")
        function = function if isinstance(function, Mapping) else call
        id_ = None if call.get("id") is None else str(call["id"])
        name, arguments = str(function.get("name") or ""), function.get("arguments")
        parsed = _object(arguments)
        if parsed is None:
            invalid.append(invalid_tool_call(name=name, args=str(arguments), id=id_, error=None))
        else:
            valid.append(tool_call(name=name, args=parsed, id=id_))
    return {"tool_calls": valid, "invalid_tool_calls": invalid}


def _object(arguments: Any) -> dict[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    return dict(arguments or {}) if arguments is None or isinstance(arguments, Mapping) else None
