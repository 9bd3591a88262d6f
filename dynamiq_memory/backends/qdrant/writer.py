"""Writing, replacing, deleting."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._embedding import Embed
from dynamiq_memory.backends._order import version_filters, with_stored_version
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import reader
from dynamiq_memory.backends.qdrant import records as points
from dynamiq_memory.backends.qdrant.filters import Native, is_deleted_by, native
from dynamiq_memory.backends.qdrant.records import Stored
from dynamiq_memory.backends.qdrant.steps import Ask
from dynamiq_memory.exceptions import BackendError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.tokenizer import terms_of

# A server takes 32 MB in a request unless it is set up otherwise.
_MOST_BYTES = 8_000_000
_MOST_POINTS = 500
_IDS_AT_ONCE = 1000
# Seconds; nobody reads what he has marked for longer.
_PERIOD = 600


class Writer:
    """Writes for one collection.

    Args:
        tokenizer: Turns a text into its terms.
        embeds: Whether messages have vectors.
    """

    def __init__(self, tokenizer: Tokenize, *, embeds: bool) -> None:
        """Keep the settings."""
        self._tokenizer = tokenizer
        self._embeds = embeds
        self._arrivals = points.Arrivals()

    def write(self, messages: Sequence[Message]) -> Plan[None]:
        """Store messages; one that is stored keeps its place of arrival."""
        made = yield from self._points(messages)
        yield from self._upsert(messages, made)

    def replace(self, where: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Store messages and delete what else matches, in one request if it is not too large for one.

        The server carries out the writing before the deleting: if it stops in between, both sets are there.
        """
        made = yield from self._points(messages, where)
        translated = native(where)
        new = {str(point.id) for point in made}
        deletions: list[models.FilterSelector] = []
        if translated is not None and translated.exact:
            stays = [models.HasIdCondition(has_id=sorted(new))] if new else []
            deletions = [models.FilterSelector(filter=translated.and_(must_not=stays).filter)]
        elif translated is not None:
            old = [stored.id for stored in (yield from reader.read(where, None)) if stored.id not in new]
            deletions = [models.FilterSelector(filter=Native((ids,)).filter) for ids in _ids(old)]
        *whole, last = [*_chunks(messages, made)] or [[]]
        for chunk in whole:
            yield from self._upsert([message for message, _ in chunk], [point for _, point in chunk])
        operations: list[Any] = []
        if last:
            operations.append(models.UpsertOperation(upsert=models.PointsList(points=[point for _, point in last])))
        operations += [models.DeleteOperation(delete=selector) for selector in deletions]
        if operations:
            yield Ask("batch_update_points", {"update_operations": operations, "wait": True})

    def update(self, where: Filter, messages: Sequence[Message]) -> Plan[list[Message]]:
        """Store new versions of what is there and matches."""
        held: list[Message] = []
        for versions in version_filters(messages, where):
            held += [stored.message for stored in (yield from reader.read(versions, None))]
        present = with_stored_version(messages, held)
        if present:
            yield from self.write(present)
        return present

    def delete(self, where: Filter) -> Plan[int]:
        """Delete what matches; of several at once, one counts each message."""
        _, count = yield from self._take(where)
        return count

    def take(self, where: Filter) -> Plan[list[Stored]]:
        """Delete what matches and return it; of several at once, one gets each message."""
        taken, _ = yield from self._take(where, read=True)
        return taken

    def _take(self, where: Filter, *, read: bool = False) -> Plan[tuple[list[Stored], int]]:
        """Mark what matches with a token of one's own, which nothing has that is marked already; then delete that.

        The server carries out one marking after the other. Marked messages are no longer read.
        """
        translated = native(where)
        if translated is None:
            return [], 0
        chosen = [translated.filter]
        if not translated.exact:
            found = yield from reader.read(where, None)
            chosen = [translated.and_(ids).filter for ids in _ids([stored.id for stored in found])]
        token = uuid.uuid4().hex
        for each in chosen:
            mark = {"payload": {points.GONE: [token, _period(0)]}, "points": each, "wait": True}
            yield Ask("set_payload", {**mark, "ordering": models.WriteOrdering.STRONG})
        if not chosen:
            return [], 0
        taken: list[Stored] = []
        if read:
            taken = yield from reader.deleted_by(token)
            count = len(taken)
        else:
            count = (yield Ask("count", {"count_filter": is_deleted_by(token), "exact": True})).count
        if count:
            try:
                yield from self._erase(is_deleted_by(token))
            except BackendError as error:
                raise BackendError(
                    f"{error} (the messages are deleted and no longer read, but not yet erased: delete the same once "
                    f"more, after {2 * _PERIOD // 60} minutes)"
                ) from error
        if translated.exact:
            # What an earlier call has marked and could not erase; not what others are reading at this moment.
            yield from self._erase(translated.left_behind([_period(0), _period(-1)]))
        return taken, count

    def _erase(self, marked: models.Filter) -> Plan[None]:
        yield Ask("delete", {"points_selector": models.FilterSelector(filter=marked), "wait": True})

    def _points(self, messages: Sequence[Message], replaced: Filter | None = None) -> Plan[list[models.PointStruct]]:
        """Make points: one that is stored keeps its place of arrival, unless it is replaced by this filter."""
        # Whatever can fail, an embedder above all, comes before anything is written.
        terms = [terms_of(self._tokenizer, message.text) for message in messages]
        vectors: Sequence[Any] = [None] * len(messages)
        if self._embeds and messages:
            vectors = yield Embed(messages)
        ids = [points.point_id(message) for message in messages]
        arrived: dict[str, int] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            known = yield Ask(
                "retrieve",
                {
                    "ids": ids[start : start + _IDS_AT_ONCE],
                    "with_payload": [points.ARRIVAL, points.GONE],
                    "with_vectors": False,
                },
            )
            arrived.update({str(p.id): p.payload[points.ARRIVAL] for p in known if points.GONE not in p.payload})
        if replaced is not None:
            known_ones = [message for message, own in zip(messages, ids, strict=True) if own in arrived]
            for renewed in (yield from self._matching(replaced, known_ones)):
                del arrived[renewed]
        made = []
        for number, (message, own) in enumerate(zip(messages, self._arrivals.take(len(messages)), strict=True)):
            given = {points.DENSE: vectors[number], points.WORDS: points.words_of(terms[number])}
            made.append(
                models.PointStruct(
                    id=ids[number],
                    vector={name: vector for name, vector in given.items() if vector is not None},
                    payload=points.payload_of(message, arrived.get(ids[number], own), terms[number]),
                )
            )
        return made

    def _matching(self, where: Filter, messages: Sequence[Message]) -> Plan[set[str]]:
        """The ids of those messages whose stored version matches."""
        if not where.beyond_scope:
            # A version is of the same user and session.
            return {points.point_id(message) for message in messages if where.matches(message)}
        found: set[str] = set()
        for versions in version_filters(messages, where):
            found.update(stored.id for stored in (yield from reader.read(versions, None)))
        return found

    def _upsert(self, messages: Sequence[Message], made: Sequence[models.PointStruct]) -> Plan[None]:
        stored: list[str] = []
        for chunk in _chunks(messages, made):
            try:
                yield Ask("upsert", {"points": [point for _, point in chunk], "wait": True})
            except BackendError as error:
                if not stored:
                    raise
                raise PartialWriteError(
                    f"{error} ({len(stored)} of {len(messages)} messages are stored; adding them again is safe)", stored
                ) from error
            stored += [message.id for message, _ in chunk]


def _chunks(
    messages: Sequence[Message], made: Sequence[models.PointStruct]
) -> Iterator[list[tuple[Message, models.PointStruct]]]:
    chunk: list[tuple[Message, models.PointStruct]] = []
    size = 0
    for message, point in zip(messages, made, strict=True):
        own = _size(point)
        if chunk and (len(chunk) == _MOST_POINTS or size + own > _MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((message, point))
        size += own
    if chunk:
        yield chunk


def _size(point: models.PointStruct) -> int:
    """About the bytes of a point as JSON."""
    payload: Any = point.payload
    vectors: Any = point.vector
    words = vectors.get(points.WORDS)
    return (
        len(payload.get(points.MESSAGE) or payload[points.LARGE]) * 5 // 4
        + len(payload[points.TERMS])
        + 36 * len(payload[points.LABELS])
        + 80 * len(payload[points.NUMBERS])
        + 22 * len(vectors.get(points.DENSE, ()))
        + (32 * len(words.indices) if words is not None else 0)
        + 500
    )


def _period(since: int) -> str:
    """The present stretch of time, or one before it."""
    return f"period {int(time.time()) // _PERIOD + since}"


def _ids(ids: Sequence[str]) -> Iterator[models.HasIdCondition]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield models.HasIdCondition(has_id=list(ids[start : start + _IDS_AT_ONCE]))
