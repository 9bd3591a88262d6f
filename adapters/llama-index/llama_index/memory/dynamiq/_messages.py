"""Conversion between LlamaIndex's messages and ours, without loss.

The canonical fields of a stored message are those that every framework understands: role, text, content parts and tool
calls in OpenAI's shape. Its `native` has LlamaIndex's blocks and additional_kwargs beyond these.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from io import BytesIO, IOBase
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import AudioBlock, ChatMessage, DocumentBlock, ImageBlock, TextBlock
from llama_index.core.base.llms.types import MessageRole as Role
from pydantic import AnyUrl, BaseModel

from dynamiq_memory import Message, MessageError, MessageRole
from dynamiq_memory.integrations.blocks import in_fields
from dynamiq_memory.integrations.native import (
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
from dynamiq_memory.integrations.ordering import set_batch_times

FRAMEWORK = "llama_index"

logger = logging.getLogger(__name__)

# Errors of reading fields that have unexpected values.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

_ROLES = {
    Role.USER: MessageRole.USER,
    Role.ASSISTANT: MessageRole.ASSISTANT,
    Role.CHATBOT: MessageRole.ASSISTANT,
    Role.MODEL: MessageRole.ASSISTANT,
    Role.SYSTEM: MessageRole.SYSTEM,
    Role.DEVELOPER: MessageRole.SYSTEM,
    Role.TOOL: MessageRole.TOOL,
    Role.FUNCTION: MessageRole.TOOL,
}
_EVERY_ROLE = list(Role)
# What pickle keeps of a message: pydantic takes long to make one.
_EMPTY: dict[str, Any] = ChatMessage.model_construct(blocks=[], additional_kwargs={}).__getstate__()
# Added by a later release of llama-index-core 0.13.
_ToolCallBlock: type[BaseModel] | None = getattr(types, "ToolCallBlock", None)
_BLOCKS: dict[str, type[BaseModel]] = {
    name: kind
    for name, kind in vars(types).items()
    if isinstance(kind, type) and issubclass(kind, BaseModel) and "block_type" in kind.model_fields
} | {"CacheControl": types.CacheControl}


def to_message(message: ChatMessage) -> Message:
    """Convert a LlamaIndex message to ours.

    Args:
        message: The message; not changed.

    Returns:
        The message, with a new id, since LlamaIndex's messages have none.

    Raises:
        MessageError: It is not a LlamaIndex message, or has a value that cannot be stored.
    """
    kind: type = type(message)
    if not issubclass(kind, ChatMessage):
        raise MessageError(
            f"a {kind.__module__}.{kind.__qualname__} is not a LlamaIndex message: give "
            "llama_index.core.llms.ChatMessage(role=…, content=…)"
        )
    _check(message)
    kwargs = message.additional_kwargs
    role = Role(message.role)
    data: dict[str, Any] = {"role": role.value}
    if _plain_text(message) is None:
        data["blocks"] = message.blocks
    if kwargs:
        data["additional_kwargs"] = kwargs
    encoded = encode(data, "ChatMessage", _KINDS)
    try:
        content, calls = _content(message), _calls(message)
    except MessageError:
        raise
    except _UNREADABLE as error:
        raise MessageError(f"a block of the message has a value that no LlamaIndex block has ({error})") from error
    result = Message(
        role=_ROLES[role],
        content=content,
        tool_calls=calls or None,
        tool_call_id=_answered(message),
        name=_speaker(message),
    )
    result.native = pack(FRAMEWORK, encoded, result)
    return result


def to_messages(messages: Any) -> list[Message]:
    """Convert LlamaIndex messages to ours; storing them may move their times to keep their order.

    Raises:
        MessageError: It is not a list of LlamaIndex messages, or one has a value that cannot be stored.
    """
    if isinstance(messages, str | Mapping | BaseModel) or not isinstance(messages, Iterable):
        raise MessageError(f"messages must be a list of ChatMessage, not a {type(messages).__name__}: give [message]")
    return [to_message(message) for message in messages]


def to_batch(messages: Any) -> list[Message]:
    """Convert LlamaIndex messages to ours, with times between which no other message comes.

    Raises:
        MessageError: It is not a list of LlamaIndex messages, or one has a value that cannot be stored.
    """
    batch = to_messages(messages)
    set_batch_times(batch)
    return batch


def from_messages(messages: Iterable[Message]) -> list[ChatMessage]:
    """Convert our messages to LlamaIndex's; see `split` and `from_message`."""
    return list(map(from_message, split(messages)))


def split(messages: Iterable[Message]) -> list[Message]:
    """Return our messages as LlamaIndex counts them: of a message with several results, one for each."""
    return list(chain.from_iterable(in_groups(messages)))


def in_groups(messages: Iterable[Message]) -> list[list[Message]]:
    """Return our messages as LlamaIndex counts them, in a list for each stored message."""
    return in_fields(messages, FRAMEWORK)


def from_message(message: Message) -> ChatMessage:
    """Convert a message of `split` to LlamaIndex's: as LlamaIndex wrote it, or by its canonical fields."""
    if _is_plain(message):
        return _made(Role(message.role.value), _blocks(message), {})
    data = unpack(FRAMEWORK, message)
    if data is not None:
        try:
            fields = decode(data, _KINDS)
            blocks = fields["blocks"] if "blocks" in fields else [TextBlock(text=str(message.content))]
            return _checked(_restore(Role(fields["role"]), blocks, fields.get("additional_kwargs", {})), message)
        except _UNREADABLE as error:  # not written by this module
            logger.warning("the LlamaIndex fields of message %s cannot be read (%r)", message.id, error)
    kwargs: dict[str, Any] = {}
    if message.name is not None:
        kwargs["name"] = message.name
    if message.tool_call_id is not None:
        kwargs["tool_call_id"] = message.tool_call_id
    blocks = _blocks(message)
    if message.tool_calls and _ToolCallBlock is not None:
        blocks += [_tool_call_block(call) for call in message.tool_calls]
    elif message.tool_calls:
        kwargs["tool_calls"] = [dict(call) for call in message.tool_calls]
    return _restore(Role(message.role.value), blocks, kwargs)


def identity(message: Message) -> str:
    """A text that differs for messages of `split` that LlamaIndex would not consider equal."""
    is_text = message.tool_calls is None and message.tool_call_id is None and message.name is None
    if is_text and _is_plain(message):  # so LlamaIndex would give it back with the same fields
        return identity_of_given(pack(FRAMEWORK, {"role": message.role.value}, message))
    return identity_of_given(to_message(from_message(message)).native)


def identity_of_given(native: dict[str, Any] | None) -> str:
    """The `identity` of a message that `to_message` returned, by its `native`, which has a digest of the rest."""
    return json.dumps(native, sort_keys=True, default=repr)


def _is_plain(message: Message) -> bool:
    """Whether LlamaIndex's fields and the canonical ones give the same: a role and a text."""
    is_text = isinstance(message.content, str) and not (message.tool_calls or message.tool_call_id or message.name)
    return is_text and (message.native or {}).get("data") in (None, {"role": message.role.value})


# --- the framework's own fields --------------------------------------------------------------------------------


def _check(message: ChatMessage) -> None:
    """Refuse fields that would not come back; they may have been set to anything since the message was made."""
    more = _names(type(message)) - _names(ChatMessage)
    if more:
        raise MessageError(
            f"a {type(message).__qualname__} has fields that would not be stored: put {', '.join(sorted(more))} into "
            "additional_kwargs"
        )
    if message.role not in _EVERY_ROLE:
        raise MessageError(f"role {message.role!r} is unknown: use one of {', '.join(Role)}")
    if not isinstance(message.additional_kwargs, dict):
        raise MessageError(f"additional_kwargs must be a dict, not {message.additional_kwargs!r}")
    if not isinstance(message.blocks, list):
        raise MessageError(f"blocks must be a list, not {message.blocks!r:.100}")
    for place, block in enumerate(message.blocks):
        if _known(block) is None:
            raise MessageError(f"blocks[{place}] is {block!r:.100}, not a LlamaIndex block: give TextBlock(text=…)")
        _check_fields(block)


def _check_fields(block: BaseModel) -> type[BaseModel]:
    """Refuse fields that would not come back; return the LlamaIndex class of the block."""
    kind, known = type(block).__qualname__, _known(block) or BaseModel
    more = block.__dict__.keys() - _names(known)
    if more and known.model_config.get("extra") != "allow":
        raise MessageError(f"a {kind} has fields that would not be stored: {', '.join(sorted(more))}")
    missing = _required(known) - block.__dict__.keys()
    if missing:
        raise MessageError(f"a {kind} has no {', '.join(sorted(missing))}")
    if isinstance(block, TextBlock) and not isinstance(block.text, str):
        raise MessageError(f"the text of a {kind} must be a string, not {block.text!r}")
    return known


def _known(block: Any) -> type[BaseModel] | None:
    """The LlamaIndex class of a block; None if it has none."""
    kind: type = type(block)
    return _known_class(kind)


@cache
def _known_class(given: type) -> type[BaseModel] | None:
    return next((kind for kind in given.__mro__ if _BLOCKS.get(kind.__name__) is kind), None)


@cache
def _names(kind: type[BaseModel]) -> frozenset[str]:
    """The names of a class's fields: pydantic takes long to look them up."""
    return frozenset(kind.model_fields)


@cache
def _required(kind: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in kind.model_fields.items() if field.is_required())


def _plain_text(message: ChatMessage) -> str | None:
    """The text of a message that is one plain text block."""
    block = message.blocks[0] if len(message.blocks) == 1 else None
    plain = type(block) is TextBlock and block.__dict__.keys() == {"block_type", "text"}
    return block.text if plain and isinstance(block, TextBlock) else None


def _restore(role: Role, blocks: list[Any], kwargs: dict[str, Any]) -> ChatMessage:
    if not isinstance(kwargs, dict) or not all(isinstance(block, BaseModel) for block in blocks):
        raise ValueError("blocks or additional_kwargs of another kind")
    return _made(role, blocks, kwargs)


def _made(role: Role, blocks: list[Any], kwargs: dict[str, Any]) -> ChatMessage:
    # Validating would append the images of additional_kwargs again.
    fields = {"role": role, "blocks": blocks, "additional_kwargs": kwargs}
    message = ChatMessage.__new__(ChatMessage)
    message.__setstate__({**_EMPTY, "__dict__": _EMPTY["__dict__"] | fields, "__pydantic_fields_set__": set(fields)})
    return message


def _checked(restored: ChatMessage, message: Message) -> ChatMessage:
    """Check that LlamaIndex's fields say what the canonical ones do: anyone who stores messages can store any `native`.

    Raises:
        ValueError: They do not.
    """
    same = (
        _ROLES[Role(restored.role)] is message.role
        and _same_content(restored, message)
        and _answered(restored) == message.tool_call_id
        and _speaker(restored) == message.name
        and _same_calls(restored, message.tool_calls or [])
        and _overrides_nothing(restored)
    )
    if not same:
        raise ValueError("they differ from the message")
    return restored


def _same_content(restored: ChatMessage, message: Message) -> bool:
    if _content(restored) == message.content:
        return True
    return may_say_more(message) and _content(restored, whole=False) == message.content


def _overrides_nothing(restored: ChatMessage) -> bool:
    """Whether additional_kwargs, which LlamaIndex's clients send last, leave the message what it is."""
    content, role = (restored.additional_kwargs.get(key) for key in ("content", "role"))
    return content in (None, restored.content) and (role is None or _ROLES[Role(role)] is _ROLES[Role(restored.role)])


def _plain_model(model: BaseModel) -> dict[str, Any]:
    return {"class": _check_fields(model).__name__, "fields": {**model.__dict__, **(model.model_extra or {})}}


def _block_from(plain: Mapping[str, Any]) -> BaseModel:
    # Validating would encode the bytes of images again.
    kind, fields = _BLOCKS[plain["class"]], plain["fields"]
    missing = sorted(_required(kind) - fields.keys())
    if missing or not isinstance(fields.get("text", ""), str) or _is_of_another_type(kind, fields):
        raise ValueError(f"{kind.__name__} without {', '.join(missing) or 'text'}")
    return kind.model_construct(**fields)


def _is_of_another_type(kind: type[BaseModel], fields: Mapping[str, Any]) -> bool:
    return "block_type" in fields and fields["block_type"] != kind.model_fields["block_type"].default


def _plain_client_object(model: BaseModel) -> dict[str, Any]:
    return {
        "module": type(model).__module__,
        "class": type(model).__qualname__,
        "data": model.model_dump(exclude_unset=True),
    }


def _client_object_from(plain: Mapping[str, Any]) -> Any:
    """The object of a client's package, if that is installed; else its fields."""
    module, name = str(plain["module"]), str(plain["class"])
    if not module.startswith(_CLIENTS):
        return plain["data"]
    try:
        kind = getattr(import_module(module), name, None)
    except ImportError:
        return plain["data"]
    if not isinstance(kind, type) or not issubclass(kind, BaseModel):
        return plain["data"]
    return kind.model_validate(plain["data"])


def _plain_stream(stream: IOBase) -> bytes:
    try:
        place = stream.tell()
        stream.seek(0)
        data = stream.read()
        stream.seek(place)
    except (OSError, ValueError) as error:
        raise MessageError(f"a stream of the message cannot be read from its beginning ({error}): give bytes") from None
    return data if isinstance(data, bytes) else str(data).encode()


class _ClientMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, BaseModel) and type(instance).__module__.startswith(_CLIENTS)


class _ClientModel(metaclass=_ClientMeta):
    """Any type of these packages, without importing them."""


# LlamaIndex keeps the calls of these clients as objects, and reads their attributes.
_CLIENTS = ("openai.types.", "cohere.types.")
_KINDS: Kinds = {
    "Block": (tuple(_BLOCKS.values()), _plain_model, _block_from),
    "OpenAI": (_ClientModel, _plain_client_object, _client_object_from),  # by the name that stored messages have
    "AnyUrl": (AnyUrl, str, AnyUrl),
    "Path": (PurePath, str, Path),
    "Stream": (IOBase, _plain_stream, BytesIO),
}


# Fields of blocks that OpenAI's shape has within, or as base64.
_WITHIN = frozenset({"image", "audio", "data", "content", "cited_content"})
# Fields that have names of types as values.
_NAMING = frozenset({"block_type", "image_mimetype", "video_mimetype", "document_mimetype", "format", "detail"})


# --- the canonical fields --------------------------------------------------------------------------------------


def _content(message: ChatMessage, *, whole: bool = True) -> str | list[dict[str, Any]]:
    """All that the content says; unless `whole`, what an earlier version took of it."""
    plain = _plain_text(message)
    if plain is not None:
        return plain
    is_answer = _ROLES[Role(message.role)] is MessageRole.ASSISTANT
    parts = [part for block in message.blocks for part in _parts(block, is_answer=is_answer, whole=whole)]
    return parts or ""


def _parts(block: Any, *, is_answer: bool, whole: bool) -> list[dict[str, Any]]:
    """A block in OpenAI's shape, and if `whole` as text what that does not say, such as the path of a file.

    None for a model's thoughts and calls, and for a block that marks what the provider caches.
    """
    if isinstance(block, TextBlock):
        return [_text(block.text)]
    kind = getattr(block, "block_type", "")
    if kind == "cache" or (is_answer and kind in {"thinking", "tool_call"}):
        return []
    parts = _in_openais_shape(block, kind, is_answer=is_answer, whole=whole)
    if not whole:
        return parts
    known = _WITHIN if parts else ()
    fields = {key: _described(value) for key, value in block.__dict__.items() if key not in known}
    return parts + [
        _text(f"[{kind} {key}: {_in_words(value)}]") for key, value in unsaid(fields, parts, _NAMING).items()
    ]


def _in_openais_shape(block: Any, kind: str, *, is_answer: bool, whole: bool) -> list[dict[str, Any]]:
    if kind == "image":
        url = _url(block, block.image, block.image_mimetype or "image/png")
        detail = {"detail": block.detail} if block.detail else {}
        return [{"type": "image_url", "image_url": {"url": url, **detail}}] if url else []
    if kind == "audio":
        data = _base64(block.audio)
        return [{"type": "input_audio", "input_audio": {"data": data, "format": block.format or "wav"}}] if data else []
    if kind == "document":
        data = _url(block, block.data, block.document_mimetype or "application/pdf")
        return [{"type": "file", "file": {"filename": block.title, "file_data": data}}] if data else []
    if kind in {"citable", "citation"}:
        inner = block.content if kind == "citable" else [block.cited_content]
        return [part for item in inner for part in _parts(item, is_answer=is_answer, whole=whole)]
    return []


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _described(value: Any) -> Any:
    """A field's value as text, if it is one: a file by its hash."""
    if isinstance(value, PurePath | AnyUrl):
        return str(value)
    data = _plain_stream(value) if isinstance(value, IOBase) else value
    return f"sha256 {hashlib.sha256(data).hexdigest()}" if isinstance(data, bytes) and data else data or None


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(encode(value, "blocks", _KINDS), default=plain)


def _url(block: Any, data: bytes | IOBase | None, mime: str) -> str | None:
    """A data URL of the block's content, else its own URL; None for a local path."""
    encoded = _base64(data)
    if encoded:
        return f"data:{mime};base64,{encoded}"
    return str(block.url) if block.url else None


def _base64(data: bytes | IOBase | None) -> str | None:
    """The content of a block: bytes are base64 already, a stream is not."""
    if isinstance(data, IOBase):
        data = base64.b64encode(_plain_stream(data))
    return data.decode("ascii", "replace") if isinstance(data, bytes) and data else None


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """The calls of an assistant's message, in OpenAI's shape."""
    return [_call(id_, name, arguments) for id_, name, arguments in _own_calls(message)]


def _own_calls(message: ChatMessage) -> list[tuple[str, Any, Any]]:
    """The calls in the message's blocks, and in additional_kwargs, as in older releases: id, name, arguments."""
    if _ROLES[Role(message.role)] is not MessageRole.ASSISTANT:
        return []
    blocks: list[Any] = list(message.blocks)
    calls = [
        (str(block.tool_call_id or ""), block.tool_name, block.tool_kwargs)
        for block in blocks
        if getattr(block, "block_type", "") == "tool_call"
    ]
    in_blocks = {id_: _call(id_, name, arguments) for id_, name, arguments in calls}
    given, function = (message.additional_kwargs.get(key) for key in ("tool_calls", "function_call"))
    items = [*given] if isinstance(given, list | tuple) else []
    for item in items if function is None else [*items, {"function": function}]:
        fields = item.model_dump() if isinstance(item, BaseModel) else item
        if isinstance(fields, Mapping):
            call = _call_of(fields)
            # Clients send these last: only one that says the same repeats the call of a block.
            if call[0] not in in_blocks or not _is_same_call(call, in_blocks[call[0]]):
                calls.append(call)
    return calls


def _call_of(fields: Mapping[str, Any]) -> tuple[str, Any, Any]:
    function = next((fields[key] for key in ("function", "custom") if isinstance(fields.get(key), Mapping)), fields)
    arguments = next((function[key] for key in ("arguments", "input", "args", "parameters") if key in function), "")
    return str(fields.get("id") or ""), function.get("name"), arguments


def _same_calls(restored: ChatMessage, stored: Sequence[Mapping[str, Any]]) -> bool:
    own = _own_calls(restored)
    return len(own) == len(stored) and all(map(_is_same_call, own, stored))


def _is_same_call(own: tuple[str, Any, Any], stored: Mapping[str, Any]) -> bool:
    id_, name, arguments = own
    return _call(id_, name, arguments) == stored or (
        _call(id_, name, "") == {**stored, "function": {**stored["function"], "arguments": ""}}
        and says_the_same(_parsed(arguments), _parsed(stored["function"]["arguments"]))
    )


def _answered(message: ChatMessage) -> str | None:
    answered = message.additional_kwargs.get("tool_call_id")
    return None if answered is None or _ROLES[Role(message.role)] is not MessageRole.TOOL else str(answered)


def _speaker(message: ChatMessage) -> str | None:
    name = message.additional_kwargs.get("name")
    return name if isinstance(name, str) else None


def _parsed(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _call(id_: str, name: Any, arguments: Any) -> dict[str, Any]:
    if not isinstance(arguments, str):
        try:
            arguments = json.dumps(arguments, default=plain)
        except (TypeError, ValueError):  # keys that JSON does not know, or a value that contains itself
            arguments = json.dumps(encode(arguments, "tool_kwargs", _KINDS), default=plain)
    return {"id": id_, "type": "function", "function": {"name": str(name or ""), "arguments": arguments}}


def _tool_call_block(call: Mapping[str, Any]) -> BaseModel:
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    arguments: Any = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
        arguments = parsed if isinstance(parsed, dict) else arguments
    id_ = None if call.get("id") is None else str(call["id"])
    name = str(function.get("name") or "")
    kind = _ToolCallBlock or BaseModel
    return kind.model_construct(tool_call_id=id_, tool_name=name, tool_kwargs=arguments)


def _blocks(message: Message) -> list[Any]:
    if isinstance(message.content, str):
        return [TextBlock(text=message.content)] if message.content or not message.tool_calls else []
    blocks = [(part, _block(part)) for part in message.content]
    if message.role is MessageRole.TOOL:
        # The model must see that there is a result.
        named = [(part, block or TextBlock(text=f"[{part.get('type') or 'attachment'}]")) for part, block in blocks]
        return [block for _, block in named]
    return [block for _, block in blocks if block is not None]


def _block(part: Mapping[str, Any]) -> BaseModel | None:
    """The block of a content part; None for a part that LlamaIndex has no block for, or refuses."""
    try:
        return _block_of(part)
    except ValueError as error:
        logger.warning("a content part of type %r is not a LlamaIndex block (%s)", part.get("type"), error)
        return None


def _block_of(part: Mapping[str, Any]) -> BaseModel | None:
    kind = part.get("type")
    inner = part.get(kind) if isinstance(kind, str) else None
    if isinstance(part.get("text"), str):
        return TextBlock(text=part["text"])
    if not isinstance(inner, Mapping):
        return None
    if kind == "image_url" and isinstance(inner.get("url"), str):
        data, mime = _decoded(inner["url"])
        if data is not None:
            return ImageBlock(image=data, image_mimetype=mime, detail=inner.get("detail"))
        return ImageBlock(url=inner["url"], detail=inner.get("detail"))
    if kind == "input_audio" and isinstance(inner.get("data"), str):
        data, _ = _decoded(f"data:;base64,{inner['data']}")
        return None if data is None else AudioBlock(audio=data, format=inner.get("format"))
    if kind == "file" and isinstance(inner.get("file_data"), str):
        data, mime = _decoded(inner["file_data"])
        return None if data is None else DocumentBlock(data=data, title=inner.get("filename"), document_mimetype=mime)
    return None


def _decoded(url: str) -> tuple[bytes | None, str | None]:
    """The bytes and the type of a data URL; None if it is not one."""
    head, separator, data = url.partition(";base64,")
    if not separator or not head.startswith("data:"):
        return None, None
    try:
        return base64.b64decode(data, validate=True), head.removeprefix("data:") or None
    except ValueError:
        return None, None
