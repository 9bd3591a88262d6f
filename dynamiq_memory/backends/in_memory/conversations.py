"""Stored conversations: messages in order, and found by id, by term, by user and by session."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Scope, scope_of
from dynamiq_memory.ranking import InvertedIndex

Position = tuple[float, int]
position_of = attrgetter("position")
_document_of = attrgetter("document")


@dataclass(slots=True)
class Entry:
    """A stored message.

    Attributes:
        message: The message.
        terms: Its terms.
        vector: Its vector, packed, or None.
        position: Its timestamp and arrival.
        document: Its number in the index.
    """

    message: Message
    terms: tuple[str, ...]
    vector: bytes | None = None
    position: Position = (0.0, -1)
    document: int = -1


@dataclass(slots=True)
class Changes:
    """The entries that an operation has added and removed so far."""

    added: list[Entry] = field(default_factory=list)
    removed: list[Entry] = field(default_factory=list)


class Conversation:
    """The messages of one user's session."""

    __slots__ = ("by_id", "entries", "index")

    def __init__(self) -> None:
        """Begin without messages."""
        self.entries: list[Entry] = []
        self.by_id: dict[str, Entry] = {}
        self.index = InvertedIndex()

    def insert(self, entry: Entry) -> None:
        """Insert an entry at its position."""
        if self.entries and entry.position < self.entries[-1].position:
            insort(self.entries, entry, key=position_of)
        else:
            self.entries.append(entry)
        self.by_id[entry.message.id] = entry
        self.index.add(entry.document, entry.terms)

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        del self.entries[bisect_left(self.entries, entry.position, key=position_of)]
        del self.by_id[entry.message.id]
        self.index.remove(entry.document, entry.terms)


class Conversations:
    """The conversations of a store. The caller holds a lock.

    Attributes:
        by_document: All entries, by their numbers in the indexes.
    """

    def __init__(self) -> None:
        """Begin without conversations."""
        self.by_document: dict[int, Entry] = {}
        self._numbers = itertools.count()
        self._by_scope: dict[Scope, Conversation] = {}
        # The scopes that have a user_id or a session_id, to find them without a scan.
        self._scopes: defaultdict[tuple[str, str | None], set[Scope]] = defaultdict(set)

    # --- reading ---------------------------------------------------------------------------------------------

    def within(self, filter: Filter) -> Iterator[Conversation]:
        """Return the conversations that a filter's user_id and session_id allow."""
        users, sessions = filter.scope(USER_KEY), filter.scope(SESSION_KEY)
        scopes: Iterable[Scope] = self._by_scope
        if users is not None and sessions is not None:
            scopes = itertools.product(dict.fromkeys(users), dict.fromkeys(sessions))
        elif users is not None:
            scopes = self._scopes_of(USER_KEY, users)
        elif sessions is not None:
            scopes = self._scopes_of(SESSION_KEY, sessions)
        return (self._by_scope[scope] for scope in scopes if scope in self._by_scope)

    def matching(self, filter: Filter) -> Iterator[tuple[Conversation, list[Entry]]]:
        """Return the matching entries of each conversation, in order."""
        rest = Filter(filter.beyond_scope)
        for conversation in self.within(filter):
            entries = conversation.entries
            yield conversation, [e for e in entries if rest.matches(e.message)] if rest.conditions else entries

    def contain(self, filter: Filter) -> bool:
        """Return whether any entry matches."""
        rest = Filter(filter.beyond_scope)
        return any(rest.matches(entry.message) for each in self.within(filter) for entry in each.entries)

    def beside(self, anchor: Message, filter: Filter, before: int, after: int) -> tuple[list[Entry], list[Entry]]:
        """Return the neighbours of a message in its session that match a filter of this session, in order."""
        earlier = list(islice(self.in_order(filter, anchor, None), before))
        return earlier[::-1], list(islice(self.in_order(filter, None, anchor), after))

    def documents(self, filter: Filter) -> Iterator[list[int]]:
        """Return the numbers of the matching entries of each conversation, in order."""
        return (list(map(_document_of, entries)) for _, entries in self.matching(filter))

    def in_order(self, filter: Filter, before: Message | None, after: Message | None) -> Iterator[Entry]:
        """Return the matching entries, the latest first, or with `after` the earliest first."""
        upper = self._position(before) if before is not None else None
        lower = self._position(after) if after is not None else None
        slices: list[Iterator[Entry]] = []
        for conversation in self.within(filter):
            entries = conversation.entries
            start = 0 if lower is None else bisect_right(entries, lower, key=position_of)
            stop = len(entries) if upper is None else bisect_left(entries, upper, key=position_of)
            numbers = range(start, stop) if after is not None else range(stop - 1, start - 1, -1)
            slices.append(map(entries.__getitem__, numbers))
        merged: Iterator[Entry] = (
            slices[0] if len(slices) == 1 else heapq.merge(*slices, key=position_of, reverse=after is None)
        )
        rest = Filter(filter.beyond_scope)
        return (entry for entry in merged if rest.matches(entry.message)) if rest.conditions else merged

    def find(self, message: Message) -> Entry | None:
        """Return the stored version of a message."""
        conversation = self._by_scope.get(scope_of(message))
        return conversation.by_id.get(message.id) if conversation is not None else None

    def _scopes_of(self, key: str, ids: Iterable[str | None]) -> Iterator[Scope]:
        return itertools.chain.from_iterable(self._scopes.get((key, each), ()) for each in dict.fromkeys(ids))

    def _position(self, anchor: Message) -> Position:
        entry = self.find(anchor)
        return entry.position if entry is not None else (anchor.timestamp or 0.0, -1)

    # --- changing --------------------------------------------------------------------------------------------

    def put(self, entries: Iterable[Entry], changes: Changes) -> None:
        """Add entries, or replace the stored versions of their messages."""
        for entry in entries:
            arrival = entry.document = next(self._numbers)
            conversation = self._conversation(scope_of(entry.message))
            stored = conversation.by_id.get(entry.message.id)
            if stored is not None:
                arrival = stored.position[1]
                changes.removed.append(stored)
                conversation.remove(stored)
                del self.by_document[stored.document]
            entry.position = (entry.message.timestamp or 0.0, arrival)
            changes.added.append(entry)
            conversation.insert(entry)
            self.by_document[entry.document] = entry

    def delete(self, filter: Filter, changes: Changes) -> None:
        """Delete the matching entries."""
        for conversation, matching in list(self.matching(filter)):
            entries = list(matching)
            changes.removed += entries
            if len(entries) * 2 < len(conversation.entries):
                for entry in entries:
                    conversation.remove(entry)
                    del self.by_document[entry.document]
            elif entries:
                # Building the rest again is faster than taking most of it apart.
                deleted = {entry.document for entry in entries}
                rest = [entry for entry in conversation.entries if entry.document not in deleted]
                self._rebuild(scope_of(entries[0].message), entries, rest)

    def undo(self, changes: Changes) -> None:
        """Undo the changes of an operation, wherever it was interrupted."""
        added = {id(entry) for entry in changes.added}
        for scope in {scope_of(entry.message) for entry in (*changes.added, *changes.removed)}:
            conversation = self._by_scope.get(scope)
            entries = conversation.entries if conversation is not None else []
            removed = (entry for entry in changes.removed if scope_of(entry.message) == scope)
            before = {id(entry): entry for entry in (*entries, *removed) if id(entry) not in added}
            self._rebuild(scope, (e for e in changes.added if scope_of(e.message) == scope), before.values())

    def _rebuild(self, scope: Scope, gone: Iterable[Entry], entries: Iterable[Entry]) -> None:
        """Build a conversation again from its entries, whatever state it is in."""
        for entry in gone:
            self.by_document.pop(entry.document, None)
        conversation = Conversation()
        for entry in sorted(entries, key=attrgetter("document")):
            conversation.insert(entry)
            self.by_document[entry.document] = entry
        if conversation.entries:
            self._conversation(scope)
            self._by_scope[scope] = conversation
            return
        self._by_scope.pop(scope, None)
        for key in zip((USER_KEY, SESSION_KEY), scope, strict=True):
            self._scopes[key].discard(scope)
            if not self._scopes[key]:
                del self._scopes[key]

    def _conversation(self, scope: Scope) -> Conversation:
        conversation = self._by_scope.get(scope)
        if conversation is None:
            conversation = self._by_scope[scope] = Conversation()
            for key in zip((USER_KEY, SESSION_KEY), scope, strict=True):
                self._scopes[key].add(scope)
        return conversation
