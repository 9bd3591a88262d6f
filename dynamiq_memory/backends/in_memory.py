"""Messages in this process: nothing to set up, gone with the process."""

from __future__ import annotations

import heapq
import itertools
import threading
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from dynamiq_memory.backends.base import Capabilities, MemoryBackend, Session
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, views
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import COUNT_BITS, Postings, best

_Scope = tuple[str | None, str | None]
_Position = tuple[float, int]


@dataclass(slots=True)
class _Entry:
    """A stored message, its place in time, and its number in the index."""

    position: _Position
    message: Message
    document: int


_position = attrgetter("position")


class _Conversation:
    """The messages of one user's session: in order, by id, and by term."""

    __slots__ = ("by_id", "entries", "index")

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.by_id: dict[str, _Entry] = {}
        self.index = InvertedIndex()

    def insert(self, entry: _Entry, terms: Sequence[str]) -> None:
        if self.entries and entry.position < self.entries[-1].position:
            insort(self.entries, entry, key=_position)
        else:
            self.entries.append(entry)
        self.by_id[entry.message.id] = entry
        self.index.add(entry.document, terms)

    def remove(self, entry: _Entry, terms: Sequence[str]) -> None:
        del self.entries[bisect_left(self.entries, entry.position, key=_position)]
        del self.by_id[entry.message.id]
        self.index.remove(entry.document, terms)


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
            raise ConfigurationError(f"{url!r}: memory:// takes no path and no options")
        return cls()

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        return Capabilities(transactions=True)

    def _write(self, messages: Sequence[Message]) -> None:
        # A tokenizer of the user's may raise: before anything has changed.
        terms = [self.tokenizer(message.text) for message in messages]
        with self._lock:
            for message, words in zip(messages, terms, strict=True):
                self._put(message, words)

    def _read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        with self._lock:
            entries = self._matching(where, before, after)
            chosen = list(itertools.islice(entries, limit))
        if after is None:
            chosen.reverse()
        return views(entry.message for entry in chosen)

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        terms = list(dict.fromkeys(self.tokenizer(query)))
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
        with self._lock:
            if not where.beyond_scope:
                return sum(self._drop(conversation) for conversation in self._within(where))
            doomed = list(self._matching(where, None, None))
            for entry in doomed:
                self._remove(entry)
        return len(doomed)

    def _replace(self, where: Filter, messages: Sequence[Message]) -> None:
        terms = [self.tokenizer(message.text) for message in messages]
        with self._lock:
            self._delete(where)
            for message, words in zip(messages, terms, strict=True):
                self._put(message, words)

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
        return sorted(found, key=lambda session: session.last, reverse=True)

    def _before_fork(self) -> None:
        self._lock.acquire()  # the child must not get a half-written copy

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._lock = threading.RLock()

    def _put(self, message: Message, terms: Sequence[str]) -> None:
        scope = (message.user_id, message.session_id)
        conversation = self._conversations.get(scope)
        if conversation is None:
            conversation = self._conversations[scope] = _Conversation()
            self._of_user[scope[0]].add(scope)
            self._of_session[scope[1]].add(scope)
        number = arrival = next(self._numbers)
        present = conversation.by_id.get(message.id)
        if present is not None:
            arrival = present.position[1]
            self._forget(conversation, present)
        entry = _Entry((message.timestamp or 0.0, arrival), message, number)
        conversation.insert(entry, terms)
        self._documents[number] = entry

    def _remove(self, entry: _Entry) -> None:
        conversation = self._conversations[entry.message.user_id, entry.message.session_id]
        if len(conversation.entries) == 1:
            self._drop(conversation)
        else:
            self._forget(conversation, entry)

    def _drop(self, conversation: _Conversation) -> int:
        message = conversation.entries[0].message
        scope = (message.user_id, message.session_id)
        for entry in conversation.entries:
            del self._documents[entry.document]
        del self._conversations[scope]
        for scopes, key in ((self._of_user, scope[0]), (self._of_session, scope[1])):
            scopes[key].discard(scope)
            if not scopes[key]:
                del scopes[key]
        return len(conversation.entries)

    def _forget(self, conversation: _Conversation, entry: _Entry) -> None:
        conversation.remove(entry, self.tokenizer(entry.message.text))
        del self._documents[entry.document]

    def _within(self, where: Filter) -> list[_Conversation]:
        """The conversations that a filter's user_id and session_id allow."""
        users, sessions = where.scope(USER_KEY), where.scope(SESSION_KEY)
        scopes: Iterable[_Scope]
        if users is not None and sessions is not None:
            scopes = itertools.product(dict.fromkeys(users), dict.fromkeys(sessions))
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

    def _place(self, anchor: Message) -> _Position:
        conversation = self._conversations.get((anchor.user_id, anchor.session_id))
        entry = conversation.by_id.get(anchor.id) if conversation is not None else None
        return entry.position if entry is not None else (anchor.timestamp or 0.0, -1)
