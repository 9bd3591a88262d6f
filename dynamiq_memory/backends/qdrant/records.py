"""Conversion of messages to points and back.

A point's payload contains the message as JSON text, which Qdrant returns unchanged, and the fields to filter by:

    user_id, session_id, message_id   text; absent if the message has none
    order                             integer microseconds: the sort key
    timestamp, arrival                the exact position, for messages of the same microsecond
    labels                            a hash of each metadata key, and of each key with its value
    numbers                           {key: hash, value: number} for each numeric metadata value
    terms, length                     the words, packed, for ranking within a scope
    message, or large                 the JSON text; long texts are apart, so that a search need not read them
    embedder                          the name of the embedder that was given the text, "" if it has none
    gone                              set on a point that is being deleted, which hides it from readers

Metadata keys and values are hashed so that filters can use any of them and none is part of a path or query.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._embedding import Vector
from dynamiq_memory.filters import Number, Scalar
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message
from dynamiq_memory.ranking import packed_terms

ORDER = "order"
ARRIVAL = "arrival"
LABELS = "labels"
NUMBERS = "numbers"
TERMS = "terms"
LENGTH = "length"
MESSAGE = "message"
LARGE = "large"
GONE = "gone"
EMBEDDER = "embedder"
NEVER_GONE = "never: this is about the collection"
"""Marks the point that is not a message, so that no reader sees it."""

WHOLE = [MESSAGE, LARGE, ORDER, TIMESTAMP_KEY, ARRIVAL]
"""The fields of a message and its position."""

DENSE = "dense"
WORDS = "words"

Point = models.Record | models.ScoredPoint | models.PointStruct
Position = tuple[float, int]
"""Messages are in the order of (timestamp, arrival)."""

_NAMESPACE = uuid.UUID("5f0d8a1c-8d5c-5a52-9c56-0a0f6c1f3f0e")
# A search returns few of its candidates: it reads longer texts in a second request, for those it returns.
_LARGE_BYTES = 4096
# BM25's weights, for the server's choice of candidates; within a scope they are computed exactly.
_K1, _B, _MEAN_LENGTH = 0.9, 0.4, 32.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as read back, with the id of its point and its position."""

    id: str
    message: Message
    order: int
    position: Position


def point_id(message: Message) -> str:
    """Return the id of a message's point: the same for the same id in the same session."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([message.user_id, message.session_id, message.id])))


def special_id(name: str) -> str:
    """Return the id of a point that is not a message."""
    return str(uuid.uuid5(_NAMESPACE, name))


def order_of(timestamp: float) -> int:
    """Return whole microseconds: exact as a double, which the store compares ranges in, unlike the time itself."""
    return math.floor(timestamp * 1e6)


def key_label(key: str) -> str:
    """Return the label of a metadata key."""
    return _hash([key])


def value_label(key: str, value: Scalar) -> str:
    """Return the label of a metadata key with a value: equal numbers share one, and booleans are not numbers."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = int(value) if isinstance(value, int) or value.is_integer() else None
        return _hash([key, "number", repr(value) if whole is None else str(whole)])
    return _hash([key, type(value).__name__, value])


def _hash(parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def point_of(
    message: Message, arrival: int, terms: Sequence[str], vector: Vector | None, embedder: str | None
) -> models.PointStruct:
    """Make the point of a message.

    Args:
        message: The message.
        arrival: Its position among messages of the same time.
        terms: Its words.
        vector: The embedding of its text, if it has one.
        embedder: The label of the embedder, or None without one.
    """
    timestamp = message.timestamp or 0.0
    text = message.to_json()
    labels, numbers = _filterable(message)
    payload = {
        **{key: message.metadata[key] for key in (USER_KEY, SESSION_KEY) if key in message.metadata},
        MESSAGE_ID_KEY: message.id,
        ORDER: order_of(timestamp),
        TIMESTAMP_KEY: repr(float(timestamp)),  # as text: not every JSON parser reads a double exactly
        ARRIVAL: arrival,
        LABELS: labels,
        NUMBERS: numbers,
        **ranked_by(terms),
        MESSAGE if len(text) <= _LARGE_BYTES else LARGE: text,
    }
    if embedder is not None:
        payload[EMBEDDER] = embedder
    vectors: dict[str, Any] = {}
    if vector is not None:
        vectors[DENSE] = vector
    if terms:
        vectors[WORDS] = words_of(terms)
    return models.PointStruct(id=point_id(message), vector=vectors, payload=payload)


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


def ranked_by(terms: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a point by which it is ranked within a scope."""
    return {TERMS: base64.b64encode(packed_terms.encode(terms)).decode(), LENGTH: len(terms)}


def words_of(terms: Sequence[str]) -> models.SparseVector:
    """Return the words of a message as a sparse vector, for the server's choice of candidates."""
    scale = _K1 * (1 - _B + _B * len(terms) / _MEAN_LENGTH)
    counts: Counter[int] = Counter()
    for term, count in Counter(terms).items():  # a hash for each term, not for each time it occurs
        counts[_index(term)] += count
    values = [count * (_K1 + 1) / (count + scale) for count in counts.values()]
    return models.SparseVector(indices=list(counts), values=values)


def searched_words(terms: Sequence[str]) -> models.SparseVector:
    """Return the words of a query as a sparse vector; the server weights them by how rare they are."""
    indices = list(dict.fromkeys(map(_index, terms)))
    return models.SparseVector(indices=indices, values=[1.0] * len(indices))


def _index(term: str) -> int:
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def size_of(point: models.PointStruct) -> int:
    """Estimate the bytes of a message's point as JSON."""
    payload: Any = point.payload
    vectors: Any = point.vector
    words = vectors.get(WORDS)
    return (
        len(payload.get(MESSAGE) or payload[LARGE]) * 5 // 4
        + len(payload[TERMS])
        + 36 * len(payload[LABELS])
        + 80 * len(payload[NUMBERS])
        + 22 * len(vectors.get(DENSE, ()))
        + (32 * len(words.indices) if words is not None else 0)
        + 500
    )


def payload_of(point: Point) -> dict[str, Any]:
    """Return the payload of a point."""
    return point.payload or {}


def stored_of(point: Point) -> Stored:
    """Convert a point that was read with the fields `WHOLE`."""
    payload = payload_of(point)
    text = payload.get(MESSAGE) or payload[LARGE]
    return Stored(str(point.id), Message.from_json(text), payload[ORDER], position_of(point))


def position_of(point: Point) -> Position:
    """Return the position of a point's message."""
    payload = payload_of(point)
    return (float(payload[TIMESTAMP_KEY]), payload[ARRIVAL])
