"""The recent writes and deletions of this process, which the index may not show yet.

The service is eventually consistent: it acknowledges a write at once and shows it some time later. Reads compare the
index with these entries, so that a process sees its own writes. An entry is dropped when the index shows it (or a newer
version by another process) and all parts of the service have had time to catch up, or else after some minutes.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends.pinecone import keys
from dynamiq_memory.backends.pinecone.keys import EncodedScope
from dynamiq_memory.backends.pinecone.records import Stored
from dynamiq_memory.messages import size_of

Group = TypeVar("Group")

MOST_ENTRIES = 10_000
MOST_BYTES = 64 * 1024 * 1024
# Parts of the service that answer different requests may lag by different times.
SETTLED_SECONDS = 10.0
KEPT_SECONDS = 600.0


@dataclass(slots=True)
class Entry:
    """A write or a deletion.

    Attributes:
        id: The record's id.
        version: When it was made, as text that sorts.
        stored: The written message; None for a deletion.
        size: Estimate of its bytes.
        at: The time of the monotonic clock.
        vector: The embedding of the message, if it has one.
    """

    id: str
    version: str
    stored: Stored | None
    size: int
    at: float
    vector: array[float] | None = None


class RecentWrites(WatchesForks):
    """The recent writes and deletions of a process.

    Args:
        clock: Returns the time in seconds, which never goes back.
        most: Maximum number of entries.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_ENTRIES) -> None:
        """Begin without entries."""
        self.most = most
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # the oldest first
        self._by_scope: dict[EncodedScope, dict[str, Entry]] = {}
        self._by_key: dict[str, dict[str, Entry]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def get(self, record_id: str) -> Entry | None:
        """Return the entry for a record."""
        with self._lock:
            return self._entries.get(record_id)

    def put(self, written: Iterable[tuple[Stored, array[float] | None]]) -> None:
        """Add written messages, with their embeddings."""
        with self._lock:
            for stored, vector in written:
                size = 500 + (size_of(stored.message) if stored.message else 0) + 4 * len(vector or ())
                self._add(Entry(stored.id, stored.version, stored, size, self._clock(), vector))
            self._expire()

    def claim(self, record_ids: Sequence[str], version: str) -> tuple[list[str], list[Entry | None]]:
        """Mark records as deleted.

        Args:
            record_ids: Their ids.
            version: When they are deleted.

        Returns:
            The ids of those that were not marked already, and the previous entry of each.
        """
        claimed: list[str] = []
        previous: list[Entry | None] = []
        with self._lock:
            for record_id in dict.fromkeys(record_ids):
                entry = self._entries.get(record_id)
                if entry is None or entry.stored is not None:
                    claimed.append(record_id)
                    previous.append(entry)
                    self._add(Entry(record_id, version, None, len(record_id), self._clock()))
            self._expire()
        return claimed, previous

    def unclaim(self, record_ids: Sequence[str], previous: Sequence[Entry | None], version: str) -> None:
        """Undo a `claim` after its deletion failed, for records that are unchanged since."""
        with self._lock:
            for record_id, entry in zip(record_ids, previous, strict=True):
                current = self._entries.get(record_id)
                if current is None or current.version != version:
                    continue
                self._remove(current)
                if entry is not None:
                    self._add(entry)

    def reconcile(self, shown: Stored) -> Stored | None:
        """Compare a record that the index shows with its entry.

        Returns:
            The record as shown, or as written later by this process, or None if this process deleted it later.
        """
        with self._lock:
            entry = self._entries.get(shown.id)
            if entry is None:
                return shown
            if shown.version > entry.version or (shown.version == entry.version and self._is_settled(entry)):
                self._remove(entry)
                return shown
            return entry.stored

    def drop_deletions(self, record_ids: Iterable[str]) -> None:
        """Drop deletions of records that the index no longer shows, if they are old enough."""
        with self._lock:
            for record_id in record_ids:
                entry = self._entries.get(record_id)
                if entry is not None and entry.stored is None and self._is_settled(entry):
                    self._remove(entry)

    def within(self, matches: Callable[[EncodedScope], bool]) -> list[Entry]:
        """Return the entries of matching sessions."""
        with self._lock:
            self._expire()
            return [e for scope, entries in self._by_scope.items() if matches(scope) for e in entries.values()]

    def of_key(self, key: str) -> list[Stored]:
        """Return the written versions of a message."""
        with self._lock:
            return [entry.stored for entry in self._by_key.get(key, {}).values() if entry.stored is not None]

    def in_the_way(self, more: int) -> list[Entry]:
        """Return the oldest entries, which must be dropped to make room for `more`; none if there is room."""
        with self._lock:
            self._expire()
            # A batch that is larger than the room is accepted when the room is empty.
            excess = len(self._entries) + min(more, self.most) - self.most
            if excess <= 0 and self._bytes <= MOST_BYTES:
                return []
            entries = iter(self._entries.values())
            return [entry for entry, _ in zip(entries, range(max(excess, 100)), strict=False)]

    def drop_shown(self, entries: Iterable[Entry], shown: Iterable[Stored]) -> None:
        """Drop entries that the index shows, whatever their age.

        Args:
            entries: The entries that were looked up.
            shown: The index's records of these.
        """
        versions = {stored.id: stored.version for stored in shown}
        with self._lock:
            for entry in entries:
                if self._entries.get(entry.id) is not entry:
                    continue
                version = versions.get(entry.id)
                is_shown = version is None if entry.stored is None else version is not None and version >= entry.version
                if is_shown:
                    self._remove(entry)

    def _before_fork(self) -> None:
        self._lock.acquire()  # the child must not get half of a change

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    def _is_settled(self, entry: Entry) -> bool:
        return entry.at + SETTLED_SECONDS <= self._clock()

    def _add(self, entry: Entry) -> None:
        previous = self._entries.get(entry.id)
        if previous is not None:
            self._remove(previous)
        self._entries[entry.id] = entry
        self._by_scope.setdefault(keys.parse(entry.id).scope, {})[entry.id] = entry
        if entry.stored is not None:
            self._by_key.setdefault(entry.stored.key, {})[entry.id] = entry
        self._bytes += entry.size

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]
        self._bytes -= entry.size
        _remove_from(self._by_scope, keys.parse(entry.id).scope, entry)
        if entry.stored is not None:
            _remove_from(self._by_key, entry.stored.key, entry)

    def _expire(self) -> None:
        limit = self._clock() - KEPT_SECONDS
        while self._entries:
            entry = next(iter(self._entries.values()))
            if entry.at > limit:
                break
            self._remove(entry)


def _remove_from(groups: dict[Group, dict[str, Entry]], group: Group, entry: Entry) -> None:
    del groups[group][entry.id]
    if not groups[group]:
        del groups[group]
