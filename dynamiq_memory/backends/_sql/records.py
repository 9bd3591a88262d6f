"""From messages to rows, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamiq_memory._json import dumps, is_clean, loads
from dynamiq_memory.messages import MESSAGE_ID_KEY, MESSAGES, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

LARGE = frozenset({"content", "metadata", "extra"})
COLUMNS = ("user_id", "session_id", "id", "timestamp", "role", "content", "metadata", "extra")


def to_row(message: Message) -> dict[str, Any]:
    """Turn a prepared message into the values of its columns."""
    metadata = dict(message.metadata)
    extra = {
        field: value
        for field in ("tool_calls", "tool_call_id", "name", "native")
        if (value := getattr(message, field)) is not None
    }
    is_text = isinstance(message.content, str) and is_clean(message.content)
    if not is_text:
        extra["content"] = message.content
    return {
        "user_id": metadata.pop(USER_KEY, ""),
        "session_id": metadata.pop(SESSION_KEY, ""),
        "id": message.id,
        "timestamp": message.timestamp,
        "role": message.role.value,
        "content": message.content if is_text else None,
        "metadata": dumps(metadata) if metadata else "{}",
        "extra": dumps(extra) if extra else None,
    }


def from_rows(rows: Sequence[Sequence[Any]]) -> list[Message]:
    """Build messages, as callers see them, from rows of `COLUMNS`."""
    if not rows:
        return []
    # One call for each column: for small values, setting up the parser costs more than parsing.
    metadata, extra = (loads(f"[{','.join([row[place] or '{}' for row in rows])}]") for place in (6, 7))
    return MESSAGES.validate_python(list(map(_fields, rows, metadata, extra)))


def _fields(row: Sequence[Any], metadata: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    user_id, session_id, message_id, timestamp, role, content = row[:6]
    if user_id:
        metadata[USER_KEY] = user_id
    if session_id:
        metadata[SESSION_KEY] = session_id
    metadata[TIMESTAMP_KEY] = timestamp
    metadata[MESSAGE_ID_KEY] = message_id
    fields = {"id": message_id, "timestamp": timestamp, "role": role, "content": content, "metadata": metadata}
    return fields | extra
