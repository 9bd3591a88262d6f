"""Where things stand in a table: its key attributes, and the order that they give.

    pk                  sk                    what
    user/<user>         <session>/<id>        a message
    session/<session>   <session>/<id>        a message of no user
    session/<session>   @<user>               says that this user has (had) such a session
    (a partition)       =<session>, =*        changes when a session, or more, is replaced
    chunks/<version>    <number>              a part of a large message

A message also has a place in two local secondary indexes, `by_session` and `by_user`. What large replacements need
besides is told in `replacements`. All of it is plain ASCII.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from dynamiq_memory.backends._order import ARRIVAL_DIGITS, TIME_DIGITS, time_digits

PK = "pk"
SK = "sk"
# Sort keys of the indexes.
AT_SESSION = "at_session"
AT_USER = "at_user"
BY_SESSION = "by_session"
BY_USER = "by_user"

# A sort key takes 1,024 bytes (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html);
# it is made of two such parts. A longer one is hashed.
_LONGEST_PART = 400
PLACE_DIGITS = TIME_DIGITS + ARRIVAL_DIGITS
# Behind the places of all messages, and behind the places of what stands there.
BEHIND = "g"
HIGHEST = "g~"
# No identifier: it cannot be stored.
_ANY = ""

Key = dict[str, Any]


def part(text: str | None) -> str:
    """An identifier as a part of a key: percent-encoded, or its hash if it is long; empty for None.

    Neither can be mistaken for the other, nor for another identifier.
    """
    if text is None:
        return ""
    quoted = quote(text, safe="")
    return quoted if len(quoted) <= _LONGEST_PART else "%%" + hashlib.sha256(text.encode()).hexdigest()


def partition(user_id: str | None, session_id: str | None) -> str:
    """The partition of a user's messages; of messages of no user, that of their session."""
    return f"user/{part(user_id)}" if user_id is not None else f"session/{part(session_id)}"


def message_key(user_id: str | None, session_id: str | None, message_id: str) -> Key:
    """The key of a message."""
    return key(partition(user_id, session_id), f"{part(session_id)}/{part(message_id)}")


def user_key(session_id: str | None, user_id: str) -> Key:
    """The key of the item that says that a user has a session of this name."""
    return key(partition(None, session_id), f"@{part(user_id)}")


def session_guard(user_id: str | None, session_id: str | None) -> Key:
    """The key of what changes when messages of a session are replaced."""
    return key(partition(user_id, session_id), f"={part(session_id)}")


def scope_guard(users: Collection[str | None] | None, sessions: Collection[str | None] | None) -> Key | None:
    """The key of what changes when messages are replaced that a filter chooses.

    Args:
        users: The users that it allows, or None for all.
        sessions: The sessions that it allows, or None for all.

    Returns:
        The same for any two filters that fix the same; None for one that fixes nothing.
    """
    user = next(iter(users)) if users is not None and len(users) == 1 else _ANY
    session = next(iter(sessions)) if sessions is not None and len(sessions) == 1 else _ANY
    if user is not _ANY and session is not _ANY:
        return session_guard(user, session)
    if user is not _ANY and user is not None:
        return key(partition(user, None), "=*")
    if session is not _ANY:
        return key(partition(None, session), "=*")
    return None


def chunk_key(version: str, number: int) -> Key:
    """The key of a part of a large message."""
    return key(f"chunks/{version}", f"{number:05d}")


def key(pk: str, sk: str) -> Key:
    """A key as the API takes it."""
    return {PK: {"S": pk}, SK: {"S": sk}}


def key_of(item: dict[str, Any]) -> Key:
    """The key of an item."""
    return {PK: item[PK], SK: item[SK]}


def lowest(timestamp: float) -> str:
    """The place before all messages of a time."""
    return time_digits(timestamp) + "0" * ARRIVAL_DIGITS


def highest(timestamp: float) -> str:
    """The place behind all messages of a time."""
    return time_digits(timestamp) + "f" * ARRIVAL_DIGITS


def next_to(place: str, step: int) -> str:
    """The place one before (-1) or behind (1) another."""
    return f"{int(place, 16) + step:0{PLACE_DIGITS}x}"
