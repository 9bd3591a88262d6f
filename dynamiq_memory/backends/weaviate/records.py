"""A message as an object of a collection.

The message itself is one JSON text of our own, `body`, so that all comes back as it went in. Beside it stand what is
filtered by, sorted by and ranked by.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from weaviate.classes.data import DataObject

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends.weaviate.filters import ARRIVAL, FACTS, TIMESTAMP, facts_of, shown
from dynamiq_memory.messages import LATEST, SESSION_KEY, USER_KEY, Message
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.bm25 import MAX_COUNT
from dynamiq_memory.ranking.cache import LONGEST_WORD
from dynamiq_memory.ranking.tokenizer import terms_of

BODY = "body"
TERMS = "terms"
LENGTH = "length"
DIMENSION = "dimension"
VECTOR = "default"

_NAMESPACE = UUID("7f1b64a5-3d8c-5a53-9a1c-7ad1b1f9c0de")

# A note of a replacement sorts behind all messages, so that whoever reads the newest sees it.
NOTE_TIME = LATEST * 2

Place = tuple[float, int, str]
"""Where a message stands: its time, its arrival, and what decides between two processes that had both the same."""


def uuid_of(message: Message) -> str:
    """The id of a message's object: the same each time, so that storing it again replaces it."""
    name = json.dumps([message.user_id, message.session_id, message.id])
    return str(uuid5(_NAMESPACE, name))


def words_of(tokenizer: Tokenize, text: str) -> list[str]:
    """The terms of a text as words that the index splits at white space again."""
    return [_word(term) for term in terms_of(tokenizer, text)]


def _word(term: str) -> str:
    if len(term) <= LONGEST_WORD and is_clean(term) and term.split() == [term]:
        return term
    # A tokenizer of the caller's may give anything.
    return f"#{uuid5(_NAMESPACE, json.dumps(term))}"


class Arrivals:
    """Numbers messages in the order in which they arrive.

    Within a process the numbers strictly increase; between processes their clocks decide. Microseconds, since the
    service is sent numbers as doubles, which count so far exactly.
    """

    def __init__(self) -> None:
        """Begin with the present time."""
        self._lock = threading.Lock()
        self._last = 0

    def next(self, count: int) -> range:
        """Give that many."""
        with self._lock:
            first = max(time.time_ns() // 1000, self._last + 1)
            self._last = first + count - 1
        return range(first, first + count)


@dataclass(frozen=True, slots=True)
class Row:
    """What was read of an object.

    Attributes:
        uuid: Its id.
        place: Where it stands.
        properties: Those that were asked for.
    """

    uuid: str
    place: Place
    properties: dict[str, Any]

    @property
    def message(self) -> Message:
        """The message, if its body was asked for."""
        return Message.from_json(self.properties[BODY])


def row_of(found: Any) -> Row:
    """Read an object of the client's."""
    uuid = str(found.uuid)
    properties: dict[str, Any] = found.properties
    place = (float(properties.get(TIMESTAMP) or 0.0), int(properties.get(ARRIVAL) or 0), uuid)
    return Row(uuid, place, properties)


def object_of(
    message: Message, arrival: int, vector: Sequence[float] | None, tokenizer: Tokenize
) -> tuple[DataObject[Any, Any], int]:
    """Make the object of a prepared message.

    Returns:
        The object, and about how many bytes it takes on the wire.
    """
    words = words_of(tokenizer, message.text)
    counts = Counter(words)
    terms = " ".join(" ".join([word] * min(count, MAX_COUNT)) for word, count in counts.items())
    body, facts = message.to_json(), facts_of(message)
    properties: dict[str, Any] = {
        BODY: body,
        FACTS: facts,
        TERMS: terms,
        LENGTH: len(words),
        TIMESTAMP: (message.timestamp or 0.0) + 0.0,
        ARRIVAL: arrival,
        USER_KEY: shown(message.metadata, USER_KEY),
        SESSION_KEY: shown(message.metadata, SESSION_KEY),
        DIMENSION: 0 if vector is None else len(vector),
    }
    size = len(body.encode()) + len(terms.encode()) + sum(len(fact) + 8 for fact in facts) + 4 * properties[DIMENSION]
    size += sum(len(properties[key].encode()) for key in (USER_KEY, SESSION_KEY)) + 512
    vectors = None if vector is None else {VECTOR: list(vector)}
    return DataObject(properties=properties, uuid=uuid_of(message), vector=vectors), size
