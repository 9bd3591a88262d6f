"""Keys and positions in a table, all of them plain ASCII, and which of them a filter needs.

    pk                  sk                    item
    user/<user>         <session>/<id>        a message
    session/<session>   <session>/<id>        a message without a user
    session/<session>   @<user>               a registration: this user has, or had, a session of this name
    (a partition)       =<session>, =*        a guard, which changes when a session, or more, is replaced
    chunks/<version>    <number>              a part of a large message
    vectors/<pk>        <session>/…           the vector of a message in the partition <pk>

Each message also has a position in two local secondary indexes, `by_session` and `by_user`. The other items of large
replacements are in `replacements`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from dynamiq_memory.backends._order import ARRIVAL_DIGITS, TIME_DIGITS, time_digits
from dynamiq_memory.filters import Filter, OneOf, Range
from dynamiq_memory.messages import LATEST, MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY

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
# More ids than this are not looked up one by one.
_MOST_IDS = 1000

ItemKey = tuple[str, str]


def key_part(text: str | None) -> str:
    """Encode an identifier as a part of a key: percent-encoded, or hashed if it is long; empty for None.

    No two identifiers have the same encoding.
    """
    if text is None:
        return ""
    quoted = quote(text, safe="")
    return quoted if len(quoted) <= _LONGEST_PART else "%%" + hashlib.sha256(text.encode()).hexdigest()


def partition(user_id: str | None, session_id: str | None = None) -> str:
    """Return the partition of a user's messages; for messages without a user, that of their session."""
    return f"user/{key_part(user_id)}" if user_id is not None else f"session/{key_part(session_id)}"


def message_key(user_id: str | None, session_id: str | None, message_id: str) -> ItemKey:
    """Return the key of a message."""
    return partition(user_id, session_id), f"{key_part(session_id)}/{key_part(message_id)}"


def registration_key(session_id: str | None, user_id: str) -> ItemKey:
    """Return the key of the item which says that a user has a session of this name."""
    return partition(None, session_id), f"@{key_part(user_id)}"


def session_guard(user_id: str | None, session_id: str | None) -> ItemKey:
    """Return the key of the item that changes when messages of a session are replaced."""
    return partition(user_id, session_id), f"={key_part(session_id)}"


def filter_guard(filter: Filter) -> ItemKey | None:
    """Return the key of the item that changes when the messages that match a filter are replaced.

    Returns:
        The same key for any two filters that fix the same user and session; None if a filter fixes neither.
    """
    users, sessions = set(filter.scope(USER_KEY) or ()), set(filter.scope(SESSION_KEY) or ())
    if len(users) == len(sessions) == 1:
        return session_guard(*users, *sessions)
    if len(users) == 1 and None not in users:
        return partition(*users), "=*"
    return (partition(None, *sessions), "=*") if len(sessions) == 1 else None


def chunk_key(version: str, number: int) -> ItemKey:
    """Return the key of a part of a large message."""
    return f"chunks/{version}", f"{number:05d}"


def vector_partition(pk: str) -> str:
    """Return the partition of the vectors of the messages in a partition."""
    return f"vectors/{pk}"


def vector_key(message: ItemKey, version: str, generation: str) -> ItemKey:
    """Return the key of the vector of a version of a message."""
    pk, sk = message
    session, _, _ = sk.partition("/")
    return vector_partition(pk), f"{session}/{version}/{generation}"


def key_attributes(key: ItemKey) -> dict[str, Any]:
    """Return a key as the attributes of its item."""
    return {PK: {"S": key[0]}, SK: {"S": key[1]}}


def key_in(item: dict[str, Any]) -> ItemKey:
    """Return the key of an item."""
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


@dataclass(frozen=True, slots=True)
class Span:
    """Messages that are consecutive in an index: those of a session, or those of a user over sessions.

    Attributes:
        user_id: The user they belong to.
        session_id: The session they belong to, where `index` is `BY_SESSION`.
        index: The index.
    """

    user_id: str | None
    session_id: str | None
    index: str

    @property
    def partition(self) -> str:
        """The partition that contains it."""
        return partition(self.user_id, self.session_id)

    @property
    def vectors(self) -> tuple[str, tuple[str, str, str] | None]:
        """The partition of its vectors, and the sort key with its values from the first of them to the last."""
        session = f"{key_part(self.session_id)}/"
        # "0" is the character after "/".
        between = None if self.index == BY_USER else (SK, session, f"{session[:-1]}0")
        return vector_partition(self.partition), between

    def between(self, low: str, high: str) -> tuple[str, str, str]:
        """Return the index's sort key, and its values from one position to another."""
        if self.index == BY_USER:
            return AT_USER, low, high
        prefix = f"{key_part(self.session_id)}/"
        return AT_SESSION, prefix + low, prefix + high


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of positions, and the direction in which it is read.

    Attributes:
        low: The first position in it.
        high: The last position in it.
        newest_first: Whether it is read from the end.
    """

    low: str = FIRST
    high: str = LAST
    newest_first: bool = True

    def narrowed(self, filter: Filter) -> Interval:
        """Return the part of it that a filter's times allow; the filter itself decides at the bounds."""
        low, high = self.low, self.high
        for condition in filter.conditions:
            if condition.key != TIMESTAMP_KEY:
                continue
            bounds = condition.bounds if isinstance(condition, Range) else ()
            if isinstance(condition, OneOf):
                times = [v for v in condition.values if isinstance(v, int | float) and not isinstance(v, bool)]
                bounds = ("gte", min(times, default=math.inf)), ("lte", max(times, default=-math.inf))
            for operator, bound in bounds:
                time = float(max(-LATEST - 1, min(LATEST + 1, bound)))
                if operator in ("gt", "gte"):
                    low = max(low, lowest_position(time))
                else:
                    high = min(high, highest_position(time))
        return replace(self, low=low, high=high)


def keys_of_ids(filter: Filter, spans: Sequence[Span]) -> list[ItemKey] | None:
    """Return the keys of the messages that a filter names by id; None if it names none, or too many."""
    conditions = [c for c in filter.conditions if c.key == MESSAGE_ID_KEY and isinstance(c, OneOf)]
    if not conditions or not all(span.index == BY_SESSION for span in spans):
        return None
    ids = [value for value in dict.fromkeys(conditions[0].values) if isinstance(value, str)]
    if len(ids) * len(spans) > _MOST_IDS:
        return None
    return [message_key(span.user_id, span.session_id, each) for span in spans for each in ids]
