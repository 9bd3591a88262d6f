"""A message as items of a table.

The attribute `body` is the message itself as one JSON text, so that its numbers, bytes and empty strings come back
unchanged. A large message is split over items of another partition, named by its version.
"""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from dynamiq_memory.backends._order import TIME_DIGITS, time_digits
from dynamiq_memory.backends.dynamodb import keys
from dynamiq_memory.backends.dynamodb.filters import MOST_FILTERABLE, filterable
from dynamiq_memory.backends.dynamodb.keys import ItemKey, key_attributes, key_in, key_part
from dynamiq_memory.exceptions import MessageTooLargeError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Scope, check_identifier, key_of

BODY = "body"
CHUNKS = "chunks"
VERSION = "version"
# The generation of a message's vector, and the vector itself, which is in another item.
EMBEDDED = "embedded"
VECTOR = "vector"
EXPIRES = "expires"
# On items that are not messages: when they were written.
SINCE = "since"

# An item takes 400 KB together with its copies in local indexes, of which there are two
# (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html). That is 133 KB for one: the
# body, at most 16 KB for filters, user_id and session_id as they are, and about 2 KB in keys.
MOST_INLINE = 100 * 1024
LONGEST_IDENTIFIER = 4 * 1024
# A transaction takes 4 MB; its messages have two copies each. Items without copies take little beside them.
MOST_AT_ONCE = 1_300_000
# A batch of this many is one transaction. It always fits: without bodies, and with no more for filters than this, no
# item is larger than a hundredth of the above.
_MOST_TOGETHER = 100
_LEAST_FILTERABLE = 2 * 1024
_CHUNK_BYTES = 350 * 1024
# The parts and the vector of a message must not expire before the message.
_OTHERS_OUTLIVE = 24 * 3600

Item = dict[str, Any]


class StoredVersion(NamedTuple):
    """A version of a message that is, or was, in the table.

    Attributes:
        pk: The partition of its item.
        sk: The sort key of its item.
        version: Its random name.
        chunks: The number of its parts.
        embedded: The generation of its vector; empty for none.
    """

    pk: str
    sk: str
    version: str
    chunks: int
    embedded: str = ""

    @property
    def chunk_keys(self) -> list[ItemKey]:
        """The keys of its parts."""
        return [keys.chunk_key(self.version, number) for number in range(self.chunks)]

    @property
    def vector_key(self) -> ItemKey | None:
        """The key of its vector."""
        return keys.vector_key((self.pk, self.sk), self.version, self.embedded) if self.embedded else None

    @property
    def other_keys(self) -> list[ItemKey]:
        """The keys of all its items besides its own, which are deleted after that."""
        return self.chunk_keys if self.vector_key is None else [*self.chunk_keys, self.vector_key]


def random_name() -> str:
    """Return a name that no other version, guard or replacement has."""
    return secrets.token_hex(12)


def from_now(seconds: int = 0) -> dict[str, str]:
    """Return the time in some seconds as a value of the service: POSIX seconds."""
    return {"N": str(int(time.time()) + seconds)}


@dataclass(slots=True)
class Draft:
    """A new version of a message, to be stored as an item and, if it is large, parts.

    Attributes:
        message: The message.
        key: The key of its item.
        arrival: Its position in the order of arrival, unless it replaces a version.
        body: Its JSON.
        expires: When it expires, POSIX seconds, or None.
        version: A random name of this version.
        chunks: The parts of its body, if that does not fit in one item.
        most_filterable: Maximum number of bytes of its metadata that the service can filter by.
        vector: Its vector, packed, or None.
        generation: The generation of its vector.
    """

    message: Message
    key: ItemKey
    arrival: str
    body: str
    expires: int | None
    version: str = field(default_factory=random_name)
    chunks: Sequence[str] = ()
    most_filterable: int = MOST_FILTERABLE
    vector: bytes | None = None
    generation: str = ""

    def item(self, replaced: Item | None = None) -> Item:
        """Return the item of the message.

        Args:
            replaced: The item that gives it its position in the order of arrival, unless that has expired; or None.
        """
        message, arrival = self.message, self.arrival
        if replaced is not None and not has_expired(replaced):
            arrival = position_of(replaced)[TIME_DIGITS:]
        position = time_digits(message.timestamp or 0.0) + arrival
        item: Item = {
            **key_attributes(self.key),
            keys.AT_USER: {"S": position},
            keys.AT_SESSION: {"S": f"{key_part(message.session_id)}/{position}"},
            VERSION: {"S": self.version},
        }
        metadata = dict(message.metadata)
        for key in (USER_KEY, SESSION_KEY):
            if key in metadata:
                item[key] = {"S": metadata.pop(key)}
        item |= {CHUNKS: {"N": str(len(self.chunks))}} if self.chunks else {BODY: {"S": self.body}}
        if self.expires is not None:
            item[EXPIRES] = {"N": str(self.expires)}
        if self.vector is not None:
            item[EMBEDDED] = {"S": self.generation}
        return item | filterable(metadata, self.most_filterable)

    def other_items(self) -> list[Item]:
        """Return the items of its parts and of its vector, which are written before its own."""
        expires = self.expires
        chunks = ((keys.chunk_key(self.version, number), text) for number, text in enumerate(self.chunks))
        items = [other_item(key, {BODY: {"S": text}}, expires) for key, text in chunks]
        if self.vector is not None:
            key = keys.vector_key(self.key, self.version, self.generation)
            items.append(other_item(key, {VECTOR: {"B": self.vector}}, expires))
        return items

    @property
    def size(self) -> int:
        """The bytes of its item, without copies in the indexes."""
        return size_of(self.item())


def other_item(key: ItemKey, content: Item, expires: int | None) -> Item:
    """Return the item of a part or of the vector of a message.

    Args:
        key: Its key.
        content: Its own attributes.
        expires: When the message expires, POSIX seconds, or None.
    """
    item = {**key_attributes(key), **content, SINCE: from_now()}
    return item if expires is None else item | {EXPIRES: {"N": str(expires + _OTHERS_OUTLIVE)}}


def anchor_key(anchor: Message) -> ItemKey:
    """Return the key of a message that need not be prepared.

    Raises:
        MessageError: It has an identifier that no stored message can have.
    """
    for name, value in ((USER_KEY, anchor.user_id), (SESSION_KEY, anchor.session_id), ("id", anchor.id)):
        if value is not None:
            check_identifier(value, name)
    return keys.message_key(*key_of(anchor))


def drafts_of(messages: Sequence[Message], arrivals: Sequence[str], expires: int | None) -> list[Draft]:
    """Make drafts of prepared messages, such that up to 100 fit into one transaction.

    Where that needs less in the items, first the metadata for filters is reduced, which only makes them faster; then
    bodies become parts, the largest first.

    Raises:
        MessageTooLargeError: A user_id or session_id is too long.
    """
    for message in messages:
        # Its item and both copies contain them.
        for name, value in ((USER_KEY, message.user_id), (SESSION_KEY, message.session_id)):
            size = len((value or "").encode())
            if size > LONGEST_IDENTIFIER:
                raise MessageTooLargeError(
                    f"message {message.id[:100]} has a {name} of {size:,} bytes; DynamoDB stores up to "
                    f"{LONGEST_IDENTIFIER:,}: use a shorter one, such as its hash"
                )
    drafts = [
        Draft(message, keys.message_key(*key_of(message)), arrival, message.to_json(), expires)
        for message, arrival in zip(messages, arrivals, strict=True)
    ]
    bodies = [len(draft.body.encode()) for draft in drafts]
    total = sum(draft.size for draft in drafts) if len(drafts) <= _MOST_TOGETHER else 0
    if total - sum(bodies) > MOST_AT_ONCE:
        for draft in drafts:
            draft.most_filterable = _LEAST_FILTERABLE
        total = sum(draft.size for draft in drafts)
    for size, draft in sorted(zip(bodies, drafts, strict=True), key=itemgetter(0), reverse=True):
        if size <= MOST_INLINE and total <= MOST_AT_ONCE:
            break
        draft.chunks = _split(draft.body)
        total -= size
    return drafts


def _split(text: str) -> list[str]:
    # A character over two parts goes into the second.
    decode, data = codecs.getincrementaldecoder("utf-8")().decode, text.encode()
    return [decode(data[start : start + _CHUNK_BYTES]) for start in range(0, len(data), _CHUNK_BYTES)]


def scope_in(item: Item) -> Scope:
    """Return the user_id and session_id of a message's item."""
    return item.get(USER_KEY, {}).get("S"), item.get(SESSION_KEY, {}).get("S")


def position_of(item: Item) -> str:
    """Return a message's position: its time and its arrival."""
    return str(item[keys.AT_USER]["S"])


def version_of(item: Item | None) -> str | None:
    """Return the name of the version in the item of a message; None for no item, and for another item."""
    return None if item is None or VERSION not in item else str(item[VERSION]["S"])


def stored_version(item: Item) -> StoredVersion:
    """Return the version of a message that an item holds."""
    chunks, embedded = item.get(CHUNKS, {"N": "0"})["N"], item.get(EMBEDDED, {"S": ""})["S"]
    return StoredVersion(*key_in(item), item[VERSION]["S"], int(chunks), embedded)


def size_of(item: Mapping[str, Any]) -> int:
    """Return the maximum number of bytes of an item, or a map, as the service counts them.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + 1 + _size_of_value(value) for name, value in item.items())


def _size_of_value(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "M":
        return 3 + size_of(content)
    if kind == "N":
        return len(content) + 2
    return 3  # true, false, or an empty list


def expiry_of(item: Item) -> int | None:
    """Return when an item expires, POSIX seconds, or None."""
    return int(item[EXPIRES]["N"]) if EXPIRES in item else None


def has_expired(item: Item) -> bool:
    """Whether an item is still there only because the service has not deleted it yet."""
    expires = expiry_of(item)
    return expires is not None and expires <= time.time()
