"""The chat store for LlamaIndex's own `Memory`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from dynamiq_memory import InvalidArgumentError, Memory, Message
from dynamiq_memory.integrations.messages import MESSAGE_ID_KEY
from dynamiq_memory.integrations.ordering import move_after, set_batch_times
from dynamiq_memory.integrations.plans import arun, computed, get_conversation
from dynamiq_memory.integrations.turns import current
from llama_index.memory.dynamiq._messages import from_message, from_messages, in_groups, split, to_batch, to_messages
from llama_index.memory.dynamiq._replacing import keep_stored, scope_of, store_apart
from llama_index.storage.chat_store.dynamiq._keys import session_of
from llama_index.storage.chat_store.dynamiq._store import StoreOfSessions

# The key of a message's status in its metadata. Active messages have none, like those of other frameworks.
STATUS = "llama_index_status"
# The status of a message archived as the oldest active one: no message before it is active.
_ARCHIVED_OLDEST = "archived_oldest"
# The number of messages before it that may be active nevertheless: another process may have stored them
# at the same time.
_UNSETTLED = 64
_PAGE = 128


class DynamiqAsyncChatStore(StoreOfSessions, AsyncDBChatStore):
    """An asynchronous chat store for `llama_index.core.memory.Memory`, on any store of dynamiq-memory.

    Keys are sessions: `"session"`, or `"user/session"`. The cost of reading the active messages does not depend on the
    number of archived ones: messages more than 64 before the last one that was archived as the oldest count as
    archived too. A copy of this object shares its store.

    Args:
        memory: Where the messages are stored.
        store: Instead of `memory`, a reference to one, as in the result of `model_dump`.

    Raises:
        ConfigurationError: Neither is given, or the store cannot be found in this process.
    """

    def __init__(
        self,
        memory: Memory | None = None,
        store: Mapping[str, Any] | None = None,
        class_name: str | None = None,  # noqa: ARG002 - LlamaIndex writes it into its JSON
    ) -> None:
        """Take the memory; no I/O."""
        super().__init__(memory, store)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "DynamiqAsyncChatStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """Read messages of a session, oldest first.

        Args:
            key: The session.
            status: The status they have; None for any.
            limit: Maximum number of messages, 0 or more, counted from the oldest; None for all.
            offset: Number of oldest messages to leave out, 0 or more.
        """
        start = _count("offset", offset or 0)
        stop = None if limit is None else start + _count("limit", limit)
        stored = await self._of_status(session_of(self._memory, key), status)
        return await computed(lambda stored: list(map(from_message, split(stored)[start:stop])), stored)

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """Count the messages of a session that have a status; None for any."""
        return len(await computed(split, await self._of_status(session_of(self._memory, key), status)))

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        """Store a message at the end of a session."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Store messages at the end of a session, as one batch."""
        session = session_of(self._memory, key)
        batch = await computed(lambda messages: _all_with_status(status, to_batch(messages)), messages)
        move_after(batch, await session.aget_all(1))
        stored = await session.aadd_many(batch)
        if _status(status) is MessageStatus.ACTIVE:
            await self._stay_active(session, stored)

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Make a session contain exactly these messages; those that are stored keep their times and ids."""
        session = session_of(self._memory, key)
        stored = await arun(session, get_conversation())
        kept = await computed(lambda stored, given: keep_stored(stored, to_messages(given)), stored, messages)
        await session.areplace_messages(scope_of(session), _all_with_status(status, kept))

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a position among all messages of a session, counted from 0.

        Returns:
            The message; None if the position is empty.
        """
        session = session_of(self._memory, key)
        messages = await arun(session, get_conversation())
        counted = [(one, group) for group in await computed(in_groups, messages) for one in group]
        if not -len(counted) <= idx < len(counted):
            return None
        message, group = counted[idx]
        if len(group) > 1:
            await arun(session, store_apart(group, messages))
        taken = await session.backend.atake(_only(session, [message]))
        return from_messages(taken)[0] if taken else None

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages of a session that have a status; None for any."""
        session = session_of(self._memory, key)
        if status is None:
            await session.aclear()
        else:
            await session.backend.atake(_only(session, await self._of_status(session, status)))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Delete the oldest active messages of a session and return them.

        Calls that delete or archive at the same time each get different messages.
        """
        session = session_of(self._memory, key)
        oldest = await self._oldest(session, _count("n", n))
        return await computed(from_messages, await session.backend.atake({**_only(session, oldest), STATUS: None}))

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the oldest active messages of a session and return them. They stay stored, and searches find them.

        Calls that delete or archive at the same time each get different messages.
        """
        session = session_of(self._memory, key)
        oldest = [_with_status(one, _ARCHIVED_OLDEST) for one in await self._oldest(session, _count("n", n))]
        archived = await session.backend.aupdate(oldest, {**session.filters, STATUS: None})
        await self._leave_active(session, archived)
        return await computed(from_messages, archived)

    async def get_keys(self) -> list[str]:
        """List the keys of the sessions, the most recently used first."""
        return self._keys(await self._memory.asessions())

    async def _of_status(self, session: Memory, status: MessageStatus | None) -> list[Message]:
        if _status(status) is MessageStatus.ACTIVE:
            return await self._active(session)
        stored = await arun(session, get_conversation())
        if status is None:
            return stored
        active = {message.id for message in _active_of(stored)}
        return [message for message in stored if message.id not in active]

    async def _active(self, session: Memory) -> list[Message]:
        """Read the active messages, from the end back to where all are archived."""
        read: list[Message] = []
        size = _PAGE
        while True:
            page = await session.backend.aget_all(size, session.filters, before=read[0] if read else None)
            read = page + read
            if len(page) < size or _settled(read):
                return _active_of(current(read))
            size *= 2

    async def _oldest(self, session: Memory, count: int) -> list[Message]:
        """Read a number of the oldest active messages; a stored one of which only a part is meant is split."""
        active = await self._active(session)
        groups = await computed(in_groups, active)
        ends = list(accumulate(map(len, groups)))
        whole = bisect_right(ends, count)
        oldest = active[:whole]
        parts = groups[whole][: count - ends[whole - 1] if whole else count] if whole < len(groups) else []
        if parts:
            await arun(session, store_apart(groups[whole], active))
        return [*oldest, *parts]

    # Calls that add and archive at the same time both look afterwards, so one of them sees the effect of the other.

    async def _stay_active(self, session: Memory, added: Sequence[Message]) -> None:
        """Move added messages after all that were archived in the meantime."""
        while added:
            later = await session.backend.aget_all(None, session.filters, after=added[0])
            if not any(message.metadata.get(STATUS) == _ARCHIVED_OLDEST for message in later):
                return
            moved = [message.model_copy() for message in added]
            set_batch_times(moved, after=later)
            added = await session.backend.aupdate(moved, {**session.filters, STATUS: None})

    async def _leave_active(self, session: Memory, archived: Sequence[Message]) -> None:
        """Mark archived messages in another way if active ones come before them, so that reading goes on to these."""
        if not archived:
            return
        earlier = await session.backend.aget_all(len(archived) + _UNSETTLED, session.filters, before=archived[-1])
        if any(message.metadata.get(STATUS) is None for message in earlier):
            changed = [_with_status(message, MessageStatus.ARCHIVED.value) for message in archived]
            await session.backend.aupdate(changed, {**session.filters, STATUS: _ARCHIVED_OLDEST})


def _settled(messages: Sequence[Message]) -> int:
    """The position before which no message is active, in the last messages of a session; 0 if it is not known."""
    marked = (place for place, message in enumerate(messages) if message.metadata.get(STATUS) == _ARCHIVED_OLDEST)
    return max(max(marked, default=0) - _UNSETTLED, 0)


def _active_of(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages[_settled(messages) :] if message.metadata.get(STATUS) is None]


def _only(session: Memory, messages: Sequence[Message]) -> dict[str, Any]:
    return {**session.filters, MESSAGE_ID_KEY: [message.id for message in messages]}


def _count(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 0:
        raise InvalidArgumentError(f"{name} must be a whole number of 0 or more, not {value!r}")
    return value


def _status(status: MessageStatus | str | None) -> MessageStatus | None:
    try:
        return None if status is None else MessageStatus(status)
    except ValueError:
        known = ", ".join(repr(one.value) for one in MessageStatus)
        raise InvalidArgumentError(f"status {status!r} is unknown: use one of {known}, or None for all") from None


def _all_with_status(status: MessageStatus, messages: Sequence[Message]) -> list[Message]:
    value = None if _status(status) is MessageStatus.ACTIVE else MessageStatus.ARCHIVED.value
    return [_with_status(message, value) for message in messages]


def _with_status(message: Message, status: str | None) -> Message:
    metadata = {key: value for key, value in message.metadata.items() if key != STATUS}
    return message.model_copy(update={"metadata": metadata if status is None else {**metadata, STATUS: status}})
