"""Replacements of more messages than one transaction takes: staged, switched by one write, then moved into place.

    pk                    sk                    item
    replacement/<name>    state                 its state: staging, switched or abandoned
    replacement/<name>    new/<number>          the item of a new message, and the version that it replaces
    replacement/<name>    old/<number>          some of the messages to delete
    replacement/<name>    at/<number>           the keys of some of its markers
    <partition>           !<session>/<name>     a marker, in each session that it touches
    <partition>           =<session>, =*        a guard, for each session and for the scope of the filter

In the indexes a marker comes after the last message, so a reader of the newest messages meets it, and pays nothing
where none exists. Before the switch the old messages count, after it the new ones. A reader that meets a marker
after the switch finishes the moving before it reads on; one that meets a marker of an abandoned replacement removes
it. So any process can finish what another began.

A guard lets replacements that fit into a transaction notice all others of the same sessions, even without an old
message that both would delete. A small one reads its guards, then looks for markers, then reads the messages that
it replaces; its transaction changes the guards, provided that they are still the same. A large one puts up its
markers, changes its guards, and then reads. So either the transaction of the small one came first, and the large one
reads what it wrote; or it fails, and its next attempt meets the marker and abandons the large one, or finishes it. A
guard also has a flag while there may be markers, for operations that do not read past the last message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from boto3.dynamodb.conditions import Attr

from dynamiq_memory._batches import batched, limited
from dynamiq_memory.backends.dynamodb import keys, records
from dynamiq_memory.backends.dynamodb.keys import ItemKey, key_attributes, key_in, key_part
from dynamiq_memory.backends.dynamodb.records import Item, StoredVersion
from dynamiq_memory.backends.dynamodb.table import MOST_IN_TRANSACTION, Table
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Scope

# The attribute that makes an item a marker: the name of the replacement.
MARKER = "replacement"
# The attributes of a guard: a random value that changes, and a flag that is set while its session may have markers.
GUARD = "guard"
FLAG = "signed"

_STATE = "state"
_STAGING, _SWITCHED, _ABANDONED = "staging", "switched", "abandoned"
_ITEM = "item"
_REPLACED = "replaced"
# Seconds after which a replacement that has not switched never will.
_ABANDONED_AFTER = 3600
_KEPT = 24 * 3600
_VALUES_IN_AN_ITEM = 200


class StaleReadError(Exception):
    """What is being read has changed, because a replacement was finished or removed: the read must start again."""


class LargeReplacements:
    """Replaces more messages of a table than one transaction takes, and guards small replacements.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        """Keep the table."""
        self._table = table

    # --- guards ----------------------------------------------------------------------------------------------

    def guards(self, filter: Filter, scopes: Collection[Scope]) -> list[ItemKey]:
        """Return the keys of the guards of a replacement.

        Args:
            filter: The messages to replace.
            scopes: The conversations of the new messages.
        """
        of_filter = keys.filter_guard(filter)
        of_scopes = [keys.session_guard(*scope) for scope in scopes]
        return list(dict.fromkeys(of_scopes if of_filter is None else [*of_scopes, of_filter]))

    def guard_changes(self, guards: Sequence[ItemKey]) -> list[dict[str, Any]]:
        """Read guards and return the operations of a transaction that change them, unless they change before it.

        These clear the flags: the caller looks for markers before the transaction.
        """
        values = {key: item[GUARD]["S"] for key, item in self._table.get_many(guards).items()}
        return [self._table.put_if(_guard_item(guard), values.get(guard), GUARD) for guard in guards]

    def clear_flag(self, guard: Item) -> None:
        """Clear the flag of a guard that was read before a look for markers found none."""
        without_flag = {name: value for name, value in guard.items() if name != FLAG}
        self._table.put(without_flag, Attr(GUARD).eq(guard[GUARD]))

    # --- replacing -------------------------------------------------------------------------------------------

    def begin(self, scopes: Collection[Scope], guards: Sequence[ItemKey]) -> str:
        """Put up markers and change guards, so that no other replacement of the same sessions goes unnoticed.

        Args:
            scopes: The conversations of the old and new messages.
            guards: The keys of the guards.

        Returns:
            The name of the replacement.
        """
        name = records.random_name()
        markers = [_marker(user, session, name) for user, session in scopes]
        self._table.put(_state_item(name, _STAGING))
        self._table.write_many(_list_items(name, "at", [key_attributes(key_in(marker)) for marker in markers]))
        self._table.write_many(markers)
        self._table.write_many([{**_guard_item(guard), FLAG: {"BOOL": True}} for guard in guards])
        return name

    def replace(self, name: str, new: Sequence[tuple[Item, Item | None]], old: Sequence[Item]) -> bool:
        """Replace old messages, which were read after the markers were up.

        Args:
            name: The replacement.
            new: Items, each with the stored one of the same key.
            old: Items at other keys than the new ones.

        Returns:
            Whether it was done. Otherwise another replacement came first, and nothing has changed.
        """
        self._table.write_many(_staged_items(name, new))
        self._table.write_many(_list_items(name, "old", [records.stored_version(item) for item in old]))
        if not self._advance(name, _STAGING, _SWITCHED):
            self.abandon(name)
            return False
        self._finish(name)
        return True

    def abandon(self, name: str) -> bool:
        """Abandon a replacement that has not switched; return whether it is abandoned."""
        if not self._advance(name, _STAGING, _ABANDONED):
            return False
        self._remove_staged(name)
        return True

    def resolve(self, marker: Item, replacing: str | None = None) -> None:
        """Finish or remove the replacement of a marker; leave it alone while it is under way.

        Args:
            marker: The marker.
            replacing: The name of the reader's own replacement, "" for a small one, which has no name, None for none.
                Of two replacements of a session, the one that reads the other's marker wins, unless the other has
                switched.

        Raises:
            StaleReadError: The table has changed.
        """
        name = marker[MARKER]["S"]
        if name == replacing:
            return
        stored = self._table.get(_state_key(name))
        state = None if stored is None else stored[_STATE]["S"]
        if state == _STAGING and stored is not None:
            if replacing is None and int(stored[records.SINCE]["N"]) > time.time() - _ABANDONED_AFTER:
                return
            if not self.abandon(name):
                raise StaleReadError  # it has switched in the meantime
        elif state == _ABANDONED:
            self._remove_staged(name)
        elif state == _SWITCHED:
            self._finish(name)
        # Otherwise it has ended since the marker was read, or a late write put up the marker after its end.
        self._table.write_many(delete=[key_in(marker)])
        raise StaleReadError

    # --- states ----------------------------------------------------------------------------------------------

    def _advance(self, name: str, before: str, after: str) -> bool:
        """Go from one state to another; return whether that one, or a later one, is reached."""
        if self._table.put(_state_item(name, after), Attr(_STATE).eq({"S": before})):
            return True
        # Our own request may have been sent twice; and a process that finished the replacement removed its state.
        stored = self._table.get(_state_key(name))
        return after == _SWITCHED if stored is None else stored[_STATE]["S"] == after

    def _remove_staged(self, name: str) -> None:
        for item in self._read(name, "new"):
            self._table.write_many(delete=[*records.stored_version(item[_ITEM]["M"]).other_keys, key_in(item)])
        self._table.write_many(delete=[key_in(item) for item in self._read(name, "old")])
        self._remove_markers(name)

    def _remove_markers(self, name: str) -> None:
        for item in self._read(name, "at"):
            self._table.write_many(delete=[key_in(key) for key in json.loads(item[records.BODY]["S"])])
            self._table.write_many(delete=[key_in(item)])

    def _read(self, name: str, kind: str) -> Iterator[Item]:
        # "0" is the character after "/".
        return self._table.query(_partition(name), (keys.SK, f"{kind}/", f"{kind}0"), ConsistentRead=True)

    # --- moving ----------------------------------------------------------------------------------------------

    def _finish(self, name: str) -> None:
        """Move the new messages into place and delete the old ones; others may be doing the same."""
        sizes = ((item, records.size_of(item[_ITEM]["M"])) for item in self._read(name, "new"))
        for group in limited(sizes, MOST_IN_TRANSACTION // 2, records.MOST_AT_ONCE):
            self._move(group)
        for item in self._read(name, "old"):
            versions = [StoredVersion(*values) for values in json.loads(item[records.BODY]["S"])]
            for few in batched(versions, MOST_IN_TRANSACTION):
                self._delete(few)
            # All of these versions are gone, even if another process removed them.
            self._table.write_many(delete=[chunk for version in versions for chunk in version.other_keys])
            self._table.write_many(delete=[key_in(item)])
        self._remove_markers(name)
        self._table.write_many(delete=[_state_key(name)])

    def _move(self, staged: Sequence[Item]) -> None:
        """Move staged messages into place, each once, and none over one that was written since."""
        puts = dict(enumerate(staged))
        deletes = dict(puts)
        while deletes:
            operations = [self._table.delete_if(key_in(item), None) for item in deletes.values()]
            operations += [self._put_staged(item) for item in puts.values()]
            conflicts = self._table.transact(operations)
            if not conflicts:
                break
            numbers = [*deletes, *puts]
            count = len(deletes)
            for conflict in conflicts:
                # Another process has moved it; or there is something newer, which stays.
                puts.pop(numbers[conflict], None)
                if conflict < count:
                    del deletes[numbers[conflict]]
        unused = [replaced for item in puts.values() if (replaced := _replaced(item)) is not None]
        unused += [records.stored_version(staged[number][_ITEM]["M"]) for number in deletes if number not in puts]
        self._table.write_many(delete=[chunk for version in unused for chunk in version.other_keys])

    def _put_staged(self, item: Item) -> dict[str, Any]:
        replaced = _replaced(item)
        return self._table.put_if(item[_ITEM]["M"], None if replaced is None else replaced.version)

    def _delete(self, versions: Sequence[StoredVersion]) -> None:
        """Delete messages, each only in the version that was replaced."""
        left = list(versions)
        while left:
            operations = [self._table.delete_if((each.pk, each.sk), each.version) for each in left]
            conflicts = self._table.transact(operations)
            if not conflicts:
                return
            left = [each for number, each in enumerate(left) if number not in conflicts]


def _partition(name: str) -> str:
    return f"replacement/{name}"


def _state_key(name: str) -> ItemKey:
    return _partition(name), _STATE


def _state_item(name: str, state: str) -> Item:
    item = {**key_attributes(_state_key(name)), _STATE: {"S": state}, records.SINCE: records.from_now()}
    if state == _ABANDONED:
        # It stays for a while, so that a slow writer learns that it must not switch.
        item[records.EXPIRES] = records.from_now(_KEPT)
    return item


def _marker(user_id: str | None, session_id: str | None, name: str) -> Item:
    session, position = key_part(session_id), f"{keys.AFTER_MESSAGES}{name}"
    return {
        **key_attributes((keys.partition(user_id, session_id), f"!{session}/{name}")),
        keys.AT_USER: {"S": position},
        keys.AT_SESSION: {"S": f"{session}/{position}"},
        MARKER: {"S": name},
        records.SINCE: records.from_now(),
    }


def _guard_item(guard: ItemKey) -> Item:
    return {**key_attributes(guard), GUARD: {"S": records.random_name()}, records.SINCE: records.from_now()}


def _staged_items(name: str, new: Sequence[tuple[Item, Item | None]]) -> list[Item]:
    replaced = [{} if old is None else {_REPLACED: {"S": json.dumps(records.stored_version(old))}} for _, old in new]
    return _numbered(name, "new", ({_ITEM: {"M": item}, **each} for (item, _), each in zip(new, replaced, strict=True)))


def _replaced(staged: Item) -> StoredVersion | None:
    return StoredVersion(*json.loads(staged[_REPLACED]["S"])) if _REPLACED in staged else None


def _list_items(name: str, kind: str, values: Sequence[Any]) -> list[Item]:
    groups = batched(values, _VALUES_IN_AN_ITEM)
    return _numbered(name, kind, ({records.BODY: {"S": json.dumps(group)}} for group in groups))


def _numbered(name: str, kind: str, contents: Iterable[Item]) -> list[Item]:
    return [
        {**key_attributes((_partition(name), f"{kind}/{number:08d}")), **each, records.SINCE: records.from_now()}
        for number, each in enumerate(contents)
    ]
