"""The embedders of the records' vectors, and embedding messages again.

A record names the embedder that was given its text. Those that an earlier version of this package stored do not. They
are of the embedder in the note, a record that the first embedder to find them stores, and no reader asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynamiq_memory.backends._embedding import Embed, MessageEmbedder
from dynamiq_memory.backends._labels import VectorLabels
from dynamiq_memory.backends.pinecone import filters, records, requests
from dynamiq_memory.backends.pinecone.filters import PineconeFilter
from dynamiq_memory.backends.pinecone.reader import Reader
from dynamiq_memory.backends.pinecone.records import EMBEDDED, EMBEDDER, KIND, Stored
from dynamiq_memory.backends.pinecone.search import normalized
from dynamiq_memory.backends.plans import Plan

NOTE = "about"

_UNNAMED: PineconeFilter = {EMBEDDER: {"$exists": False}}
_IS_EMBEDDED: PineconeFilter = {EMBEDDED: {"$eq": True}}


class Vectors(VectorLabels[Stored]):
    """The vectors of an index, by the embedders that their records name.

    Args:
        embedder: The embedder.
        reader: Reads the index.
        location: The index, for the log.
        normalizes: Whether to store vectors with the length 1.
    """

    def __init__(self, embedder: MessageEmbedder, reader: Reader, location: str, *, normalizes: bool) -> None:
        """Read nothing yet."""
        super().__init__(embedder, location)
        self._reader = reader
        self._normalizes = normalizes
        self._unnamed: str | None = None
        self._waiting: list[str] | None = None

    @property
    def comparable(self) -> PineconeFilter:
        """The filter for vectors that can be compared with the embedder's."""
        named: PineconeFilter = {EMBEDDER: {"$in": self.accepted}}
        return filters.all_of(_IS_EMBEDDED, {"$or": [named, _UNNAMED]} if self._accepts_unnamed else named)

    @property
    def _others(self) -> PineconeFilter:
        named = filters.all_of({EMBEDDER: {"$exists": True}}, {EMBEDDER: {"$nin": self.accepted}})
        return named if self._accepts_unnamed else {"$or": [named, _UNNAMED]}

    @property
    def _accepts_unnamed(self) -> bool:
        return not self._embedder.differs_from(self._unnamed)

    def open(self, *, reindex: bool) -> Plan[None]:
        """Read the note or store it, then check which embedder made the vectors, and embed the messages without one.

        The index may not show a note that another process has just stored. Then this one stores its own.
        """
        note = (yield from requests.fetch([NOTE])).get(NOTE)
        if note is not None:
            self._unnamed = str(note.metadata[EMBEDDER])
        elif self._embedder.name is not None and (yield from self._find(_UNNAMED)) is not None:
            metadata = {KIND: "note", EMBEDDER: self._embedder.name}
            record = {"id": NOTE, "values": self._reader.placeholder, "metadata": metadata}
            yield from requests.upsert([record])
        yield from super().open(reindex=reindex)

    def any_label(self, *, accepted: bool) -> Plan[str | None]:
        """Look for one record."""
        found = yield from self._find(self.comparable if accepted else self._others)
        return None if found is None else str(found.metadata.get(EMBEDDER, self._unnamed or ""))

    def _find(self, condition: PineconeFilter) -> Plan[requests.Record | None]:
        """Return the record of a message with a vector that meets a condition."""
        wanted = filters.all_of(filters.of_kind(records.MESSAGE), _IS_EMBEDDED, condition)
        found = yield from requests.query(self._reader.placeholder, 1, wanted, metadata=True)
        return found[0] if found else None

    def missing(self, limit: int) -> Plan[list[Stored]]:
        """Read the next messages; their ids are found once, since the index shows later which have been embedded."""
        if self._waiting is None:
            self._waiting = sorted((yield from self._reader.ids_of_all(self._others)))
        found: list[Stored] = []
        while self._waiting and not found:
            ids, self._waiting = self._waiting[:limit], self._waiting[limit:]
            found = yield from self._reader.load(ids)  # without those that have been deleted
        return found

    def embed(self, messages: Sequence[Stored]) -> Plan[None]:
        """Give records other vectors; the service updates only those that are stored."""
        while messages:
            vectors = yield from Embed([each.message for each in messages if each.message is not None])
            for stored, vector in zip(messages, vectors, strict=True):
                metadata = {EMBEDDED: vector is not None, EMBEDDER: self._embedder.label}
                values = self._reader.placeholder if vector is None else vector
                yield from requests.update(stored.id, normalized(values) if self._normalizes else values, metadata)
            versions = {each.id: each.version for each in messages}
            now = yield from self._reader.load(list(versions))
            messages = [each for each in now if each.version != versions[each.id]]  # replaced in the meantime
