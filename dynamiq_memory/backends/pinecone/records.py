"""A message as records of the index.

A record's metadata holds the message as JSON text, and flat beside it what the service filters by: strings, numbers
and booleans, with no null, 40 KB in all. A longer text goes on in further records, its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends.pinecone import keys
from dynamiq_memory.backends.pinecone.requests import Record, Vector
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

KIND, KEY, USER, SESSION, ID = "kind", "key", "user", "session", "id"
TIME, BUCKET, ARRIVAL, VERSION, PARTS = "time", "bucket", "arrival", "version", "parts"
EMBEDDED, TEXT, UNLISTED = "embedded", "text", "unlisted"
OWN = "m:"
"""What stands before the keys of a message's own metadata: they never meet ours, and none begins with a `$`."""
MESSAGE, PART = "message", "part"

# Of the 40 KB of a record's metadata as JSON: text, then values to filter by; the rest is for our own fields.
_TEXT_BYTES = 28_000
_LISTED_BYTES = 8_000
_LONGEST_KEY = 200
_LONGEST_VALUE = 500
_SHOWN = (USER_KEY, SESSION_KEY, TIMESTAMP_KEY, MESSAGE_ID_KEY)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it stands in the index.

    Attributes:
        id: The id of its record.
        key: What stays the same in all its versions.
        arrival: Its place among messages of the same time.
        version: When it was written, as text that sorts.
        parts: How many further records it has.
        message: The message; None where only the rest was read.
    """

    id: str
    key: str
    arrival: str
    version: str
    parts: int
    message: Message | None

    @property
    def place(self) -> tuple[float, str, str]:
        """What messages are ordered by."""
        return keys.place_of(self.id).time, self.arrival, self.id

    @property
    def part_ids(self) -> list[str]:
        """The ids of its further records."""
        place = keys.place_of(self.id)
        return [keys.part_id(place.user, place.session, self.key, self.version, n) for n in range(self.parts)]


def records_of(
    stored: Stored, vector: Vector | None, placeholder: Vector
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record of a message, and its parts.

    Args:
        stored: The message; its number of parts does not matter yet.
        vector: Its embedding, or None if it has none.
        placeholder: What stands for a vector where there is none.
    """
    message = stored.message
    if message is None:
        raise BackendError(f"{stored.id} has no message to store")
    place = keys.place_of(stored.id)
    first, *rest = chunks(message.to_json())
    scope: dict[str, Any] = {USER: place.user, SESSION: place.session, BUCKET: keys.bucket_of(stored.id)}
    metadata: dict[str, Any] = scope | {
        KIND: MESSAGE,
        KEY: stored.key,
        ID: place.id,
        TIME: place.time,
        ARRIVAL: stored.arrival,
        VERSION: stored.version,
        PARTS: len(rest),
        EMBEDDED: vector is not None,
        TEXT: first,
    }
    listed, complete = listable(message.metadata)
    metadata.update(listed)
    if not complete:
        metadata[UNLISTED] = True
    record = {"id": stored.id, "values": placeholder if vector is None else vector, "metadata": metadata}
    parts = [
        {
            "id": keys.part_id(place.user, place.session, stored.key, stored.version, number),
            "values": placeholder,
            "metadata": scope | {KIND: PART, TEXT: text},
        }
        for number, text in enumerate(rest)
    ]
    return record, parts


def head_of(record: Record) -> Stored:
    """What a record of a message says about it, without its text."""
    held = record.metadata
    try:
        return Stored(record.id, held[KEY], held[ARRIVAL], held[VERSION], int(held[PARTS]), None)
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"the record {record.id!r} was not written by this package: {error!r}") from error


def text_of(record: Record) -> str:
    """The piece of a message's text that a record holds."""
    return str(record.metadata[TEXT])


def chunks(text: str) -> list[str]:
    """Cut a text into pieces that fit into a record, at least one."""
    found: list[str] = []
    start = 0
    while start < len(text) or not found:
        piece = text[start : start + _TEXT_BYTES]
        while (size := _size_as_json(piece)) > _TEXT_BYTES:
            piece = piece[: len(piece) * _TEXT_BYTES // size]
        found.append(piece)
        start += len(piece)
    return found


def _size_as_json(text: str) -> int:
    """The bytes of a piece of JSON as a JSON string: quotes and backslashes take another one."""
    return len(text.encode()) + text.count('"') + text.count("\\")


def listable(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The values of a message's metadata that the service can filter by, and whether these are all there are."""
    listed: dict[str, Any] = {}
    complete, size = True, 0
    for key, value in metadata.items():
        if key in _SHOWN or not isinstance(value, str | int | float | bool):
            continue
        taken = len(json.dumps({OWN + key: comparable(value)})) if can_list(key, value) else _LISTED_BYTES
        if size + taken >= _LISTED_BYTES:
            complete = False
            continue
        size += taken
        listed[OWN + key] = comparable(value)
    return listed, complete


def can_list(key: str, value: Any) -> bool:
    """Whether a value of a message's metadata is given to the service for filtering."""
    if len(key) > _LONGEST_KEY or not is_clean(key):
        return False
    return not isinstance(value, str) or (len(value) <= _LONGEST_VALUE and is_clean(value))


def comparable(value: str | float | bool) -> str | float | bool:
    """A value as the service compares it: it keeps all numbers as floats."""
    if isinstance(value, bool | str):
        return value
    return float(value)


def joined(head: Stored, pieces: Sequence[str]) -> Stored:
    """A message put together from the pieces of its text."""
    message = Message.from_json("".join(pieces))
    return Stored(head.id, head.key, head.arrival, head.version, head.parts, message)
