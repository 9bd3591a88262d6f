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


def heal(objects: Objects, uuids: Sequence[str]) -> Plan[tuple[bool, list[Note]]]:
    """Finish replacements that were interrupted, or take them back.

    Args:
        objects: Reads and deletes.
        uuids: The ids of their notes.

    Returns:
        Whether anything changed, and the notes of the replacements that are still in progress.
    """
    changed, in_progress = False, []
    for row in (yield from objects.by_ids(uuids, WHOLE)):
        note = Note(**json.loads(row.properties[BODY]))
        stored = {each.uuid: each.position[1] for each in (yield from objects.by_ids(note.new, POSITION))}
        # An object of the same id may be the version before; the new one has another arrival.
        if note.new.items() <= stored.items():
            doomed = note.old
        elif time.time() - note.at > _SECONDS_TO_FINISH:
            doomed = note.fresh
        else:
            in_progress.append(note)
            continue
        found = yield from objects.by_ids(doomed, POSITION)
        yield from objects.delete_ids([*(each.uuid for each in found if each.position[1] <= note.until), row.uuid])
        changed = True
    return changed, in_progress
