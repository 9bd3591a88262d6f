"""Writing, replacing, deleting."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from dynamiq_memory._batches import batched
from dynamiq_memory.backends._embedding import Embed, Vector
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends._planned import stored_in_batches
from dynamiq_memory.backends.pinecone import keys, requests
from dynamiq_memory.backends.pinecone.reader import Reader
from dynamiq_memory.backends.pinecone.records import Stored, records_of
from dynamiq_memory.backends.pinecone.search import normalized
from dynamiq_memory.backends.plans import Plan, Wait
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message

_ROOM_WAITS = (0.0, *[0.5] * 120)


class Writer:
    """Writes to an index.

    Args:
        reader: Reads the index.
        embedder: The label of the embedder.
        normalizes: Whether to store vectors with the length 1.
    """

    def __init__(self, reader: Reader, embedder: str, *, normalizes: bool) -> None:
        """Begin to number messages."""
        self._embedder = embedder
        self._reader = reader
        self._recent = reader.recent
        self._normalizes = normalizes
        self._arrivals = Arrivals()

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message], replaced: Collection[str] = ()) -> Plan[None]:
        """Store messages; a new version keeps its position in the order of arrival unless its key is `replaced`."""
        latest = {keys.key_of(message): message for message in messages}
        vectors = yield from Embed(list(latest.values()))
        yield from self._make_room(len(latest))
        stored = yield from self._reader.versions(list(latest))
        arrivals = self._arrivals.keys(len(latest))
        drafts: list[tuple[Stored, Vector | None]] = []
        for (key, message), vector, version in zip(latest.items(), vectors, arrivals, strict=True):
            versions = () if key in replaced else stored.get(key, ())
            arrival = min((each.arrival for each in versions), default=version)
            scaled = normalized(vector) if vector is not None and self._normalizes else vector
            drafts.append((Stored(keys.record_id(message), key, arrival, version, 0, message), scaled))
        yield from self._store(drafts)
        # Old versions with other times have other records, and every version has its own parts.
        old = [each for versions in stored.values() for each in versions]
        ids = {draft.id for draft, _ in drafts}
        moved = [each.id for each in old if each.id not in ids]
        yield from self._delete_ids(moved, [part for each in old for part in each.part_ids])

    def _store(self, drafts: Sequence[tuple[Stored, Vector | None]]) -> Plan[None]:
        """Store the parts of messages, then the messages: what readers see is complete."""
        heads: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        written: dict[str, tuple[Stored, array[float] | None]] = {}
        for draft, vector in drafts:
            head, its_parts = records_of(draft, vector, self._reader.placeholder, self._embedder)
            heads.append(head)
            parts += its_parts
            stored = replace(draft, parts=len(its_parts))
            written[draft.id] = stored, None if vector is None else array("f", vector)
        for batch in requests.batches(parts):
            yield from requests.upsert(batch)

        def store(batch: list[dict[str, Any]]) -> Plan[None]:
            yield from requests.upsert(batch)
            self._recent.put([written[head["id"]] for head in batch])

        ids = {draft.id: draft.message.id for draft, _ in drafts if draft.message is not None}
        yield from stored_in_batches(list(requests.batches(heads)), store, lambda head: ids[head["id"]])

    def _make_room(self, more: int) -> Plan[None]:
        """Drop recent writes that the index shows by now, until there is room for more."""
        for wait in _ROOM_WAITS:
            if wait:
                yield from Wait(wait)
            entries = self._recent.in_the_way(more)
            if not entries:
                return
            shown = yield from self._reader.shown_heads([entry.id for entry in entries])
            self._recent.drop_shown(entries, shown)
        if self._recent.in_the_way(more):
            raise BackendError(
                f"the index did not show the last {len(self._recent):,} writes of this process within a minute; "
                "nothing was written: write more slowly"
            )

    def replace(self, filter: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Write, then delete: a crash can double messages, but never lose any."""
        old = {stored.key: stored for stored in (yield from self._reader.read(filter))}
        if messages:
            yield from self.write(messages, replaced=old.keys())
        for message in messages:
            old.pop(keys.key_of(message), None)
        yield from self._delete_stored(list(old.values()))

    # --- deleting ----------------------------------------------------------------------------------------------

    def delete(self, filter: Filter) -> Plan[int]:
        """Delete matching messages and return their number."""
        if filter.beyond_scope:
            return len((yield from self.take(filter)))
        ids = yield from self._reader.visible_ids(filter)
        parts = yield from self._reader.shown_ids(filter, keys.PARTS)
        for each in ids:
            entry = self._recent.get(each)
            if entry is not None and entry.stored is not None:
                parts.update(entry.stored.part_ids)
        return len((yield from self._delete_ids(ids, sorted(parts))))

    def take(self, filter: Filter) -> Plan[list[Stored]]:
        """Delete matching messages and return them; of several callers in this process, one gets each message."""
        found = yield from self._reader.read(filter)
        return (yield from self._delete_stored(found))

    def _delete_stored(self, found: Sequence[Stored]) -> Plan[list[Stored]]:
        parts = [part for stored in found for part in stored.part_ids]
        deleted = set((yield from self._delete_ids([stored.id for stored in found], parts)))
        return [stored for stored in found if stored.id in deleted]

    def _delete_ids(self, ids: Sequence[str], parts: Sequence[str]) -> Plan[list[str]]:
        """Delete records of messages, and parts; return the ids of those that no other caller was deleting."""
        (version,) = self._arrivals.keys(1)
        deleted: list[str] = []
        for batch in batched(ids, requests.MOST_DELETED):
            claimed, previous = self._recent.claim(batch, version)
            if not claimed:
                continue
            try:
                yield from requests.delete(claimed)
            except BaseException:
                self._recent.unclaim(claimed, previous, version)
                raise
            deleted += claimed
        # Last, because a message cannot be read without its parts.
        for batch in batched(parts, requests.MOST_DELETED):
            yield from requests.delete(batch)
        return deleted
