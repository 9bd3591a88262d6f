"""Writing, replacing, deleting."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from qdrant_client import models

from dynamiq_memory._batches import batched, limited
from dynamiq_memory.backends._embedding import Embed
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends._planned import stored_in_batches
from dynamiq_memory.backends.operations import stored_versions
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import reader, records, requests
from dynamiq_memory.backends.qdrant.filters import marked_by, translate
from dynamiq_memory.backends.qdrant.records import Stored
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import MESSAGE_ID_KEY, Message
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.tokenizer import terms_of

T = TypeVar("T")

# A server accepts 32 MB in a request unless it is configured otherwise.
_MOST_BYTES = 8_000_000
_MOST_POINTS = 500
# Seconds; no deletion reads what it has marked for longer.
_PERIOD = 600


class Writer:
    """Writes messages.

    Args:
        tokenizer: Splits a text into terms.
        embedder: The label of the embedder, or None without one.
    """

    def __init__(self, tokenizer: Tokenize, embedder: str | None) -> None:
        """Begin to number messages."""
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._arrivals = Arrivals()

    def write(self, messages: Sequence[Message]) -> Plan[None]:
        """Store messages; a new version keeps its position in the order of arrival."""
        points = yield from self._points(messages)
        batches = list(_batches(points))
        yield from stored_in_batches(batches, requests.upsert, lambda point: records.payload_of(point)[MESSAGE_ID_KEY])

    def replace(self, filter: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Store messages and delete other matching ones, in one request if they fit in it.

        The server writes before it deletes: if it stops in between, both sets are there.
        """
        points = yield from self._points(messages, filter)
        deletions = yield from _chosen(filter, sorted({str(point.id) for point in points}))
        *full, last = [*_batches(points)] or [[]]
        for batch in full:
            yield from requests.upsert(batch)
        changes: list[models.UpsertOperation | models.DeleteOperation] = []
        if last:
            changes.append(models.UpsertOperation(upsert=models.PointsList(points=last)))
        changes += [models.DeleteOperation(delete=models.FilterSelector(filter=each)) for each in deletions]
        if changes:
            yield from requests.change(changes)

    def _points(self, messages: Sequence[Message], replaced: Filter | None = None) -> Plan[list[models.PointStruct]]:
        """Make points; a new version keeps its position in the order of arrival unless this filter matches the old."""
        # Everything that can fail, above all the embedder, comes before anything is written.
        terms = [terms_of(self._tokenizer, message.text) for message in messages]
        vectors = yield from Embed(messages)
        ids = [records.point_id(message) for message in messages]
        found = yield from requests.retrieve(ids, [records.ARRIVAL, records.GONE])
        payloads = {str(point.id): records.payload_of(point) for point in found}
        arrivals = {name: each[records.ARRIVAL] for name, each in payloads.items() if records.GONE not in each}
        if replaced is not None:
            known = [message for message, name in zip(messages, ids, strict=True) if name in arrivals]
            # A version has the same user and session.
            is_scope = not replaced.beyond_scope
            old = filter(replaced.matches, known) if is_scope else (yield from stored_versions(known, replaced))
            for message in old:
                arrivals.pop(records.point_id(message), None)
        numbers = self._arrivals.numbers(len(messages))
        return [
            records.point_of(message, arrivals.get(name, number), its_terms, vector, self._embedder)
            for message, name, number, its_terms, vector in zip(messages, ids, numbers, terms, vectors, strict=True)
        ]


def delete(filter: Filter) -> Plan[int]:
    """Delete matching messages; if several callers delete at the same time, one of them counts each message."""
    return (yield from _delete(filter, lambda token: requests.count(marked_by(token)))) or 0


def take(filter: Filter) -> Plan[list[Stored]]:
    """Delete matching messages and return them; if several callers take at the same time, one gets each message."""
    return (yield from _delete(filter, reader.marked)) or []


def _delete(filter: Filter, result_of: Callable[[str], Plan[T]]) -> Plan[T | None]:
    """Mark matching messages with a new token, get the result, and erase them.

    Only one deletion marks a message: the server carries out one marking after the other, and none of them matches a
    marked message. Nor does any reader.

    Args:
        filter: The messages to delete.
        result_of: Counts or reads the messages that have been marked with a token.
    """
    chosen = yield from _chosen(filter)
    if not chosen:
        return None
    token = uuid.uuid4().hex
    for each in chosen:
        yield from requests.set_payload({records.GONE: [token, _period(0)]}, each)
    result = yield from result_of(token)
    if result:
        try:
            yield from requests.delete(marked_by(token))
        except BackendError as error:
            raise BackendError(
                f"{error} (the messages are deleted and no longer read, but not yet erased: delete the same again "
                f"after {2 * _PERIOD // 60} minutes)"
            ) from error
    translation = translate(filter)
    if translation.exact:
        # Messages that an earlier call marked and could not erase, except those that another call may be reading now.
        yield from requests.delete(translation.marked_except([_period(0), _period(-1)]))
    return result


def _chosen(filter: Filter, kept: Sequence[str] = ()) -> Plan[list[models.Filter]]:
    """Return filters for exactly the matching messages, other than those with the ids to keep."""
    translation = translate(filter)
    if translation.exact:
        must_not = [models.HasIdCondition(has_id=list(kept))] if kept else []
        return [translation.narrowed(must_not=must_not).filter]
    found = {stored.id for stored in (yield from reader.read(filter))}.difference(kept)
    groups = batched(sorted(found), requests.IDS_AT_ONCE)
    return [translation.narrowed(models.HasIdCondition(has_id=list(group))).filter for group in groups]


def _batches(points: Sequence[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
    return limited(((point, records.size_of(point)) for point in points), _MOST_POINTS, _MOST_BYTES)


def _period(since: int) -> str:
    """Return the current period of time, or one before it."""
    return f"period {int(time.time()) // _PERIOD + since}"
