"""Making words and vectors of stored messages again, after a change of the tokenizer or the embedder.

The note of the collection names the tokenizer of all words. A point names the embedder that was given its text. Those
that an earlier version of this package stored do not, and are of the embedder that the note names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._embedding import Embed
from dynamiq_memory.backends._labels import VectorLabels
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records, requests
from dynamiq_memory.backends.qdrant.filters import is_empty, matches, translate
from dynamiq_memory.backends.qdrant.records import EMBEDDER, Stored
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.tokenizer import signature_of, terms_of

logger = logging.getLogger(__name__)

NOTE = records.special_id("about")
RENEWED = "renewed_up_to"
"""A field of the note: the point that comes next, until all have been renewed; null after that."""

_AT_ONCE = 100

Make = Callable[[Sequence[Stored]], Plan[list[Any]]]
"""Makes the changes of points."""


class Vectors(VectorLabels[Stored]):
    """The vectors of the messages, by the embedders that their points name.

    Attributes:
        unnamed: The name of the embedder of points that name none.
    """

    unnamed: str | None = None

    @property
    def comparable(self) -> models.Filter:
        """The condition for points with vectors that can be compared with the embedder's."""
        return models.Filter(should=self._accepted)

    @property
    def _others(self) -> models.Filter:
        return translate(Filter()).narrowed(must_not=self._accepted).filter

    @property
    def _accepted(self) -> list[Any]:
        named = matches(EMBEDDER, *self.accepted)
        return [named] if self._embedder.differs_from(self.unnamed) else [named, is_empty(EMBEDDER)]

    def any_label(self, *, accepted: bool) -> Plan[str | None]:
        """Look for one point."""
        condition = translate(Filter()).narrowed(self.comparable).filter if accepted else self._others
        points, _ = yield from requests.page(condition, [EMBEDDER], 1)
        return records.payload_of(points[0]).get(EMBEDDER, self.unnamed or "") if points else None

    def missing(self, limit: int) -> Plan[list[Stored]]:
        """Read points, in no particular order."""
        points, _ = yield from requests.page(self._others, records.WHOLE, limit)
        return [records.stored_of(point) for point in points]

    def embed(self, messages: Sequence[Stored]) -> Plan[None]:
        """Give points other vectors."""
        yield from _renew(messages, self._changes)

    def _changes(self, points: Sequence[Stored]) -> Plan[list[Any]]:
        vectors = yield from Embed([point.message for point in points])
        embedded = [
            models.PointVectors(id=point.id, vector={records.DENSE: vector})
            for point, vector in zip(points, vectors, strict=True)
            if vector is not None
        ]
        without = [point.id for point, vector in zip(points, vectors, strict=True) if vector is None]
        changes: list[Any] = []
        if embedded:
            changes.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=embedded)))
        if without:
            deletion = models.DeleteVectors(points=list(without), vector=[records.DENSE])
            changes.append(models.DeleteVectorsOperation(delete_vectors=deletion))
        label = models.SetPayload(
            payload={EMBEDDER: self._embedder.label}, filter=_only(*(point.id for point in points))
        )
        return [*changes, models.SetPayloadOperation(set_payload=label)]


def renew_words(tokenize: Tokenize, location: str) -> Plan[None]:
    """Make the words of all messages again, from where an earlier call stopped.

    Args:
        tokenize: Splits texts into words.
        location: The collection, for the log.
    """

    def changes(points: Sequence[Stored]) -> Plan[list[Any]]:
        yield from ()
        return [change for point in points for change in _changes(point, tokenize)]

    signature = signature_of(tokenize)
    (note,) = yield from requests.retrieve([NOTE], ["tokenizer", RENEWED])
    payload = records.payload_of(note)
    # The first page has no offset.
    offset = (payload.get(RENEWED) or None) if payload["tokenizer"] == signature else None
    yield from set_note({"tokenizer": signature, RENEWED: offset or ""})
    done, more = 0, True
    while more:
        points, offset = yield from requests.page(translate(Filter()).filter, records.WHOLE, _AT_ONCE, offset=offset)
        yield from _renew([records.stored_of(point) for point in points], changes)
        done, more = done + len(points), offset is not None
        yield from set_note({RENEWED: offset})
        logger.info("re-indexed %d messages of %s", done, location)


def set_note(payload: dict[str, Any]) -> requests.Request[Any]:
    """Set fields of the note of the collection."""
    return requests.set_payload(payload, _only(NOTE))


def _only(*points: str) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=list(points))])


def _renew(points: Sequence[Stored], make: Make) -> Plan[None]:
    """Change points, but bring none back that has been deleted since it was read.

    A server refuses to change the vectors of a point that is gone: the others are changed again. So are points that
    another process has stored in the meantime.
    """
    while points:
        failure = None
        try:
            yield from requests.change((yield from make(points)))
        except BackendError as error:
            failure = error
        found = yield from requests.retrieve([point.id for point in points], [*records.WHOLE, records.GONE])
        alive = (point for point in found if records.GONE not in records.payload_of(point))
        stored = {point.id: point for point in map(records.stored_of, alive)}
        if failure is not None and len(stored) == len(points):
            raise failure
        kept = [(point, stored[point.id]) for point in points if point.id in stored]
        points = [now for before, now in kept if failure is not None or now.message != before.message]


def _changes(point: Stored, tokenize: Tokenize) -> list[Any]:
    terms = terms_of(tokenize, point.message.text)
    fields = models.SetPayload(payload=records.ranked_by(terms), filter=_only(point.id))
    changes: list[Any] = [models.SetPayloadOperation(set_payload=fields)]
    if terms:
        vectors = models.PointVectors(id=point.id, vector={records.WORDS: records.words_of(terms)})
        update = models.UpdateVectors(points=[vectors])
        changes.append(models.UpdateVectorsOperation(update_vectors=update))
    return changes
