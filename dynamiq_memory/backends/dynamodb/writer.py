"""Writing messages: each exactly once, in its position, and no part of a large one before the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from boto3.dynamodb.conditions import Attr

from dynamiq_memory._batches import batched, limited
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends.dynamodb import records
from dynamiq_memory.backends.dynamodb.errors import SDK_ERRORS, translated
from dynamiq_memory.backends.dynamodb.keys import PK, SK, ItemKey, key_attributes, key_in, registration_key
from dynamiq_memory.backends.dynamodb.reader import Found, Reader
from dynamiq_memory.backends.dynamodb.records import EXPIRES, SINCE, Draft, Item, from_now, version_of
from dynamiq_memory.backends.dynamodb.replacements import LargeReplacements
from dynamiq_memory.backends.dynamodb.table import MOST_IN_TRANSACTION, Table, wait
from dynamiq_memory.backends.dynamodb.vectors import Vectors
from dynamiq_memory.exceptions import BackendError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import USER_KEY, Message, Scope, scope_of

# Seconds for which a process relies on its registration of a user's session. A deletion leaves registrations alone
# until they are much older, so that it never removes one that a writer relies on.
_REGISTERED_FOR = 15 * 60
_REMOVED_AFTER = 24 * 3600
_MOST_REGISTERED = 10_000
# How often others may change the same messages while one operation tries to.
_ATTEMPTS = 40
_DELETED_AT_ONCE = 250

R = TypeVar("R", Draft, None)


class Writer:
    """Writes messages to a table.

    Args:
        table: The table.
        reader: Reads it.
        replacements: Replaces more than a transaction takes.
        ttl: Seconds after which messages expire, or None.
        vectors: Embeds the messages, or None.
    """

    def __init__(
        self, table: Table, reader: Reader, replacements: LargeReplacements, ttl: int | None, vectors: Vectors | None
    ) -> None:
        """Begin without registrations."""
        self._table = table
        self._reader = reader
        self._replacements = replacements
        self._ttl = ttl
        self._vectors = vectors
        self._arrivals = Arrivals()
        self._registered: dict[tuple[str | None, str], float] = {}

    # --- adding ----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message]) -> None:
        """Store messages: up to 100 all or none."""
        drafts = self._drafts(messages)
        if len(drafts) > MOST_IN_TRANSACTION:
            self._write_many(drafts)
            return
        self._write_others(drafts)
        stored: list[Item | None] = [None] * len(drafts)
        for _ in self._attempts():
            conflicts = self._table.apply([self._put(*each) for each in zip(drafts, stored, strict=True)])
            if not conflicts:
                self._delete_others([item for item in stored if item is not None])
                return
            for number, current in conflicts.items():
                # A server that does not return the stored item is asked for it.
                stored[number] = current if current is not None else self._table.get(drafts[number].key)

    def _write_many(self, drafts: Sequence[Draft]) -> None:
        """Store more than a transaction takes, in batches."""
        done: set[ItemKey] = set()
        try:
            self._write_others(drafts)
            replaced = self._table.get_many([draft.key for draft in drafts])
            self._table.write_many([each.item(replaced.get(each.key)) for each in drafts], done=done)
        except (*SDK_ERRORS, BackendError) as error:
            if not done:
                raise
            ids = [draft.message.id for draft in drafts if draft.key in done]
            raise PartialWriteError(
                f"{translated(error, self._table.location)}. {len(ids)} of {len(drafts)} messages are stored, and up "
                "to 25 more may be: add the same messages again, which doubles nothing",
                ids,
            ) from error
        self._delete_others(list(replaced.values()))

    def _drafts(self, messages: Sequence[Message]) -> list[Draft]:
        expires = None if self._ttl is None else int(time.time()) + self._ttl
        drafts = records.drafts_of(messages, self._arrivals.keys(len(messages)), expires)
        if self._vectors is not None:
            generation, vectors = self._vectors.embed(messages)
            for draft, vector in zip(drafts, vectors, strict=True):
                draft.generation, draft.vector = generation, vector
        self._register(messages)
        return drafts

    def _write_others(self, drafts: Sequence[Draft]) -> None:
        self._table.write_many([item for draft in drafts for item in draft.other_items()])

    def _delete_others(self, replaced: Sequence[Item]) -> None:
        """Delete the parts and vectors of messages that no longer exist."""
        self._table.write_many(delete=[key for item in replaced for key in records.stored_version(item).other_keys])

    def _register(self, messages: Sequence[Message]) -> None:
        """Register which users have which sessions, so that a session can be found by its name alone.

        This comes first: no message can be read before its session is registered.
        """
        pairs = dict.fromkeys((m.session_id, m.user_id) for m in messages if m.user_id is not None)
        for session, user in pairs:
            now = time.time()
            if self._registered.get((session, user), 0.0) > now - _REGISTERED_FOR:
                continue
            self._put_registration(user, session)
            if len(self._registered) >= _MOST_REGISTERED:
                self._registered.clear()
            self._registered[session, user] = now

    def _put_registration(self, user: str, session: str | None) -> None:
        """Register a session at least until the last message that is written now expires."""
        key, since = registration_key(session, user), from_now()
        item = {**key_attributes(key), USER_KEY: {"S": user}, SINCE: since}
        if self._ttl is None:
            self._table.put(item)
            return
        expires = from_now(self._ttl + _REMOVED_AFTER)
        # Another process may have registered it for longer, or for ever.
        is_shorter = Attr(SK).not_exists() | Attr(EXPIRES).lte(expires)
        while not (self._table.put({**item, EXPIRES: expires}, is_shorter) or self._table.touch(key, SINCE, since)):
            wait(0)

    def _put(self, draft: Draft, stored: Item | None, *, keeps_position: bool = True) -> dict[str, Any]:
        """Return the operation that puts a new version of a message, if the stored one is still the same."""
        return self._table.put_if(draft.item(stored if keeps_position else None), version_of(stored))

    # --- changing --------------------------------------------------------------------------------------------

    def update(self, filter: Filter, messages: Sequence[Message]) -> list[Message]:
        """Store new versions of stored and matching messages: up to 100 all or none."""
        sizes = ((draft, draft.size) for draft in self._drafts(messages))
        updated: list[Message] = []
        for group in limited(sizes, MOST_IN_TRANSACTION, records.MOST_AT_ONCE):
            try:
                updated += self._update_group(filter, group)
            except (*SDK_ERRORS, BackendError) as error:
                if not updated:
                    raise
                ids = [message.id for message in updated]
                cause = translated(error, self._table.location)
                raise PartialWriteError(f"{cause}. {len(ids)} messages are stored: update again", ids) from error
        return updated

    def _update_group(self, filter: Filter, group: Sequence[Draft]) -> list[Message]:
        scopes = dict.fromkeys(scope_of(draft.message) for draft in group)
        stored = self._reader.items_to_change([draft.key for draft in group], list(scopes))
        found = ((draft, self._reader.match(stored.get(draft.key), filter)) for draft in group)
        wanted = [(draft, each) for draft, each in found if each is not None]
        self._write_others([draft for draft, _ in wanted])
        return [draft.message for draft, _ in self._change(filter, wanted)]

    def _change(self, filter: Filter, wanted: list[tuple[R, Found]]) -> list[tuple[R, Found]]:
        """Write new versions of stored messages, or delete them for None, all or none of those that still match."""
        attempts = self._attempts()
        while wanted:
            next(attempts)
            # Even a single deletion in a transaction: if the SDK sends it again, it gets the same answer.
            conflicts = self._table.apply(
                [
                    self._table.delete_if(key_in(item), version_of(item)) if draft is None else self._put(draft, item)
                    for draft, (item, _) in wanted
                ]
            )
            if not conflicts:
                self._delete_others([found.item for _, found in wanted])
                break
            current = [
                (draft, self._reader.match(conflicts[number], filter) if number in conflicts else found)
                for number, (draft, found) in enumerate(wanted)
            ]
            wanted = [(draft, found) for draft, found in current if found is not None]
        return wanted

    # --- replacing -------------------------------------------------------------------------------------------

    def replace(self, filter: Filter, messages: Sequence[Message]) -> None:
        """Replace what matches: in one transaction if old and new messages, and guards, are at most 100 together."""
        drafts = self._drafts(messages)
        self._write_others(drafts)
        new = {draft.key: draft for draft in drafts}
        guards = self._replacements.guards(filter, {scope_of(draft.message) for draft in drafts})
        # Items at the keys of new messages that do not match the filter.
        others: dict[ItemKey, Item | None] = {}
        for _ in self._attempts():
            guard_changes = self._replacements.guard_changes(guards)
            old = {key_in(item): item for item, _ in self._reader.all_to_change(filter, replacing="")}
            stored = others | old
            # Messages that matched get new positions, in the order of the new ones.
            writes = {
                key: self._put(draft, stored.get(key), keeps_position=key not in old) for key, draft in new.items()
            }
            gone = [item for key, item in old.items() if key not in new]
            writes |= {key_in(item): self._table.delete_if(key_in(item), version_of(item)) for item in gone}
            if len(writes) + len(guards) > MOST_IN_TRANSACTION:
                self._replace_many(filter, drafts, {records.scope_in(item) for item in old.values()})
                return
            conflicts = self._table.apply([*writes.values(), *guard_changes]) if writes else {}
            if not conflicts:
                self._delete_others([item for key in writes if (item := stored.get(key)) is not None])
                return
            others |= {key: conflicts[number] for number, key in enumerate(writes) if number in conflicts}

    def _replace_many(self, filter: Filter, drafts: Sequence[Draft], old_scopes: set[Scope]) -> None:
        """Replace more than a transaction takes."""
        scopes = {scope_of(draft.message) for draft in drafts} | old_scopes
        for attempt in self._attempts():
            if attempt:
                for draft in drafts:
                    draft.version = (
                        records.random_name()
                    )  # the parts of the last attempt may still be deleted by others
                self._write_others(drafts)
            name = self._replacements.begin(scopes, self._replacements.guards(filter, scopes))
            old = {key_in(item): item for item, _ in self._reader.all_to_change(filter, replacing=name)}
            more_scopes = {records.scope_in(item) for item in old.values()} - scopes
            if more_scopes:
                scopes |= more_scopes
                self._replacements.abandon(name)
                continue
            stored = self._table.get_many([draft.key for draft in drafts])
            new = {
                each.key: (each.item(None if each.key in old else stored.get(each.key)), stored.get(each.key))
                for each in drafts
            }
            gone = [item for key, item in old.items() if key not in new]
            if self._replacements.replace(name, list(new.values()), gone):
                return

    # --- deleting --------------------------------------------------------------------------------------------

    def take(self, filter: Filter) -> list[Message]:
        """Delete what matches and return it; of several callers at once, one gets each message."""
        taken: list[Found] = []
        for group in batched(self._reader.all_to_change(filter), MOST_IN_TRANSACTION):
            taken += [found for _, found in self._change(filter, [(None, found) for found in group])]
        return [found.message for found in sorted(taken, key=lambda found: found.position)]

    def delete(self, filter: Filter) -> int:
        """Delete what matches and return the number."""
        if filter.beyond_scope:
            return len(self.take(filter))
        count = 0
        scopes: set[Scope] = set()
        for group in batched(self._reader.keys_to_delete(filter), _DELETED_AT_ONCE):
            # Messages that others delete at the same time are counted there.
            deleted = self._table.delete_each([key_in(item) for item in group])
            self._delete_others(deleted)
            count += len(deleted)
            scopes.update(records.scope_in(item) for item in group)
        if filter.conditions:
            self._remove_old_items(filter, scopes)
        else:
            self._remove_all_old_items()
        return count

    def _remove_old_items(self, filter: Filter, scopes: set[Scope]) -> None:
        """Delete registrations and guards that nobody has written for long."""
        keys = [registration_key(session, user) for user, session in scopes if user is not None]
        keys += self._replacements.guards(filter, scopes)
        self._table.delete_older(keys, SINCE, from_now(-_REMOVED_AFTER))

    def _remove_all_old_items(self) -> None:
        """Delete all old items that are not messages, such as those left by a process that died."""
        condition = Attr(records.VERSION).not_exists() & Attr(SINCE).lt(from_now(-_REMOVED_AFTER))
        for items in batched(self._table.scan(condition, ProjectionExpression=f"{PK}, {SK}"), _DELETED_AT_ONCE):
            self._table.write_many(delete=[key_in(item) for item in items])

    # --- meeting others --------------------------------------------------------------------------------------

    def _attempts(self) -> Iterator[int]:
        """Number the attempts of an operation, and wait before those that follow a conflict with others.

        Raises:
            BackendError: There were too many.
        """
        for attempt in range(_ATTEMPTS):
            if attempt > 1:  # a first conflict is often just the stored version of a message
                wait(attempt - 1)
            yield attempt
        raise BackendError(f"{self._table.location}: others keep changing the same messages; try again")
