"""Making the words of stored messages again, after an earlier version of the tokenizer made them."""

from __future__ import annotations

import logging
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records, requests
from dynamiq_memory.backends.qdrant.filters import translate
from dynamiq_memory.filters import Filter
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.tokenizer import signature_of, terms_of

logger = logging.getLogger(__name__)

NOTE = records.special_id("about")
RENEWED = "renewed_up_to"
"""A field of the note: the point that comes next, until all have been renewed; null after that."""

_AT_ONCE = 100


def renew_words(tokenize: Tokenize, location: str) -> Plan[None]:
    """Make the words of all messages again, from where an earlier call stopped.

    Args:
        tokenize: Splits texts into words.
        location: The collection, for the log.
    """
    signature = signature_of(tokenize)
    (note,) = yield from requests.retrieve([NOTE], ["tokenizer", RENEWED])
    payload = records.payload_of(note)
    # The first page has no offset.
    offset = (payload.get(RENEWED) or None) if payload["tokenizer"] == signature else None
    yield from _set(NOTE, {"tokenizer": signature, RENEWED: offset or ""})
    done, more = 0, True
    while more:
        points, offset = yield from requests.page(translate(Filter()).filter, records.WHOLE, _AT_ONCE, offset=offset)
        changes = [change for point in points for change in _changes(point, tokenize)]
        if changes:
            yield from requests.change(changes)
        done, more = done + len(points), offset is not None
        yield from _set(NOTE, {RENEWED: offset})
        logger.info("re-indexed %d messages of %s", done, location)


def _set(point: str, payload: dict[str, Any]) -> requests.Request[Any]:
    return requests.set_payload(payload, _only(point))


def _only(point: str) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=[point])])


def _changes(point: records.Point, tokenize: Tokenize) -> list[Any]:
    """Return the changes of a point. They bring no message back that has been deleted since."""
    stored = records.stored_of(point)
    terms = terms_of(tokenize, stored.message.text)
    fields = models.SetPayload(payload=records.ranked_by(terms), filter=_only(stored.id))
    changes: list[Any] = [models.SetPayloadOperation(set_payload=fields)]
    if terms:
        vectors = models.PointVectors(id=stored.id, vector={records.WORDS: records.words_of(terms)})
        update = models.UpdateVectors(points=[vectors])
        changes.append(models.UpdateVectorsOperation(update_vectors=update))
    return changes
