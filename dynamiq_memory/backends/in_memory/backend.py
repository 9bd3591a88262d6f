"""Messages in this process: nothing to set up, gone with the process."""

from __future__ import annotations

import heapq
import itertools
import threading
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter

from dynamiq_memory.backends._order import latest_first
from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session, views
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import COUNT_BITS, Postings, best
from dynamiq_memory.ranking.tokenizer import terms_of

_Scope = tuple[str | None, str | None]
_Position = tuple[float, int]


@dataclass(slots=True)
class _Entry:
    """A stored message, its place in time, its number in the index and its terms there."""

    position: _Position
    message: Message
    document: int
    terms: tuple[str, ...]


_position = attrgetter("position")


class _Conversation:
    """The messages of one user's session: in order, by id, and by term."""

    __slots__ = ("by_id", "entries", "index")

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.by_id: dict[str, _Entry] = {}
        self.index = InvertedIndex()

    def insert(self, entry: _Entry) -> None:
        if self.entries and entry.position < self.entries[-1].position:
            insort(self.entries, entry, key=_position)
        else:
            self.entries.append(entry)
        self.by_id[entry.message.id] = entry
        self.index.add(entry.document, entry.terms)

    def remove(self, entry: _Entry) -> None:
        del self.entries[bisect_left(self.entries, entry.position, key=_position)]
        del self.by_id[entry.message.id]
        self.index.remove(entry.document, entry.terms)


class _Changes:
    """What an operation has added and removed so far, to take it back if it is interrupted."""

    def __init__(self) -> None:
        self.added: list[_Entry] = []
        self.removed: list[_Entry] = []


class InMemory(MemoryBackend):
    """Keeps messages in this process, with an incremental BM25 index for each session.

    Reading or searching a scope costs time in proportion to that scope, whatever else is stored. A forked child
    process goes on with a copy of its own.

    Args:
        tokenizer: Turns a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.
    """

    def __init__(self, *, tokenizer: Tokenize | None = None, bm25: BM25 | None = None) -> None:
        """Start empty."""
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._conversations: dict[_Scope, _Conversation] = {}
        # Which conversations a user or a session name has, so that a scope finds its own without a scan.
        self._of_user: defaultdict[str | None, set[_Scope]] = defaultdict(set)
        self._of_session: defaultdict[str | None, set[_Scope]] = defaultdict(set)
        self._documents: dict[int, _Entry] = {}

    @classmethod
    def from_url(cls, url: str) -> InMemory:
        """Make a backend for the URL `memory://`, which takes no options."""
        if url != "memory://":
            raise ConfigurationError("memory:// takes no host, no path and no options")
        return cls()

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        return Capabilities(transactions=True)

    def _write(self, messages: Sequence[Message]) -> None:
        entries = self._entries(messages)
        with self._changing() as changes:
            for entry in entries:
                self._put(entry, changes)

    def _read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        with self._lock:
            entries = self._matching(where, before, after)
            chosen = list(itertools.islice(entries, limit))
        if after is None:
            chosen.reverse()
        return views(entry.message for entry in chosen)

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        terms = list(dict.fromkeys(terms_of(self.tokenizer, query)))
        with self._lock:
            conversations = self._within(where)
            if where.beyond_scope:
                scores = self._scores_of_some(terms, where, conversations)
            else:
                scores = self.bm25.scores(
                    ([c.index.postings(term) for c in conversations] for term in terms),
                    documents=sum(len(c.index) for c in conversations),
                    total_length=sum(c.index.total_length for c in conversations),
                )
            ranked = best(scores, lambda document: self._documents[document].position, limit)
            entries = [self._documents[document] for document in ranked]
        results = views(entry.message for entry in entries)
        for result, document in zip(results, ranked, strict=True):
            result.score = scores[document]
        return results

    def _scores_of_some(
        self, terms: Sequence[str], where: Filter, conversations: Iterable[_Conversation]
    ) -> dict[int, float]:
        """Rank within the messages that match the whole filter, by their own statistics."""
        narrowed = Filter(where.beyond_scope)
        indexes, chosen, total_length = [], set(), 0
        for conversation in conversations:
            matching = [e.document for e in conversation.entries if narrowed.matches(e.message)]
            indexes.append(conversation.index)
            chosen.update(matching)
            total_length += sum(conversation.index.lengths[document] for document in matching)

        def postings(term: str) -> list[Postings]:
            held = (index.postings(term) for index in indexes)
            return [([p for p in packed if p >> COUNT_BITS in chosen], lengths) for packed, lengths in held]

        return self.bm25.scores(map(postings, terms), documents=len(chosen), total_length=total_length)

    def _delete(self, where: Filter) -> int:
        with self._changing() as changes:
            return self._delete_matching(where, changes)

    def _replace(self, where: Filter, messages: Sequence[Message]) -> None:
        entries = self._entries(messages)
        with self._changing() as changes:
            self._delete_matching(where, changes)
            for entry in entries:
                self._put(entry, changes)

    def _update(self, where: Filter, messages: Sequence[Message]) -> list[Message]:
        entries = self._entries(messages)
        with self._changing() as changes:
            present = [entry for entry in entries if self._holds(entry.message, where)]
            for entry in present:
                self._put(entry, changes)
        return [entry.message for entry in present]

    def _take(self, where: Filter) -> list[Message]:
        with self._changing() as changes:
            self._delete_matching(where, changes)
            taken = sorted(changes.removed, key=_position)
        return views(entry.message for entry in taken)

    def _count(self, where: Filter) -> int:
        with self._lock:
            if where.beyond_scope:
                return sum(1 for _ in self._matching(where, None, None))
            return sum(len(conversation.entries) for conversation in self._within(where))

    def _sessions(self, where: Filter) -> list[Session]:
        narrowed = Filter(where.beyond_scope)
        found = []
        with self._lock:
            for conversation in self._within(where):
                entries = [e for e in conversation.entries if narrowed.matches(e.message)]
                if entries:
                    message = entries[0].message
                    times = entries[0].position[0], entries[-1].position[0]
                    found.append(Session(message.user_id, message.session_id, len(entries), *times))
        return latest_first(found)

    def _before_fork(self) -> None:
        self._lock.acquire()  # the child must not get a half-written copy

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._lock = threading.RLock()

    def _entries(self, messages: Sequence[Message]) -> list[_Entry]:
        # Without the lock, and before anything changes: a tokenizer of the user's may be slow, raise, or call back.
        terms = [tuple(terms_of(self.tokenizer, message.text)) for message in messages]
        # Numbers follow when the lock is held.
        return [
            _Entry((message.timestamp or 0.0, -1), message, -1, words)
            for message, words in zip(messages, terms, strict=True)
        ]

    @contextmanager
    def _changing(self) -> Iterator[_Changes]:
        """Hold the lock; on an error, even an interrupt, put everything back as it was."""
        with self._lock:
            changes = _Changes()
            try:
                yield changes
            except BaseException:
                self._take_back(changes)
                raise

    def _put(self, entry: _Entry, changes: _Changes) -> None:
        arrival = entry.document = next(self._numbers)
        conversation = self._conversation(_scope(entry))
        present = conversation.by_id.get(entry.message.id)
        if present is not None:
            arrival = present.position[1]
            changes.removed.append(present)
            conversation.remove(present)
            del self._documents[present.document]
        entry.position = (entry.position[0], arrival)
        changes.added.append(entry)
        conversation.insert(entry)
        self._documents[entry.document] = entry

    def _delete_matching(self, where: Filter, changes: _Changes) -> int:
        conversations = self._within(where)
        narrowed = Filter(where.beyond_scope)
        deleted = 0
        for conversation in conversations:
            doomed = [e for e in conversation.entries if narrowed.matches(e.message)]
            changes.removed += doomed
            deleted += len(doomed)
            if len(doomed) * 2 < len(conversation.entries):
                for entry in doomed:
                    conversation.remove(entry)
                    del self._documents[entry.document]
            elif doomed:
                # Rather than taking most of it apart, begin anew with what stays.
                going = {id(entry) for entry in doomed}
                self._rebuild(_scope(doomed[0]), doomed, [e for e in conversation.entries if id(e) not in going])
        return deleted

    def _conversation(self, scope: _Scope) -> _Conversation:
        conversation = self._conversations.get(scope)
        if conversation is None:
            conversation = self._conversations[scope] = _Conversation()
            self._of_user[scope[0]].add(scope)
            self._of_session[scope[1]].add(scope)
        return conversation

    def _rebuild(self, scope: _Scope, gone: Iterable[_Entry], stay: Iterable[_Entry]) -> None:
        """Make a conversation of exactly these entries, whatever state it is in."""
        for entry in gone:
            self._documents.pop(entry.document, None)
        fresh = _Conversation()
        for entry in sorted(stay, key=attrgetter("document")):
            fresh.insert(entry)
            self._documents[entry.document] = entry
        if fresh.entries:
            self._conversation(scope)
            self._conversations[scope] = fresh
            return
        self._conversations.pop(scope, None)
        for scopes, key in ((self._of_user, scope[0]), (self._of_session, scope[1])):
            if key in scopes:
                scopes[key].discard(scope)
                if not scopes[key]:
                    del scopes[key]

    def _take_back(self, changes: _Changes) -> None:
        added = {id(entry) for entry in changes.added}
        for scope in {_scope(entry) for entry in (*changes.added, *changes.removed)}:
            conversation = self._conversations.get(scope)
            now = conversation.entries if conversation is not None else []
            before = {id(e): e for e in (*now, *changes.removed) if id(e) not in added and _scope(e) == scope}
            self._rebuild(scope, [e for e in changes.added if _scope(e) == scope], before.values())

    def _within(self, where: Filter) -> list[_Conversation]:
        """The conversations that a filter's user_id and session_id allow."""
        users, sessions = where.scope(USER_KEY), where.scope(SESSION_KEY)
        scopes: Iterable[_Scope]
        if users is not None and sessions is not None:
            if len(users) == len(sessions) == 1:
                scopes = [(users[0], sessions[0])]
            else:
                allowed = frozenset(sessions)
                own = itertools.chain.from_iterable(self._of_user.get(user, ()) for user in dict.fromkeys(users))
                scopes = [scope for scope in own if scope[1] in allowed]
        elif users is not None:
            scopes = itertools.chain.from_iterable(self._of_user.get(user, ()) for user in dict.fromkeys(users))
        elif sessions is not None:
            scopes = itertools.chain.from_iterable(self._of_session.get(s, ()) for s in dict.fromkeys(sessions))
        else:
            return list(self._conversations.values())
        found = (self._conversations.get(scope) for scope in scopes)
        return [conversation for conversation in found if conversation is not None]

    def _matching(self, where: Filter, before: Message | None, after: Message | None) -> Iterator[_Entry]:
        """The entries that match, the latest first, or with `after` the earliest first."""
        upper = self._place(before) if before is not None else None
        lower = self._place(after) if after is not None else None
        slices: list[Iterator[_Entry]] = []
        for conversation in self._within(where):
            entries = conversation.entries
            start = 0 if lower is None else bisect_right(entries, lower, key=_position)
            stop = len(entries) if upper is None else bisect_left(entries, upper, key=_position)
            numbers = range(start, stop) if after is not None else range(stop - 1, start - 1, -1)
            slices.append(map(entries.__getitem__, numbers))
        if len(slices) == 1:
            merged: Iterator[_Entry] = slices[0]
        else:
            merged = heapq.merge(*slices, key=_position, reverse=after is None)
        narrowed = Filter(where.beyond_scope)
        return (entry for entry in merged if narrowed.matches(entry.message)) if narrowed.conditions else merged

    def _holds(self, message: Message, where: Filter) -> bool:
        """Whether a version of a message is stored, and matches."""
        entry = self._entry(message)
        return entry is not None and where.matches(entry.message)

    def _entry(self, message: Message) -> _Entry | None:
        conversation = self._conversations.get((message.user_id, message.session_id))
        return conversation.by_id.get(message.id) if conversation is not None else None

    def _place(self, anchor: Message) -> _Position:
        entry = self._entry(anchor)
        return entry.position if entry is not None else (anchor.timestamp or 0.0, -1)


def _scope(entry: _Entry) -> _Scope:
    return (entry.message.user_id, entry.message.session_id)
