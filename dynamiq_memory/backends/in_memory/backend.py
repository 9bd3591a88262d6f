"""The InMemory backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._order import latest_first, session_filter
from dynamiq_memory.backends._urls import options_in
from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.backends.in_memory.conversations import Changes, Conversations, Entry, position_of
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, Session, scope_of, views
from dynamiq_memory.ranking import BM25, Tokenize
from dynamiq_memory.ranking.bm25 import COUNT_BITS, Postings, best
from dynamiq_memory.ranking.fusion import hybrid
from dynamiq_memory.ranking.pooling import pooled
from dynamiq_memory.ranking.tokenizer import terms_of


class InMemory(MemoryBackend):
    """Keeps messages in this process, with an incremental BM25 index for each session.

    Reading or searching a scope takes time in proportion to that scope, whatever else is stored. A forked child
    process continues with its own copy.

    Args:
        embedder: Anything that `dynamiq_memory.embedders.as_embedder` accepts. With one, messages are ranked by words
            and by meaning together, which needs numpy. Without one, they are ranked by words. Asynchronous methods
            embed in a thread.
        tokenizer: Turns a text into the terms of keyword ranking. Defaults to English words.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: The embedder is not one.
        MissingDependencyError: There is an embedder, and numpy is not installed.
    """

    traces = "nothing that can be read; the memory of a process is not overwritten"

    def __init__(self, embedder: Any = None, *, tokenizer: Tokenize | None = None, bm25: BM25 | None = None) -> None:
        """Begin empty."""
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._embedder = None if embedder is None else MessageEmbedder.compared_here(embedder, "this InMemory store")
        self._lock = threading.RLock()
        self._conversations = Conversations()

    @classmethod
    def from_url(cls, url: str) -> InMemory:
        """Make a backend for the URL `memory://`.

        Args:
            url: The URL; its query may set `embedder` ("local" or a model of OpenAI).

        Raises:
            ConfigurationError: The URL has a host or a path, or an unknown option.
        """
        base, _, query = url.partition("?")
        if base != "memory://":
            raise ConfigurationError("memory:// takes no host and no path")
        return cls(**options_in(query, "memory", {"embedder": str}))

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this instance."""
        return Capabilities(vector=self._embedder is not None, transactions=True)

    def _write(self, messages: Sequence[Message]) -> None:
        entries = self._entries(messages)
        with self._changing() as changes:
            self._conversations.put(entries, changes)

    def _read(self, filter: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        with self._lock:
            entries = list(islice(self._conversations.in_order(filter, before, after), limit))
        if after is None:
            entries.reverse()
        return views(entry.message for entry in entries)

    def _search(self, query: str, filter: Filter, limit: int | None) -> list[Message]:
        terms = list(dict.fromkeys(terms_of(self.tokenizer, query)))
        vector = None if self._embedder is None else self._embedder.embed_query(query)
        if vector is not None and self._embedder is not None:
            self._embedder.check_dimension(len(vector))  # it may be older than the first vector of a message
        with self._lock:
            scores = pooled(self._scores(terms, filter), self._conversations.documents(filter))
            if vector is not None:
                scores = hybrid(scores, self._similarities(vector, filter))
            by_document = self._conversations.by_document
            ranked = best(scores, lambda document: by_document[document].position, limit)
            messages = [by_document[document].message for document in ranked]
        results = views(messages)
        for result, document in zip(results, ranked, strict=True):
            result.score = scores.of(document)
        return results

    def _scores(self, terms: Sequence[str], filter: Filter) -> dict[int, float]:
        """Score the messages that match the whole filter, by their own statistics."""
        if not filter.beyond_scope:
            indexes = [conversation.index for conversation in self._conversations.within(filter)]
            return self.bm25.scores(
                ([index.postings(term) for index in indexes] for term in terms),
                documents=sum(map(len, indexes)),
                total_length=sum(index.total_length for index in indexes),
            )
        matching = [(conversation.index, entries) for conversation, entries in self._conversations.matching(filter)]
        chosen = {entry.document for _, entries in matching for entry in entries}
        total_length = sum(index.lengths[entry.document] for index, entries in matching for entry in entries)

        def postings(term: str) -> list[Postings]:
            everything = (index.postings(term) for index, _ in matching)
            return [([p for p in packed if p >> COUNT_BITS in chosen], lengths) for packed, lengths in everything]

        return self.bm25.scores(map(postings, terms), len(chosen), total_length)

    def _similarities(self, query: Sequence[float], filter: Filter) -> dict[int, float]:
        """Compare the vectors of the messages that match the filter with that of the query."""
        from dynamiq_memory.ranking.vectors import similarities  # noqa: PLC0415 - numpy is optional

        matching = (entry for _, entries in self._conversations.matching(filter) for entry in entries)
        return similarities(query, {entry.document: entry.vector for entry in matching if entry.vector is not None})

    def _delete(self, filter: Filter) -> int:
        with self._changing() as changes:
            self._conversations.delete(filter, changes)
        return len(changes.removed)

    def _replace(self, filter: Filter, messages: Sequence[Message]) -> None:
        entries = self._entries(messages)
        with self._changing() as changes:
            self._conversations.delete(filter, changes)
            self._conversations.put(entries, changes)

    def _update(self, filter: Filter, messages: Sequence[Message]) -> list[Message]:
        entries = self._entries(messages)
        with self._changing() as changes:
            stored = [(entry, self._conversations.find(entry.message)) for entry in entries]
            updated = [entry for entry, old in stored if old is not None and filter.matches(old.message)]
            self._conversations.put(updated, changes)
        return [entry.message for entry in updated]

    def _take(self, filter: Filter) -> list[Message]:
        with self._changing() as changes:
            self._conversations.delete(filter, changes)
        return views(entry.message for entry in sorted(changes.removed, key=position_of))

    def _around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> list[list[Message]]:
        examples = {scope_of(anchor): anchor for anchor in anchors}
        sessions = {scope: session_filter(anchor, filter) for scope, anchor in examples.items()}
        with self._lock:
            found = [self._conversations.beside(each, sessions[scope_of(each)], before, after) for each in anchors]
        # A message that is near several anchors is copied once.
        stored = {id(entry): entry.message for sides in found for entry in chain(*sides)}
        copies = dict(zip(stored, views(stored.values()), strict=True))
        windows: list[list[Message]] = []
        for anchor, sides in zip(anchors, found, strict=True):
            earlier, later = ([copies[id(entry)] for entry in side] for side in sides)
            windows.append([*earlier, anchor, *later])
        return windows

    def _is_empty(self, filter: Filter) -> bool:
        with self._lock:
            return not self._conversations.contain(filter)

    def _count(self, filter: Filter) -> int:
        with self._lock:
            if not filter.conditions:
                return len(self._conversations.by_document)
            return sum(len(entries) for _, entries in self._conversations.matching(filter))

    def _sessions(self, filter: Filter) -> list[Session]:
        with self._lock:
            found = [
                Session(*scope_of(entries[0].message), len(entries), entries[0].position[0], entries[-1].position[0])
                for _, entries in self._conversations.matching(filter)
                if entries
            ]
        return latest_first(found)

    def _before_fork(self) -> None:
        self._lock.acquire()  # the child must not get a half-written copy

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    def _entries(self, messages: Sequence[Message]) -> list[Entry]:
        # Without the lock, and before anything changes: the user's tokenizer and embedder may be slow, raise, or call
        # back.
        entries = [Entry(message, tuple(terms_of(self.tokenizer, message.text))) for message in messages]
        if self._embedder is not None:
            from dynamiq_memory.ranking.vectors import pack  # noqa: PLC0415 - numpy is optional

            for entry, vector in zip(entries, self._embedder.embed(messages), strict=True):
                entry.vector = None if vector is None else pack(vector)
        return entries

    def _close(self) -> None:
        if self._embedder is not None:
            self._embedder.close()

    @contextmanager
    def _changing(self) -> Iterator[Changes]:
        """Hold the lock; on an error, even an interrupt, undo all changes."""
        with self._lock:
            changes = Changes()
            try:
                yield changes
            except BaseException:
                self._undo(changes)
                raise

    def _undo(self, changes: Changes) -> None:
        while True:
            try:
                return self._conversations.undo(changes)
            except KeyboardInterrupt:
                continue
