"""Replacements that a crash cannot cut short.

The server has no transactions. A replacement first stores a note of the objects that it is about to store and delete.
Another process that finds the note finishes what was interrupted, or takes it back.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from uuid import uuid4

from weaviate.classes.data import DataObject

from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate.filters import REPLACING
from dynamiq_memory.backends.weaviate.objects import NOTE_TIME, WHOLE, Objects
from dynamiq_memory.backends.weaviate.records import Object
from dynamiq_memory.backends.weaviate.schema import BODY, FACTS, POSITION, TIMESTAMP

# A writer that has not finished after this many seconds has died.
_SECONDS_TO_FINISH = 600.0


@dataclass(frozen=True, slots=True)
class Note:
    """The changes that a replacement is about to make.

    Attributes:
        old: The ids of the objects to delete.
        new: The arrivals of the objects to store, by their ids.
        fresh: The ids among the new that were not stored before.
        until: An arrival: objects that arrive later were stored after the replacement, and stay.
        at: The time of the replacement in POSIX seconds.
    """

    old: Sequence[str]
    new: Mapping[str, int]
    fresh: Sequence[str]
    until: float = math.inf
    at: float = field(default_factory=time.time)

    def to_object(self) -> Object:
        """Make the object that stores the note."""
        properties = {BODY: json.dumps(asdict(self)), FACTS: [REPLACING], TIMESTAMP: NOTE_TIME}
        return DataObject(properties=properties, uuid=uuid4())


def heal(objects: Objects, uuids: Sequence[str]) -> Plan[bool]:
    """Finish replacements that were interrupted, or take them back.

    Args:
        objects: Reads and deletes.
        uuids: The ids of their notes.

    Returns:
        Whether anything changed.
    """
    changed = False
    for uuid, note in (yield from _notes(objects, uuids)):
        stored = {row.uuid: row.position[1] for row in (yield from objects.by_ids(note.new, POSITION))}
        # An object of the same id may be the version before; the new one has another arrival.
        if note.new.items() <= stored.items():
            doomed = note.old
        elif time.time() - note.at > _SECONDS_TO_FINISH:
            doomed = note.fresh
        else:
            continue
        rows = yield from objects.by_ids(doomed, POSITION)
        yield from objects.delete_ids([*(row.uuid for row in rows if row.position[1] <= note.until), uuid])
        changed = True
    return changed


def pending(objects: Objects, uuids: Sequence[str]) -> Plan[dict[str, float]]:
    """Read which objects replacements in progress may delete.

    Args:
        objects: Reads.
        uuids: The ids of the notes.

    Returns:
        By the id of each such object, the latest arrival that would be deleted.
    """
    latest: dict[str, float] = {}
    for _, note in (yield from _notes(objects, uuids)):
        for uuid in (*note.old, *note.fresh):
            latest[uuid] = max(latest.get(uuid, -math.inf), note.until)
    return latest


def _notes(objects: Objects, uuids: Sequence[str]) -> Plan[list[tuple[str, Note]]]:
    rows = yield from objects.by_ids(uuids, WHOLE)
    return [(row.uuid, Note(**json.loads(row.properties[BODY]))) for row in rows]
