"""A message as a line of JSON."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dynamiq_memory._json import dumps, loads
from dynamiq_memory.exceptions import MessageError
from dynamiq_memory.messages import MESSAGE_ID_KEY, TIMESTAMP_KEY, Message, refusal

_OPTIONAL = ("tool_calls", "tool_call_id", "name", "native")
_REQUIRED = ("role", "content", "id", "timestamp")
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Python raises for data of an unexpected form."""


def to_line(message: Message, *, sort_keys: bool = False) -> str:
    """Write a stored message as a line of JSON, with all that a store keeps of it.

    Args:
        message: The message.
        sort_keys: Whether equal messages have equal lines, whatever the order of their keys.
    """
    fields: dict[str, Any] = {name: getattr(message, name) for name in _REQUIRED}
    fields["role"] = message.role.value
    views = (TIMESTAMP_KEY, MESSAGE_ID_KEY)
    fields["metadata"] = {key: value for key, value in message.metadata.items() if key not in views}
    fields |= {name: value for name in _OPTIONAL if (value := getattr(message, name)) is not None}
    return dumps(fields, sort_keys=sort_keys)


def from_line(text: str) -> Message:
    """Read a message that `to_line` wrote.

    Raises:
        MessageError: The line is not a message; the error says what to change.
    """
    try:
        fields = loads(text)
    except MALFORMED as error:
        raise MessageError(f"this is not JSON, or not whole ({error}): was the file cut off?") from None
    if not isinstance(fields, dict):
        raise MessageError('a message is an object such as {"role": "user", "content": …}')
    missing = [name for name in _REQUIRED if fields.get(name) is None]
    if missing:
        raise MessageError(f"the message has no {missing[0]}: without it, it cannot be found again as the same one")
    try:
        return Message.model_validate(fields)
    except ValidationError as error:
        raise refusal(error) from None


def first_difference(one: Message, other: Message) -> str | None:
    """Return the name of the first field in which two messages differ, if there is one."""
    fields, others = (loads(to_line(each)) for each in (one, other))
    return next((name for name in (*_REQUIRED, "metadata", *_OPTIONAL) if fields.get(name) != others.get(name)), None)


def same(one: Message, other: Message) -> bool:
    """Return whether two messages have the same content, all fields of it."""
    return to_line(one, sort_keys=True) == to_line(other, sort_keys=True)
