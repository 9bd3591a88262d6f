"""Writing, replacing and deleting."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

from weaviate.classes.query import Filter as ServerFilter

from dynamiq_memory.backends._batches import batched, limited
from dynamiq_memory.backends._embedding import Embed, Vector
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.errors import DRIVER_ERRORS, names_lengths, translated, wrong_length
from dynamiq_memory.backends.weaviate.filters import REPLACING, has_fact, translate
from dynamiq_memory.backends.weaviate.objects import IDS_AT_ONCE, NOTE_TIME, WHOLE, Objects
from dynamiq_memory.backends.weaviate.records import Object, object_of, uuid_of
from dynamiq_memory.backends.weaviate.replacements import Note, heal, pending
from dynamiq_memory.backends.weaviate.requests import AtOnce
from dynamiq_memory.backends.weaviate.schema import ARRIVAL, POSITION
from dynamiq_memory.exceptions import BackendError, DynamiqMemoryError, MessageTooLargeError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import Tokenize

_OBJECTS_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024
_DELETED_AT_ONCE = 16
_MOST_NOTES = 10
# The server's numbers are doubles, which are exact up to 2**53: arrivals are microseconds.
_NANOSECONDS = 1000
_FAILURES: tuple[type[Exception], ...] = (*DRIVER_ERRORS, DynamiqMemoryError)

Batch = list[tuple[Object, str | None]]
"""Objects to store at once, each with the id of its message; None for a note."""


class Writer:
    """Makes the plans that write.

    Args:
        objects: Reads and deletes objects.
        tokenizer: Splits texts into the terms of keyword ranking.
        max_bytes: The largest object that the server takes.
    """

    def __init__(self, objects: Objects, tokenizer: Tokenize, max_bytes: int) -> None:
        """Start without claims."""
        self._objects = objects
        self._location = objects.location
        self._tokenizer = tokenizer
        self._max_bytes = max_bytes
        self.after_fork()

    def after_fork(self) -> None:
        """Start again in a forked child: the parent's locks may be locked by threads that the child does not have."""
        self._arrivals = Arrivals(_NANOSECONDS)
        self._claims = threading.Lock()
        self._claimed: set[str] = set()

    # --- adding ----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message]) -> Plan[None]:
        """Store messages; each replaces its stored version."""
        vectors = yield from Embed(messages)
        arrivals = yield from self._stored_arrivals(messages)
        yield from self._store(self._batches(list(zip(messages, vectors, strict=True)), arrivals))

    def _stored_arrivals(self, messages: Sequence[Message]) -> Plan[dict[str, int]]:
        """Heal interrupted replacements, then read the arrivals of stored versions by the ids of their objects."""
        ids = [uuid_of(message) for message in messages]
        groups = list(batched(ids, IDS_AT_ONCE))
        pages = yield from AtOnce(
            [
                requests.fetch(
                    ServerFilter.any_of([ServerFilter.by_id().contains_any(group), has_fact(REPLACING)]),
                    len(group) + _MOST_NOTES,
                    POSITION,
                )
                for group in groups
            ]
        )
        rows = [row for page in pages for row in page]
        notes = list({row.uuid for row in rows if row.position[0] == NOTE_TIME})
        if any(len(page) >= len(group) + _MOST_NOTES for group, page in zip(groups, pages, strict=True)):
            # Notes may have displaced some of the objects.
            rows = yield from self._objects.by_ids(ids, POSITION)
        if notes and (yield from heal(self._objects, notes)):
            return (yield from self._stored_arrivals(messages))
        # An object that an unfinished replacement may delete is stored as a new one, and stays.
        doomed = yield from pending(self._objects, notes)
        return {
            row.uuid: row.position[1]
            for row in rows
            if row.uuid not in notes and row.position[1] > doomed.get(row.uuid, -math.inf)
        }

    def _batches(self, messages: Sequence[tuple[Message, Vector | None]], arrivals: Mapping[str, int]) -> list[Batch]:
        """Make objects from messages and their vectors, with the arrivals of their stored versions or new ones."""
        sized = []
        for (message, vector), arrival in zip(messages, self._arrivals.numbers(len(messages)), strict=True):
            made, size = object_of(message, arrivals.get(uuid_of(message), arrival), vector, self._tokenizer)
            if size > self._max_bytes:
                raise MessageTooLargeError(
                    f"message {message.id} takes {size:,} bytes with its index; {self._location} takes up to "
                    f"{self._max_bytes:,}: split it, or raise GRPC_MAX_MESSAGE_SIZE of the server"
                )
            sized.append(((made, message.id), size))
        return list(limited(sized, _OBJECTS_AT_ONCE, min(_BYTES_AT_ONCE, self._max_bytes)))

    def _store(self, batches: Sequence[Batch]) -> Plan[None]:
        stored: list[str] = []
        for batch in batches:
            try:
                refused = yield from requests.insert([made for made, _ in batch])
            except DRIVER_ERRORS as error:
                if not stored:
                    raise
                raise self._partial(stored, str(translated(error, self._location))) from error
            done = [message_id for number, (_, message_id) in enumerate(batch) if number not in refused]
            stored += [message_id for message_id in done if message_id is not None]
            if refused:
                reasons = "; ".join(dict.fromkeys(refused.values()))
                if not stored and names_lengths(reasons):
                    raise wrong_length(reasons, self._location)
                raise self._partial(stored, reasons)

    def _partial(self, stored: Sequence[str], reasons: str) -> BackendError:
        if not stored:
            return BackendError(f"{self._location}: {reasons}")
        return PartialWriteError(reasons + _number_stored(stored), stored)

    # --- changing --------------------------------------------------------------------------------------------

    def update(self, filter: Filter, messages: Sequence[Message]) -> Plan[list[Message]]:
        """Store new versions of messages, where the stored version matches."""
        rows = yield from self._objects.by_ids(map(uuid_of, messages), WHOLE)
        matching = {row.uuid for row in rows if filter.matches(row.message)}
        present = [message for message in messages if uuid_of(message) in matching]
        if present:
            yield from self.write(present)
        return present

    def replace(self, filter: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Replace messages that match: the new are stored first, with a note so that another process can finish it."""
        vectors = yield from Embed(messages)
        arrivals = yield from self._stored_arrivals(messages)
        rows = {row.uuid: row for row in (yield from self._objects.matching(translate(filter)))}
        # Messages that matched get new arrivals, in the order given. Stored ones that did not match are not part of
        # what the note describes: they are stored first.
        kept = {uuid: arrival for uuid, arrival in arrivals.items() if uuid not in rows}
        pairs = list(zip(messages, vectors, strict=True))
        first = self._batches([pair for pair in pairs if uuid_of(pair[0]) in kept], kept)
        then = self._batches([pair for pair in pairs if uuid_of(pair[0]) not in kept], kept)
        new = {str(made.uuid): made.properties[ARRIVAL] for batch in then for made, _ in batch}
        old = sorted(rows.keys() - new.keys())
        if not old or not messages:
            yield from self._store([*first, *then])
            yield from self._objects.delete_ids(old)
            return
        yield from self._store(first)
        (until,) = self._arrivals.numbers(1)
        fresh = [uuid for uuid in new if uuid not in arrivals]
        note = Note(old, new, fresh, until).to_object()
        try:
            yield from self._store([[(note, None)], *then])
        except _FAILURES as error:
            # If this fails, too, the note lets another process do it.
            yield from self._take_back([row.message for uuid, row in rows.items() if uuid in new], arrivals)
            yield from self._objects.delete_ids([*fresh, str(note.uuid)])
            if isinstance(error, PartialWriteError):
                reasons = str(error).removesuffix(_number_stored(error.stored_ids))
                raise BackendError(f"{self._location}: the replacement failed and was taken back: {reasons}") from error
            raise
        yield from self._objects.delete_ids([*old, str(note.uuid)])

    def _take_back(self, before: Sequence[Message], arrivals: Mapping[str, int]) -> Plan[None]:
        if before:
            vectors = yield from Embed(before)
            yield from self._store(self._batches(list(zip(before, vectors, strict=True)), arrivals))

    # --- deleting --------------------------------------------------------------------------------------------

    def delete(self, filter: Filter) -> Plan[int]:
        """Delete messages that match and return their number."""
        wanted = translate(filter)
        if wanted.never:
            return 0
        if (yield from self._objects.match_exactly(wanted)):
            return (yield from self._objects.delete_matching(wanted.clause()))
        rows = yield from self._objects.matching(wanted)
        return (yield from self._objects.delete_ids([row.uuid for row in rows]))

    def take(self, filter: Filter) -> Plan[list[Message]]:
        """Delete messages that match and return them; of several callers, each message goes to one."""
        rows = yield from self._objects.matching(translate(filter))
        with self._claims:
            claimed = [row for row in rows if row.uuid not in self._claimed]
            self._claimed.update(row.uuid for row in claimed)
        try:
            taken: list[Message] = []
            for group in batched(claimed, _DELETED_AT_ONCE):
                deleted = yield from AtOnce([requests.delete_one(row.uuid) for row in group])
                taken += [row.message for row, was_stored in zip(group, deleted, strict=True) if was_stored]
            return views(taken)
        finally:
            with self._claims:
                self._claimed.difference_update(row.uuid for row in claimed)


def _number_stored(ids: Sequence[str]) -> str:
    return f". {len(ids)} messages are stored: add the same messages again, which doubles nothing"
