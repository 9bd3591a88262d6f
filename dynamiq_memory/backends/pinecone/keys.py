"""The ids of records, which make the service's listing of a session its newest messages first.

    m/<user>/<session>/<time>/<id>                a message
    p/<user>/<session>/<key>/<version>/<number>   a part of a large message

The service lists ids by prefix, in the order of their bytes. The time is written so that a later one comes first.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import quote, unquote

from dynamiq_memory.backends._order import Arrivals, time_digits, time_of
from dynamiq_memory.messages import Message

__all__ = ["Arrivals", "Scope", "decoded", "encoded", "is_hashed", "key_of", "message_id", "part_id", "prefix_of"]

MESSAGES = "m/"
PARTS = "p/"
# An id takes 512 ASCII characters (https://docs.pinecone.io/reference/api/database-limits); it is made of three such
# parts, a time and some slashes. A longer one is hashed.
_LONGEST_PART = 140
_HASHED = "%%"
NOBODY = "%"
"""Stands for the user of messages without one, and for their session: no identifier is encoded so."""
_KEY_DIGITS = 32
_BUCKETS = 1 << 24
_ALL = (1 << 64) - 1

Scope = tuple[str, str]
"""A user and a session, encoded."""


class Place(NamedTuple):
    """What the id of a message's record says."""

    user: str
    session: str
    time: float
    id: str

    @property
    def scope(self) -> Scope:
        """The session that it belongs to."""
        return self.user, self.session


def encoded(identifier: str | None) -> str:
    """An identifier as a part of an id: percent-encoded, or its hash if it is long; `NOBODY` for None."""
    if identifier is None:
        return NOBODY
    quoted = quote(identifier, safe="")
    return quoted if len(quoted) <= _LONGEST_PART else _HASHED + hashlib.sha256(identifier.encode()).hexdigest()


def is_hashed(part: str) -> bool:
    """Whether what was encoded cannot be told from its code."""
    return part.startswith(_HASHED)


def decoded(part: str) -> str | None:
    """What was encoded, if it was not hashed."""
    return None if part == NOBODY else unquote(part)


def _turned(digits: str) -> str:
    return f"{int(digits, 16) ^ _ALL:016x}"


def message_id(message: Message) -> str:
    """The id of a message's record; the same for each attempt to store it."""
    scope = f"{encoded(message.user_id)}/{encoded(message.session_id)}"
    return f"{MESSAGES}{scope}/{_turned(time_digits(message.timestamp or 0.0))}/{encoded(message.id)}"


def place_of(record_id: str) -> Place:
    """Read an id of `message_id`."""
    _, user, session, digits, identifier = record_id.split("/")
    return Place(user, session, time_of(_turned(digits)), identifier)


def part_id(user: str, session: str, key: str, version: str, number: int) -> str:
    """The id of a part of a large message."""
    return f"{PARTS}{user}/{session}/{key}/{version}/{number:05d}"


def prefix_of(kind: str, user: str | None = None, session: str | None = None) -> str:
    """The prefix of all ids of a kind, of a user, or of a user's session."""
    if user is None:
        return kind
    return f"{kind}{user}/" if session is None else f"{kind}{user}/{session}/"


def key_of(user: str, session: str, identifier: str) -> str:
    """What stays the same in all versions of a message, wherever in time they stand."""
    return hashlib.sha256(f"{user}/{session}/{identifier}".encode()).hexdigest()[:_KEY_DIGITS]


def key_of_message(message: Message) -> str:
    """The key of a message."""
    return key_of(encoded(message.user_id), encoded(message.session_id), encoded(message.id))


def key_of_record(record_id: str) -> str:
    """The key of the message whose record has this id."""
    place = place_of(record_id)
    return key_of(place.user, place.session, place.id)


def bucket_of(record_id: str) -> int:
    """A number of 24 bits, by which a result that is too large is taken apart."""
    return int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:3], "big")


BUCKETS = _BUCKETS
