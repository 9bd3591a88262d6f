"""Replacing more than one transaction takes: written aside, switched at one stroke, then moved; anyone can finish it.

    pk                    sk                    what
    replacement/<name>    state                 how far it is
    replacement/<name>    new/<number>          a new message's item, and what it comes in place of
    replacement/<name>    old/<number>          some of the messages that go
    replacement/<name>    at/<number>           some of the keys of its signs
    <partition>           !<session>/<name>     a sign, in each session that it touches
    <partition>           =<session>, =*        a guard, of each session and of what the filter fixes

A sign stands behind the last message in the indexes, so whoever reads the newest meets it, at no cost while there is
none. Until the switch the old messages are the truth, and from then on the new ones: who meets a sign after the switch
finishes the moving before reading on, and who meets one that was left long before it removes it.

A guard tells replacements that fit into a transaction of all others of the same sessions, also where there is no old
message that both would delete. Such a one reads its guards, then looks for signs, then reads what it replaces; and its
transaction changes the guards, if they are still what they were. A larger one puts up its signs, changes its guards,
and then reads. So either the small one's transaction came before that, and the large one reads what it wrote; or it
fails, and its next attempt meets the sign, and ends the large one or lets it win. A guard is also marked when there
are signs to be looked for, for those who do not read behind the last message.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dynamiq_memory.backends._batches import batched, limited
from dynamiq_memory.backends.dynamodb.filters import EXPIRES, Expression
from dynamiq_memory.backends.dynamodb.keys import (
    AT_SESSION,
    AT_USER,
    SK,
    Key,
    key,
    key_of,
    part,
    partition,
    scope_guard,
    session_guard,
)
from dynamiq_memory.backends.dynamodb.records import (
    BODY,
    MOST_AT_ONCE,
    SINCE,
    Item,
    Trace,
    chunks_of_trace,
    size_of_item,
    trace_of,
)
from dynamiq_memory.backends.dynamodb.requests import MOST_IN_TRANSACTION, Table, identity, operation
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY

# The attribute by which a sign is known: the replacement's name.
REPLACEMENT = "replacement"
# The attributes of a guard: what changes, and the mark of one whose session may have signs.
GUARD = "guard"
SIGNED = "signed"

_STATE = "state"
_STAGING, _SWITCHED, _ABANDONED = "staging", "switched", "abandoned"
_ITEM = "item"
_REPLACED = "replaced"
# What has not come to the switch in this time never will.
_ABANDONED_AFTER = 3600
_KEPT = 24 * 3600
_TRACES_IN_AN_ITEM = 200

Scope = tuple[str | None, str | None]


class Settled(Exception):  # noqa: N818 - no error: the reading begins again
    """What is being read has just been changed by finishing, or removing, what another left."""


class Replacements:
    """The replacements of a table.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        """Keep the table."""
        self._table = table

    # --- replacing -------------------------------------------------------------------------------------------

    def guards(self, where: Filter, scopes: Collection[Scope]) -> list[Key]:
        """The keys of the guards of a replacement.

        Args:
            where: What it replaces.
            scopes: The user and session of each message that comes.
        """
        own = scope_guard(*(None if each is None else set(each) for each in map(where.scope, (USER_KEY, SESSION_KEY))))
        keys = [session_guard(*scope) for scope in scopes] + ([] if own is None else [own])
        return list({identity(each): each for each in keys}.values())

    def changing(self, guards: Sequence[Key]) -> list[dict[str, Any]]:
        """Read guards, and give the operations of a transaction that change them if nobody has done so since.

        Without the marks: its caller looks for signs before the transaction.
        """
        held = {identity(item): item for item in self._table.get_many(guards)}
        operations = []
        for each in guards:
            seen = held.get(identity(each))
            token = None if seen is None else seen[GUARD]["S"]
            operations.append(operation(self._table.name, _guard(each), token, put=True, attribute=GUARD))
        return operations

    def unmark(self, guard: Item) -> None:
        """Remove the mark of a guard that was read before there were found to be no signs."""
        self._table.remove(key_of(guard), SIGNED, GUARD, guard[GUARD])

    def begin(self, scopes: Collection[Scope], guards: Sequence[Key]) -> str:
        """Put up signs and change guards, so that no other replacement of the same sessions goes unseen.

        Args:
            scopes: The user and session of each message that goes or comes.
            guards: The keys of the guards.

        Returns:
            The name of the replacement.
        """
        name = secrets.token_hex(12)
        signs = [_sign(user, session, name) for user, session in scopes]
        self._table.put(_state(name, _STAGING))
        self._table.write_many(_numbered(name, "at", [key_of(sign) for sign in signs]))
        self._table.write_many(signs)
        self._table.write_many([{**_guard(each), SIGNED: {"BOOL": True}} for each in guards])
        return name

    def replace(self, name: str, new: Sequence[tuple[Item, Item | None]], old: Sequence[Item]) -> bool:
        """Put new messages in the place of old ones, which were read after the signs were up.

        Args:
            name: The replacement.
            new: Items, each with the one that stands at its key.
            old: Items whose keys no new one has.

        Returns:
            Whether it was done. If not, another replacement came first: nothing has changed, begin anew.
        """
        self._table.write_many(_staged(name, new))
        self._table.write_many(_numbered(name, "old", [trace_of(item) for item in old]))
        if not self._advance(name, _STAGING, _SWITCHED):
            self.abandon(name)
            return False
        self._finish(name)
        return True

    def abandon(self, name: str) -> bool:
        """Give up what is not switched; return whether it is given up."""
        if not self._advance(name, _STAGING, _ABANDONED):
            return False
        self._clean(name)
        return True

    def settle(self, sign: Item, replacing: str | None = None) -> None:
        """Finish or remove what a sign tells of; leave alone what is under way.

        Args:
            sign: The sign.
            replacing: The name of the reader's own replacement, "" for one without a name, None for none. Of two
                replacements of a session, that which reads the other's sign wins, unless the other has switched.

        Raises:
            Settled: What stands in the table has changed: read again.
        """
        name = sign[REPLACEMENT]["S"]
        if name == replacing:
            return
        held = self._table.get(key(_partition(name), _STATE))
        state = None if held is None else held[_STATE]["S"]
        if state == _STAGING and held is not None:
            if replacing is None and int(held[SINCE]["N"]) > time.time() - _ABANDONED_AFTER:
                return
            if not self.abandon(name):
                raise Settled  # it has switched meanwhile
        elif state == _ABANDONED:
            self._clean(name)
        elif state == _SWITCHED:
            self._finish(name)
        # Else it has ended since the sign was read, or a late write put the sign up behind its end.
        self._table.write_many(delete=[key_of(sign)])
        raise Settled

    # --- its states ------------------------------------------------------------------------------------------

    def _advance(self, name: str, before: str, after: str) -> bool:
        """Go from a state to another; return whether it, or one that comes behind it, is reached."""
        expression = Expression()
        condition = f"{expression.name(_STATE)} = {expression.value({'S': before})}"
        expression.parts.append(condition)
        if self._table.put(_state(name, after), expression):
            return True
        # Our own request may have been sent twice; and who has finished it has removed its state.
        held = self._table.get(key(_partition(name), _STATE))
        return after == _SWITCHED if held is None else held[_STATE]["S"] == after

    def _clean(self, name: str) -> None:
        """Remove what was written aside, and the signs."""
        for item in self._read(name, "new"):
            self._table.write_many(delete=[*chunks_of_trace(trace_of(item[_ITEM]["M"])), key_of(item)])
        self._table.write_many(delete=[key_of(item) for item in self._read(name, "old")])
        self._remove_signs(name)

    def _remove_signs(self, name: str) -> None:
        for item in self._read(name, "at"):
            self._table.write_many(delete=json.loads(item[BODY]["S"]))
            self._table.write_many(delete=[key_of(item)])

    # --- moving ----------------------------------------------------------------------------------------------

    def _finish(self, name: str) -> None:
        """Move the new messages to their places, and delete the old ones; others may be doing the same."""
        sizes = ((item, size_of_item(item[_ITEM]["M"])) for item in self._read(name, "new"))
        for group in limited(sizes, MOST_IN_TRANSACTION // 2, MOST_AT_ONCE):
            self._move(group)
        for item in self._read(name, "old"):
            traces: list[Trace] = json.loads(item[BODY]["S"])
            for few in batched(traces, MOST_IN_TRANSACTION):
                self._delete(few)
            # No such version is there any more, whoever removed it.
            self._table.write_many(delete=[chunk for trace in traces for chunk in chunks_of_trace(trace)])
            self._table.write_many(delete=[key_of(item)])
        self._remove_signs(name)
        self._table.write_many(delete=[key(_partition(name), _STATE)])

    def _move(self, staged: Sequence[Item]) -> None:
        """Move messages from aside to their places, each once, and none over one that was written since."""
        puts = dict(enumerate(staged))
        deletes = dict(puts)
        while deletes:
            moves = [(number, False) for number in deletes] + [(number, True) for number in puts]
            operations = []
            for number, is_put in moves:
                item = staged[number]
                if is_put:
                    replaced: Trace | None = json.loads(item[_REPLACED]["S"]) if _REPLACED in item else None
                    version = None if replaced is None else replaced[2]
                    operations.append(operation(self._table.name, item[_ITEM]["M"], version, put=True))
                else:
                    operations.append(operation(self._table.name, key_of(item), None, put=False))
            conflicts = self._table.transact(operations)
            if not conflicts:
                break
            for number, is_put in (moves[each] for each in conflicts):
                # Somebody else has moved it; or something newer stands there, which stays.
                puts.pop(number, None)
                if not is_put:
                    del deletes[number]
        over = [json.loads(item[_REPLACED]["S"]) for item in puts.values() if _REPLACED in item]
        over += [trace_of(staged[number][_ITEM]["M"]) for number in deletes if number not in puts]
        self._table.write_many(delete=[chunk for trace in over for chunk in chunks_of_trace(trace)])

    def _delete(self, traces: Sequence[Trace]) -> None:
        """Delete messages, each in the version that was replaced."""
        left = list(traces)
        while left:
            operations = [operation(self._table.name, key(pk, sk), version, put=False) for pk, sk, version, _ in left]
            conflicts = self._table.transact(operations)
            if not conflicts:
                return
            left = [trace for number, trace in enumerate(left) if number not in conflicts]

    def _read(self, name: str, kind: str) -> Iterator[Item]:
        # "0" comes behind "/".
        pages = self._table.query(_partition(name), (SK, f"{kind}/", f"{kind}0"), ConsistentRead=True)
        return (item for page in pages for item in page["Items"])


def _partition(name: str) -> str:
    return f"replacement/{name}"


def _state(name: str, state: str) -> dict[str, Any]:
    now = int(time.time())
    item = {**key(_partition(name), _STATE), _STATE: {"S": state}, SINCE: {"N": f"{now}"}}
    if state == _ABANDONED:
        # It stays for a while, so that a slow writer learns that the switch is not to be made.
        item[EXPIRES] = {"N": f"{now + _KEPT}"}
    return item


def _sign(user_id: str | None, session_id: str | None, name: str) -> Item:
    return {
        **key(partition(user_id, session_id), f"!{part(session_id)}/{name}"),
        AT_USER: {"S": f"g{name}"},
        AT_SESSION: {"S": f"{part(session_id)}/g{name}"},
        REPLACEMENT: {"S": name},
        SINCE: {"N": f"{int(time.time())}"},
    }


def _guard(guard: Key) -> Item:
    return {**guard, GUARD: {"S": secrets.token_hex(12)}, SINCE: {"N": f"{int(time.time())}"}}


def _staged(name: str, new: Sequence[tuple[Item, Item | None]]) -> list[Item]:
    now = {"N": f"{int(time.time())}"}
    return [
        {
            **key(_partition(name), f"new/{number:08d}"),
            _ITEM: {"M": item},
            **({} if replaced is None else {_REPLACED: {"S": json.dumps(trace_of(replaced))}}),
            SINCE: now,
        }
        for number, (item, replaced) in enumerate(new)
    ]


def _numbered(name: str, kind: str, values: Sequence[Any]) -> list[Item]:
    now = {"N": f"{int(time.time())}"}
    return [
        {**key(_partition(name), f"{kind}/{number:08d}"), BODY: {"S": json.dumps(group)}, SINCE: now}
        for number, group in enumerate(batched(values, _TRACES_IN_AN_ITEM))
    ]
