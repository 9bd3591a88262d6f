"""Reading messages that the dynamiq package stored."""

from __future__ import annotations

import json
from typing import Any

from dynamiq_memory._ids import new_id
from dynamiq_memory._json import MAX_INTEGER
from dynamiq_memory.exceptions import MessageError
from dynamiq_memory.messages import (
    LATEST,
    MESSAGE_ID_KEY,
    SESSION_KEY,
    TIMESTAMP_KEY,
    USER_KEY,
    Message,
    MessageRole,
    parse_timestamp,
)


def legacy_message(
    message_id: Any, role: str, content: Any, metadata: str | None, timestamp: Any, *, last: float
) -> Message:
    """Create a message from the values that the dynamiq package stored.

    Args:
        message_id: Its id.
        role: Its role.
        content: Its content.
        metadata: Its metadata as JSON text.
        timestamp: Its time.
        last: The time of the message before it, used if its own cannot be read.

    Raises:
        ValueError: The values are not a message.
    """
    values = json.loads(metadata or "{}", parse_constant=str, parse_int=_integer)
    if not isinstance(values, dict):
        values = {} if values is None else {"metadata": values}
    tool_calls = values.pop("_tool_calls", None)
    if isinstance(tool_calls, str):
        tool_calls = json.loads(tool_calls) if tool_calls else None
    tool_call_id = values.pop("_tool_call_id", None) or None
    name = values.pop("_name", None) or None
    for key in (USER_KEY, SESSION_KEY):
        # The package stores None as the empty string, and ids of any type.
        value = values.pop(key, None)
        if value not in (None, ""):
            values[key] = value if isinstance(value, str) else str(value)
    stored_time = values.pop(TIMESTAMP_KEY, timestamp)
    try:
        time = parse_timestamp(stored_time)
    except MessageError:
        values["dynamiq_timestamp"] = stored_time
        time = timestamp if isinstance(timestamp, float) else last
    if time is not None and abs(time) > LATEST:  # milliseconds, or not a real time
        values["dynamiq_timestamp"] = stored_time
        time = time / 1000 if abs(time) / 1000 <= LATEST else last
    if MESSAGE_ID_KEY in values:
        values["dynamiq_message_id"] = values.pop(MESSAGE_ID_KEY)
    return Message(
        id=str(message_id) if message_id else new_id(),
        role=MessageRole(role),
        content=content if isinstance(content, str) else str(content),
        timestamp=time if time is not None else last,
        metadata=values,
        tool_calls=tool_calls,
        tool_call_id=tool_call_id,
        name=name,
    )


def _integer(digits: str) -> int | str:
    """Read a JSON integer. An integer that our JSON cannot represent stays text."""
    number = int(digits)
    return number if -MAX_INTEGER - 1 <= number <= MAX_INTEGER else digits
