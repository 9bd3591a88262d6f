"""A message as an object of a collection.

The property `body` is the whole message as JSON, which reading it back restores. The other properties are what messages
are filtered, sorted and ranked by.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID, uuid4, uuid5

from weaviate.classes.data import DataObject
from weaviate.outputs.query import Object as Found

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends.weaviate import schema
from dynamiq_memory.backends.weaviate.filters import REPLACING, facts_of
from dynamiq_memory.messages import LATEST, SESSION_KEY, USER_KEY, Message, Scope, views
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.bm25 import MAX_COUNT
from dynamiq_memory.ranking.cache import LONGEST_WORD
from dynamiq_memory.ranking.tokenizer import terms_of

# A note of a replacement sorts after all messages, so that every read of the newest messages finds it.
NOTE_TIME = LATEST * 2
_NAMESPACE = UUID("7f1b64a5-3d8c-5a53-9a1c-7ad1b1f9c0de")

Object = DataObject[dict[str, Any], None]

Position = tuple[float, int, str]
"""Where a message is in the order: its time, its arrival, and its object's id where two processes agree on both."""


def uuid_of(message: Message) -> str:
    """The id of a message's object: always the same, so that storing the message again replaces the object."""
    name = json.dumps([message.user_id, message.session_id, message.id])
    return str(uuid5(_NAMESPACE, name))


def words_of(tokenizer: Tokenize, text: str) -> list[str]:
    """The terms of a text, as words that the server's index does not split."""
    return [_word(term) for term in terms_of(tokenizer, text)]


def _word(term: str) -> str:
    if len(term) <= LONGEST_WORD and is_clean(term) and term.split() == [term]:
        return term
    # A custom tokenizer may return any text.
    return f"#{uuid5(_NAMESPACE, json.dumps(term))}"


@dataclass(frozen=True)
class Row:
    """An object as read, with the properties that were asked for."""

    position: Position
    properties: dict[str, Any]

    @property
    def uuid(self) -> str:
        """The object's id."""
        return self.position[2]

    @property
    def scope(self) -> Scope:
        """The user and session of the message."""
        return self.properties[USER_KEY] or None, self.properties[SESSION_KEY] or None

    @cached_property
    def message(self) -> Message:
        """The message; its body must have been read."""
        return Message.from_json(self.properties[schema.BODY])


def row_of(found: Found[Any, Any]) -> Row:
    """Read an object of the client."""
    properties = dict(found.properties)
    time, arrival = properties.get(schema.TIMESTAMP) or 0.0, properties.get(schema.ARRIVAL) or 0
    return Row((float(time), int(arrival), str(found.uuid)), properties)


def messages_of(rows: Iterable[Row]) -> list[Message]:
    """Return copies of the messages of objects."""
    return views(row.message for row in rows)


def terms_in(message: Message, tokenizer: Tokenize) -> dict[str, Any]:
    """Return the properties by which a message is found by its words."""
    words = words_of(tokenizer, message.text)
    counts = Counter(words)
    terms = " ".join(" ".join([word] * min(count, MAX_COUNT)) for word, count in counts.items())
    return {schema.TERMS: terms, schema.LENGTH: len(words)}


def object_of(
    message: Message, arrival: int, vector: Sequence[float] | None, tokenizer: Tokenize, made_by: Sequence[str]
) -> tuple[Object, int]:
    """Make the object of a prepared message.

    Args:
        message: The message.
        arrival: Its position among messages of the same time.
        vector: The embedding of its text, if it has one.
        tokenizer: Splits its text into terms.
        made_by: The names of the tokenizer and the embedder.

    Returns:
        The object, and approximately how many bytes it takes on the wire.
    """
    terms = terms_in(message, tokenizer)
    body, facts = message.to_json(), facts_of(message)
    user, session = message.user_id or "", message.session_id or ""
    dimension = 0 if vector is None else len(vector)
    properties = {
        schema.BODY: body,
        schema.FACTS: facts,
        schema.MADE_BY: list(made_by),
        **terms,
        schema.TIMESTAMP: (message.timestamp or 0.0) + 0.0,
        schema.ARRIVAL: arrival,
        USER_KEY: user,
        SESSION_KEY: session,
        schema.DIMENSION: dimension,
    }
    texts = sum(len(text.encode()) for text in (body, terms[schema.TERMS], user, session, *made_by)) + sum(
        len(fact) + 8 for fact in facts
    )
    vectors = None if vector is None else {schema.VECTOR: list(vector)}
    return DataObject(properties=properties, uuid=uuid_of(message), vector=vectors), texts + 4 * dimension + 512


@dataclass(frozen=True, slots=True)
class Note:
    """The changes that a replacement is about to make, stored before it begins.

    The server has no transactions. Another process that finds the note finishes what was interrupted, or takes it back.

    Attributes:
        old: The ids of the objects to delete.
        new: The arrivals of the objects to store, by their ids.
        fresh: The ids among the new that were not stored before.
        until: An arrival: objects that arrive later were stored after the replacement, and stay.
        at: The time of the replacement in POSIX seconds.
    """

    old: Sequence[str]
    new: Mapping[str, int]
    fresh: Sequence[str]
    until: float = math.inf
    at: float = field(default_factory=time.time)

    def to_object(self) -> Object:
        """Make the object that stores the note."""
        properties = {schema.BODY: json.dumps(asdict(self)), schema.FACTS: [REPLACING], schema.TIMESTAMP: NOTE_TIME}
        return DataObject(properties=properties, uuid=uuid4())
