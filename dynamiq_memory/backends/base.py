"""The contract that every backend keeps. `dynamiq_memory.testing` holds each of its lines as a test.

A backend for a new store subclasses `MemoryBackend` and writes three methods: `_write`, `_read`, `_delete`. All
others have a default in terms of these, which a store overrides where it can do better. Each may have a natively
asynchronous twin (`_awrite`, …); without one, it runs in a thread pool of the backend's own.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar, cast

from dynamiq_memory._closing import Closing
from dynamiq_memory.exceptions import (
    BackendError,
    DynamiqMemoryError,
    InvalidArgumentError,
    MessageTooLargeError,
)
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    USER_KEY,
    Message,
    check_identifier,
    clock,
    prepare,
    size_of,
    views,
)
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize, Tokenizer
from dynamiq_memory.ranking.bm25 import best
from dynamiq_memory.ranking.tokenizer import terms_of

_THREADS = 8
# Checking more messages than this would hold up an event loop for milliseconds.
_BATCH_ON_THE_LOOP = 200
# More than any store holds, and within the 64 bits of a driver's integer.
_LARGEST_LIMIT = 2**62
_ANY = Filter()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; told for each instance.

    Attributes:
        keyword: Ranks by words, natively or by BM25 over the scope.
        vector: Ranks by embeddings.
        ttl: Can let messages expire.
        transactions: A failed batch leaves nothing; a replacement is seen whole or not at all.
        max_message_bytes: The largest message that can be stored, or None for no limit of its own.
    """

    keyword: bool = True
    vector: bool = False
    ttl: bool = False
    transactions: bool = False
    max_message_bytes: int | None = None

    @property
    def hybrid(self) -> bool:
        """Ranks by words and embeddings together."""
        return self.keyword and self.vector


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation in a store.

    Attributes:
        user_id: Whose it is, or None.
        session_id: Its id, or None for messages without one.
        messages: How many messages it has.
        first: Timestamp of its first message, POSIX seconds.
        last: Timestamp of its last message, POSIX seconds.
    """

    user_id: str | None
    session_id: str | None
    messages: int
    first: float
    last: float


class MemoryBackend(Closing, ABC):
    """A store of messages.

    One object is safe from many threads and asyncio tasks, and in a child process after a fork.

    Every method may raise `BackendError` (the store failed, the driver's exception is the cause) and
    `InvalidArgumentError` (an argument is wrong, nothing was read or written). Each has an asynchronous twin of
    the same name with an `a` before it. A task that is cancelled while its operation runs in the thread pool ends when
    the operation does.

    Args:
        tokenizer: Turns a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The driver's exceptions that `_translate` turns into ours."""
    most_ranked: int | None = None
    """How many messages, the most recent that match, are ranked in this process; None for all."""

    def __init__(self, *, tokenizer: Tokenize | None = None, bm25: BM25 | None = None) -> None:
        """Set up what all backends share."""
        self.tokenizer: Tokenize = Tokenizer() if tokenizer is None else tokenizer
        self.bm25 = BM25() if bm25 is None else bm25
        self._closed = False
        self._executor: ThreadPoolExecutor | None = None
        self._executor_lock = threading.Lock()
        _living.add(self)

    @property
    def name(self) -> str:
        """The backend's name."""
        return type(self).__name__

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        return Capabilities()

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def to_url(self) -> str | None:
        """A URL without secrets by which `create_backend` opens the same store; None if there is none."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its secrets and messages."""
        kind = type(self)
        return {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "name": self.name,
            "capabilities": asdict(self.capabilities),
        }

    def __repr__(self) -> str:
        """Name the backend; no secrets."""
        return f"{self.name}()"

    # --- the public methods: check, call, translate errors ---------------------------------------------------

    def add(self, message: Message) -> Message:
        """Store one message; see `add_many`."""
        return self.add_many([message])[0]

    async def aadd(self, message: Message) -> Message:
        """Store one message; see `add_many`."""
        return (await self.aadd_many([message]))[0]

    def add_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch: durable when this returns, all or none where the store can.

        Args:
            messages: The messages; they are not changed. The same id in the same session again replaces.

        Returns:
            The messages as stored.

        Raises:
            MessageError: A message cannot be stored as it is given.
            PartialWriteError: The store has no transactions and failed midway; it names the ids that are in.
        """
        prepared = self._prepare(messages)
        if prepared:
            self._call("write", prepared)
        return views(prepared)

    async def aadd_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch; see `add_many`."""
        large = isinstance(messages, Sized) and len(messages) > _BATCH_ON_THE_LOOP
        prepared = await self._in_thread(self._prepare, messages) if large else self._prepare(messages)
        if prepared:
            await self._acall("write", prepared)
        return views(prepared)

    def get_all(
        self,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        before: Message | None = None,
        after: Message | None = None,
    ) -> list[Message]:
        """Read the most recent messages, oldest first.

        Args:
            limit: At most so many, 1 or more; None for all.
            filters: Only messages that match (see `dynamiq_memory.filters`).
            before: Only messages before this stored one.
            after: Only messages behind this stored one; then the limit keeps the earliest, not the latest.

        Returns:
            The messages in the order of (timestamp, arrival).

        Raises:
            FilterError: The filter is not of the language.
        """
        arguments = (parse(filters), check_limit(limit), before, after)
        return cast("list[Message]", self._call("read", *arguments))

    async def aget_all(
        self,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        before: Message | None = None,
        after: Message | None = None,
    ) -> list[Message]:
        """Read the most recent messages, oldest first; see `get_all`."""
        arguments = (parse(filters), check_limit(limit), before, after)
        return cast("list[Message]", await self._acall("read", *arguments))

    def search(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query.

        Args:
            query: What to look for. None or blank ranks nothing: the result is that of `get_all`.
            filters: Only messages that match; applied before ranking and before the limit.
            limit: At most so many, 1 or more; None for all that match.

        Returns:
            With a query, the messages that match it at all, best first and of equals the latest first, each
            with its `score`. Without one, the most recent, oldest first.

        Raises:
            FilterError: The filter is not of the language.
        """
        name, arguments = self._search_call(query, filters, limit)
        return cast("list[Message]", self._call(name, *arguments))

    async def asearch(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query; see `search`."""
        name, arguments = self._search_call(query, filters, limit)
        return cast("list[Message]", await self._acall(name, *arguments))

    def around(
        self, anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Message]]:
        """Read the neighbours of stored messages, each within the anchor's own session.

        Args:
            anchors: Stored messages.
            before: At most so many messages before each, 0 or more.
            after: At most so many behind each, 0 or more.
            filters: Only neighbours that match.

        Returns:
            For each anchor, its neighbours and itself in the order of (timestamp, arrival).
        """
        arguments = (anchors, check_neighbours(before), check_neighbours(after), parse(filters))
        return cast("list[list[Message]]", self._call("around", *arguments))

    async def aaround(
        self, anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Message]]:
        """Read the neighbours of stored messages; see `around`."""
        arguments = (anchors, check_neighbours(before), check_neighbours(after), parse(filters))
        return cast("list[list[Message]]", await self._acall("around", *arguments))

    def delete(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the messages of a session, of a user, or of a user's session.

        Args:
            session_id: Only this session.
            user_id: Only this user.
            filters: Of these, only messages that match.

        Returns:
            How many were deleted.

        Raises:
            InvalidArgumentError: Neither session_id nor user_id is given.
        """
        return cast("int", self._call("delete", _delete_filter(session_id, user_id, filters)))

    async def adelete(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the messages of a session, of a user, or of a user's session; see `delete`."""
        return cast("int", await self._acall("delete", _delete_filter(session_id, user_id, filters)))

    def replace(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Put messages in the place of all that match a filter; readers see the old set or the new one.

        Args:
            filters: What to replace; it must fix `user_id`, `session_id` or both to one value.
            messages: What to put there, in order, also where times are equal; a message without user_id or session_id
                gets the filter's. Where the filter replaces a part of a conversation, messages that were given no time
                stand there too.

        Returns:
            The messages as stored.

        Raises:
            InvalidArgumentError: The filter fixes no scope, or a message is of another user or session.
            MessageError: A message cannot be stored as it is given.
            BackendError: The store fails, or cannot give this order.
        """
        where, scope = _replace_scope(filters)
        # Within a part of a conversation, what replaces stands where the replaced stood.
        last = self.get_all(1, filters) if where.beyond_scope else []
        prepared = self._to_replace(where, scope, messages, last)
        self._call("replace", where, prepared)
        return views(prepared)

    async def areplace(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Put messages in the place of all that match a filter; see `replace`."""
        where, scope = _replace_scope(filters)
        last = await self.aget_all(1, filters) if where.beyond_scope else []
        prepared = self._to_replace(where, scope, messages, last)
        await self._acall("replace", where, prepared)
        return views(prepared)

    def update(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Store new versions of messages that are still there, as one batch; what has been deleted stays deleted.

        Args:
            messages: The new versions, each with the id, user_id and session_id of the stored one.
            filters: Only those whose stored version matches. Of several callers at once who change what they filter by,
                one gets each message.

        Returns:
            Those that were stored, in the order given.

        Raises:
            FilterError: The filter is not of the language.
            MessageError: A message cannot be stored as it is given.
        """
        where, prepared = parse(filters), self._prepare(messages)
        return views(cast("list[Message]", self._call("update", where, prepared)) if prepared else [])

    async def aupdate(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Store new versions of messages that are still there; see `update`."""
        where, prepared = parse(filters), self._prepare(messages)
        return views(cast("list[Message]", await self._acall("update", where, prepared)) if prepared else [])

    def take(self, filters: Mapping[str, Any]) -> list[Message]:
        """Delete what matches a filter and return it; of several callers at once, one gets each message.

        Args:
            filters: What to take.

        Returns:
            What was deleted, in the order of (timestamp, arrival).

        Raises:
            FilterError: The filter is not of the language.
        """
        return cast("list[Message]", self._call("take", parse(filters)))

    async def atake(self, filters: Mapping[str, Any]) -> list[Message]:
        """Delete what matches a filter and return it; see `take`."""
        return cast("list[Message]", await self._acall("take", parse(filters)))

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match a filter."""
        return cast("int", self._call("count", parse(filters)))

    async def acount(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match a filter."""
        return cast("int", await self._acall("count", parse(filters)))

    def sessions(self, filters: Mapping[str, Any] | None = None) -> list[Session]:
        """List the sessions that have messages matching a filter, the most recently used first."""
        return cast("list[Session]", self._call("sessions", parse(filters)))

    async def asessions(self, filters: Mapping[str, Any] | None = None) -> list[Session]:
        """List the sessions that have messages matching a filter, the most recently used first."""
        return cast("list[Session]", await self._acall("sessions", parse(filters)))

    def is_empty(self) -> bool:
        """Whether the store holds no message at all."""
        return not self.get_all(limit=1)

    async def ais_empty(self) -> bool:
        """Whether the store holds no message at all."""
        return not await self.aget_all(limit=1)

    def clear(self, filters: Mapping[str, Any] | None = None) -> int:
        """Delete everything, or everything that matches a filter.

        Returns:
            How many messages were deleted.
        """
        return cast("int", self._call("delete", parse(filters)))

    async def aclear(self, filters: Mapping[str, Any] | None = None) -> int:
        """Delete everything, or everything that matches a filter; see `clear`."""
        return cast("int", await self._acall("delete", parse(filters)))

    def close(self) -> None:
        """Release what the backend opened. A client or engine that the caller passed in stays open."""
        if self._closed:
            return
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._close()

    async def aclose(self) -> None:
        """Release what the backend opened; see `close`."""
        await asyncio.to_thread(self.close)

    # --- what a store implements -----------------------------------------------------------------------------

    @abstractmethod
    def _write(self, messages: Sequence[Message]) -> None:
        """Store prepared messages in this order; a message whose id is in its session replaces that one.

        A replaced message keeps its place in the order of arrival.
        """

    @abstractmethod
    def _read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        """Read messages as `get_all` promises, as `dynamiq_memory.messages.views` makes them."""

    @abstractmethod
    def _delete(self, where: Filter) -> int:
        """Delete what matches and return the count."""

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        """Rank as `search` promises. By default, BM25 in this process over all that matches the filter."""
        return self._rank(self.tokenizer, query, where, limit)

    def _around(self, anchors: Sequence[Message], before: int, after: int, where: Filter) -> list[list[Message]]:
        windows = []
        for anchor in anchors:
            within = session_filter(anchor, where)
            earlier = self._read(within, before, anchor, None) if before else []
            later = self._read(within, after, None, anchor) if after else []
            windows.append([*earlier, anchor, *later])
        return windows

    def _replace(self, where: Filter, messages: Sequence[Message]) -> None:
        """Replace as `replace` promises. By default without a transaction: a crash can double, never lose."""
        old = {_key(message): message for message in self._read(where, None, None, None)}
        versions = chain.from_iterable(self._read(each, None, None, None) for each in versions_filters(messages))
        check_places(versions, messages)
        if messages:
            self._write(messages)
        for message in messages:
            old.pop(_key(message), None)
        for message in old.values():
            self._delete(next(versions_filters([message])))

    def _update(self, where: Filter, messages: Sequence[Message]) -> list[Message]:
        """Update as `update` promises. By default without a transaction: what is deleted meanwhile may come back."""
        held = chain.from_iterable(self._read(each, None, None, None) for each in versions_filters(messages, where))
        present = those_among(messages, held)
        if present:
            self._write(present)
        return present

    def _take(self, where: Filter) -> list[Message]:
        """Take as `take` promises. By default, one message after the other: whoever deletes it has it."""
        held = self._read(where, None, None, None)
        return [message for message in held if self._delete(next(versions_filters([message], where)))]

    def _count(self, where: Filter) -> int:
        return len(self._read(where, None, None, None))

    def _sessions(self, where: Filter) -> list[Session]:
        groups: dict[tuple[str | None, str | None], list[float]] = {}
        for message in self._read(where, None, None, None):
            groups.setdefault((message.user_id, message.session_id), []).append(message.timestamp or 0.0)
        found = [Session(*scope, len(times), min(times), max(times)) for scope, times in groups.items()]
        return sorted(found, key=latest_first)

    def _close(self) -> None:
        """Close connections that the backend opened."""

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        """Turn one of `driver_errors` into an error of ours."""
        return BackendError(f"{self.name}: {error}")

    def _may_repeat(self, name: str, error: Exception, attempt: int) -> bool:  # noqa: ARG002 - for those who can
        """Whether an operation that failed so for the `attempt`-th time can be tried again, and nothing be doubled."""
        return False

    def _before_fork(self) -> None:
        """Hold what must not change while the process forks."""

    def _after_fork_in_parent(self) -> None:
        """Let go of what `_before_fork` holds."""

    def _after_fork(self) -> None:
        """Renew, in a child process, what must not be shared with the parent: locks, connections."""
        self._executor = None
        self._executor_lock = threading.Lock()

    # --- shared parts ----------------------------------------------------------------------------------------

    def _prepare(
        self, messages: Sequence[Message], scope: Mapping[str, str] | None = None, place: float | None = None
    ) -> list[Message]:
        if isinstance(messages, Message | str | Mapping) or not isinstance(messages, Iterable):
            raise InvalidArgumentError("messages must be a list of Message")
        prepared = prepare(list(messages), scope, place)
        largest = self.capabilities.max_message_bytes
        if largest is not None:
            for message in prepared:
                size = size_of(message)
                if size > largest:
                    raise MessageTooLargeError(
                        f"message {message.id} takes {size:,} bytes; {self.name} stores up to {largest:,} in one "
                        "message: split it, or store the content elsewhere and keep a reference"
                    )
        return prepared

    def _search_call(
        self, query: str | None, filters: Mapping[str, Any] | None, limit: int | None
    ) -> tuple[str, tuple[Any, ...]]:
        where, limit = parse(filters), check_limit(limit)
        check_query(query)
        if query is None or not query.strip():
            return "read", (where, limit, None, None)
        if isinstance(self.tokenizer, Tokenizer) and self.capabilities.keyword and not self.tokenizer(query):
            # Stop words alone: an index does not hold them, so look at the texts themselves.
            return "rank", (self.tokenizer.keeping_stop_words, query, where, limit)
        return "search", (query, where, limit)

    def _to_replace(
        self, where: Filter, scope: Mapping[str, str], messages: Sequence[Message], last: Sequence[Message]
    ) -> list[Message]:
        prepared = self._prepare(messages, scope, last[0].timestamp if last else None)
        for message in prepared:
            for key in (USER_KEY, SESSION_KEY):
                allowed = where.scope(key)
                if allowed is not None and message.metadata.get(key) not in allowed:
                    raise InvalidArgumentError(
                        f"message {message.id} has {key}={message.metadata.get(key)!r}, outside of what the filters "
                        f"replace: {allowed!r}"
                    )
        return prepared

    def _rank(self, tokenizer: Tokenize, query: str, where: Filter, limit: int | None) -> list[Message]:
        """Rank in this process all that matches the filter."""
        return self._ranked(tokenizer, query, self._read(where, self.most_ranked, None, None), limit)

    def _ranked(self, tokenizer: Tokenize, query: str, messages: list[Message], limit: int | None) -> list[Message]:
        """Rank messages that have been read."""
        index = InvertedIndex()
        for number, message in enumerate(messages):
            index.add(number, terms_of(tokenizer, message.text))
        scores = index.scores(self.bm25, terms_of(tokenizer, query))
        ranked = best(scores, lambda number: number, limit)
        for number in ranked:
            messages[number].score = scores[number]
        return [messages[number] for number in ranked]

    def _call(self, name: str, *arguments: Any) -> Any:
        attempt = 0
        while True:
            self._check_open()
            attempt += 1
            try:
                return getattr(self, f"_{name}")(*arguments)
            except self.driver_errors as error:
                if not self._may_repeat(name, error, attempt):
                    raise self._translate(error) from error

    async def _acall(self, name: str, *arguments: Any) -> Any:
        attempt = 0
        while True:
            self._check_open()
            attempt += 1
            try:
                return await self._perform(name, *arguments)
            except self.driver_errors as error:
                if not self._may_repeat(name, error, attempt):
                    raise self._translate(error) from error

    async def _perform(self, name: str, *arguments: Any) -> Any:
        """Do an operation asynchronously: by its native twin, or in the thread pool."""
        native = getattr(self, f"_a{name}", None)
        if native is not None:
            return await native(*arguments)
        return await self._in_thread(getattr(self, f"_{name}"), *arguments)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        run = partial(contextvars.copy_context().run, function, *arguments)
        try:
            started = self._threads().submit(run)
        except RuntimeError:
            self._check_open()  # closed between the check and here
            raise
        result = asyncio.wrap_future(started)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            # What runs cannot be stopped. It must be over when the caller goes on, or it would undo what comes next.
            if not started.cancel():
                await _until_over(result)
            raise

    def _threads(self) -> ThreadPoolExecutor:
        with self._executor_lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"dynamiq-memory-{self.name}")
            return self._executor

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name} is closed: make a new one, or close it later")


async def _until_over(operation: asyncio.Future[Any]) -> None:
    """Wait for what cannot be stopped, however often the one who waits is cancelled."""
    while not operation.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([operation])


def check_limit(limit: int | None) -> int | None:
    """Check a limit.

    Raises:
        InvalidArgumentError: It is neither None nor a whole number of 1 or more.
    """
    if limit is None:
        return None
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return min(limit, _LARGEST_LIMIT)
    raise InvalidArgumentError(f"limit must be a whole number of 1 or more, or None; not {limit!r}")


def check_neighbours(count: int) -> int:
    """Check how many neighbours are asked for.

    Raises:
        InvalidArgumentError: It is no whole number of 0 or more.
    """
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return min(count, _LARGEST_LIMIT)
    raise InvalidArgumentError(f"the number of neighbours must be a whole number of 0 or more, not {count!r}")


def check_query(query: str | None) -> None:
    """Check a query.

    Raises:
        InvalidArgumentError: It is neither a string nor None.
    """
    if query is not None and not isinstance(query, str):
        raise InvalidArgumentError(f"query must be a string or None, not {type(query).__name__}")


def _replace_scope(filters: Mapping[str, Any]) -> tuple[Filter, dict[str, str]]:
    """Check the filters of `replace`; return them with the single values of the scope."""
    where = parse(filters)
    scope: dict[str, str] = {}
    for key in (USER_KEY, SESSION_KEY):
        allowed = where.scope(key)
        if allowed is not None and len(allowed) == 1 and allowed[0] is not None:
            scope[key] = allowed[0]
    if not scope:
        raise InvalidArgumentError(
            "replace needs filters that fix user_id or session_id to one value: without, it would replace other "
            "users' messages"
        )
    return where, scope


def _delete_filter(session_id: str | None, user_id: str | None, filters: Mapping[str, Any] | None) -> Filter:
    if session_id is None and user_id is None:
        raise InvalidArgumentError("delete needs session_id, user_id or both; clear() deletes everything")
    scope: dict[str, str] = {}
    for key, value in ((SESSION_KEY, session_id), (USER_KEY, user_id)):
        if value is not None:
            scope[key] = check_identifier(value, key)
    both = parse(scope).conditions + parse(filters).conditions
    return Filter(both)


def session_filter(message: Message, where: Filter) -> Filter:
    """The filter for a message's own session, and what another filter says besides."""
    session = parse({USER_KEY: message.user_id, SESSION_KEY: message.session_id})
    return Filter(session.conditions + where.conditions)


def versions_filters(messages: Sequence[Message], where: Filter = _ANY) -> Iterator[Filter]:
    """For each session that messages are of, the filter for their stored versions, and what another filter says."""
    ids: dict[tuple[str | None, str | None], list[str]] = {}
    for message in messages:
        ids.setdefault((message.user_id, message.session_id), []).append(message.id)
    for (user_id, session_id), own in ids.items():
        versions = parse({USER_KEY: user_id, SESSION_KEY: session_id, MESSAGE_ID_KEY: own})
        yield Filter(versions.conditions + where.conditions)


def those_among(messages: Sequence[Message], stored: Iterable[Message]) -> list[Message]:
    """Those of messages of which a version is among the stored ones."""
    keys = {_key(message) for message in stored}
    return [message for message in messages if _key(message) in keys]


def check_places(stored: Iterable[Message], messages: Sequence[Message]) -> None:
    """Check that a replacement comes in the order given, in a store where a new version takes the place of the old.

    Args:
        stored: The stored versions of what comes, in their order.
        messages: What comes.

    Raises:
        BackendError: It would not: among equal times the stored ones would keep theirs.
    """
    wanted = {_key(message): message for message in messages}
    kept = [wanted[key] for key in map(_key, stored) if key in wanted]
    placed = list({_key(message): message for message in (*kept, *messages)})
    result = sorted(placed, key=lambda key: wanted[key].timestamp or 0.0)
    if result != sorted(wanted, key=lambda key: wanted[key].timestamp or 0.0):
        raise BackendError(
            "this store cannot change the order of messages of the same time: give them the times that they are to have"
        )


def _key(message: Message) -> tuple[str | None, str | None, str]:
    return (message.user_id, message.session_id, message.id)


def latest_first(session: Session) -> tuple[float, str, str]:
    """The order of sessions: the most recently used first, then by user and session."""
    return (-session.last, session.user_id or "", session.session_id or "")


_living: weakref.WeakSet[MemoryBackend] = weakref.WeakSet()
_forking: list[MemoryBackend] = []
# Two threads may fork at once.
_fork_lock = threading.Lock()


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking[:] = _living
    for backend in _forking:
        backend._before_fork()  # noqa: SLF001 - the module's own class


def _after_fork_in_parent() -> None:
    for backend in _forking:
        backend._after_fork_in_parent()  # noqa: SLF001
    _forking.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _fork_lock  # noqa: PLW0603 - the parent's may be held by a thread that the child does not have
    _fork_lock = threading.Lock()
    clock.renew_lock()
    for backend in _forking:
        backend._after_fork()  # noqa: SLF001
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
