"""Plans that write."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dynamiq_memory.backends._embedding import Embed
from dynamiq_memory.backends._order import version_filters, with_stored_version
from dynamiq_memory.backends.pinecone import keys, records
from dynamiq_memory.backends.pinecone.reader import Reader, batched
from dynamiq_memory.backends.pinecone.recent import Recent
from dynamiq_memory.backends.pinecone.records import Stored
from dynamiq_memory.backends.pinecone.requests import (
    MOST_DELETED,
    MOST_REQUEST_BYTES,
    MOST_VECTORS,
    Delete,
    Upsert,
    Vector,
)
from dynamiq_memory.backends.plans import Plan, Wait
from dynamiq_memory.exceptions import BackendError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message

_ROOM_WAITS = (0.0, *[0.5] * 120)


class Writer:
    """Plans that write to an index.

    Args:
        reader: Reads it.
        recent: What this process wrote lately.
        arrivals: Numbers what is written.
        unit: Whether vectors are stored with a length of 1.
    """

    def __init__(self, reader: Reader, recent: Recent, arrivals: keys.Arrivals, *, unit: bool) -> None:
        """Keep these."""
        self.reader = reader
        self.recent = recent
        self.arrivals = arrivals
        self.unit = unit

    # --- adding ----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message], anew: Collection[str] = ()) -> Plan[None]:
        """Store messages; one whose id is in its session replaces that one, in its place unless it comes anew."""
        latest = {keys.key_of_message(message): message for message in messages}
        vectors: list[Vector | None] = yield Embed(list(latest.values()))
        yield from self._make_room(len(latest))
        held = yield from self.reader.held(list(latest))
        drafts: list[tuple[Stored, Vector | None]] = []
        for (key, message), vector, version in zip(
            latest.items(), vectors, self.arrivals.keys(len(latest)), strict=True
        ):
            places = () if key in anew else held.get(key, ())
            arrival = min((stored.arrival for stored in places), default=version)
            drafts.append((Stored(keys.message_id(message), key, arrival, version, 0, message), self._scaled(vector)))
        yield from self._store(drafts)
        yield from self._discard(held, [stored for stored, _ in drafts])

    def _store(self, drafts: Sequence[tuple[Stored, Vector | None]]) -> Plan[None]:
        """Store the parts of messages, then the messages: what is seen is whole."""
        heads: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        written: dict[str, tuple[Stored, array[float] | None]] = {}
        for draft, vector in drafts:
            head, own = records.records_of(draft, vector, self.reader.placeholder)
            heads.append(head)
            parts += own
            stored = Stored(draft.id, draft.key, draft.arrival, draft.version, len(own), draft.message)
            written[draft.id] = stored, None if vector is None else array("f", vector)
        for batch in _batches(parts):
            yield Upsert(batch)
        done: list[str] = []
        for batch in _batches(heads):
            try:
                yield Upsert(batch)
            except BackendError as error:
                if not done:
                    raise
                raise PartialWriteError(
                    f"{error}. {len(done)} of {len(heads)} messages are stored: add the same messages again, which "
                    "doubles nothing",
                    done,
                ) from error
            entries = [written[head["id"]] for head in batch]
            self.recent.put(entries)
            done += [stored.message.id for stored, _ in entries if stored.message is not None]

    def _discard(self, held: dict[str, list[Stored]], now: Sequence[Stored]) -> Plan[None]:
        """Delete what stood in the place of messages: versions elsewhere in time, and the parts of all of them."""
        ids = {stored.id for stored in now}
        old = [stored for versions in held.values() for stored in versions]
        moved = [stored.id for stored in old if stored.id not in ids]
        yield from self._delete_ids(moved, [part for stored in old for part in stored.part_ids])

    def _scaled(self, vector: Vector | None) -> Vector | None:
        if vector is None or not self.unit:
            return vector
        length = math.hypot(*vector)
        return [number / length for number in vector]

    def _make_room(self, more: int) -> Plan[None]:
        """See that recent writes leave room for more: those that the index shows by now are forgotten."""
        for wait in _ROOM_WAITS:
            if wait:
                yield Wait(wait)
            entries = self.recent.to_settle(more)
            if not entries:
                return
            shown = yield from self.reader.shown_heads([entry.id for entry in entries])
            self.recent.settle(entries, shown)
        if self.recent.to_settle(more):
            raise BackendError(
                f"the index has not shown the last {len(self.recent):,} writes of this process for a minute; nothing "
                "was written: write more slowly"
            )

    # --- changing --------------------------------------------------------------------------------------------

    def update(self, where: Filter, messages: Sequence[Message]) -> Plan[list[Message]]:
        """Store new versions of messages that are there and match."""
        held: list[Message] = []
        for versions in version_filters(messages, where):
            found = yield from self.reader.read(versions, None, None, None)
            held += [stored.message for stored in found if stored.message is not None]
        present = with_stored_version(messages, held)
        if present:
            yield from self.write(present)
        return present

    def replace(self, where: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Put messages in the place of what matches: the new first, so that a crash can double and never lose."""
        old = {stored.key: stored for stored in (yield from self.reader.read(where, None, None, None))}
        if messages:
            yield from self.write(messages, anew=old.keys())
        for message in messages:
            old.pop(keys.key_of_message(message), None)
        yield from self._delete_stored(list(old.values()))

    # --- deleting --------------------------------------------------------------------------------------------

    def delete(self, where: Filter) -> Plan[int]:
        """Delete what matches and return the count."""
        if where.beyond_scope:
            return len((yield from self.take(where)))
        ids = yield from self.reader.visible(where)
        parts = yield from self.reader.shown_ids(where, keys.PARTS)
        for each in ids:
            entry = self.recent.get(each)
            if entry is not None and entry.stored is not None:
                parts.update(entry.stored.part_ids)
        return len((yield from self._delete_ids(ids, sorted(parts))))

    def take(self, where: Filter) -> Plan[list[Stored]]:
        """Delete what matches and return it; of several callers in this process, one gets each message."""
        found = yield from self.reader.read(where, None, None, None)
        return (yield from self._delete_stored(found))

    def _delete_stored(self, found: Sequence[Stored]) -> Plan[list[Stored]]:
        parts = [part for stored in found for part in stored.part_ids]
        deleted = set((yield from self._delete_ids([stored.id for stored in found], parts)))
        return [stored for stored in found if stored.id in deleted]

    def _delete_ids(self, ids: Sequence[str], parts: Sequence[str]) -> Plan[list[str]]:
        """Delete records of messages, and parts; return the ids of those that nobody else was deleting."""
        (version,) = self.arrivals.keys(1)
        deleted: list[str] = []
        for batch in batched(ids, MOST_DELETED):
            claimed, before = self.recent.claim(batch, version)
            if not claimed:
                continue
            try:
                yield Delete(claimed)
            except BaseException:
                self.recent.unclaim(claimed, before, version)
                raise
            deleted += claimed
        # Last, since a message without its parts cannot be read.
        for batch in batched(parts, MOST_DELETED):
            yield Delete(batch)
        return deleted


def _batches(vectors: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut into requests that the service takes."""
    batch: list[dict[str, Any]] = []
    size = 0
    for vector in vectors:
        # Escaped, as the older clients send it: the newer ones send less.
        own = len(json.dumps(vector)) + 2
        if batch and (len(batch) == MOST_VECTORS or size + own > MOST_REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(vector)
        size += own
    if batch:
        yield batch
