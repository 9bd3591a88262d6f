"""Messages in the wire format of the Dynamiq platform's memories, which our service speaks too. No I/O.

An item is what every client of the platform reads and writes: `user_id`, `session_id`, `data` (role, content parts,
calls) and `metadata`. What an item cannot hold of a message goes into an extension beside it: its id, its exact time,
`native`, and each value that JSON cannot carry unchanged. So a message of ours comes back whole, and any other client
reads the same item.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dynamiq_memory._json import MAX_DEPTH, copy_plain, dumps, loads, shown
from dynamiq_memory.exceptions import MessageError
from dynamiq_memory.messages import (
    LATEST,
    MESSAGE_ID_KEY,
    SESSION_KEY,
    TIMESTAMP_KEY,
    USER_KEY,
    Message,
    MessageRole,
    check_identifier,
    refusal,
)

EXTENSION = "dynamiq_memory"
"""The name of the extension: a field of an item, or, where a server knows no such field, a key of its metadata."""

_VIEWS = (TIMESTAMP_KEY, MESSAGE_ID_KEY, USER_KEY, SESSION_KEY)
_UNCLEAN = re.compile("[\0\ud800-\udfff]")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PIECES = ("content", "metadata", "tool_calls", "tool_call_id", "name")
# A server in another language may write a number as another one of the same value, or a large one inexactly.
_EXACT_EVERYWHERE = 2**53


def to_item(message: Message, *, in_metadata: bool = False) -> dict[str, Any]:
    """Write a message as an item.

    Args:
        message: A prepared message, or one that a backend returned.
        in_metadata: Whether the extension goes into the metadata, for a server that knows no such field.
    """
    reader = _Readable(wary=in_metadata)
    own = {key: value for key, value in message.metadata.items() if key not in _VIEWS}
    exact: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for name in _PIECES:
        value = own if name == "metadata" else getattr(message, name)
        fields[name], changed = reader.of(value)
        if changed:
            exact[name] = value
    if message.native is not None:
        exact["native"] = message.native
    text = isinstance(message.content, str)
    data: dict[str, Any] = {
        "role": message.role.value,
        "content": [{"type": "text", "text": fields["content"]}] if text else fields["content"],
    }
    data |= {name: fields[name] for name in _PIECES[2:] if fields[name] is not None}
    extension: dict[str, Any] = {"id": message.id, "timestamp": message.timestamp}
    if text:
        extension["text"] = True
    if exact:
        extension["exact"] = dumps(exact)
    metadata: dict[str, Any] = fields["metadata"]
    item: dict[str, Any] = {USER_KEY: message.user_id, SESSION_KEY: message.session_id, "type": "message", "data": data}
    if in_metadata:
        extension["of"] = _digest(data)
        item["metadata"] = {**metadata, EXTENSION: extension}
    else:
        item["metadata"] = metadata
        item[EXTENSION] = extension
    return item


def to_shown_item(message: Message) -> dict[str, Any]:
    """Write a stored message as a server shows it: with its id and times."""
    item = to_item(message)
    created = iso(message.timestamp or 0.0)
    # Clients sort by the time in the metadata where there is one: `created_at` has only microseconds.
    item["metadata"] |= {TIMESTAMP_KEY: message.timestamp, MESSAGE_ID_KEY: message.id}
    return {"id": message.id, **item, "created_at": created, "updated_at": created}


def from_item(item: Mapping[str, Any]) -> Message:
    """Read a message from an item, its extension included.

    Raises:
        MessageError: It is no item of a message.
    """
    data = item.get("data")
    if not isinstance(data, Mapping):
        raise MessageError("an item needs `data`: an object with `role` and `content`")
    metadata = dict(_mapping(data.get("metadata"))) | dict(_mapping(item.get("metadata")))
    extension = _extension(item, data, metadata)
    scope = {key: item[key] for key in (USER_KEY, SESSION_KEY) if item.get(key) is not None}
    content = data.get("content")
    if not extension or extension.get("text"):
        content = _one_text(content)
    try:
        content, tool_calls = copy_plain(content), copy_plain(data.get("tool_calls"))
    except RecursionError:
        raise MessageError(f"an item is nested deeper than {MAX_DEPTH} levels") from None
    fields: dict[str, Any] = {
        "role": data.get("role"),
        "content": content,
        "tool_calls": tool_calls,
        "tool_call_id": data.get("tool_call_id"),
        "name": data.get("name"),
    }
    if extension:
        for key in (TIMESTAMP_KEY, MESSAGE_ID_KEY, USER_KEY, SESSION_KEY):
            metadata.pop(key, None)
        _restore(fields, metadata, extension)
    else:
        if isinstance(item.get("id"), str):
            fields["id"] = item["id"]
        if item.get("created_at") is not None and metadata.get(TIMESTAMP_KEY) is None:
            metadata[TIMESTAMP_KEY] = item["created_at"]
    fields["metadata"] = fields.pop("metadata", metadata) | scope
    try:
        return Message(**fields)
    except ValidationError as error:
        raise refusal(error) from None


def to_anchor(message: Message) -> dict[str, Any]:
    """Name a stored message, so that what stands beside it can be read."""
    return {
        "id": message.id,
        "timestamp": message.timestamp,
        USER_KEY: message.user_id,
        SESSION_KEY: message.session_id,
    }


def from_anchor(anchor: Mapping[str, Any]) -> Message:
    """Make a message without content that stands for the stored one.

    Raises:
        MessageError: It names none.
    """
    scope = {key: anchor[key] for key in (USER_KEY, SESSION_KEY) if anchor.get(key) is not None}
    for key, value in {"id": anchor.get("id"), **scope}.items():
        check_identifier(value, key)
    timestamp = anchor.get("timestamp")
    if not isinstance(timestamp, int | float) or not abs(timestamp) <= LATEST:
        raise MessageError("timestamp must be the POSIX seconds of a stored message")
    try:
        return Message(role=MessageRole.USER, id=anchor["id"], timestamp=timestamp, metadata=scope)
    except ValidationError as error:
        raise refusal(error) from None


def iso(timestamp: float) -> str:
    """Write POSIX seconds as ISO 8601, UTC, to the microsecond; times before the year 1 as its beginning."""
    try:
        moment = _EPOCH + dt.timedelta(seconds=timestamp)
    except OverflowError:
        moment = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def readable(text: str) -> str:
    """A text that any client and server can hold: without NUL and lone surrogates."""
    return text if text.isascii() and "\0" not in text else _UNCLEAN.sub("\ufffd", text)


class _Readable:
    """Turns values into JSON that any client and server can hold.

    Args:
        wary: Whether to call what another language may change a change, too.
    """

    def __init__(self, *, wary: bool) -> None:
        self._wary = wary
        self._changed = False

    def of(self, value: Any) -> tuple[Any, bool]:
        """The readable value, and whether it is another than the one given."""
        self._changed = False
        return self._plain(value), self._changed

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float):
            if self._wary and (isinstance(value, float) or abs(value) > _EXACT_EVERYWHERE):
                self._changed = True
            return value
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, dict):
            return {self._text(key): self._plain(item) for key, item in value.items()}
        self._changed = True
        return shown(value)

    def _text(self, value: str) -> str:
        clean = readable(value)
        self._changed = self._changed or clean != value
        return clean


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MessageError(f"metadata must be an object, not a {type(value).__name__}")
    return value


def _extension(item: Mapping[str, Any], data: Mapping[str, Any], metadata: dict[str, Any]) -> Mapping[str, Any] | None:
    """The extension that belongs to an item, taken out of its metadata."""
    beside = item.get(EXTENSION)
    if isinstance(beside, Mapping):
        return beside
    within = metadata.get(EXTENSION)
    if not isinstance(within, Mapping) or "of" not in within:
        return None
    del metadata[EXTENSION]
    # Clients copy metadata from one message to another: what it says of that one is not of this.
    return within if within["of"] == _digest(data) else None


def _restore(fields: dict[str, Any], metadata: dict[str, Any], extension: Mapping[str, Any]) -> None:
    """Put in what the extension has."""
    fields["id"], fields["timestamp"] = extension.get("id"), extension.get("timestamp")
    text = extension.get("exact")
    fields["metadata"] = metadata
    if text is None:
        return
    try:
        exact = loads(text)
        fields |= {name: exact[name] for name in (*_PIECES, "native") if name in exact}
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        raise MessageError(f"{EXTENSION}.exact is not what this package writes: leave it out") from None
    if not isinstance(fields["metadata"], dict):
        raise MessageError(f"{EXTENSION}.exact holds metadata that is no object: leave it out")


def _one_text(content: Any) -> Any:
    """The text of content that is one part of text; other content as it is."""
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], Mapping):
        return content
    part = content[0]
    is_text = part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str)
    return part["text"] if is_text else content


def _digest(data: Mapping[str, Any]) -> str:
    """A short digest of who says what, the same however a server writes its JSON."""
    content = data.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    said = dumps([data.get("role"), data.get("tool_call_id"), texts])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
