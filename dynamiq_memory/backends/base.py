"""The contract of all backends. `dynamiq_memory.testing` tests each of its rules.

A backend for a new store subclasses `MemoryBackend` and implements three methods: `_write`, `_read`, `_delete`. The
other methods have defaults based on these, which a store overrides if it can do better. A backend that handles all
operations alike (a wrapper or a remote) implements `_perform` and `_aperform` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from dynamiq_memory._checks import check_limit, check_neighbours, check_query, deletion_filter, replacement_filter
from dynamiq_memory._closing import Closing
from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends import operations
from dynamiq_memory.backends._threads import ShutDownError, Threads, caller_for, computed
from dynamiq_memory.backends.plans import Compute, Plan, arun, run
from dynamiq_memory.exceptions import BackendError, DynamiqMemoryError, InvalidArgumentError, MessageTooLargeError
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, LateClock, Message, Session, prepare, size_of, views
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import default_tokenizer, signature_of

__all__ = ["Capabilities", "MemoryBackend", "Session"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a backend.

    Attributes:
        keyword: Ranks by words, natively or with BM25 over the scope.
        vector: Ranks by embeddings.
        ttl: Supports the expiry of messages.
        transactions: A failed batch stores nothing; readers see a replacement completely or not at all.
        max_message_bytes: Maximum size of a message in bytes, or None for no limit.
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


class MemoryBackend(Closing, WatchesForks):
    """A store of messages.

    A backend can be used by many threads and asyncio tasks, and in a child process after a fork.

    Every method may raise `BackendError` (the store failed; the driver's exception is the cause) and
    `InvalidArgumentError` (an argument is invalid; nothing was read or written). Each has an asynchronous twin of the
    same name with a leading `a`. If a task is cancelled while its operation runs in a thread, it ends when the
    operation does; what a SQL store is reading is stopped.

    Args:
        tokenizer: Splits a text into the terms of keyword ranking. Defaults to English words.
        bm25: Parameters of keyword ranking.

    Raises:
        TypeError: The class does not implement a required method.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The driver's exceptions, which `_translate` converts to ours."""
    described: ClassVar[tuple[str, ...]] = ()
    """The attributes in `to_dict`, which contain no secrets. The first two of them are in `repr`, too."""
    traces: ClassVar[str] = "what the store keeps of deleted data, and its backups"
    """What may still hold messages after they were deleted, for receipts."""
    most_ranked: int | None = None
    """Maximum number of messages ranked in this process, the most recent that match; None for all."""

    def __init__(self, *, tokenizer: Tokenize | None = None, bm25: BM25 | None = None) -> None:
        """Set up the parts that all backends share."""
        self._check_complete()
        self.tokenizer: Tokenize = default_tokenizer() if tokenizer is None else tokenizer
        self.bm25 = BM25() if bm25 is None else bm25
        self._closed = False
        self._late_clock = LateClock()
        self._threads = Threads(f"dynamiq-memory-{self.name}")

    @property
    def name(self) -> str:
        """The backend's name."""
        return type(self).__name__

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this backend."""
        return Capabilities()

    @property
    def stored_embedder(self) -> str | None:
        """The embedder of the store's vectors, also if it is opened without one; None if there are none, or unknown."""
        return None

    @property
    def default_session(self) -> str | None:
        """The session of filters that name none, if the backend has one."""
        return None

    @property
    def is_closed(self) -> bool:
        """Whether the backend is closed."""
        return self._closed

    def to_url(self) -> str | None:
        """Return a URL without secrets with which `create_backend` opens the same store, or None if impossible."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend, without secrets or messages."""
        kind = type(self)
        return {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "name": self.name,
            "capabilities": asdict(self.capabilities),
            **{name: getattr(self, name) for name in self.described},
        }

    def __repr__(self) -> str:
        """Name the backend and its store, without secrets."""
        return f"{self.name}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.described[:2])})"

    # --- public methods: each checks its arguments and creates an operation ------------------------------------

    def add(self, message: Message) -> Message:
        """Store one message; see `add_many`."""
        return self.add_many([message])[0]

    async def aadd(self, message: Message) -> Message:
        """Store one message; see `add_many`."""
        return (await self.aadd_many([message]))[0]

    def add_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch, durably, and all or none if the store has transactions.

        Args:
            messages: The messages; they are not changed. A message with an id that is already in the session replaces
                that message.

        Returns:
            The messages as stored.

        Raises:
            MessageError: A message cannot be stored as it is.
            PartialWriteError: The store has no transactions and failed midway; the error lists the stored ids.
        """
        prepared = self._prepare(messages)
        if prepared:
            self.execute(operations.Write(prepared))
        return views(prepared)

    async def aadd_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch; see `add_many`."""
        call = caller_for(messages)
        prepared: list[Message] = await call(self._prepare, messages)
        if prepared:
            await self.aexecute(operations.Write(prepared))
        stored: list[Message] = await call(views, prepared)
        return stored

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
            filters: Return only messages that match (see `dynamiq_memory.filters`).
            before: Return only messages before this stored one.
            after: Return only messages after this stored one; the limit then keeps the earliest, not the latest.

        Returns:
            The messages in the order of (timestamp, arrival).

        Raises:
            FilterError: The filter is malformed.
        """
        return self.execute(operations.Read(parse(filters), check_limit(limit), before, after))

    async def aget_all(
        self,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        before: Message | None = None,
        after: Message | None = None,
    ) -> list[Message]:
        """Read the most recent messages, oldest first; see `get_all`."""
        filter = await computed(parse, filters)
        return await self.aexecute(operations.Read(filter, check_limit(limit), before, after))

    def search(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query.

        Args:
            query: The search text. With None or blank text, this works like `get_all`.
            filters: Return only messages that match; applied before ranking and before the limit.
            limit: Maximum number of messages, 1 or more; None for all that match.

        Returns:
            With a query, all matching messages, best first (latest first among equal scores), each with its `score`.
            Without one, the most recent messages, oldest first.

        Raises:
            FilterError: The filter is malformed.
        """
        return self.execute(self._search_operation(query, filters, limit))

    async def asearch(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query; see `search`."""
        return await self.aexecute(await computed(self._search_operation, query, filters, limit))

    def around(
        self, anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Message]]:
        """Read the neighbours of stored messages, within the session of each.

        Args:
            anchors: Stored messages.
            before: Maximum number of messages before each anchor, 0 or more.
            after: Maximum number of messages after each anchor, 0 or more.
            filters: Return only neighbours that match.

        Returns:
            For each anchor, its neighbours and itself in the order of (timestamp, arrival). A message near several
            anchors may be the same object in each list.
        """
        before, after = check_neighbours(before), check_neighbours(after)
        return self.execute(operations.Around(parse(filters), anchors, before, after))

    async def aaround(
        self, anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Message]]:
        """Read the neighbours of stored messages; see `around`."""
        before, after = check_neighbours(before), check_neighbours(after)
        return await self.aexecute(operations.Around(await computed(parse, filters), anchors, before, after))

    def delete(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the messages of a session, of a user, or of one session of a user.

        Args:
            session_id: Delete only this session.
            user_id: Delete only this user's messages.
            filters: Delete only messages that also match.

        Returns:
            Number of deleted messages.

        Raises:
            InvalidArgumentError: Neither session_id nor user_id is given.
        """
        return self.execute(operations.Delete(deletion_filter(session_id, user_id, filters)))

    async def adelete(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the messages of a session, of a user, or of one session of a user; see `delete`."""
        filter = await computed(deletion_filter, session_id, user_id, filters)
        return await self.aexecute(operations.Delete(filter))

    def replace(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Replace all messages that match a filter atomically: readers see either the old messages or the new ones.

        Args:
            filters: The messages to replace. Must fix `user_id`, `session_id` or both to one value.
            messages: The new messages, in order. The order is kept even if times are equal. A message without user_id
                or session_id gets the filter's. If the filter matches a part of a conversation, messages without a
                time get the position of that part.

        Returns:
            The messages as stored.

        Raises:
            InvalidArgumentError: The filter does not fix a scope, or a message belongs to another user or session.
            MessageError: A message cannot be stored as it is.
            BackendError: The store failed, or cannot keep this order.
        """
        return run(self._replacement(filters, messages), self.execute)

    async def areplace(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Replace all messages that match a filter atomically; see `replace`."""
        return await arun(self._replacement(filters, messages), self.aexecute, given=(filters, messages))

    def update(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Store new versions of messages that still exist, as one batch. Deleted messages stay deleted.

        Args:
            messages: The new versions, each with the id, user_id and session_id of the stored one.
            filters: Update only messages that match in their stored version. If several callers concurrently change the
                key that they filter by, only one of them updates each message.

        Returns:
            The updated messages, in the given order.

        Raises:
            FilterError: The filter is malformed.
            MessageError: A message cannot be stored as it is.
        """
        filter, prepared = parse(filters), self._prepare(messages)
        return views(self.execute(operations.Update(filter, prepared)) if prepared else [])

    async def aupdate(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Store new versions of messages that still exist; see `update`."""
        filter, prepared = await computed(parse, filters), await computed(self._prepare, messages)
        return await computed(views, await self.aexecute(operations.Update(filter, prepared)) if prepared else [])

    def take(self, filters: Mapping[str, Any]) -> list[Message]:
        """Delete and return the messages that match a filter. Among concurrent callers, only one gets each message.

        Args:
            filters: The messages to take.

        Returns:
            The deleted messages, in the order of (timestamp, arrival).

        Raises:
            FilterError: The filter is malformed.
        """
        return self.execute(operations.Take(parse(filters)))

    async def atake(self, filters: Mapping[str, Any]) -> list[Message]:
        """Delete and return the messages that match a filter; see `take`."""
        return await self.aexecute(operations.Take(await computed(parse, filters)))

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match a filter."""
        return self.execute(operations.Count(parse(filters)))

    async def acount(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match a filter."""
        return await self.aexecute(operations.Count(await computed(parse, filters)))

    def sessions(self, filters: Mapping[str, Any] | None = None) -> list[Session]:
        """List the sessions with messages that match a filter, most recently used first."""
        return self.execute(operations.Sessions(parse(filters)))

    async def asessions(self, filters: Mapping[str, Any] | None = None) -> list[Session]:
        """List the sessions with messages that match a filter, most recently used first."""
        return await self.aexecute(operations.Sessions(await computed(parse, filters)))

    def is_empty(self) -> bool:
        """Return whether the store has no messages."""
        return self.execute(operations.IsEmpty(Filter()))

    async def ais_empty(self) -> bool:
        """Return whether the store has no messages."""
        return await self.aexecute(operations.IsEmpty(Filter()))

    def clear(self, filters: Mapping[str, Any] | None = None) -> int:
        """Delete all messages, or all that match a filter.

        Returns:
            Number of deleted messages.
        """
        return self.execute(operations.Delete(parse(filters)))

    async def aclear(self, filters: Mapping[str, Any] | None = None) -> int:
        """Delete all messages, or all that match a filter; see `clear`."""
        return await self.aexecute(operations.Delete(await computed(parse, filters)))

    def close(self) -> None:
        """Release all resources that the backend opened. A client or engine owned by the caller stays open."""
        if self._closed:
            return
        self._closed = True
        self._threads.shut_down()
        self._close()

    async def aclose(self) -> None:
        """Release all resources that the backend opened; see `close`."""
        await asyncio.to_thread(self.close)

    # --- performing operations ---------------------------------------------------------------------------------

    def execute(self, operation: operations.Operation[T]) -> T:
        """Perform an operation, translate the driver's errors, and retry transient failures.

        Raises:
            BackendError: The store failed, or the backend is closed.
        """
        return run(self._execution(operation), self._perform)

    async def aexecute(self, operation: operations.Operation[T]) -> T:
        """Perform an operation; see `execute`."""
        return await arun(self._execution(operation), self._aperform, light=True)

    def _execution(self, operation: operations.Operation[T]) -> Plan[T]:
        attempt = 0
        while True:
            self._check_open()
            attempt += 1
            try:
                result = yield from operation
            except self.driver_errors as error:
                if not self._may_repeat(operation, error, attempt):
                    raise self._translate(error) from error
            else:
                self._late_clock.observe(operation.in_order(result))
                return result

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Translate the driver's errors while the backend is being opened, and close it if this fails."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, self.driver_errors):
                raise self._translate(error) from error
            raise

    def _perform(self, operation: operations.Operation[T]) -> T:
        """Perform an operation once. By default, this calls the backend's method for it."""
        return operation.perform(self)

    async def _aperform(self, operation: operations.Operation[T]) -> T:
        """Perform an operation asynchronously. By default, this uses a thread."""
        return await self._in_thread(self._perform, operation)

    def _may_repeat(self, operation: operations.Operation[Any], error: Exception, attempt: int) -> bool:  # noqa: ARG002
        """Return whether to retry an operation that has failed `attempt` times. By default, never."""
        return False

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        """Convert one of `driver_errors` to our error."""
        return BackendError(f"{self.name}: {error}")

    # --- methods for stores to implement -----------------------------------------------------------------------

    def _write(self, messages: Sequence[Message]) -> None:
        """Store prepared messages in order. A message with the id of another one of its session replaces that.

        A replaced message keeps its position in the order of arrival.
        """
        raise NotImplementedError("_write")

    def _read(self, filter: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        """Read messages as specified by `get_all`, copied with `dynamiq_memory.messages.views`."""
        raise NotImplementedError("_read")

    def _delete(self, filter: Filter) -> int:
        """Delete matching messages and return their number."""
        raise NotImplementedError("_delete")

    def _search(self, query: str, filter: Filter, limit: int | None) -> list[Message]:
        """Rank as specified by `search`. By default, BM25 ranks all matching messages in this process."""
        return self._by_default(operations.Search(filter, query, limit))

    def _around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> list[list[Message]]:
        """Read neighbours as specified by `around`."""
        return self._by_default(operations.Around(filter, anchors, before, after))

    def _replace(self, filter: Filter, messages: Sequence[Message]) -> None:
        """Replace as specified by `replace`. By default, a crash can leave duplicates, but never lose messages."""
        self._by_default(operations.Replace(filter, messages))

    def _update(self, filter: Filter, messages: Sequence[Message]) -> list[Message]:
        """Update as specified by `update`. By default, a message that is deleted concurrently may come back."""
        return self._by_default(operations.Update(filter, messages))

    def _take(self, filter: Filter) -> list[Message]:
        """Take as specified by `take`. By default, one message after the other."""
        return self._by_default(operations.Take(filter))

    def _count(self, filter: Filter) -> int:
        """Count matching messages."""
        return self._by_default(operations.Count(filter))

    def _sessions(self, filter: Filter) -> list[Session]:
        """List the sessions of matching messages, most recently used first."""
        return self._by_default(operations.Sessions(filter))

    def _is_empty(self, filter: Filter) -> bool:
        """Return whether no message matches."""
        return self._by_default(operations.IsEmpty(filter))

    def _prepare(
        self, messages: Sequence[Message], scope: Mapping[str, str] | None = None, time: float | None = None
    ) -> list[Message]:
        """Check messages and copy them to their stored form (see `dynamiq_memory.messages.prepare`)."""
        if type(messages) is not list and (  # so it nearly always is
            isinstance(messages, Message | str | Mapping) or not isinstance(messages, Iterable)
        ):
            raise InvalidArgumentError("messages must be a list of Message")
        prepared = prepare(list(messages), scope, time, self._late_clock)
        max_bytes = self.capabilities.max_message_bytes
        if max_bytes is None:
            return prepared
        for message in prepared:
            size = size_of(message)
            if size > max_bytes:
                raise MessageTooLargeError(
                    f"message {message.id} has {size:,} bytes, but {self.name} stores up to {max_bytes:,} per message: "
                    "split it, or store the content elsewhere and keep a reference"
                )
        return prepared

    def _close(self) -> None:
        """Close connections that the backend opened."""

    @classmethod
    def _check_complete(cls) -> None:
        """Check that a class implements the three methods, or `_perform`, which does not need them."""
        if cls._perform is not MemoryBackend._perform:
            return
        unwritten = (MemoryBackend._write, MemoryBackend._read, MemoryBackend._delete)
        missing = [method.__name__ for method in (cls._write, cls._read, cls._delete) if method in unwritten]
        if missing:
            raise TypeError(f"{cls.__name__} must define {', '.join(missing)} (or _perform, for all operations alike)")

    # --- shared parts ------------------------------------------------------------------------------------------

    def _tokenizer_for(self, query: str) -> Tokenize:
        """Return the tokenizer for a query: if it consists of stop words only, one that keeps them."""
        if self._only_stop_words(query) and isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.keeping_stop_words
        return self.tokenizer

    def _only_stop_words(self, query: str) -> bool:
        """Return whether a query consists of stop words, which are in no index."""
        return isinstance(self.tokenizer, Tokenizer) and self.capabilities.keyword and not self.tokenizer(query)

    @property
    def _has_default_ranking(self) -> bool:
        """Whether a backend created from a URL would rank in the same way."""
        return signature_of(self.tokenizer) == default_tokenizer().signature and self.bm25 == BM25()

    def _by_default(self, operation: operations.Operation[T]) -> T:
        """Perform an operation in terms of `_write`, `_read` and `_delete`."""
        result: T = run(operation.default_plan(self), self._step)
        return result

    def _step(self, step: Any) -> Any:
        return step.work() if isinstance(step, Compute) else self._perform(step)

    def _search_operation(
        self, query: str | None, filters: Mapping[str, Any] | None, limit: int | None
    ) -> operations.Operation[list[Message]]:
        filter, limit, query = parse(filters), check_limit(limit), check_query(query)
        return operations.Read(filter, limit) if query is None else operations.Search(filter, query, limit)

    def _replacement(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> Plan[list[Message]]:
        filter, scope = replacement_filter(filters)
        # Messages that replace a part of a conversation get the position of that part.
        last = (yield from operations.Read(filter, 1)) if filter.beyond_scope else []
        prepared = self._prepare(messages, scope, last[0].timestamp if last else None)
        for message in prepared:
            for key in (USER_KEY, SESSION_KEY):
                allowed = filter.scope(key)
                if allowed is not None and message.metadata.get(key) not in allowed:
                    raise InvalidArgumentError(
                        f"message {message.id} has {key}={message.metadata.get(key)!r}, which is outside of the "
                        f"filters: {allowed!r}"
                    )
        yield from operations.Replace(filter, prepared)
        return views(prepared)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._threads.run(function, *arguments)
        except ShutDownError:
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name} is closed: create a new one, or close it later")
