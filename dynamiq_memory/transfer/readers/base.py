"""Parts that readers share."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from dynamiq_memory.exceptions import MessageError, TransferError
from dynamiq_memory.messages import Message, refusal
from dynamiq_memory.transfer.lines import MALFORMED
from dynamiq_memory.transfer.streams import File, opened, whole

ROLES = {
    "ai": "assistant",
    "assistant": "assistant",
    "developer": "system",
    "function": "tool",
    "human": "user",
    "system": "system",
    "tool": "tool",
    "user": "user",
}


class Entry(NamedTuple):
    """An entry of a file.

    Attributes:
        location: Where it is, for errors, such as "line 7".
        key: Its place in its session, which is the same when the file is read again, also when it has grown.
        data: The entry itself, or the error by which it cannot be read.
        session_id: Its session, or None if the format has no sessions.
        user_id: Its user, or None if the format has no users.
    """

    location: str
    key: str
    data: Any
    session_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of a format.

    Attributes:
        entries: Lists the entries of a file, in order. It raises `TransferError` if the file is of another format.
        to_message: Makes a message of the data of an entry, with an id if the format has ids, and a timestamp if it has
            times. It raises `MessageError`, or what Python raises for data of an unexpected form.
    """

    entries: Callable[[File], Iterator[Entry]]
    to_message: Callable[[Any], Message]


def entries_of(items: Iterable[Any], name: str, listed: Callable[[Any, str, int], Iterator[Entry]]) -> Iterator[Entry]:
    """List the entries of items, such as conversations, where an item of an unexpected form does not end the others.

    Args:
        items: The items.
        name: What an item is, for errors.
        listed: Lists the entries of an item, given its location and its number.
    """
    for number, item in enumerate(items, 1):
        location = f"{name} {number}"
        try:
            yield from listed(item, location, number)
        except MALFORMED as error:
            yield Entry(location, "", error)


def message_of(role: Any, content: Any, **fields: Any) -> Message:
    """Make a message; fields that are None are left out.

    Raises:
        MessageError: The role is unknown, or a field is invalid.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return Message(role=ROLES.get(role, role), content=content, **given)
    except ValidationError as error:
        raise refusal(error) from None


def seconds_of(text: str | None) -> float | None:
    """Read a time in ISO 8601, in UTC if it names no zone; None for None."""
    if text is None:
        return None
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()


def parsed(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        MessageError: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"this is not JSON, or not whole ({error}): was the file cut off?") from None


def json_in(file: File) -> Any:
    """Read a file of JSON as a whole.

    Raises:
        TransferError: It cannot be read, or is not JSON in UTF-8.
    """
    with opened(file) as stream:
        text = whole(stream)
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise TransferError(f"the file is not JSON in UTF-8, or not whole ({error}): was it cut off?") from None


def expect(condition: bool, format: str, needed: str) -> None:  # noqa: A002 - the field's term
    """Check that a file is of a format.

    Raises:
        TransferError: It is not.
    """
    if not condition:
        raise TransferError(f"the file is not of the format {format}, which has {needed}: name its own format")
