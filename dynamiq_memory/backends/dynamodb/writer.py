"""Writing: each message exactly once, at its place, and no part of a large one before it is whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import islice

from botocore.exceptions import BotoCoreError, ClientError

from dynamiq_memory.backends._batches import batched, limited
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends.dynamodb.errors import translated
from dynamiq_memory.backends.dynamodb.filters import EXPIRES, Expression
from dynamiq_memory.backends.dynamodb.keys import PK, SK, Key, key_of, user_key
from dynamiq_memory.backends.dynamodb.reader import Found, Reader, scope_of
from dynamiq_memory.backends.dynamodb.records import (
    MOST_AT_ONCE,
    SINCE,
    VERSION,
    Draft,
    Item,
    chunks_of,
    drafts_of,
    place_of,
    weight_of,
)
from dynamiq_memory.backends.dynamodb.replacements import Replacements, Settled
from dynamiq_memory.backends.dynamodb.requests import MOST_IN_TRANSACTION, Change, Table, identity, wait
from dynamiq_memory.exceptions import BackendError, PartialWriteError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import USER_KEY, Message

# When a process wrote that a user has a session it need not do so again for a while. A deletion leaves such an item
# alone until it is much older, so that it never takes away what a writer relies on.
_REMEMBERED = 15 * 60
_FORGOTTEN = 24 * 3600
_MOST_REMEMBERED = 10_000
# How often others may change the same messages while one operation tries to.
_ATTEMPTS = 40
_DELETED_AT_ONCE = 250

_Identity = tuple[str, str]
_Scope = tuple[str | None, str | None]


class Writer:
    """Writes messages to a table.

    Args:
        table: The table.
        reader: Reads it.
        replacements: Replaces what is too much for a transaction.
        ttl: Seconds after which what is written expires, or None.
    """

    def __init__(self, table: Table, reader: Reader, replacements: Replacements, ttl: int | None) -> None:
        """Start with nothing known of the table."""
        self._table = table
        self._reader = reader
        self._replacements = replacements
        self._ttl = ttl
        self._arrivals = Arrivals()
        self._known: dict[tuple[str | None, str], float] = {}
        self._known_lock = threading.Lock()

    # --- adding ----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message]) -> None:
        """Store messages: up to 100 all or none."""
        drafts = self._drafts(messages)
        if len(drafts) > MOST_IN_TRANSACTION:
            self._write_many(drafts)
            return
        self._write_chunks(drafts)
        expected: list[Item | None] = [None] * len(drafts)
        for attempt in range(_ATTEMPTS):
            changes = [Change(d.key, d, item) for d, item in zip(drafts, expected, strict=True)]
            conflicts = self._table.apply(changes)
            if not conflicts:
                self._discard([item for item in expected if item is not None])
                return
            for number, current in conflicts.items():
                # A store that does not say what stands there is asked.
                expected[number] = current if current is not None else self._table.get(drafts[number].key)
            if attempt:
                wait(attempt)
        raise self._contended()

    def _write_many(self, drafts: Sequence[Draft]) -> None:
        """Store more than a transaction takes, in batches."""
        done: list[Key] = []
        try:
            self._write_chunks(drafts)
            held = {identity(item): item for item in self._table.get_many([draft.key for draft in drafts])}
            now = int(time.time())
            self._table.write_many([d.item(held.get(identity(d.key)), now) for d in drafts], done=done)
        except (BotoCoreError, ClientError, BackendError) as error:
            if not done:
                raise
            stored = {identity(key) for key in done}
            ids = [draft.message.id for draft in drafts if identity(draft.key) in stored]
            cause = error if isinstance(error, BackendError) else translated(error, self._table.where)
            raise PartialWriteError(
                f"{cause}. {len(ids)} of {len(drafts)} messages are stored, and up to 25 more may be: add the same "
                "messages again, which doubles nothing",
                ids,
            ) from error
        self._discard(list(held.values()))

    def _drafts(self, messages: Sequence[Message]) -> list[Draft]:
        self._register(messages)
        expires = None if self._ttl is None else int(time.time()) + self._ttl
        return drafts_of(messages, self._arrivals.keys(len(messages)), expires)

    def _write_chunks(self, drafts: Sequence[Draft]) -> None:
        now = int(time.time())
        self._table.write_many([chunk for draft in drafts for chunk in draft.chunk_items(now)])

    def _discard(self, replaced: Sequence[Item]) -> None:
        """Delete the parts of messages that are no longer there."""
        self._table.write_many(delete=[key for item in replaced for key in chunks_of(item)])

    def _register(self, messages: Sequence[Message]) -> None:
        """Write down which users have which sessions, so that a session's name alone finds them.

        This comes first: that a user has a session is known before a message of it can be read.
        """
        pairs = dict.fromkeys((m.session_id, m.user_id) for m in messages if m.user_id is not None)
        for session, user in pairs:
            now = time.time()
            if self._known.get((session, user), 0.0) > now - _REMEMBERED:
                continue
            self._say_that(user, session, int(now))
            with self._known_lock:
                if len(self._known) >= _MOST_REMEMBERED:
                    self._known.clear()
                self._known[session, user] = now

    def _say_that(self, user: str, session: str | None, now: int) -> None:
        """Write down that a user has a session, at least until the last message that is written now expires."""
        key, since = user_key(session, user), {"N": str(now)}
        item = {**key, USER_KEY: {"S": user}, SINCE: since}
        if self._ttl is None:
            self._table.put(item)
            return
        expires = {"N": str(now + self._ttl + _FORGOTTEN)}
        # Another may have written that it lasts longer, or for good.
        shorter = Expression()
        name = shorter.name(EXPIRES)
        shorter.parts.append(f"attribute_not_exists({shorter.name(SK)}) OR {name} <= {shorter.value(expires)}")
        while not (self._table.put({**item, EXPIRES: expires}, shorter) or self._table.set(key, SINCE, since)):
            wait(0)

    # --- changing --------------------------------------------------------------------------------------------

    def update(self, where: Filter, messages: Sequence[Message]) -> list[Message]:
        """Store new versions of messages that are there and match: up to 100 all or none."""
        drafts = self._drafts(messages)
        stored: list[Draft] = []
        for group in limited(((draft, weight_of(draft)) for draft in drafts), MOST_IN_TRANSACTION, MOST_AT_ONCE):
            try:
                stored += self._update_group(where, group)
            except (BotoCoreError, ClientError, BackendError) as error:
                if not stored:
                    raise
                cause = error if isinstance(error, BackendError) else translated(error, self._table.where)
                ids = [draft.message.id for draft in stored]
                raise PartialWriteError(f"{cause}. {len(ids)} messages are stored: update again", ids) from error
        return [draft.message for draft in stored]

    def _update_group(self, where: Filter, group: Sequence[Draft]) -> list[Draft]:
        scopes = dict.fromkeys((draft.message.user_id, draft.message.session_id) for draft in group)
        held = self._reader.stored([draft.key for draft in group], list(scopes))
        wanted = self._still(where, [(draft, held.get(identity(draft.key))) for draft in group])
        written: set[int] = set()
        for attempt in range(_ATTEMPTS):
            if not wanted:
                return []
            self._write_chunks([draft for draft, _ in wanted if id(draft) not in written])
            written.update(id(draft) for draft, _ in wanted)
            conflicts = self._table.apply([Change(draft.key, draft, item) for draft, item in wanted])
            if not conflicts:
                self._discard([item for _, item in wanted])
                return [draft for draft, _ in wanted]
            now = [(d, conflicts.get(n, item)) for n, (d, item) in enumerate(wanted)]
            wanted = self._still(where, now)
            wait(attempt)
        raise self._contended()

    def _still(self, where: Filter, pairs: Sequence[tuple[Draft, Item | None]]) -> list[tuple[Draft, Item]]:
        found = ((draft, self._reader.found(item, where)) for draft, item in pairs)
        return [(draft, each[0]) for draft, each in found if each is not None]

    def replace(self, where: Filter, messages: Sequence[Message]) -> None:
        """Replace what matches: in one transaction if old and new, and guards, are at most 100 together."""
        drafts = self._drafts(messages)
        self._write_chunks(drafts)
        new = {identity(draft.key): draft for draft in drafts}
        guards = self._replacements.guards(where, {(d.message.user_id, d.message.session_id) for d in drafts})
        # What stands at a new message's key and does not match the filter.
        others: dict[_Identity, Item | None] = {}
        for attempt in range(_ATTEMPTS):
            guarding = self._replacements.changing(guards)
            old = {identity(item): item for item, _ in self._reader.all_matching(where, replacing="")}
            held = others | old
            # What matched comes anew, in the order given.
            changes = [Change(d.key, d, held.get(name), keeps_place=name not in old) for name, d in new.items()]
            changes += [Change(key_of(item), None, item) for name, item in old.items() if name not in new]
            if len(changes) + len(guards) > MOST_IN_TRANSACTION:
                self._replace_many(where, drafts, [scope_of(item) for item in old.values()])
                return
            if not changes:
                return
            conflicts = self._table.apply(changes, guarding)
            if not conflicts:
                self._discard([change.expected for change in changes if change.expected is not None])
                return
            of_messages = {number: current for number, current in conflicts.items() if number < len(changes)}
            others |= {identity(changes[number].key): current for number, current in of_messages.items()}
            wait(attempt)
        raise self._contended()

    def _replace_many(self, where: Filter, drafts: Sequence[Draft], known: Sequence[_Scope]) -> None:
        """Replace more than a transaction takes."""
        scopes = {(draft.message.user_id, draft.message.session_id) for draft in drafts} | set(known)
        for attempt in range(_ATTEMPTS):
            if attempt:
                wait(attempt)
                for draft in drafts:
                    draft.renew()  # who gave the last attempt up may still be deleting its parts
                self._write_chunks(drafts)
            name = self._replacements.begin(scopes, self._replacements.guards(where, scopes))
            old = {identity(item): item for item, _ in self._reader.all_matching(where, replacing=name)}
            beyond = {scope_of(item) for item in old.values()} - scopes
            if beyond:
                scopes |= beyond
                self._replacements.abandon(name)
                continue
            held = {identity(item): item for item in self._table.get_many([draft.key for draft in drafts])}
            now = int(time.time())
            names = [identity(draft.key) for draft in drafts]
            new = [
                (draft.item(None if each in old else held.get(each), now), held.get(each))
                for each, draft in zip(names, drafts, strict=True)
            ]
            coming = set(names)
            if self._replacements.replace(name, new, [item for each, item in old.items() if each not in coming]):
                return
        raise self._contended()

    # --- deleting --------------------------------------------------------------------------------------------

    def take(self, where: Filter) -> list[Message]:
        """Delete what matches and return it; of several at once, one gets each message."""
        taken: list[Found] = []
        for group in batched(self._reader.all_matching(where), MOST_IN_TRANSACTION):
            taken += self._take_group(where, group)
        taken.sort(key=lambda found: place_of(found[0]))
        return [message for _, message in taken]

    def _take_group(self, where: Filter, group: Sequence[Found]) -> list[Found]:
        wanted = list(group)
        for attempt in range(_ATTEMPTS):
            if not wanted:
                return []
            # A transaction also for one: the SDK may send it again, and is then told the same.
            conflicts = self._table.apply([Change(key_of(item), None, item) for item, _ in wanted])
            if not conflicts:
                self._discard([item for item, _ in wanted])
                return wanted
            now = [self._reader.found(conflicts[n], where) if n in conflicts else f for n, f in enumerate(wanted)]
            wanted = [found for found in now if found is not None]
            wait(attempt)
        raise self._contended()

    def delete(self, where: Filter) -> int:
        """Delete what matches and return the count."""
        if where.beyond_scope:
            return len(self.take(where))
        count = 0
        scopes: set[_Scope] = set()
        keys = self._reader.keys(where)
        while True:
            try:
                group = list(islice(keys, _DELETED_AT_ONCE))
            except Settled:
                keys = self._reader.keys(where)
                continue
            if not group:
                break
            # What others delete at the same time, they count.
            deleted = self._table.delete_each([key_of(item) for item in group])
            self._discard(deleted)
            count += len(deleted)
            scopes.update(scope_of(item) for item in group)
        if where.conditions:
            self._forget(where, scopes)
        else:
            self._sweep()
        return count

    def _forget(self, where: Filter, scopes: set[_Scope]) -> None:
        """Delete what says that users have sessions, and guards, where nobody has written them for long."""
        keys = [user_key(session, user) for user, session in scopes if user is not None]
        keys += self._replacements.guards(where, scopes)
        self._table.delete_before(keys, SINCE, int(time.time()) - _FORGOTTEN)

    def _sweep(self) -> None:
        """Delete, of what is no message, what is old: left by a process that died."""
        expression = Expression()
        expression.parts.append(f"attribute_not_exists({expression.name(VERSION)})")
        before = expression.value({"N": str(int(time.time()) - _FORGOTTEN)})
        expression.parts.append(f"{expression.name(SINCE)} < {before}")
        projection = ", ".join(expression.name(each) for each in (PK, SK))
        for page in self._table.scan(expression, ProjectionExpression=projection):
            self._table.write_many(delete=[key_of(item) for item in page["Items"]])

    def _contended(self) -> BackendError:
        return BackendError(f"{self._table.where}: others keep changing the same messages; try again")
