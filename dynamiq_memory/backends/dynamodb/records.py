"""A message as items of a table.

The message itself is one JSON text of our own in the attribute `body`, so that its numbers, bytes and empty strings
come back as they went in. A large one is split over items of another partition, which its version names.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynamiq_memory.backends._order import ARRIVAL_DIGITS, time_digits
from dynamiq_memory.backends.dynamodb.filters import EXPIRES, MOST_FILTERABLE, filterable
from dynamiq_memory.backends.dynamodb.keys import (
    AT_SESSION,
    AT_USER,
    PK,
    PLACE_DIGITS,
    SK,
    Key,
    chunk_key,
    message_key,
    part,
)
from dynamiq_memory.exceptions import MessageTooLargeError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message

BODY = "body"
CHUNKS = "chunks"
VERSION = "version"
# On what is no message: when it was written.
SINCE = "since"

# An item takes 400 KB together with its copies in local indexes, of which there are two
# (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html). That is 133 KB for one: the
# body, at most 16 KB that filters find, user_id and session_id as they are, and in keys some 2 KB.
MOST_INLINE = 100 * 1024
LONGEST_IDENTIFIER = 4 * 1024
# A transaction takes 4 MB; its items have two copies each. What has none takes little beside them.
MOST_AT_ONCE = 1_300_000
# A batch of so many is one transaction. So that it always fits: without bodies, and with no more that filters find
# than this, none of its items is larger than a hundredth of the above.
_MOST_TOGETHER = 100
_LEAST_FILTERABLE = 2 * 1024
_CHUNK_BYTES = 350 * 1024
# Parts of a message go after it, not before.
_CHUNKS_OUTLIVE = 24 * 3600

Item = dict[str, Any]
# Where a version of a message stands: its key, the version's name, and how many parts it has.
Trace = tuple[str, str, str, int]


def _new_version() -> str:
    return secrets.token_hex(12)


@dataclass(slots=True)
class Draft:
    """A version of a message that is to be stored.

    Attributes:
        message: The message.
        key: Where it stands.
        arrival: Its place in the order of arrival, unless it replaces one.
        body: Its JSON.
        version: A random name of this version.
        expires: When it expires, POSIX seconds, or None.
        chunks: The parts of its body, if that does not fit in one item.
        most_filterable: How many bytes of its metadata filters find in the service.
    """

    message: Message
    key: Key
    arrival: str
    body: str
    expires: int | None
    version: str = field(default_factory=_new_version)
    chunks: Sequence[str] = ()
    most_filterable: int = MOST_FILTERABLE

    def renew(self) -> None:
        """Become another version of the same message."""
        self.version = _new_version()

    def item(self, replaced: Item | None, now: int) -> Item:
        """The item that stands for the message.

        Args:
            replaced: The item whose place in the order of arrival it takes, if that one has not expired; or None.
            now: POSIX seconds.
        """
        message = self.message
        arrival = self.arrival if replaced is None or has_expired(replaced, now) else arrival_of(replaced)
        place = time_digits(message.timestamp or 0.0) + arrival
        item: Item = {
            **self.key,
            AT_USER: {"S": place},
            AT_SESSION: {"S": f"{part(message.session_id)}/{place}"},
            VERSION: {"S": self.version},
        }
        for key in (USER_KEY, SESSION_KEY):
            if key in message.metadata:
                item[key] = {"S": message.metadata[key]}
        item |= {CHUNKS: {"N": str(len(self.chunks))}} if self.chunks else {BODY: {"S": self.body}}
        if self.expires is not None:
            item[EXPIRES] = {"N": str(self.expires)}
        scope = (USER_KEY, SESSION_KEY)
        found = {key: value for key, value in message.metadata.items() if key not in scope}
        return item | filterable(found, self.most_filterable)

    def chunk_items(self, now: int) -> list[Item]:
        """The items of its parts.

        Args:
            now: POSIX seconds.
        """
        last = {} if self.expires is None else {EXPIRES: {"N": str(self.expires + _CHUNKS_OUTLIVE)}}
        return [
            {**chunk_key(self.version, number), BODY: {"S": text}, SINCE: {"N": str(now)}, **last}
            for number, text in enumerate(self.chunks)
        ]


def check_identifiers(message: Message) -> None:
    """Check that a message's user_id and session_id are not too long: they stand in each item and in its copies.

    Raises:
        MessageTooLargeError: One is.
    """
    for name, value in ((USER_KEY, message.user_id), (SESSION_KEY, message.session_id)):
        size = 0 if value is None else len(value.encode())
        if size > LONGEST_IDENTIFIER:
            raise MessageTooLargeError(
                f"message {message.id[:100]} has a {name} of {size:,} bytes; DynamoDB stores up to "
                f"{LONGEST_IDENTIFIER:,}: use a shorter one, such as its hash"
            )


def drafts_of(messages: Sequence[Message], arrivals: Sequence[str], expires: int | None) -> list[Draft]:
    """Make drafts of prepared messages, such that up to 100 fit into one transaction.

    What is too much for that is put aside: first of the metadata that filters find, which only speeds them up, then
    the bodies, the largest first.
    """
    drafts = [
        Draft(m, message_key(m.user_id, m.session_id, m.id), arrival, m.to_json(), expires)
        for m, arrival in zip(messages, arrivals, strict=True)
    ]
    bodies = {id(draft): len(draft.body.encode()) for draft in drafts}
    together = 0
    if len(drafts) <= _MOST_TOGETHER:
        beside = sum(map(weight_of, drafts)) - sum(bodies.values())
        if beside > MOST_AT_ONCE:
            for draft in drafts:
                draft.most_filterable = _LEAST_FILTERABLE
        together = sum(map(weight_of, drafts))
    for draft in sorted(drafts, key=lambda draft: -bodies[id(draft)]):
        size = bodies[id(draft)]
        if size <= MOST_INLINE and together <= MOST_AT_ONCE:
            break
        draft.chunks = _split(draft.body)
        together -= size
    return drafts


def _split(text: str) -> list[str]:
    data = text.encode()
    chunks, start = [], 0
    while start < len(data):
        end = min(start + _CHUNK_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1  # within a character
        chunks.append(data[start:end].decode())
        start = end
    return chunks


def place_of(item: Item) -> str:
    """A message's place in order: its time and its arrival."""
    return str(item[AT_USER]["S"])


def arrival_of(item: Item) -> str:
    """A message's place in the order of arrival."""
    return place_of(item)[PLACE_DIGITS - ARRIVAL_DIGITS :]


def version_of(item: Item) -> str:
    """The name of the version that an item holds."""
    return str(item[VERSION]["S"])


def chunks_of(item: Item) -> list[Key]:
    """The keys of the parts of a message."""
    return chunks_of_trace(trace_of(item))


def trace_of(item: Item) -> Trace:
    """Where a version of a message stands."""
    return item[PK]["S"], item[SK]["S"], version_of(item), int(item[CHUNKS]["N"]) if CHUNKS in item else 0


def chunks_of_trace(trace: Trace) -> list[Key]:
    """The keys of the parts of a version of a message."""
    _, _, version, count = trace
    return [chunk_key(version, number) for number in range(count)]


def weight_of(draft: Draft) -> int:
    """How many bytes a message's item takes, without its copies."""
    return size_of_item(draft.item(None, 0))


def size_of_item(item: Mapping[str, Any]) -> int:
    """How many bytes an item, or a map, takes at most, as the service counts them.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + 1 + _size_of_value(value) for name, value in item.items())


def _size_of_value(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "M":
        return 3 + size_of_item(content)
    if kind == "N":
        return len(content) + 2
    return 3  # true, false, or an empty list


def has_expired(item: Mapping[str, Any], now: int) -> bool:
    """Whether an item is only still there because the service has not yet deleted it."""
    return EXPIRES in item and int(item[EXPIRES]["N"]) <= now
