"""The operations of a backend, as typed values.

A public method of a backend checks its arguments, creates an operation and passes it to `execute` or `aexecute`. In a
store that implements `_write`, `_read` and `_delete`, each operation is performed by the method of its name. A wrapper,
a remote or a store made of plans handles all operations in one method, `_perform`. An operation that a store does not
implement itself is performed by its default plan.

Each operation is also a step of a plan: `yield from Read(filter, limit=1)` (see `dynamiq_memory.backends.plans`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from dynamiq_memory.backends._order import (
    check_replaced_order,
    session_filter,
    sessions_of,
    version_filters,
    with_stored_version,
)
from dynamiq_memory.backends._weights import weigh
from dynamiq_memory.backends.plans import Compute, Plan, Step
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, Session, key_of, scope_of
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import best
from dynamiq_memory.ranking.fusion import hybrid
from dynamiq_memory.ranking.pooling import in_sessions, pooled
from dynamiq_memory.ranking.tokenizer import terms_of

if TYPE_CHECKING:
    from dynamiq_memory.backends.base import MemoryBackend

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Operation(Step[T_co], ABC):
    """An operation of a backend; T_co is the type of its result."""

    repeatable: ClassVar[bool] = True
    """Whether performing it twice has the same effect as performing it once."""

    @abstractmethod
    def perform(self, backend: MemoryBackend) -> T_co:
        """Perform the operation by the backend's method for it."""

    def default_plan(self, backend: MemoryBackend) -> Plan[T_co]:
        """Return a plan for stores that do not implement the operation, in terms of Read, Write and Delete."""
        raise TypeError(f"{backend.name} cannot perform {type(self).__name__}")

    def in_order(self, result: Any) -> Sequence[Message]:  # noqa: ARG002
        """Return the messages of a result in the order of their session; empty for a result without such messages."""
        return ()

    def translate(self, by_type: Mapping[type, Callable[[Any], Any]]) -> Self:
        """Return the same operation on other messages, filters or both.

        Args:
            by_type: The functions that translate values of these types; anchors are messages, too.
        """
        return replace(self, **{field.name: translate(getattr(self, field.name), by_type) for field in fields(self)})


def translate(value: Any, by_type: Mapping[type, Callable[[Any], Any]]) -> Any:
    """Translate an argument or a result of an operation; wrappers use this.

    Args:
        value: A message, a session, a filter, a list or tuple of such values (also of lists), or anything else.
        by_type: The functions that translate values of these types. Values of other types stay as they are.
    """
    for kind, function in by_type.items():
        if isinstance(value, kind):
            return function(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        translated = [translate(item, by_type) for item in value]
        return tuple(translated) if isinstance(value, tuple) else translated
    return value


@dataclass(frozen=True, slots=True)
class FilteredOperation(Operation[T_co]):
    """An operation on the messages that match a filter.

    Attributes:
        filter: The messages it may touch.
    """

    filter: Filter


@dataclass(frozen=True, slots=True)
class Write(Operation[None]):
    """Store prepared messages in order. A message with the id of another one of its session replaces that.

    A replaced message keeps its position in the order of arrival.
    """

    messages: Sequence[Message]

    def perform(self, backend: MemoryBackend) -> None:
        """Perform the operation by `_write`."""
        backend._write(self.messages)


@dataclass(frozen=True, slots=True)
class Read(FilteredOperation[list[Message]]):
    """Read messages as specified by `MemoryBackend.get_all`."""

    limit: int | None = None
    before: Message | None = None
    after: Message | None = None

    def perform(self, backend: MemoryBackend) -> list[Message]:
        """Perform the operation by `_read`."""
        return backend._read(self.filter, self.limit, self.before, self.after)

    def in_order(self, result: list[Message]) -> Sequence[Message]:
        """Return the messages of a result in the order of their session."""
        return result


# Stores that cannot measure messages before they read them read this many at first, and then as many as the size of
# those lets expect to fit.
_UNMEASURED = 100
_UNMEASURED_ANCHORS = 32
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ReadPage(FilteredOperation[tuple[list[Message], bool]]):
    """Read messages as `Read` does, but only a page of them: at least one message if any matches.

    The result is the messages, and whether there may be more.

    Attributes:
        limit: Maximum number of messages.
        max_bytes: Size, in characters, at which the page ends. A store that cannot measure messages before it reads
            them may read up to 100 messages more.
        before: Only messages before this stored one.
        after: Only messages after this stored one; the page then has the earliest, not the latest.
    """

    limit: int
    max_bytes: int
    before: Message | None = None
    after: Message | None = None

    def perform(self, backend: MemoryBackend) -> tuple[list[Message], bool]:
        """Perform the operation by `_read`."""
        return backend._by_default(self)

    def default_plan(self, _: MemoryBackend) -> Plan[tuple[list[Message], bool]]:
        """Read few messages, then as many as still fit if they are as large as those."""
        found: list[Message] = []
        before, after = self.before, self.after
        used, size = 0, min(self.limit, _UNMEASURED)
        while True:
            page, more = self.page_of((yield from Read(self.filter, size + 1, before, after)), size)
            found = [*page, *found] if after is None else [*found, *page]
            if not more or len(found) == self.limit or (used := used + weigh(page, self.max_bytes)) >= self.max_bytes:
                return found, more
            before, after = (page[0], None) if after is None else (before, page[-1])
            size = min(self.limit - len(found), _that_fit(self.max_bytes, used, len(found)), _AT_ONCE)

    def in_order(self, result: tuple[list[Message], bool]) -> Sequence[Message]:
        """Return the messages of a result in the order of their session."""
        return result[0]

    def page_of(self, found: list[Message], size: int) -> tuple[list[Message], bool]:
        """Cut a page of so many messages out of what was found, which may be one message more."""
        if len(found) <= size:
            return found, False
        return found[:size] if self.after is not None else found[-size:], True


@dataclass(frozen=True, slots=True)
class Search(FilteredOperation[list[Message]]):
    """Rank messages as specified by `MemoryBackend.search`.

    Attributes:
        query: The query; not blank.
        limit: Maximum number of messages; None for all that match.
        max_bytes: Size, in characters, at which the results end; None for all. A store that cannot measure messages
            before it reads them ignores it.
    """

    query: str
    limit: int | None = None
    max_bytes: int | None = None

    def perform(self, backend: MemoryBackend) -> list[Message]:
        """Perform the operation by `_search`. For stop words, which are in no index, read the texts."""
        if backend._only_stop_words(self.query):
            return backend._by_default(self)
        return backend._search(self.query, self.filter, self.limit)

    def default_plan(self, backend: MemoryBackend) -> Plan[list[Message]]:
        """Rank with BM25 in this process, over all messages that match the filter, or the most recent of them."""
        found = yield from Read(self.filter, backend.most_ranked)
        tokenizer = backend._tokenizer_for(self.query)
        return (yield from Compute(partial(rank, found, self.query, tokenizer, backend.bm25, self.limit)))


@dataclass(frozen=True, slots=True)
class Around(FilteredOperation[list[list[Message]]]):
    """Read the neighbours of stored messages as specified by `MemoryBackend.around`."""

    anchors: Sequence[Message]
    before: int
    after: int

    def perform(self, backend: MemoryBackend) -> list[list[Message]]:
        """Perform the operation by `_around`."""
        return backend._around(self.anchors, self.before, self.after, self.filter)

    def default_plan(self, _: MemoryBackend) -> Plan[list[list[Message]]]:
        """Read the messages before and after each anchor."""
        windows = []
        for anchor in self.anchors:
            session = session_filter(anchor, self.filter)
            earlier = (yield from Read(session, self.before, before=anchor)) if self.before else []
            later = (yield from Read(session, self.after, after=anchor)) if self.after else []
            windows.append([*earlier, anchor, *later])
        return windows


@dataclass(frozen=True, slots=True)
class AroundPage(FilteredOperation[list[tuple[list[Message], bool, bool]]]):
    """Read the neighbours of stored messages as `Around` does, but only up to a size.

    The result is each window, and whether there may be more messages before it and after it.

    Attributes:
        anchors: The stored messages.
        before: Maximum number of messages before each.
        after: Maximum number of messages after each.
        max_bytes: Maximum size, in characters, of all neighbours; None for any. Those of the first anchors come first,
            of each anchor the nearest; a window ends before a message that does not fit. A store that cannot measure
            messages before it reads them may read the neighbours of 32 anchors more.
    """

    anchors: Sequence[Message]
    before: int
    after: int
    max_bytes: int | None = None

    def perform(self, backend: MemoryBackend) -> list[tuple[list[Message], bool, bool]]:
        """Perform the operation by `_around`."""
        return backend._by_default(self)

    def default_plan(self, _: MemoryBackend) -> Plan[list[tuple[list[Message], bool, bool]]]:
        """Read the windows of few anchors, then of as many as still fit if their windows are as large as those."""
        windows: list[list[Message]] = []
        used, size = 0, len(self.anchors) if self.max_bytes is None else min(_UNMEASURED_ANCHORS, self.max_bytes)
        while anchors := self.anchors[len(windows) : len(windows) + size]:
            found = yield from Around(self.filter, anchors, self.before, self.after)
            windows += found
            if self.max_bytes is None or len(windows) == len(self.anchors):
                break
            used += weigh(found, self.max_bytes)
            size = _that_fit(self.max_bytes, used, len(windows)) if used < self.max_bytes else 0
        read = [self.page_of(anchor, window) for anchor, window in zip(self.anchors, windows, strict=False)]
        return read + [([anchor], self.before > 0, self.after > 0) for anchor in self.anchors[len(windows) :]]

    def page_of(self, anchor: Message, window: list[Message]) -> tuple[list[Message], bool, bool]:
        """Return a window that was read as a whole, and whether its sides are as long as they may be."""
        place = next((place for place, each in enumerate(window) if each.id == anchor.id), 0)
        return window, 0 < self.before <= place, 0 < self.after <= len(window) - place - 1


def _that_fit(max_bytes: int, used: int, count: int) -> int:
    """Return how many more may fit, at least one, if they are as large as those that were read."""
    return max(1, (max_bytes - used) * count // max(1, used))


@dataclass(frozen=True, slots=True)
class Delete(FilteredOperation[int]):
    """Delete matching messages. The result is their number."""

    repeatable: ClassVar[bool] = False

    def perform(self, backend: MemoryBackend) -> int:
        """Perform the operation by `_delete`."""
        return backend._delete(self.filter)


@dataclass(frozen=True, slots=True)
class Replace(FilteredOperation[None]):
    """Replace all matching messages with prepared ones."""

    messages: Sequence[Message]

    def perform(self, backend: MemoryBackend) -> None:
        """Perform the operation by `_replace`."""
        backend._replace(self.filter, self.messages)

    def default_plan(self, _: MemoryBackend) -> Plan[None]:
        """Write, then delete. Without a transaction, a crash can leave duplicates, but never lose messages."""
        old = {key_of(message): message for message in (yield from Read(self.filter))}
        check_replaced_order((yield from stored_versions(self.messages)), self.messages)
        if self.messages:
            yield from Write(self.messages)
        for message in self.messages:
            old.pop(key_of(message), None)
        for message in old.values():
            yield from Delete(next(version_filters([message])))


@dataclass(frozen=True, slots=True)
class Update(FilteredOperation[list[Message]]):
    """Store new versions of messages that exist and match. The result is the messages updated."""

    repeatable: ClassVar[bool] = False

    messages: Sequence[Message]

    def perform(self, backend: MemoryBackend) -> list[Message]:
        """Perform the operation by `_update`."""
        return backend._update(self.filter, self.messages)

    def default_plan(self, _: MemoryBackend) -> Plan[list[Message]]:
        """Read, then write. Without a transaction, a message that is deleted in between may come back."""
        present = with_stored_version(self.messages, (yield from stored_versions(self.messages, self.filter)))
        if present:
            yield from Write(present)
        return present


@dataclass(frozen=True, slots=True)
class Take(FilteredOperation[list[Message]]):
    """Delete matching messages and return them in order."""

    repeatable: ClassVar[bool] = False

    def perform(self, backend: MemoryBackend) -> list[Message]:
        """Perform the operation by `_take`."""
        return backend._take(self.filter)

    def default_plan(self, _: MemoryBackend) -> Plan[list[Message]]:
        """Delete one message after the other. The caller that deletes a message gets it."""
        taken = []
        for message in (yield from Read(self.filter)):
            if (yield from Delete(next(version_filters([message], self.filter)))):
                taken.append(message)  # noqa: PERF401 - a comprehension cannot yield
        return taken


@dataclass(frozen=True, slots=True)
class Count(FilteredOperation[int]):
    """Count matching messages."""

    def perform(self, backend: MemoryBackend) -> int:
        """Perform the operation by `_count`."""
        return backend._count(self.filter)

    def default_plan(self, _: MemoryBackend) -> Plan[int]:
        """Read the messages."""
        return len((yield from Read(self.filter)))


@dataclass(frozen=True, slots=True)
class Sessions(FilteredOperation[list[Session]]):
    """List the sessions of matching messages, most recently used first."""

    def perform(self, backend: MemoryBackend) -> list[Session]:
        """Perform the operation by `_sessions`."""
        return backend._sessions(self.filter)

    def default_plan(self, _: MemoryBackend) -> Plan[list[Session]]:
        """Read the messages."""
        found = yield from Read(self.filter)
        return sessions_of((scope_of(message), message.timestamp or 0.0) for message in found)


@dataclass(frozen=True, slots=True)
class IsEmpty(FilteredOperation[bool]):
    """Check whether no message matches."""

    def perform(self, backend: MemoryBackend) -> bool:
        """Perform the operation by `_is_empty`."""
        return backend._is_empty(self.filter)

    def default_plan(self, _: MemoryBackend) -> Plan[bool]:
        """Read one message."""
        return not (yield from Read(self.filter, 1))


def stored_versions(messages: Sequence[Message], filter: Filter = Filter()) -> Plan[list[Message]]:  # noqa: B008 - frozen
    """Read the stored versions of messages that match a filter."""
    found: list[Message] = []
    for each in version_filters(messages, filter):
        found += yield from Read(each)
    return found


def rank(
    messages: list[Message],
    query: str,
    tokenizer: Tokenize,
    bm25: BM25,
    limit: int | None,
    by_meaning: Mapping[int, float] | None = None,
) -> list[Message]:
    """Rank messages in this process, by words or by words and meaning; messages that do not match are omitted.

    Args:
        messages: The messages, oldest first. The results get their `score`.
        query: The query.
        tokenizer: Splits texts into terms.
        bm25: The parameters of the ranking.
        limit: Maximum number of results, or None for all.
        by_meaning: The similarities of messages to the query, by their numbers in the list; None to rank by words.
    """
    index = InvertedIndex()
    for number, message in enumerate(messages):
        index.add(number, terms_of(tokenizer, message.text))
    sessions = in_sessions(range(len(messages)), lambda number: scope_of(messages[number]), int)
    scores = pooled(index.scores(bm25, terms_of(tokenizer, query)), sessions)
    if by_meaning is not None:
        scores = hybrid(scores, by_meaning)
    ranked = best(scores, lambda number: number, limit)
    for number in ranked:
        messages[number].score = scores.of(number)
    return [messages[number] for number in ranked]
