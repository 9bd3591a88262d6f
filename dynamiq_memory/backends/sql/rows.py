"""Between messages and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynamiq_memory._json import dumps, is_clean, loads
from dynamiq_memory.messages import MESSAGE_ID_KEY, MESSAGES, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLUMNS = ("user_id", "session_id", "id", "timestamp", "role", "content", "metadata", "extra")


def to_row(message: Message) -> dict[str, Any]:
    """Turn a prepared message into the values of its columns."""
    metadata = dict(message.metadata)
    extra = {
        field: value
        for field in ("tool_calls", "tool_call_id", "name", "native")
        if (value := getattr(message, field)) is not None
    }
    content: str | None = None
    if isinstance(message.content, str) and is_clean(message.content):
        content = message.content
    else:
        extra["content"] = message.content
    return {
        "user_id": metadata.pop(USER_KEY, ""),
        "session_id": metadata.pop(SESSION_KEY, ""),
        "id": message.id,
        "timestamp": message.timestamp,
        "role": message.role.value,
        "content": content,
        "metadata": dumps(metadata) if metadata else "{}",
        "extra": dumps(extra) if extra else None,
    }


def from_rows(rows: Iterable[Sequence[Any]]) -> list[Message]:
    """Build messages, as callers see them, from rows of `COLUMNS`."""
    return MESSAGES.validate_python([_fields(*row) for row in rows])


def _fields(
    user_id: str,
    session_id: str,
    message_id: str,
    timestamp: float,
    role: str,
    content: str | None,
    metadata: str,
    extra: str | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {} if metadata == "{}" else loads(metadata)
    if user_id:
        values[USER_KEY] = user_id
    if session_id:
        values[SESSION_KEY] = session_id
    values[TIMESTAMP_KEY] = timestamp
    values[MESSAGE_ID_KEY] = message_id
    fields = {"id": message_id, "timestamp": timestamp, "role": role, "content": content, "metadata": values}
    if extra:
        fields |= loads(extra)
    return fields
