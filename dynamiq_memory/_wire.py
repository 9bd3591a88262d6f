"""Messages in the wire format of Dynamiq memories, used by the platform and by our service. No I/O.

All clients of the platform read and write items with `user_id`, `session_id`, `data` (role, content parts, calls) and
`metadata`. Message data that does not fit into an item goes into an extension of the item: the id, the exact time,
`native`, and values that JSON would change. We therefore read back exactly the message that was written, and other
clients can read the same item.
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
"""The extension's name: a field of the item, or a key of its metadata if the server does not know the field."""

_VIEWS = (TIMESTAMP_KEY, MESSAGE_ID_KEY, USER_KEY, SESSION_KEY)
_UNCLEAN = re.compile("[\0\ud800-\udfff]")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PIECES = ("content", "metadata", "tool_calls", "tool_call_id", "name")
# A server in another language may write a number in another notation (1 for 1.0), or lose digits of a large one.
_EXACT_EVERYWHERE = 2**53


def to_item(message: Message, *, in_metadata: bool = False) -> dict[str, Any]:
    """Write a message as an item.

    Args:
        message: A prepared message, or one that a backend returned.
        in_metadata: Whether to put the extension into the metadata, for servers that do not know its field.
    """
    values = {name: getattr(message, name) for name in _PIECES}
    values["metadata"] = {key: value for key, value in message.metadata.items() if key not in _VIEWS}
    fields = {name: _portable(value) for name, value in values.items()}
    exact = {
        name: value
        for name, value in values.items()
        if fields[name] != value or (in_metadata and _has_fragile_number(value))
    }
    if message.native is not None:
        exact["native"] = message.native
    text = isinstance(message.content, str)
    content = [{"type": "text", "text": fields["content"]}] if text else fields["content"]
    data: dict[str, Any] = {"role": message.role.value, "content": content}
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
    """Write a stored message as a server returns it, with its id and times."""
    item = to_item(message)
    created = iso(message.timestamp or 0.0)
    # Clients sort by the timestamp in the metadata if present, since `created_at` has only microseconds.
    item["metadata"] |= {TIMESTAMP_KEY: message.timestamp, MESSAGE_ID_KEY: message.id}
    return {"id": message.id, **item, "created_at": created, "updated_at": created}


def from_item(item: Mapping[str, Any]) -> Message:
    """Read a message from an item and its extension.

    Raises:
        MessageError: The item is not a valid message.
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
    fields: dict[str, Any] = {name: data.get(name) for name in ("role", "tool_call_id", "name")}
    fields |= {"content": content, "tool_calls": tool_calls}
    if extension:
        _restore(fields, {key: value for key, value in metadata.items() if key not in _VIEWS}, extension)
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
    """Identify a stored message, so that the messages around it can be read."""
    scope = {USER_KEY: message.user_id, SESSION_KEY: message.session_id}
    return {"id": message.id, "timestamp": message.timestamp, **scope}


def from_anchor(anchor: Mapping[str, Any]) -> Message:
    """Make a placeholder message without content for a stored message.

    Raises:
        MessageError: The anchor does not identify a message.
    """
    scope = {key: anchor[key] for key in (USER_KEY, SESSION_KEY) if anchor.get(key) is not None}
    for key, value in {"id": anchor.get("id"), **scope}.items():
        check_identifier(value, key)
    timestamp = anchor.get("timestamp")
    if not isinstance(timestamp, int | float) or not abs(timestamp) <= LATEST:
        raise MessageError("timestamp must be a stored message's time in POSIX seconds")
    return Message(role=MessageRole.USER, id=anchor["id"], timestamp=timestamp, metadata=scope)


def iso(timestamp: float) -> str:
    """Write POSIX seconds as ISO 8601 in UTC, with microseconds. Times before the year 1 become its first second."""
    try:
        moment = _EPOCH + dt.timedelta(seconds=timestamp)
    except OverflowError:
        moment = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def readable(text: str) -> str:
    """Replace NUL and lone surrogates, so that any client and server accepts the text."""
    return text if text.isascii() and "\0" not in text else _UNCLEAN.sub("\ufffd", text)


def _portable(value: Any) -> Any:
    """Convert a value to JSON that any client and server accepts."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, dict):
        return {readable(key): _portable(item) for key, item in value.items()}
    return value if isinstance(value, int | float | None) else shown(value)


def _has_fragile_number(value: Any) -> bool:
    """Return whether a server in another language may change a number in a value."""
    if isinstance(value, list | dict):
        return any(map(_has_fragile_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) or (isinstance(value, int) and abs(value) > _EXACT_EVERYWHERE)


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MessageError(f"metadata must be an object, not a {type(value).__name__}")
    return value


def _extension(item: Mapping[str, Any], data: Mapping[str, Any], metadata: dict[str, Any]) -> Mapping[str, Any] | None:
    """Return the item's extension; if it is in the metadata, remove it from there."""
    field = item.get(EXTENSION)
    if isinstance(field, Mapping):
        return field
    entry = metadata.get(EXTENSION)
    if not isinstance(entry, Mapping) or "of" not in entry:
        return None
    del metadata[EXTENSION]
    # Clients copy metadata from one message to another; the extension is valid for the first one only.
    return entry if entry["of"] == _digest(data) else None


def _restore(fields: dict[str, Any], metadata: dict[str, Any], extension: Mapping[str, Any]) -> None:
    """Restore the fields that the extension contains."""
    fields["id"], fields["timestamp"] = extension.get("id"), extension.get("timestamp")
    text = extension.get("exact")
    fields["metadata"] = metadata
    if text is None:
        return
    try:
        exact = loads(text)
        fields |= {name: exact[name] for name in (*_PIECES, "native") if name in exact}
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        raise MessageError(f"{EXTENSION}.exact was not written by this package: leave it out") from None
    if not isinstance(fields["metadata"], dict):
        raise MessageError(f"{EXTENSION}.exact contains metadata that is not an object: leave it out")


def _one_text(content: Any) -> Any:
    """Return the text if the content is a single text part, and other content unchanged."""
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], Mapping):
        return content
    part = content[0]
    is_text = part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str)
    return part["text"] if is_text else content


def _digest(data: Mapping[str, Any]) -> str:
    """Return a short digest of the role and the texts, which does not depend on how a server formats its JSON."""
    content = data.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    text = dumps([data.get("role"), data.get("tool_call_id"), texts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
