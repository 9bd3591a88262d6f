"""What this process wrote and deleted lately, which the index may not show yet.

The service is eventually consistent: it acknowledges a write at once and shows it some time later. Reads look here
first, so that a process sees what it wrote itself. An entry is dropped when the index shows it (or something newer,
that another process wrote) and is old enough for all parts of the service to have caught up, and at the latest after
some minutes.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dynamiq_memory.backends.pinecone.keys import Scope, place_of
from dynamiq_memory.backends.pinecone.records import Stored
from dynamiq_memory.messages import size_of

MOST_ENTRIES = 10_000
MOST_BYTES = 64 * 1024 * 1024
# Parts of the service that answer different requests may be behind by different times.
SETTLED_SECONDS = 10.0
KEPT_SECONDS = 600.0


@dataclass(slots=True)
class Entry:
    """A write or a deletion.

    Attributes:
        id: The record's id.
        version: When it was made, as text that sorts.
        stored: What was written; None for a deletion.
        size: Its bytes, about.
        at: The time of the monotonic clock.
        vector: The embedding of what was written, if it has one.
    """

    id: str
    version: str
    stored: Stored | None
    size: int
    at: float
    vector: array[float] | None = None


class Recent:
    """The recent writes and deletions of a process.

    Args:
        clock: Tells the time in seconds; never goes back.
        most: At most so many entries.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_ENTRIES) -> None:
        """Start with none."""
        self.most = most
        self._clock = clock
        self.lock = threading.RLock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # the oldest first
        self._by_scope: dict[Scope, dict[str, Entry]] = {}
        self._by_key: dict[str, dict[str, Entry]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def get(self, record_id: str) -> Entry | None:
        """The entry for a record."""
        with self.lock:
            return self._entries.get(record_id)

    def put(self, written: Iterable[tuple[Stored, array[float] | None]]) -> None:
        """Remember what was written, with its embedding."""
        with self.lock:
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
            The ids that were not marked already, and what stood here for each.
        """
        claimed: list[str] = []
        before: list[Entry | None] = []
        with self.lock:
            for record_id in dict.fromkeys(record_ids):
                entry = self._entries.get(record_id)
                if entry is None or entry.stored is not None:
                    claimed.append(record_id)
                    before.append(entry)
                    self._add(Entry(record_id, version, None, len(record_id), self._clock()))
            self._expire()
        return claimed, before

    def unclaim(self, record_ids: Sequence[str], before: Sequence[Entry | None], version: str) -> None:
        """Take back a `claim` of which the deletion failed, where nothing has happened since."""
        with self.lock:
            for record_id, entry in zip(record_ids, before, strict=True):
                now = self._entries.get(record_id)
                if now is None or now.version != version:
                    continue
                self._remove(now)
                if entry is not None:
                    self._add(entry)

    def seen(self, shown: Stored) -> Stored | None:
        """Compare what the index shows with what is known here.

        Returns:
            What the record is: as shown, as written here later, or None if it was deleted here later.
        """
        with self.lock:
            entry = self._entries.get(shown.id)
            if entry is None:
                return shown
            if shown.version > entry.version:
                self._remove(entry)
                return shown
            if shown.version == entry.version and entry.at + SETTLED_SECONDS <= self._clock():
                self._remove(entry)
                return shown
            return entry.stored

    def missing(self, record_ids: Iterable[str]) -> None:
        """Say that the index does not show these records: deletions of them are complete, if they are old enough."""
        with self.lock:
            for record_id in record_ids:
                entry = self._entries.get(record_id)
                if entry is not None and entry.stored is None and entry.at + SETTLED_SECONDS <= self._clock():
                    self._remove(entry)

    def within(self, matches: Callable[[Scope], bool]) -> list[Entry]:
        """The entries of the sessions that match."""
        with self.lock:
            self._expire()
            return [e for scope, own in self._by_scope.items() if matches(scope) for e in own.values()]

    def of_key(self, key: str) -> list[Entry]:
        """The writes of versions of a message."""
        with self.lock:
            return [entry for entry in self._by_key.get(key, {}).values() if entry.stored is not None]

    def to_settle(self, more: int) -> list[Entry]:
        """The oldest entries that must go before `more` can be taken; none if there is room."""
        with self.lock:
            self._expire()
            # A batch larger than all of the room is taken when the room is empty.
            excess = len(self._entries) + min(more, self.most) - self.most
            if excess <= 0 and self._bytes <= MOST_BYTES:
                return []
            entries = iter(self._entries.values())
            return [entry for entry, _ in zip(entries, range(max(excess, 100)), strict=False)]

    def settle(self, entries: Iterable[Entry], shown: Iterable[Stored]) -> None:
        """Drop those of the entries that the index shows, whatever their age.

        Args:
            entries: The entries that were looked for.
            shown: What the index shows of them.
        """
        versions = {stored.id: stored.version for stored in shown}
        with self.lock:
            for entry in entries:
                if self._entries.get(entry.id) is not entry:
                    continue
                version = versions.get(entry.id)
                done = version is None if entry.stored is None else version is not None and version >= entry.version
                if done:
                    self._remove(entry)

    def renew_lock(self) -> None:
        """Take a new lock, in a forked child."""
        self.lock = threading.RLock()

    def _add(self, entry: Entry) -> None:
        held = self._entries.get(entry.id)
        if held is not None:
            self._remove(held)
        self._entries[entry.id] = entry
        self._by_scope.setdefault(place_of(entry.id).scope, {})[entry.id] = entry
        if entry.stored is not None:
            self._by_key.setdefault(entry.stored.key, {})[entry.id] = entry
        self._bytes += entry.size

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]
        self._bytes -= entry.size
        scope = place_of(entry.id).scope
        del self._by_scope[scope][entry.id]
        if not self._by_scope[scope]:
            del self._by_scope[scope]
        if entry.stored is not None:
            own = self._by_key[entry.stored.key]
            del own[entry.id]
            if not own:
                del self._by_key[entry.stored.key]

    def _expire(self) -> None:
        limit = self._clock() - KEPT_SECONDS
        while self._entries:
            entry = next(iter(self._entries.values()))
            if entry.at > limit:
                break
            self._remove(entry)
