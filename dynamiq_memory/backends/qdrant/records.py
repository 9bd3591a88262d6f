"""A message as a point: its id, its payload, its vector of words; and back.

The payload has the whole message as JSON text, which Qdrant gives back as it is, and beside it what is filtered by:

    user_id, session_id, message_id   text; absent where the message has none
    order                             microseconds, an integer: what the store sorts by
    timestamp, arrival                the exact place of the message, for messages of one microsecond
    labels                            a hash for each metadata key, and for each of key and value
    numbers                           {key: hash, value: number} for each metadata number
    terms, length                     the words, packed, for ranking within a scope
    message, or large                 the JSON text; by its length, so that a search can do without long ones
    gone                              set on what is being deleted, and no longer read

Keys and values of metadata are hashed, so that any of them can be filtered by, and none is part of a path or query.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from dynamiq_memory.filters import Number, Scalar
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.ranking import packed_terms

MESSAGE_ID = "message_id"
ORDER = "order"
TIMESTAMP = "timestamp"
ARRIVAL = "arrival"
LABELS = "labels"
NUMBERS = "numbers"
TERMS = "terms"
LENGTH = "length"
MESSAGE = "message"
LARGE = "large"
GONE = "gone"
NEVER_GONE = "never: this is about the collection"
"""What marks the point that is no message, so that nothing reads it."""

WHOLE = [MESSAGE, LARGE, ORDER, TIMESTAMP, ARRIVAL]
"""The fields that a message and its place are made of."""

DENSE = "dense"
WORDS = "words"

_NAMESPACE = uuid.UUID("5f0d8a1c-8d5c-5a52-9c56-0a0f6c1f3f0e")
# Of a search's candidates, most are not returned: longer texts come in a second request, for those that are.
_LARGE_BYTES = 4096
# BM25's weights, for the server's choice of candidates; within a scope they are computed exactly.
_K1, _B, _MEAN_LENGTH = 0.9, 0.4, 32.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as read back, and its place: messages are in the order of (timestamp, arrival)."""

    id: str
    message: Message
    order: int
    position: tuple[float, int]


class Arrivals:
    """Numbers that grow: nanoseconds of the clock, each once in this process."""

    def __init__(self) -> None:
        """Begin at the clock."""
        self._lock = threading.Lock()
        self._last = 0

    def take(self, count: int) -> range:
        """Give numbers that follow each other."""
        with self._lock:
            start = max(time.time_ns(), self._last + 1)
            self._last = start + count - 1
            return range(start, start + count)


def point_id(message: Message) -> str:
    """The id of a message's point: the same for the same id in the same session."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([message.user_id, message.session_id, message.id])))


def special_id(name: str) -> str:
    """The id of a point that is no message."""
    return str(uuid.uuid5(_NAMESPACE, name))


def order_of(timestamp: float) -> int:
    """Whole microseconds: as a double, in which the store compares ranges, such a number is exact, unlike the time."""
    return math.floor(timestamp * 1e6)


def key_label(key: str) -> str:
    """What a metadata key is filtered by."""
    return _hash([key])


def value_label(key: str, value: Scalar) -> str:
    """What a metadata key with a value is filtered by: equal numbers have one label, a boolean is no number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = int(value) if isinstance(value, int) or value.is_integer() else None
        return _hash([key, "number", repr(value) if whole is None else str(whole)])
    return _hash([key, type(value).__name__, value])


def _hash(parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def payload_of(message: Message, arrival: int, terms: Sequence[str]) -> dict[str, Any]:
    """The payload of a message's point."""
    timestamp = message.timestamp or 0.0
    text = message.to_json()
    labels, numbers = _filterable(message)
    return {
        **{key: message.metadata[key] for key in (USER_KEY, SESSION_KEY) if key in message.metadata},
        MESSAGE_ID: message.id,
        ORDER: order_of(timestamp),
        TIMESTAMP: repr(float(timestamp)),  # as text: not every reader of JSON reads a double exactly
        ARRIVAL: arrival,
        LABELS: labels,
        NUMBERS: numbers,
        TERMS: base64.b64encode(packed_terms.encode(terms)).decode(),
        LENGTH: len(terms),
        MESSAGE if len(text) <= _LARGE_BYTES else LARGE: text,
    }


def _filterable(message: Message) -> tuple[list[str], list[dict[str, Any]]]:
    labels, numbers = [], []
    for key, value in message.metadata.items():
        if value is None or key in (USER_KEY, SESSION_KEY):
            continue
        labels.append(key_label(key))
        if isinstance(value, str | int | float):
            labels.append(value_label(key, value))
        if isinstance(value, Number) and not isinstance(value, bool):
            numbers.append({"key": key_label(key), "value": float(value)})
    return labels, numbers


def words_of(terms: Sequence[str]) -> models.SparseVector | None:
    """The words of a message as a sparse vector; None without any."""
    if not terms:
        return None
    scale = _K1 * (1 - _B + _B * len(terms) / _MEAN_LENGTH)
    counts: dict[int, int] = {}
    for term in terms:
        index = _index(term)
        counts[index] = counts.get(index, 0) + 1
    values = [count * (_K1 + 1) / (count + scale) for count in counts.values()]
    return models.SparseVector(indices=list(counts), values=values)


def words_searched(terms: Sequence[str]) -> models.SparseVector:
    """The words of a query as a sparse vector; the server weighs them by how rare they are."""
    indices = list(dict.fromkeys(map(_index, terms)))
    return models.SparseVector(indices=indices, values=[1.0] * len(indices))


def _index(term: str) -> int:
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def stored_of(point: Any) -> Stored:
    """Read a point with the fields `WHOLE`."""
    payload = point.payload
    text = payload.get(MESSAGE) or payload[LARGE]
    return Stored(str(point.id), Message.from_json(text), payload[ORDER], position_of(payload))


def position_of(payload: dict[str, Any]) -> tuple[float, int]:
    """The place of a message."""
    return (float(payload[TIMESTAMP]), payload[ARRIVAL])
