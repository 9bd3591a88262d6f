"""The ids of records. They make the service list the newest messages of a session first.

    m/<user>/<session>/<time>/<id>                a message
    p/<user>/<session>/<key>/<version>/<number>   a part of a large message

The service lists ids by prefix, in the order of their bytes. The time is written so that later ones come first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, unquote

from dynamiq_memory.backends._order import time_digits, time_of
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message

MESSAGES = "m/"
PARTS = "p/"
NOBODY = "%"
"""Encodes None as a user or a session: no identifier has this code."""
BUCKETS = 1 << 24
# An id has at most 512 ASCII characters (https://docs.pinecone.io/reference/api/database-limits); it consists of three
# such parts, a time and some slashes. A longer identifier is hashed.
_LONGEST_PART = 140
_HASHED = "%%"
_KEY_DIGITS = 32
_ALL = (1 << 64) - 1

EncodedScope = tuple[str, str]
"""A user and a session, encoded."""


class RecordId(NamedTuple):
    """The contents of the id of a message's record."""

    user: str
    session: str
    time: float
    id: str

    @property
    def scope(self) -> EncodedScope:
        """The session that the message belongs to."""
        return self.user, self.session

    @property
    def key(self) -> str:
        """The message's key: the same for all its versions, whatever their times are."""
        return hashlib.sha256(f"{self.user}/{self.session}/{self.id}".encode()).hexdigest()[:_KEY_DIGITS]


def encoded(identifier: str | None) -> str:
    """Encode an identifier as a part of an id: percent-encoded, or hashed if it is long; `NOBODY` for None."""
    if identifier is None:
        return NOBODY
    quoted = quote(identifier, safe="")
    return quoted if len(quoted) <= _LONGEST_PART else _HASHED + hashlib.sha256(identifier.encode()).hexdigest()


def is_hashed(part: str) -> bool:
    """Whether a part is a hash, which cannot be decoded."""
    return part.startswith(_HASHED)


def decoded(part: str) -> str | None:
    """Decode a part that is not a hash."""
    return None if part == NOBODY else unquote(part)


def record_id(message: Message) -> str:
    """Return the id of a message's record: the same for each attempt to store it."""
    scope = f"{encoded(message.user_id)}/{encoded(message.session_id)}"
    return f"{MESSAGES}{scope}/{_inverted(time_digits(message.timestamp or 0.0))}/{encoded(message.id)}"


def parse(record_id: str) -> RecordId:
    """Read an id made by `record_id`."""
    _, user, session, digits, identifier = record_id.split("/")
    return RecordId(user, session, time_of(_inverted(digits)), identifier)


def key_of(message: Message) -> str:
    """Return a message's key."""
    return RecordId(encoded(message.user_id), encoded(message.session_id), 0.0, encoded(message.id)).key


def part_id(user: str, session: str, key: str, version: str, number: int) -> str:
    """Return the id of a part of a large message."""
    return f"{PARTS}{user}/{session}/{key}/{version}/{number:05d}"


def prefix_of(kind: str, user: str | None = None, session: str | None = None) -> str:
    """Return the prefix of all ids of a kind, of a user, or of a user's session."""
    if user is None:
        return kind
    return f"{kind}{user}/" if session is None else f"{kind}{user}/{session}/"


def in_scope_of(filter: Filter) -> Callable[[EncodedScope], bool]:
    """Return a function that checks whether a session is in a filter's scope."""
    users, sessions = filter.scope(USER_KEY), filter.scope(SESSION_KEY)
    encoded_users = None if users is None else {encoded(user) for user in users}
    encoded_sessions = None if sessions is None else {encoded(session) for session in sessions}
    return lambda scope: (
        (encoded_users is None or scope[0] in encoded_users)
        and (encoded_sessions is None or scope[1] in encoded_sessions)
    )


def bucket_of(record_id: str) -> int:
    """Return a number of 24 bits, which divides results that are too large."""
    return int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:3], "big")


def _inverted(digits: str) -> str:
    return f"{int(digits, 16) ^ _ALL:016x}"
