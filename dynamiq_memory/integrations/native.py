"""A framework's own fields in `Message.native`, so that it reads back exactly what it wrote.

A framework's message may have values that JSON does not know: these are tagged, and restored when read. Values that
are in the canonical fields of the message need not be repeated. A digest shows whether the canonical fields have been
changed since: then they count, and the framework's own fields are ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from dynamiq_memory._json import MAX_DEPTH, MAX_INTEGER, dumps, normalise
from dynamiq_memory.exceptions import MessageError
from dynamiq_memory.messages import Message

__all__ = [
    "TAG",
    "Default",
    "Kinds",
    "decode",
    "digest_of",
    "encode",
    "may_say_more",
    "pack",
    "plain",
    "reduced",
    "says_the_same",
    "unpack",
    "unsaid",
]

TAG = "$native"
_VERSION = 2

Kinds = Mapping[str, tuple[type | tuple[type, ...], Callable[[Any], Any], Callable[[Any], Any]]]
"""A framework's own classes by name: the class or classes, a function to plain values, and one that restores them."""

# Not written as unions, which Python would make again for each value.
_PLAIN = (str, int, float, type(None))
_TEXT_OR_TRUTH, _NUMBER, _SET = (str, bool), (int, float), (set, frozenset)

Default = Callable[[Any], Any]
"""Turns a value that cannot be stored into one that can, like `default` of `json.dumps`."""


def pack(framework: str, data: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Make the `native` of a message.

    Args:
        framework: The name of the framework, such as "langchain".
        data: The framework's fields, as `encode` returned them.
        message: The message it is for, with its canonical fields set.
    """
    return {"framework": framework, "version": _VERSION, "data": dict(data), "digest": digest_of(message)}


def may_say_more(message: Message) -> bool:
    """Whether an earlier version made the `native`, when canonical fields lacked some of what a framework's own say.

    Such were the paths of files and blocks that no other framework knows. A service makes no such `native` of what a
    key of one user stores; see `reduced`.
    """
    return message.native is not None and message.native.get("version") != _VERSION


def plain(value: Any) -> Any:
    """Describe a value that JSON does not know, for `json.dumps(default=…)`; always in the same way, also a set."""
    return sorted(map(repr, value)) if isinstance(value, set | frozenset) else str(value)


def says_the_same(own: Any, canonical: Any) -> bool:
    """Whether a framework's value says nothing that its canonical form, which is JSON, does not say.

    A value that JSON does not know may have any canonical form, as `default` of `json.dumps` makes it. But all its
    texts must be in that.

    Args:
        own: The framework's value.
        canonical: The value in the message that every framework reads.
    """
    if own == canonical:
        return True
    if isinstance(own, str) or (isinstance(own, _PLAIN) and not isinstance(canonical, str)):
        return False
    if isinstance(own, Mapping) and isinstance(canonical, Mapping):
        if len(own) == len(canonical):
            return all(says_the_same(value, canonical.get(str(key), canonical)) for key, value in own.items())
        if TAG not in own and all(isinstance(key, str) for key in own):
            return False
    if isinstance(own, list | tuple) and isinstance(canonical, list):
        return len(own) == len(canonical) and all(map(says_the_same, own, canonical))
    whole = canonical if isinstance(canonical, str) else json.dumps(canonical, ensure_ascii=False, default=plain)
    return all(text in whole for text in _texts(own))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, _PLAIN):
        yield str(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _texts(each)
    elif isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview | BaseModel):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, BaseModel):
        yield from _texts(value.model_dump())


def unsaid(fields: Mapping[Any, Any], said: Any, naming: Collection[str] = ()) -> dict[Any, Any]:
    """Return the fields of a framework's content block that its canonical form does not say.

    Adapters add them to the canonical form, so that `native` never says more than the message does. Numbers, and names
    of types, say nothing by themselves. Every other text must be in the canonical form, as a whole or in a data URL.

    Args:
        fields: The block's fields.
        said: The canonical form.
        naming: Keys that have names as values, if they look like names.
    """
    texts = {text for text in _texts(said) if isinstance(text, str)}
    urls = [text for text in texts if text.startswith("data:")]
    return {
        key: value
        for key, value in fields.items()
        if not (_is_type(key, value, naming) or all(_is_said(text, texts, urls) for text in _spoken(key, value)))
    }


def _is_type(key: Any, value: Any, naming: Collection[str]) -> bool:
    return key in naming and isinstance(value, str) and _TYPE.fullmatch(value) is not None


def _is_said(text: Any, texts: Collection[str], urls: Collection[str]) -> bool:
    return isinstance(text, str) and (not text or text in texts or any(text in url for url in urls))


def _spoken(key: Any, value: Any) -> Iterator[Any]:
    """The texts of a field, its names that do not look like names, and values of unknown kinds."""
    if not _is_name(key):
        yield key
    if isinstance(value, Mapping):
        for inner, each in value.items():
            yield from _spoken(inner, each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _spoken("item", each)
    elif value is not None and not isinstance(value, bool | int | float):
        yield value


def reduced(message: Message) -> dict[str, Any] | None:
    """Return the `native` of a message without values that its canonical fields do not have.

    It is for messages of those who must not tell a model anything that only `native` says. Each text, number and truth
    value must be one of the canonical fields, as a whole; names of classes and types, and ids, need not. A field that
    has others is left out; of a list, the elements that have. Paths are left out always: a file would be read where the
    model is asked. If an adapter cannot restore its message from the rest, it takes the canonical fields.

    Args:
        message: The message; not changed.
    """
    native = message.native
    if native is None or not isinstance(native.get("data"), dict):
        return None
    said = set(_values([message.role.value, message.content, message.tool_call_id, message.name]))
    said |= set(_values(message.tool_calls, parsed=True))
    data, _ = _reduced(native["data"], said, depth=0)
    shapes = {"framework": _FRAMEWORK, "digest": _DIGEST}
    names = {key: native[key] for key, shape in shapes.items() if _is_like(shape, native.get(key))}
    return {**names, "version": _VERSION, "data": data}


_in_quotes = json.JSONEncoder().encode

# Values of these keys choose among classes and kinds that an adapter knows.
_NAMING = frozenset({TAG, "class", "type", "block_type"})
_PATH = "Path"
# What the adapters write beside what the message says. Other names of fields and kinds are texts of the writer.
_KNOWN_KEYS = """
    additional_kwargs annotations args arguments artifact audio base64 block_type blocks cache_control chunk_position
    cited_content class content data detail document_mimetype extras fields file_id format fps function id image
    image_mimetype index input invalid_tool_calls mime_type name partial_json reasoning response_metadata role source
    source_type status text title tool_call_chunks tool_call_id tool_calls tool_kwargs tool_name ttl type url
    usage_metadata value video video_mimetype
"""
_KNOWN_KINDS = """
    tuple set frozenset dict int float
    Document BaseMessage HumanMessage HumanMessageChunk AIMessage AIMessageChunk SystemMessage SystemMessageChunk
    ToolMessage ToolMessageChunk FunctionMessage FunctionMessageChunk ChatMessage ChatMessageChunk RemoveMessage
    Block OpenAI AnyUrl Stream TextBlock ImageBlock AudioBlock VideoBlock DocumentBlock CacheControl CachePoint
    CitableBlock CitationBlock ThinkingBlock ToolCallBlock
    human ai system tool function chat remove developer
    text text-plain input_text output_text image image_url input_image audio input_audio video file input_file document
    cache citable citation thinking reasoning refusal ephemeral object
    tool_call tool_call_chunk invalid_tool_call tool_use tool_result function_call server_tool_call server_tool_result
"""
_KEYS, _KINDS = frozenset([TAG, *_KNOWN_KEYS.split()]), frozenset(_KNOWN_KINDS.split())
_FRAMEWORK = re.compile(r"[a-z_-]{1,20}")
_DIGEST = re.compile(r"[0-9a-f]{16}")
# Ids consist of digits and letters in any order, and of up to two words, such as chatcmpl and lc_run: no sentence.
_WORDS_OF_AN_ID = 2
_WORD = re.compile(r"(?<![A-Za-z0-9])(?![a-f]+(?![A-Za-z0-9]))[A-Za-z]{2,}(?![A-Za-z0-9])|[A-Za-z]{25,}")
_LONGEST_WORD = 24
_NAME = re.compile(r"[A-Za-z0-9_.:$-]{1,100}")
_TYPE = re.compile(r"[A-Za-z0-9_.:$/+-]{1,100}")  # also a media type
_Said = set[tuple[type, Any]]


def _is_name(value: Any) -> bool:
    return _is_like(_NAME, value)


def _is_like(shape: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and shape.fullmatch(value) is not None


def _is_known(key: str, value: Any) -> bool:
    """Whether the value of a key is the name of a kind that adapters know, or looks like an id."""
    if not _is_name(value):
        return False
    if key != "id":
        return key in _NAMING and value in _KINDS
    words = _WORD.findall(value)
    return len(words) <= _WORDS_OF_AN_ID and all(len(word) <= _LONGEST_WORD for word in words)


def _values(value: Any, *, parsed: bool = False) -> Iterator[tuple[type, Any]]:
    """The scalars within a canonical value, also in the arguments of calls, which are JSON as text."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str, key
            yield from _values(each, parsed=parsed)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, parsed=parsed)
    else:
        yield type(value), value
        if parsed and isinstance(value, str):
            with suppress(ValueError, RecursionError):
                yield from _values(json.loads(value))


def _reduced(value: Any, said: _Said, depth: int) -> tuple[Any, bool]:
    """Return what is left of a framework's value, and whether that is all of it."""
    if depth > MAX_DEPTH:
        return None, False
    if isinstance(value, Mapping):
        if value.get(TAG) == _PATH:
            return None, False
        kept, complete = {}, True
        for key, each in value.items():
            if key == "path":
                complete = complete and each is None
                continue
            rest, whole = (each, True) if _is_known(key, each) else _reduced(each, said, depth + 1)
            named = key in _KEYS or (str, key) in said
            whole = whole and named
            complete = complete and whole
            # Frameworks expect a dict of their own to be complete.
            if whole or (named and depth < 2 and isinstance(rest, dict if depth == 0 else list)):
                kept[key] = rest
        return kept, complete
    if isinstance(value, list):
        parts = [_reduced(each, said, depth + 1) for each in value]
        return [rest for rest, whole in parts if whole], all(whole for _, whole in parts)
    return value, value is None or value == "" or (type(value), value) in said


def unpack(framework: str, message: Message) -> dict[str, Any] | None:
    """Read the `native` of a message.

    Args:
        framework: The name of the framework that reads.
        message: A stored message.

    Returns:
        The data given to `pack`; None if another framework wrote the message, or its canonical fields have been
        changed since.
    """
    native = message.native
    if not native or native.get("framework") != framework or native.get("digest") != digest_of(message):
        return None
    data = native.get("data")
    return data if isinstance(data, dict) else None


def digest_of(message: Message) -> str:
    """Return a short text that is equal for messages with equal canonical fields."""
    fields = [message.role.value, message.content, message.tool_calls, message.tool_call_id, message.name]
    if isinstance(message.content, str) and message.tool_calls is None:
        # What JSONEncoder().encode(fields) returns; to set it up takes longer than the rest.
        text = f"[{', '.join(['null' if field is None else _in_quotes(field) for field in fields])}]"
    else:
        # Stores may reorder the keys of a dict.
        text = json.dumps(json.loads(dumps(normalise(fields, "content"))), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(value: Any, where: str, kinds: Kinds, default: Default | None = None, hint: str = "") -> Any:
    """Turn a framework's value into one that can be stored and restored.

    Tuples, sets, dicts with keys of any kind, numbers of any size and the framework's own classes come back as they
    were. Other pydantic models and dataclasses come back as dicts, and arrays as lists.

    Args:
        value: Any value; not changed.
        where: The path to it, for the error.
        kinds: The framework's own classes.
        default: Called for a value that cannot be stored.
        hint: How to store such a value, for the error.

    Raises:
        MessageError: The value cannot be stored, and there is no `default`.
    """
    return _Encoder(kinds, default, hint).encode(value, where, 0)


class _Encoder:
    def __init__(self, kinds: Kinds, default: Default | None, hint: str) -> None:
        self._kinds = kinds
        self._default = default
        self._hint = hint and f"; {hint}"

    def encode(self, value: Any, where: str, depth: int) -> Any:
        if value is None or isinstance(value, _TEXT_OR_TRUTH):
            return value
        if isinstance(value, _NUMBER):
            return _number(value)
        if depth > MAX_DEPTH:
            raise MessageError(f"{where} is nested deeper than {MAX_DEPTH} levels (or contains itself)")
        if isinstance(value, list):
            return self._items(value, where, depth)
        if isinstance(value, tuple):
            return _tagged("tuple", self._items(value, where, depth))
        if isinstance(value, _SET):
            name = "set" if isinstance(value, set) else "frozenset"
            members = [self._hashable(item, f"a member of {where}", depth + 1) for item in value]
            # Sorted, because the order of a set changes from process to process.
            return _tagged(name, sorted(members, key=repr))
        if type(value) is dict or isinstance(value, Mapping):
            return self._mapping(value, where, depth)
        return self._object(value, where, depth)

    def _hashable(self, value: Any, where: str, depth: int) -> Any:
        """Encode a key or a member of a set, which must still be hashable when it is restored."""
        encoded = self.encode(value, where, depth)
        try:
            hash(decode(encoded, self._kinds))
        except TypeError:
            if self._default is not None and depth <= MAX_DEPTH:
                return self._hashable(self._default(value), where, depth + 1)
            kind = type(value).__name__
            raise MessageError(f"{where} is a {kind}, which would not come back unchanged{self._hint}") from None
        return encoded

    def _items(self, values: Iterable[Any], where: str, depth: int) -> list[Any]:
        return [self.encode(item, f"{where}[{place}]", depth + 1) for place, item in enumerate(values)]

    def _mapping(self, value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
        items = {key: self.encode(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
        if TAG not in items and all(isinstance(key, str) for key in items):
            return items
        keys = [self._hashable(key, f"a key of {where}", depth + 1) for key in items]
        return _tagged("dict", [[key, item] for key, item in zip(keys, items.values(), strict=True)])

    def _object(self, value: Any, where: str, depth: int) -> Any:
        for name, (kind, plain, _) in self._kinds.items():
            if isinstance(value, kind):
                return _tagged(name, self.encode(plain(value), where, depth + 1))
        if isinstance(value, BaseModel):
            return self.encode(value.model_dump(), where, depth + 1)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return self.encode(fields, where, depth + 1)
        if hasattr(value, "tolist") and not isinstance(value, type):  # arrays and scalars of numpy and similar packages
            return self.encode(value.tolist(), where, depth + 1)
        try:
            return normalise(value, where)
        except MessageError as error:
            if self._default is None:
                raise MessageError(f"{error}{self._hint}") from None
        return self.encode(self._default(value), where, depth + 1)


def _number(value: float) -> Any:
    if isinstance(value, int):
        return value if -MAX_INTEGER - 1 <= value <= MAX_INTEGER else _tagged("int", hex(value))
    return value if math.isfinite(value) else _tagged("float", str(float(value)))


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {TAG: name, "value": value}


def decode(value: Any, kinds: Kinds) -> Any:
    """Restore a value that `encode` returned; the result shares nothing with it."""
    if isinstance(value, list):
        return [decode(item, kinds) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: decode(item, kinds) for key, item in value.items()}
    name, plain = value[TAG], decode(value["value"], kinds)
    restore = kinds[name][2] if name in kinds else _RESTORE.get(name)
    return plain if restore is None else restore(plain)


_RESTORE: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "int": lambda text: int(text, 16),  # Python limits the number of decimal digits
    "float": float,
}
