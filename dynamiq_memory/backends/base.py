"""The contract that every backend keeps. `dynamiq_memory.testing` checks each of its rules with a test.

A backend for a new store subclasses `MemoryBackend` and writes three methods: `_write`, `_read`, `_delete`. All others
have a default in terms of these, which a store overrides where it can do better. A backend that handles all operations
alike (a wrapper, a remote) writes `_perform` and `_aperform` instead.
"""

from __future__ import annotations

import asyncio
from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from dynamiq_memory._checks import check_limit, check_neighbours, check_query, deletion_filter, replacement_filter
from dynamiq_memory._closing import Closing
from dynamiq_memory.backends._defaults import default_plan
from dynamiq_memory.backends._forks import WatchesForks
from dynamiq_memory.backends._threads import ShutDownError, Threads
from dynamiq_memory.backends.operations import (
    Around,
    Count,
    Delete,
    IsEmpty,
    Operation,
    Read,
    Replace,
    Search,
    Sessions,
    Take,
    Update,
    Write,
)
from dynamiq_memory.backends.plans import Compute, Plan, Step, arun, run
from dynamiq_memory.exceptions import BackendError, DynamiqMemoryError, InvalidArgumentError, MessageTooLargeError
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session, prepare, size_of, views
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import signature_of

__all__ = ["Capabilities", "MemoryBackend", "Session"]

T = TypeVar("T")

# Checking more messages than this would hold up an event loop for milliseconds.
_BATCH_ON_THE_LOOP = 200


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an instance of a backend can do.

    Attributes:
        keyword: Ranks by words, natively or by BM25 over the scope.
        vector: Ranks by embeddings.
        ttl: Can let messages expire.
        transactions: A failed batch leaves nothing; a replacement is seen whole or not at all.
        max_message_bytes: The largest message that can be stored, or None if the backend sets no limit.
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


class MemoryBackend(Closing, ABC, metaclass=WatchesForks):
    """A store of messages.

    One object is safe from many threads and asyncio tasks, and in a child process after a fork.

    Every method may raise `BackendError` (the store failed; the driver's exception is the cause) and
    `InvalidArgumentError` (an argument is wrong; nothing was read or written). Each has an asynchronous twin of the
    same name with an `a` before it. A task that is cancelled while its operation runs in a thread ends when the
    operation does.

    Args:
        tokenizer: Splits a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.

    Raises:
        TypeError: The class lacks one of the methods that it must write.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The driver's exceptions, which `_translate` turns into ours."""
    most_ranked: int | None = None
    """How many messages are ranked in this process, the most recent that match; None for all."""

    def __init__(self, *, tokenizer: Tokenize | None = None, bm25: BM25 | None = None) -> None:
        """Set up what all backends share."""
        self._check_complete()
        self.tokenizer: Tokenize = Tokenizer() if tokenizer is None else tokenizer
        self.bm25 = BM25() if bm25 is None else bm25
        self._closed = False
        self._threads = Threads(f"dynamiq-memory-{self.name}")

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

    # --- what users call: each checks its arguments and makes an operation -------------------------------------

    def add(self, message: Message) -> Message:
        """Store one message; see `add_many`."""
        return self.add_many([message])[0]

    async def aadd(self, message: Message) -> Message:
        """Store one message; see `add_many`."""
        return (await self.aadd_many([message]))[0]

    def add_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch: durable when this returns, all or none where the store can.

        Args:
            messages: The messages; they are not changed. An id that is already in the session replaces that message.

        Returns:
            The messages as stored.

        Raises:
            MessageError: A message cannot be stored as given.
            PartialWriteError: The store has no transactions and failed halfway; the error lists the stored ids.
        """
        prepared = self._prepare(messages)
        if prepared:
            self.execute(Write(prepared))
        return views(prepared)

    async def aadd_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch; see `add_many`."""
        large = isinstance(messages, Sized) and len(messages) > _BATCH_ON_THE_LOOP
        prepared = await self._in_thread(self._prepare, messages) if large else self._prepare(messages)
        if prepared:
            await self.aexecute(Write(prepared))
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
            limit: Maximum number of messages, 1 or more; None for all.
            filters: Only messages that match (see `dynamiq_memory.filters`).
            before: Only messages before this stored one.
            after: Only messages after this stored one; the limit then keeps the earliest, not the latest.

        Returns:
            The messages in the order of (timestamp, arrival).

        Raises:
            FilterError: The filter is not written in the filter language.
        """
        return self.execute(Read(parse(filters), check_limit(limit), before, after))

    async def aget_all(
        self,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        before: Message | None = None,
        after: Message | None = None,
    ) -> list[Message]:
        """Read the most recent messages, oldest first; see `get_all`."""
        return await self.aexecute(Read(parse(filters), check_limit(limit), before, after))

    def search(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query.

        Args:
            query: What to look for. None or blank ranks nothing: the result is that of `get_all`.
            filters: Only messages that match; applied before ranking and before the limit.
            limit: Maximum number of messages, 1 or more; None for all that match.

        Returns:
            With a query, the messages that match it at all, best first and the latest first among equals, each with
            its `score`. Without one, the most recent, oldest first.

        Raises:
            FilterError: The filter is not written in the filter language.
        """
        return self.execute(self._search_operation(query, filters, limit))

    async def asearch(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query; see `search`."""
        return await self.aexecute(self._search_operation(query, filters, limit))

    def around(
        self, anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Message]]:
        """Read the neighbours of stored messages, each within the anchor's own session.

        Args:
            anchors: Stored messages.
            before: Maximum number of messages before each, 0 or more.
            after: Maximum number of messages after each, 0 or more.
            filters: Only neighbours that match.

        Returns:
            For each anchor, its neighbours and itself in the order of (timestamp, arrival).
        """
        return self.execute(Around(parse(filters), anchors, check_neighbours(before), check_neighbours(after)))

    async def aaround(
        self, anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Message]]:
        """Read the neighbours of stored messages; see `around`."""
        return await self.aexecute(Around(parse(filters), anchors, check_neighbours(before), check_neighbours(after)))

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
            The number of deleted messages.

        Raises:
            InvalidArgumentError: Neither session_id nor user_id is given.
        """
        return self.execute(Delete(deletion_filter(session_id, user_id, filters)))

    async def adelete(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the messages of a session, of a user, or of a user's session; see `delete`."""
        return await self.aexecute(Delete(deletion_filter(session_id, user_id, filters)))

    def replace(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Replace all messages that match a filter; readers see either the old messages or the new.

        Args:
            filters: The messages to replace; must fix `user_id`, `session_id` or both to one value.
            messages: The new messages; they keep this order, also where times are equal. One without user_id or
                session_id gets the filter's. Where the filter replaces a part of a conversation, messages without a
                time get the position of that part.

        Returns:
            The messages as stored.

        Raises:
            InvalidArgumentError: The filter fixes no scope, or a message belongs to another user or session.
            MessageError: A message cannot be stored as given.
            BackendError: The store fails, or cannot keep this order.
        """
        return run(self._replacement(filters, messages), self.execute)

    async def areplace(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Replace all messages that match a filter; see `replace`."""
        return await arun(self._replacement(filters, messages), self.aexecute)

    def update(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Store new versions of messages that are still stored, as one batch; deleted messages stay deleted.

        Args:
            messages: The new versions, each with the id, user_id and session_id of the stored one.
            filters: Only those whose stored version matches. When several callers change the key that they filter by
                at the same time, each message goes to one of them.

        Returns:
            The stored messages, in the order given.

        Raises:
            FilterError: The filter is not written in the filter language.
            MessageError: A message cannot be stored as given.
        """
        filter, prepared = parse(filters), self._prepare(messages)
        return views(self.execute(Update(filter, prepared)) if prepared else [])

    async def aupdate(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Store new versions of messages that are still stored; see `update`."""
        filter, prepared = parse(filters), self._prepare(messages)
        return views(await self.aexecute(Update(filter, prepared)) if prepared else [])

    def take(self, filters: Mapping[str, Any]) -> list[Message]:
        """Delete the messages that match a filter and return them; of several callers, each message goes to one.

        Args:
            filters: The messages to take.

        Returns:
            The deleted messages, in the order of (timestamp, arrival).

        Raises:
            FilterError: The filter is not written in the filter language.
        """
        return self.execute(Take(parse(filters)))

    async def atake(self, filters: Mapping[str, Any]) -> list[Message]:
        """Delete the messages that match a filter and return them; see `take`."""
        return await self.aexecute(Take(parse(filters)))

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match a filter."""
        return self.execute(Count(parse(filters)))

    async def acount(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match a filter."""
        return await self.aexecute(Count(parse(filters)))

    def sessions(self, filters: Mapping[str, Any] | None = None) -> list[Session]:
        """List the sessions with messages that match a filter, the most recently used first."""
        return self.execute(Sessions(parse(filters)))

    async def asessions(self, filters: Mapping[str, Any] | None = None) -> list[Session]:
        """List the sessions with messages that match a filter, the most recently used first."""
        return await self.aexecute(Sessions(parse(filters)))

    def is_empty(self) -> bool:
        """Whether the store holds no message at all."""
        return self.execute(IsEmpty(Filter()))

    async def ais_empty(self) -> bool:
        """Whether the store holds no message at all."""
        return await self.aexecute(IsEmpty(Filter()))

    def clear(self, filters: Mapping[str, Any] | None = None) -> int:
        """Delete everything, or everything that matches a filter.

        Returns:
            The number of deleted messages.
        """
        return self.execute(Delete(parse(filters)))

    async def aclear(self, filters: Mapping[str, Any] | None = None) -> int:
        """Delete everything, or everything that matches a filter; see `clear`."""
        return await self.aexecute(Delete(parse(filters)))

    def close(self) -> None:
        """Release what the backend opened. A client or engine owned by the caller stays open."""
        if self._closed:
            return
        self._closed = True
        self._threads.shut_down()
        self._close()

    async def aclose(self) -> None:
        """Release what the backend opened; see `close`."""
        await asyncio.to_thread(self.close)

    # --- the one way of every operation ------------------------------------------------------------------------

    def execute(self, operation: Operation[T]) -> T:
        """Perform an operation: errors are translated here, and passing failures retried.

        Raises:
            BackendError: The store failed, or the backend is closed.
        """
        attempt = 0
        while True:
            self._check_open()
            attempt += 1
            try:
                return self._perform(operation)
            except self.driver_errors as error:
                if not self._may_repeat(operation, error, attempt):
                    raise self._translate(error) from error

    async def aexecute(self, operation: Operation[T]) -> T:
        """Perform an operation; see `execute`."""
        attempt = 0
        while True:
            self._check_open()
            attempt += 1
            try:
                return await self._aperform(operation)
            except self.driver_errors as error:
                if not self._may_repeat(operation, error, attempt):
                    raise self._translate(error) from error

    def _perform(self, operation: Operation[T]) -> T:
        """Perform an operation, once; by default, by the method for it."""
        return operation.perform(self)

    async def _aperform(self, operation: Operation[T]) -> T:
        """Perform an operation asynchronously; by default, in a thread."""
        return await self._in_thread(self._perform, operation)

    def _may_repeat(self, operation: Operation[Any], error: Exception, attempt: int) -> bool:  # noqa: ARG002
        """Whether to try an operation again after it failed for the `attempt`-th time; by default, never."""
        return False

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        """Turn one of `driver_errors` into our error."""
        return BackendError(f"{self.name}: {error}")

    # --- what a store writes -----------------------------------------------------------------------------------

    def _write(self, messages: Sequence[Message]) -> None:
        """Store prepared messages in this order; a message whose id is already in its session replaces that message.

        A replaced message keeps its position in the order of arrival.
        """
        raise NotImplementedError("_write")

    def _read(self, filter: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        """Read messages as `get_all` promises, copied by `dynamiq_memory.messages.views`."""
        raise NotImplementedError("_read")

    def _delete(self, filter: Filter) -> int:
        """Delete matching messages and return their number."""
        raise NotImplementedError("_delete")

    def _search(self, query: str, filter: Filter, limit: int | None) -> list[Message]:
        """Rank as `search` promises. By default, BM25 in this process over all that matches the filter."""
        return self._by_default(Search(filter, query, limit))

    def _search_texts(self, search: Search) -> list[Message]:
        """Rank by a query of stop words, which only the texts themselves contain."""
        return self._by_default(search)

    def _around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> list[list[Message]]:
        """Read neighbours as `around` promises."""
        return self._by_default(Around(filter, anchors, before, after))

    def _replace(self, filter: Filter, messages: Sequence[Message]) -> None:
        """Replace as `replace` promises. By default without a transaction: a crash can double, but never lose."""
        self._by_default(Replace(filter, messages))

    def _update(self, filter: Filter, messages: Sequence[Message]) -> list[Message]:
        """Update as `update` promises. By default without a transaction: a deleted message may come back."""
        return self._by_default(Update(filter, messages))

    def _take(self, filter: Filter) -> list[Message]:
        """Take as `take` promises. By default, one message after the other."""
        return self._by_default(Take(filter))

    def _count(self, filter: Filter) -> int:
        """Count matching messages."""
        return self._by_default(Count(filter))

    def _sessions(self, filter: Filter) -> list[Session]:
        """List the sessions of matching messages, the most recently used first."""
        return self._by_default(Sessions(filter))

    def _is_empty(self, filter: Filter) -> bool:
        """Whether no message matches."""
        return self._by_default(IsEmpty(filter))

    def _prepare(
        self, messages: Sequence[Message], scope: Mapping[str, str] | None = None, time: float | None = None
    ) -> list[Message]:
        """Check messages and copy them into the form that is stored (see `dynamiq_memory.messages.prepare`)."""
        if isinstance(messages, Message | str | Mapping) or not isinstance(messages, Iterable):
            raise InvalidArgumentError("messages must be a list of Message")
        prepared = prepare(list(messages), scope, time)
        largest = self.capabilities.max_message_bytes
        for message in prepared if largest is not None else ():
            size = size_of(message)
            if largest is not None and size > largest:
                raise MessageTooLargeError(
                    f"message {message.id} takes {size:,} bytes; {self.name} stores up to {largest:,} in one message: "
                    "split it, or store the content elsewhere and keep a reference"
                )
        return prepared

    def _close(self) -> None:
        """Close connections that the backend opened."""

    def _before_fork(self) -> None:
        """Hold what must not change while the process forks."""

    def _after_fork_in_parent(self) -> None:
        """Release what `_before_fork` holds."""

    def _after_fork(self) -> None:
        """In a forked child, renew what must not be shared with the parent: locks, connections."""
        self._threads.renew()

    @classmethod
    def _check_complete(cls) -> None:
        """Check that a class writes the three methods, or `_perform`, which does not need them."""
        if cls._perform is not MemoryBackend._perform:
            return
        unwritten = (MemoryBackend._write, MemoryBackend._read, MemoryBackend._delete)
        missing = [method.__name__ for method in (cls._write, cls._read, cls._delete) if method in unwritten]
        if missing:
            raise TypeError(f"{cls.__name__} must define {', '.join(missing)} (or _perform, for all operations alike)")

    # --- shared parts ------------------------------------------------------------------------------------------

    def tokenizer_for(self, query: str) -> Tokenize:
        """Return the tokenizer for a query: one that keeps stop words where there is nothing else."""
        if self._only_stop_words(query) and isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.keeping_stop_words
        return self.tokenizer

    def _only_stop_words(self, query: str) -> bool:
        """Whether a query consists of stop words, which no index contains."""
        return isinstance(self.tokenizer, Tokenizer) and self.capabilities.keyword and not self.tokenizer(query)

    @property
    def _has_default_ranking(self) -> bool:
        """Whether a backend made from a URL would rank the same way."""
        return signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()

    def _by_default(self, operation: Operation[T]) -> T:
        """Perform an operation in terms of `_write`, `_read` and `_delete`."""
        result: T = run(default_plan(self, operation), self._step)
        return result

    def _step(self, step: Step[Any]) -> Any:
        return self._perform(step) if isinstance(step, Operation) else _computed(step)

    def _search_operation(
        self, query: str | None, filters: Mapping[str, Any] | None, limit: int | None
    ) -> Operation[list[Message]]:
        filter, limit, query = parse(filters), check_limit(limit), check_query(query)
        return Read(filter, limit) if query is None else Search(filter, query, limit)

    def _replacement(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> Plan[list[Message]]:
        filter, scope = replacement_filter(filters)
        # Messages that replace a part of a conversation get the position of that part.
        last = (yield from Read(filter, 1)) if filter.beyond_scope else []
        prepared = self._prepare(messages, scope, last[0].timestamp if last else None)
        for message in prepared:
            for key in (USER_KEY, SESSION_KEY):
                allowed = filter.scope(key)
                if allowed is not None and message.metadata.get(key) not in allowed:
                    raise InvalidArgumentError(
                        f"message {message.id} has {key}={message.metadata.get(key)!r}, outside of what the filters "
                        f"replace: {allowed!r}"
                    )
        yield from Replace(filter, prepared)
        return views(prepared)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._threads.run(function, *arguments)
        except ShutDownError:
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name} is closed: make a new one, or close it later")


def _computed(step: Step[Any]) -> Any:
    if isinstance(step, Compute):
        return step.work()
    raise TypeError(f"a default plan has no step {step!r}")
