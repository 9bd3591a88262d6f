"""Keys and positions in a table. All of them are plain ASCII.

    pk                  sk                    item
    user/<user>         <session>/<id>        a message
    session/<session>   <session>/<id>        a message without a user
    session/<session>   @<user>               a registration: this user has, or had, a session of this name
    (a partition)       =<session>, =*        a guard, which changes when a session, or more, is replaced
    chunks/<version>    <number>              a part of a large message

Each message also has a position in two local secondary indexes, `by_session` and `by_user`. The other items of large
replacements are in `replacements`.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from dynamiq_memory.backends._order import ARRIVAL_DIGITS, TIME_DIGITS, time_digits
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY

PK = "pk"
SK = "sk"
# Sort keys of the indexes.
AT_SESSION = "at_session"
AT_USER = "at_user"
BY_SESSION = "by_session"
BY_USER = "by_user"

# A sort key takes 1,024 bytes (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html) and
# consists of two parts. A longer part is hashed.
_LONGEST_PART = 400
POSITION_DIGITS = TIME_DIGITS + ARRIVAL_DIGITS
FIRST = "0" * POSITION_DIGITS
# The positions of all messages are less than the first of these; the markers of replacements lie between the two.
AFTER_MESSAGES = "g"
LAST = "g~"

ItemKey = dict[str, Any]
KeyTuple = tuple[str, str]


def key_part(text: str | None) -> str:
    """Encode an identifier as a part of a key: percent-encoded, or hashed if it is long; empty for None.

    No two identifiers have the same encoding.
    """
    if text is None:
        return ""
    quoted = quote(text, safe="")
    return quoted if len(quoted) <= _LONGEST_PART else "%%" + hashlib.sha256(text.encode()).hexdigest()


def partition(user_id: str | None, session_id: str | None) -> str:
    """Return the partition of a user's messages; for messages without a user, that of their session."""
    return f"user/{key_part(user_id)}" if user_id is not None else f"session/{key_part(session_id)}"


def message_key(user_id: str | None, session_id: str | None, message_id: str) -> ItemKey:
    """Return the key of a message."""
    return item_key(partition(user_id, session_id), f"{key_part(session_id)}/{key_part(message_id)}")


def registration_key(session_id: str | None, user_id: str) -> ItemKey:
    """Return the key of the item which says that a user has a session of this name."""
    return item_key(partition(None, session_id), f"@{key_part(user_id)}")


def session_guard(user_id: str | None, session_id: str | None) -> ItemKey:
    """Return the key of the item that changes when messages of a session are replaced."""
    return item_key(partition(user_id, session_id), f"={key_part(session_id)}")


def filter_guard(filter: Filter) -> ItemKey | None:
    """Return the key of the item that changes when the messages that match a filter are replaced.

    Returns:
        The same key for any two filters that fix the same user and session; None if a filter fixes neither.
    """
    user, session = _fixed(filter.scope(USER_KEY)), _fixed(filter.scope(SESSION_KEY))
    if user and session:
        return session_guard(user[0], session[0])
    if user and user[0] is not None:
        return item_key(partition(user[0], None), "=*")
    return item_key(partition(None, session[0]), "=*") if session else None


def _fixed(allowed: tuple[str | None, ...] | None) -> list[str | None]:
    values = list(dict.fromkeys(allowed or ()))
    return values if len(values) == 1 else []


def chunk_key(version: str, number: int) -> ItemKey:
    """Return the key of a part of a large message."""
    return item_key(f"chunks/{version}", f"{number:05d}")


def item_key(pk: str, sk: str) -> ItemKey:
    """Write a key as the API takes it."""
    return {PK: {"S": pk}, SK: {"S": sk}}


def key_in(item: dict[str, Any]) -> ItemKey:
    """Return the key of an item."""
    return {PK: item[PK], SK: item[SK]}


def key_tuple(item: dict[str, Any]) -> KeyTuple:
    """Return the key of an item, or a key, in a form that can be hashed."""
    return item[PK]["S"], item[SK]["S"]


def lowest_position(timestamp: float) -> str:
    """Return the position before all messages of a time."""
    return time_digits(timestamp) + "0" * ARRIVAL_DIGITS


def highest_position(timestamp: float) -> str:
    """Return the position after all messages of a time."""
    return time_digits(timestamp) + "f" * ARRIVAL_DIGITS


def shifted(position: str, step: int) -> str:
    """Return the position directly before (-1) or after (1) another."""
    return f"{int(position, 16) + step:0{POSITION_DIGITS}x}"
