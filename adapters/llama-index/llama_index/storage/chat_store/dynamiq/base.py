"""LlamaIndex's chat store over a dynamiq-memory `Memory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore

from dynamiq_memory import InvalidArgumentError, Memory, Message
from dynamiq_memory.integrations.messages import MESSAGE_ID_KEY
from dynamiq_memory.integrations.ordering import move_after
from dynamiq_memory.integrations.plans import AddMany, GetAll, Plan, Take, arun, get_conversation, get_latest, run
from llama_index.memory.dynamiq._messages import from_messages, in_groups, to_batch
from llama_index.memory.dynamiq._replacing import set_messages, store_apart
from llama_index.storage.chat_store.dynamiq._keys import session_of
from llama_index.storage.chat_store.dynamiq._store import StoreOfSessions

P = ParamSpec("P")
T = TypeVar("T")


class DynamiqChatStore(StoreOfSessions, BaseChatStore):
    """A chat store with the sessions of a memory as its keys: `"session"`, or `"user/session"`.

    Every message that is added is stored, whatever the memory's save mode. A copy of this object shares its store; as
    JSON it contains a reference to the store and no secret.

    Args:
        memory: Where the messages are stored.
        store: Instead of `memory`, a reference to one, as in the result of `to_dict`.

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
        return "DynamiqChatStore"

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Make a session contain exactly these messages; those that are stored keep their times and ids."""
        self._run(key, set_messages, messages)

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Make a session contain exactly these messages; see `set_messages`."""
        await self._arun(key, set_messages, messages)

    def get_messages(self, key: str) -> list[ChatMessage]:
        """Read all messages of a session, oldest first."""
        return self._run(key, _get)

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Read all messages of a session, oldest first."""
        return await self._arun(key, _get)

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Store a message at the end of a session."""
        self._run(key, _add, message)

    async def async_add_message(self, key: str, message: ChatMessage) -> None:
        """Store a message at the end of a session."""
        await self._arun(key, _add, message)

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a session.

        Returns:
            Its messages; None if there were none.
        """
        return self._run(key, _delete) or None

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a session; see `delete_messages`."""
        return await self._arun(key, _delete) or None

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a position, counted from 0, or from the end if it is negative.

        Returns:
            The message; None if the position is empty, or another call deletes it at the same time.
        """
        return self._run(key, _delete_at, idx)

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a position; see `delete_message`."""
        return await self._arun(key, _delete_at, idx)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a session and return it; None if there is none."""
        return self._run(key, _delete_last)

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a session and return it; None if there is none."""
        return await self._arun(key, _delete_last)

    def get_keys(self) -> list[str]:
        """List the keys of the sessions, the most recently used first."""
        return self._keys(self._memory.sessions())

    async def aget_keys(self) -> list[str]:
        """List the keys of the sessions, the most recently used first."""
        return self._keys(await self._memory.asessions())

    def _run(self, key: str, plan: Callable[Concatenate[Memory, P], Plan[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        session = session_of(self._memory, key)
        return run(session, plan(session, *args, **kwargs))

    async def _arun(
        self, key: str, plan: Callable[Concatenate[Memory, P], Plan[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        session = session_of(self._memory, key)
        return await arun(session, plan(session, *args, **kwargs), args)


# Plans over the memory of a session.


def _get(_: Memory) -> Plan[list[ChatMessage]]:
    return from_messages((yield from get_conversation()))


def _add(_: Memory, message: ChatMessage) -> Plan[None]:
    batch = to_batch([message])
    move_after(batch, (yield from GetAll(1)))
    yield from AddMany(batch)


def _delete(session: Memory) -> Plan[list[ChatMessage]]:
    return from_messages((yield from Take(session.filters)))


def _delete_at(session: Memory, idx: int) -> Plan[ChatMessage | None]:
    if not isinstance(idx, int):
        raise InvalidArgumentError(f"idx must be a whole number, not {idx!r}")
    messages = yield from get_conversation()
    counted = [(one, group) for group in in_groups(messages) for one in group]
    if not -len(counted) <= idx < len(counted):
        return None
    message, group = counted[idx]
    if len(group) > 1:
        yield from store_apart(group, messages)
    return (yield from _take(session, message))


def _delete_last(session: Memory) -> Plan[ChatMessage | None]:
    while last := (yield from get_latest(1)):
        is_part = len(in_groups(last)[0]) > 1
        deleted = yield from (_delete_at(session, -1) if is_part else _take(session, last[0]))
        if deleted is not None:  # else another call has deleted it, and there may be one before
            return deleted
    return None


def _take(session: Memory, message: Message) -> Plan[ChatMessage | None]:
    taken = yield from Take({**session.filters, MESSAGE_ID_KEY: message.id})
    return from_messages(taken)[0] if taken else None
