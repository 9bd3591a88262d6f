"""Conversion of messages to records and back.

A record's metadata contains the message as JSON text and, as flat values, the fields that the service filters by:
strings, numbers and booleans, without null, 40 KB in all. A longer text continues in further records, its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._embedding import Vector
from dynamiq_memory.backends.pinecone import keys
from dynamiq_memory.backends.pinecone.requests import Record
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

KIND, KEY, USER, SESSION, ID = "kind", "key", "user", "session", "id"
TIME, BUCKET, ARRIVAL, VERSION, PARTS = "time", "bucket", "arrival", "version", "parts"
EMBEDDED, EMBEDDER, TEXT, UNLISTED = "embedded", "embedder", "text", "unlisted"
METADATA = "m:"
"""Precedes the keys of a message's metadata, which therefore differ from all others and never begin with `$`."""
MESSAGE, PART = "message", "part"

# Of the 40 KB of a record's metadata as JSON: text, then values to filter by; the rest is for the other fields.
_TEXT_BYTES = 28_000
_LISTED_BYTES = 8_000
_LONGEST_KEY = 200
_LONGEST_VALUE = 500
_OWN_FIELDS = (USER_KEY, SESSION_KEY, TIMESTAMP_KEY, MESSAGE_ID_KEY)

Position = tuple[float, str, str]
"""Messages are in the order of (timestamp, arrival, id)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A version of a message in the index.

    Attributes:
        id: The id of its record.
        key: The message's key, the same for all its versions.
        arrival: Its position among messages of the same time.
        version: When it was written, as text that sorts.
        parts: The number of its parts.
        message: The message; None if only the other fields were read.
    """

    id: str
    key: str
    arrival: str
    version: str
    parts: int
    message: Message | None

    @property
    def position(self) -> Position:
        """The message's position in the order of reading."""
        return keys.parse(self.id).time, self.arrival, self.id

    @property
    def part_ids(self) -> list[str]:
        """The ids of its parts."""
        user, session = keys.parse(self.id).scope
        return [keys.part_id(user, session, self.key, self.version, number) for number in range(self.parts)]

    def with_text(self, pieces: Sequence[str]) -> Stored:
        """Return the same with the message that pieces of JSON text make."""
        return replace(self, message=Message.from_json("".join(pieces)))


position_of = attrgetter("position")


def records_of(
    stored: Stored, vector: Vector | None, placeholder: Vector, embedder: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the record of a message, and its parts.

    Args:
        stored: The message; its number of parts is ignored.
        vector: Its embedding, if it has one.
        placeholder: The vector of records without one.
        embedder: The label of the embedder.
    """
    message = stored.message
    if message is None:
        raise BackendError(f"{stored.id} has no message to store")
    user, session, time, identifier = keys.parse(stored.id)
    first, *rest = chunks(message.to_json())
    scope: dict[str, Any] = {USER: user, SESSION: session, BUCKET: keys.bucket_of(stored.id)}
    listed, is_complete = listable(message.metadata)
    metadata: dict[str, Any] = {
        **scope,
        KIND: MESSAGE,
        KEY: stored.key,
        ID: identifier,
        TIME: time,
        ARRIVAL: stored.arrival,
        VERSION: stored.version,
        PARTS: len(rest),
        EMBEDDED: vector is not None,
        EMBEDDER: embedder,
        TEXT: first,
        **listed,
    }
    if not is_complete:
        metadata[UNLISTED] = True
    record = {"id": stored.id, "values": placeholder if vector is None else vector, "metadata": metadata}
    parts = [
        {
            "id": keys.part_id(user, session, stored.key, stored.version, number),
            "values": placeholder,
            "metadata": scope | {KIND: PART, TEXT: text},
        }
        for number, text in enumerate(rest)
    ]
    return record, parts


def head_of(record: Record) -> Stored:
    """Read a message's record except for its text."""
    metadata = record.metadata
    try:
        version = metadata[VERSION]
        return Stored(record.id, metadata[KEY], metadata[ARRIVAL], version, int(metadata[PARTS]), None)
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"the record {record.id!r} was not written by this package: {error!r}") from error


def text_of(record: Record) -> str:
    """Return the piece of a message's text that a record contains."""
    return str(record.metadata[TEXT])


def chunks(text: str) -> list[str]:
    """Cut a text into pieces that fit in a record, at least one."""
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
    """Return the bytes of a piece of JSON as a JSON string: quotes and backslashes take one more."""
    return len(text.encode()) + text.count('"') + text.count("\\")


def listable(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the values of a message's metadata that the service can filter by, and whether these are all."""
    listed: dict[str, Any] = {}
    is_complete, size = True, 0
    for key, value in metadata.items():
        if key in _OWN_FIELDS or not isinstance(value, str | int | float):
            continue
        # The service stores all numbers as floats.
        comparable = value if isinstance(value, bool | str) else float(value)
        added = len(json.dumps({METADATA + key: comparable})) if can_list(key, value) else _LISTED_BYTES
        if size + added >= _LISTED_BYTES:
            is_complete = False
            continue
        size += added
        listed[METADATA + key] = comparable
    return listed, is_complete


def can_list(key: str, value: Any) -> bool:
    """Whether a record can list a value of a message's metadata."""
    if len(key) > _LONGEST_KEY or not is_clean(key):
        return False
    return not isinstance(value, str) or (len(value) <= _LONGEST_VALUE and is_clean(value))
