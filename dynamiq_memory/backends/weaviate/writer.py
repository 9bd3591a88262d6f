"""Writing, replacing and deleting."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from weaviate.classes.query import Filter as ServerFilter

from dynamiq_memory._batches import batched, limited
from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends._embedding import Embed, MessageEmbedder, Vector
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends._planned import stored_in_batches
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.errors import refusal
from dynamiq_memory.backends.weaviate.filters import REPLACING, has_fact, translate
from dynamiq_memory.backends.weaviate.reader import IDS_AT_ONCE, Reader
from dynamiq_memory.backends.weaviate.records import NOTE_TIME, Note, Object, Row, messages_of, object_of, uuid_of
from dynamiq_memory.backends.weaviate.renewing import made_by
from dynamiq_memory.backends.weaviate.requests import AtOnce
from dynamiq_memory.backends.weaviate.schema import ARRIVAL, POSITION
from dynamiq_memory.exceptions import BackendError, DynamiqMemoryError, MessageTooLargeError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import Tokenize

_OBJECTS_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024
_DELETED_AT_ONCE = 16
_MOST_NOTES = 10
# The server's numbers are doubles, which are exact up to 2**53: arrivals are microseconds.
_NANOSECONDS = 1000


class Draft(NamedTuple):
    """An object to store, the id of its message, and approximately how many bytes it takes on the wire."""

    object: Object
    message_id: str
    size: int


class Writer(WatchesForks):
    """Makes the plans that write.

    Args:
        reader: Reads and deletes objects.
        tokenizer: Splits texts into the terms of keyword ranking.
        embedder: Embeds texts, or None.
        max_bytes: The largest object that the server takes.
    """

    def __init__(self, reader: Reader, tokenizer: Tokenize, embedder: MessageEmbedder | None, max_bytes: int) -> None:
        """Start without claims."""
        self._reader = reader
        self._made_by = made_by(tokenizer, embedder)
        self._location = reader.location
        self._tokenizer = tokenizer
        self._max_bytes = max_bytes
        self._arrivals = Arrivals(_NANOSECONDS)
        self._after_fork()

    def _after_fork(self) -> None:
        self._claims = threading.Lock()
        self._claimed: set[str] = set()

    # --- adding ----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message]) -> Plan[None]:
        """Store messages; each replaces its stored version."""
        vectors = yield from Embed(messages)
        arrivals = yield from self._stored_arrivals(messages)
        yield from self._store(self._drafts(messages, vectors, arrivals))

    def _stored_arrivals(self, messages: Sequence[Message]) -> Plan[dict[str, int]]:
        """Heal interrupted replacements, then read the arrivals of stored versions by the ids of their objects."""
        ids = [uuid_of(message) for message in messages]
        most = self._reader.max_results
        most_notes = min(_MOST_NOTES, most // 2)
        groups = list(batched(ids, min(IDS_AT_ONCE, most - most_notes)))
        pages = yield from AtOnce(
            [
                requests.fetch(
                    ServerFilter.any_of([ServerFilter.by_id().contains_any(group), has_fact(REPLACING)]),
                    POSITION,
                    len(group) + most_notes,
                )
                for group in groups
            ]
        )
        rows = [row for page in pages for row in page]
        notes = list({row.uuid for row in rows if row.position[0] == NOTE_TIME})
        if any(len(page) >= len(group) + most_notes for group, page in zip(groups, pages, strict=True)):
            # Notes may have displaced some of the objects.
            rows = yield from self._reader.by_ids(ids, POSITION)
        changed, in_progress = yield from self._reader.heal(notes)
        if changed:
            return (yield from self._stored_arrivals(messages))
        stored = {row.uuid: row.position[1] for row in rows if row.uuid not in notes}
        # An object that an unfinished replacement may delete is stored as a new one, and stays.
        for note in in_progress:
            for uuid in (*note.old, *note.fresh):
                if stored.get(uuid, math.inf) <= note.until:
                    del stored[uuid]
        return stored

    def _drafts(
        self, messages: Sequence[Message], vectors: Sequence[Vector | None], arrivals: Mapping[str, int]
    ) -> list[Draft]:
        """Make objects from messages and their vectors, with the arrivals of their stored versions or new ones."""
        drafts: list[Draft] = []
        numbers = self._arrivals.numbers(len(messages))
        for message, vector, arrival in zip(messages, vectors, numbers, strict=True):
            made, size = object_of(
                message, arrivals.get(uuid_of(message), arrival), vector, self._tokenizer, self._made_by
            )
            if size > self._max_bytes:
                raise MessageTooLargeError(
                    f"message {message.id} takes {size:,} bytes with its index; {self._location} takes up to "
                    f"{self._max_bytes:,}: split it, or raise GRPC_MAX_MESSAGE_SIZE of the server"
                )
            drafts.append(Draft(made, message.id, size))
        return drafts

    def _store(self, drafts: Sequence[Draft]) -> Plan[None]:
        sized = ((draft, draft.size) for draft in drafts)
        batches = list(limited(sized, _OBJECTS_AT_ONCE, min(_BYTES_AT_ONCE, self._max_bytes)))
        return stored_in_batches(batches, self._insert, attrgetter("message_id"))

    def _insert(self, batch: Sequence[Draft]) -> Plan[None]:
        refused = yield from requests.insert([draft.object for draft in batch])
        if not refused:
            return
        reasons = "; ".join(dict.fromkeys(refused.values()))
        stored = [draft.message_id for number, draft in enumerate(batch) if number not in refused]
        if stored:
            raise PartialWriteError(f"{self._location}: {reasons}", stored)
        raise refusal(reasons, self._location)

    # --- changing --------------------------------------------------------------------------------------------

    def replace(self, filter: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Replace messages that match: the new are stored first, with a note so that another process can finish it."""
        vectors = yield from Embed(messages)
        arrivals = yield from self._stored_arrivals(messages)
        rows = {row.uuid: row for row in (yield from self._reader.matching(translate(filter)))}
        # Messages that matched get new arrivals, in the order given. Stored ones that did not match are not part of
        # what the note describes: they are stored first.
        kept = {uuid: arrival for uuid, arrival in arrivals.items() if uuid not in rows}
        drafts = self._drafts(messages, vectors, kept)
        first = [draft for draft in drafts if str(draft.object.uuid) in kept]
        then = [draft for draft in drafts if str(draft.object.uuid) not in kept]
        new = {str(draft.object.uuid): draft.object.properties[ARRIVAL] for draft in then}
        old = sorted(rows.keys() - new.keys())
        if not old or not messages:
            yield from self._store([*first, *then])
            yield from self._reader.delete_ids(old)
            return
        yield from self._store(first)
        (until,) = self._arrivals.numbers(1)
        fresh = [uuid for uuid in new if uuid not in arrivals]
        note = Note(old, new, fresh, until).to_object()
        try:
            yield from self._insert([Draft(note, "", 0)])
            yield from self._store(then)
        except DynamiqMemoryError as error:
            # If this fails, too, the note lets another process do it.
            before = [row.message for uuid, row in rows.items() if uuid in new]
            yield from self._store(self._drafts(before, (yield from Embed(before)), arrivals))
            yield from self._reader.delete_ids([*fresh, str(note.uuid)])
            if isinstance(error, PartialWriteError):
                raise BackendError(f"the replacement failed and was taken back: {error.__cause__}") from error
            raise
        yield from self._reader.delete_ids([*old, str(note.uuid)])

    # --- deleting --------------------------------------------------------------------------------------------

    def delete(self, filter: Filter) -> Plan[int]:
        """Delete messages that match and return their number."""
        wanted = translate(filter)
        if (yield from self._reader.match_exactly(wanted)):
            return (yield from self._reader.delete_matching(wanted.clause()))
        rows = yield from self._reader.matching(wanted)
        return (yield from self._reader.delete_ids([row.uuid for row in rows]))

    def take(self, filter: Filter) -> Plan[list[Message]]:
        """Delete messages that match and return them; of several callers, each message goes to one."""
        rows = yield from self._reader.matching(translate(filter))
        with self._claims:
            claimed = [row for row in rows if row.uuid not in self._claimed]
            self._claimed.update(row.uuid for row in claimed)
        try:
            taken: list[Row] = []
            for group in batched(claimed, _DELETED_AT_ONCE):
                deleted = yield from AtOnce([requests.delete_one(row.uuid) for row in group])
                taken += [row for row, was_stored in zip(group, deleted, strict=True) if was_stored]
            return messages_of(taken)
        finally:
            with self._claims:
                self._claimed.difference_update(row.uuid for row in claimed)
