"""Writing: each message at its place, replacements that a crash cannot cut short."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter as Native

from dynamiq_memory.backends._embedding import Embed
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate.errors import DRIVER_ERRORS, lengths_in, translated, wrong_length
from dynamiq_memory.backends.weaviate.filters import ARRIVAL, FACTS, REPLACING, TIMESTAMP, is_fact, translate
from dynamiq_memory.backends.weaviate.reader import PLACE, Reader
from dynamiq_memory.backends.weaviate.records import (
    BODY,
    DIMENSION,
    LENGTH,
    NOTE_TIME,
    TERMS,
    Arrivals,
    object_of,
    row_of,
    uuid_of,
)
from dynamiq_memory.backends.weaviate.steps import AtOnce, ask
from dynamiq_memory.exceptions import BackendError, DynamiqMemoryError, MessageTooLargeError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.ranking import Tokenize

_OBJECTS_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024
_IDS_AT_ONCE = 1000
_DELETED_AT_ONCE = 16
_MOST_NOTES = 10
_FAILURES: tuple[type[Exception], ...] = (*DRIVER_ERRORS, DynamiqMemoryError)
# A writer that has not come so far within this many seconds has died.
_DEAD = 600.0

Batch = tuple[list[DataObject[Any, Any]], list[Message]]


class Writer:
    """Makes the plans that write.

    Args:
        reader: Reads.
        tokenizer: Makes the terms of keyword ranking.
        where: The collection, for errors.
        largest: The most bytes of an object that the server takes.
    """

    def __init__(self, reader: Reader, tokenizer: Tokenize, where: str, largest: int) -> None:
        """Begin with nothing known."""
        self._reader = reader
        self._tokenizer = tokenizer
        self._where = where
        self._largest = largest
        self._arrivals = Arrivals()
        self._claimed: set[str] = set()
        self._claims = threading.Lock()
        reader.heal = self.heal

    # --- adding ----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message]) -> Plan[None]:
        """Store messages, each in the place of its stored version."""
        vectors = yield Embed(messages)
        held = yield from self._held(messages)
        yield from self._store(self._batches(messages, vectors, held))

    def _held(self, messages: Sequence[Message]) -> Plan[dict[str, int]]:
        """The arrivals of stored versions, after what an interrupted replacement left is healed."""
        ids = [uuid_of(message) for message in messages]
        groups = [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]
        replies = yield AtOnce([ask(partial(_fetch_held, ids=group)) for group in groups])
        rows = [row_of(found) for reply in replies for found in reply.objects]
        notes = list({row.uuid for row in rows if row.place[0] == NOTE_TIME})
        if any(len(reply.objects) >= len(group) + _MOST_NOTES for group, reply in zip(groups, replies, strict=True)):
            # So many notes may have displaced what was asked for.
            rows = yield from self._reader.by_ids(ids, PLACE)
        if notes and (yield from self.heal(notes)):
            return (yield from self._held(messages))
        pending: dict[str, float] = {}
        for note in (yield from self._reader.by_ids(notes, (*PLACE, BODY))):
            body = json.loads(note.properties[BODY])
            for uuid in (*body["old"], *body["fresh"]):
                pending[uuid] = max(pending.get(uuid, -math.inf), body.get("until", math.inf))
        # What an unfinished replacement would delete and is written now is new: its arrival is behind the note's.
        return {
            row.uuid: row.place[1]
            for row in rows
            if row.uuid not in notes and row.place[1] > pending.get(row.uuid, -math.inf)
        }

    def _batches(
        self, messages: Sequence[Message], vectors: Sequence[Sequence[float] | None], held: dict[str, int]
    ) -> list[Batch]:
        batches: list[Batch] = []
        most = min(_BYTES_AT_ONCE, self._largest)
        size = most
        arrivals = self._arrivals.next(len(messages))
        for message, vector, arrival in zip(messages, vectors, arrivals, strict=True):
            stored = held.get(uuid_of(message), arrival)
            made, bytes_of_it = object_of(message, stored, vector, self._tokenizer)
            if bytes_of_it > self._largest:
                raise MessageTooLargeError(
                    f"message {message.id} takes {bytes_of_it:,} bytes with its index; {self._where} takes up to "
                    f"{self._largest:,}: split it, or raise GRPC_MAX_MESSAGE_SIZE of the server"
                )
            if size + bytes_of_it > most or len(batches[-1][0]) >= _OBJECTS_AT_ONCE:
                batches.append(([], []))
                size = 0
            batches[-1][0].append(made)
            batches[-1][1].append(message)
            size += bytes_of_it
        return batches

    def _store(self, batches: Sequence[Batch]) -> Plan[None]:
        stored: list[str] = []
        for objects, messages in batches:
            failed: dict[int, str] = {}
            try:
                reply = yield partial(_insert, objects=objects)
                failed = {number: error.message for number, error in reply.errors.items()}
            except DRIVER_ERRORS as error:
                if not stored:
                    raise
                raise self._partial(stored, str(translated(error, self._where))) from error
            stored += [message.id for number, message in enumerate(messages) if number not in failed]
            if failed:
                said = "; ".join(dict.fromkeys(failed.values()))
                if not stored and lengths_in(said) is not None:
                    raise wrong_length(said, self._where)
                raise self._partial(stored, said)

    def _partial(self, stored: Sequence[str], said: str) -> BackendError:
        if not stored:
            return BackendError(f"{self._where}: {said}")
        return PartialWriteError(said + _what_is_stored(stored), stored)

    # --- changing --------------------------------------------------------------------------------------------

    def update(self, where: Filter, messages: Sequence[Message]) -> Plan[list[Message]]:
        """Store new versions of messages that are there and match."""
        rows = yield from self._reader.by_ids(map(uuid_of, messages), (*PLACE, BODY))
        held = {row.uuid for row in rows if where.matches(row.message)}
        present = [message for message in messages if uuid_of(message) in held]
        if present:
            yield from self.write(present)
        return present

    def replace(self, where: Filter, messages: Sequence[Message]) -> Plan[None]:
        """Replace what matches: the new first, with a note of what is to go, so that another can finish it."""
        vectors = yield Embed(messages)
        held = yield from self._held(messages)
        rows = yield from self._reader.rows(translate(where), None)
        matching = {row.uuid for row, _ in rows}
        # What matched arrives anew, in the order given. What is stored and did not match is no part of what the note
        # tells of: it is stored first.
        kept = {uuid: arrival for uuid, arrival in held.items() if uuid not in matching}
        batches: dict[bool, list[Batch]] = {}
        pairs = list(zip(messages, vectors, strict=True))
        for is_kept in (True, False):
            some = [(message, vector) for message, vector in pairs if (uuid_of(message) in kept) is is_kept]
            batches[is_kept] = self._batches([message for message, _ in some], [vector for _, vector in some], kept)
        new = {str(made.uuid): made.properties[ARRIVAL] for objects, _ in batches[False] for made in objects}
        old = sorted(matching - new.keys())
        if not old or not messages:
            yield from self._store([*batches[True], *batches[False]])
            yield from self._delete_ids(old)
            return
        yield from self._store(batches[True])
        (until,) = self._arrivals.next(1)
        fresh = [uuid for uuid in new if uuid not in held]
        note = _note(old=old, new=new, fresh=fresh, until=until)
        try:
            yield from self._store([([note], []), *batches[False]])
        except _FAILURES as error:
            # As before, as far as that goes; else the note lets another do it.
            before = [message for row, message in rows if row.uuid in new]
            if before:
                yield from self._store(self._batches(before, (yield Embed(before)), held))
            yield from self._delete_ids([*fresh, str(note.uuid)])
            if isinstance(error, PartialWriteError):
                said = str(error).removesuffix(_what_is_stored(error.stored_ids))
                raise BackendError(f"{self._where}: the replacement failed and was taken back: {said}") from error
            raise
        yield from self._delete_ids([*old, str(note.uuid)])

    def heal(self, notes: Sequence[str]) -> Plan[bool]:
        """Finish replacements that were interrupted, or take them back, by the ids of their notes.

        Returns:
            Whether anything changed.
        """
        changed = False
        for row in (yield from self._reader.by_ids(notes, (*PLACE, BODY))):
            note = json.loads(row.properties[BODY])
            rows = yield from self._reader.by_ids(note["new"], PLACE)
            # An id alone may be that of the version before; the new one has an arrival of its own.
            if note["new"].items() <= {found.uuid: found.place[1] for found in rows}.items():
                doomed = note["old"]
            elif time.time() - note["at"] > _DEAD:
                doomed = note["fresh"]
            else:
                continue  # its writer is at work
            # What was written again since stays.
            until = note.get("until", math.inf)
            still = [each.uuid for each in (yield from self._reader.by_ids(doomed, PLACE)) if each.place[1] <= until]
            yield from self._delete_ids([*still, row.uuid])
            changed = True
        return changed

    # --- deleting --------------------------------------------------------------------------------------------

    def delete(self, where: Filter) -> Plan[int]:
        """Delete what matches and return the count."""
        wanted = translate(where)
        if wanted.never:
            return 0
        if not (yield from self._reader.exactly(wanted)):
            rows = yield from self._reader.rows(wanted, None)
            return (yield from self._delete_ids([row.uuid for row, _ in rows]))
        return (yield from self._delete_matching(wanted.native()))

    def take(self, where: Filter) -> Plan[list[Message]]:
        """Delete what matches and return it; of several at once, one gets each message."""
        rows = yield from self._reader.rows(translate(where), None)
        with self._claims:
            own = [(row, message) for row, message in rows if row.uuid not in self._claimed]
            self._claimed.update(row.uuid for row, _ in own)
        try:
            taken: list[Message] = []
            for start in range(0, len(own), _DELETED_AT_ONCE):
                group = own[start : start + _DELETED_AT_ONCE]
                deleted = yield AtOnce([ask(partial(_delete_one, uuid=row.uuid)) for row, _ in group])
                taken += [message for (_, message), was_there in zip(group, deleted, strict=True) if was_there]
            return taken
        finally:
            with self._claims:
                self._claimed.difference_update(row.uuid for row, _ in own)

    def renew_lock(self) -> None:
        """In a forked child: the parent's locks may be held by threads that the child does not have."""
        self._claims = threading.Lock()
        self._claimed.clear()
        self._arrivals = Arrivals()

    def _delete_ids(self, uuids: Sequence[str]) -> Plan[int]:
        deleted = 0
        for start in range(0, len(uuids), _IDS_AT_ONCE):
            group = list(uuids[start : start + _IDS_AT_ONCE])
            deleted += yield from self._delete_matching(Native.by_id().contains_any(group))
        return deleted

    def _delete_matching(self, native: Any) -> Plan[int]:
        deleted = 0
        while True:
            # The server deletes no more than its QUERY_MAXIMUM_RESULTS at once.
            reply = yield partial(_delete, where=native)
            deleted += int(reply.successful)
            if reply.failed:
                raise BackendError(
                    f"{self._where}: {deleted} messages were deleted, {reply.failed} could not be: try again"
                )
            if not reply.matches:
                return deleted


def _what_is_stored(ids: Sequence[str]) -> str:
    return f". {len(ids)} messages are stored: add the same messages again, which doubles nothing"


def _note(**parts: Any) -> DataObject[Any, Any]:
    body = json.dumps({**parts, "at": time.time()})
    properties: dict[str, Any] = {
        BODY: body,
        FACTS: [REPLACING],
        TERMS: "",
        LENGTH: 0,
        TIMESTAMP: NOTE_TIME,
        ARRIVAL: 0,
        USER_KEY: "",
        SESSION_KEY: "",
        DIMENSION: 0,
    }
    return DataObject(properties=properties, uuid=UUID(int=uuid4().int))


def _fetch_held(collection: Any, ids: Sequence[str]) -> Any:
    return collection.query.fetch_objects(
        filters=Native.any_of([Native.by_id().contains_any(list(ids)), is_fact(REPLACING)]),
        limit=len(ids) + _MOST_NOTES,
        return_properties=list(PLACE),
        return_metadata=[],
    )


def _insert(collection: Any, objects: Sequence[DataObject[Any, Any]]) -> Any:
    return collection.data.insert_many(list(objects))


def _delete(collection: Any, where: Any) -> Any:
    return collection.data.delete_many(where=where)


def _delete_one(collection: Any, uuid: str) -> Any:
    return collection.data.delete_by_id(uuid)
