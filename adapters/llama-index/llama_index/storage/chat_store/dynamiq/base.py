"""LlamaIndex's chat store over a dynamiq-memory `Memory`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore

from dynamiq_memory import InvalidArgumentError, Memory, Message
from dynamiq_memory.messages import MESSAGE_ID_KEY, put_behind
from llama_index.memory.dynamiq._messages import from_message, to_messages, unplaced
from llama_index.memory.dynamiq._rewrite import rewritten, scope_of
from llama_index.storage.chat_store.dynamiq._keys import session_of
from llama_index.storage.chat_store.dynamiq._store import MemoryByReference


class DynamiqChatStore(MemoryByReference, BaseChatStore):
    """A chat store whose keys are the sessions of a memory: `"session"`, or `"user/session"`.

    Everything that is added is stored, whatever the memory's save mode. A copy of this object shares its store; as
    JSON it holds a reference to the store and no secret.

    Args:
        memory: Where the messages live.
        store: Instead of `memory`, the reference to one, as `to_dict` holds it.

    Raises:
        ConfigurationError: Neither is given, or the store cannot be found in this process.
    """

    def __init__(
        self,
        memory: Memory | None = None,
        store: Mapping[str, Any] | None = None,
        class_name: str | None = None,  # noqa: ARG002 - what LlamaIndex writes into its JSON
    ) -> None:
        """Take the memory; no I/O."""
        super().__init__(memory, store)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "DynamiqChatStore"

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Make a session hold just these messages; those that it holds already keep their time and id."""
        session, new = session_of(self._memory, key), unplaced(messages)
        stored = session.backend.get_all(None, session.filters)
        session.replace_messages(scope_of(session), rewritten(stored, new))

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Make a session hold just these messages; see `set_messages`."""
        session, new = session_of(self._memory, key), unplaced(messages)
        stored = await session.backend.aget_all(None, session.filters)
        await session.areplace_messages(scope_of(session), rewritten(stored, new))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """Read all messages of a session, oldest first."""
        session = session_of(self._memory, key)
        return [from_message(message) for message in session.backend.get_all(None, session.filters)]

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Read all messages of a session, oldest first."""
        session = session_of(self._memory, key)
        return [from_message(message) for message in await session.backend.aget_all(None, session.filters)]

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Store a message at the end of a session."""
        session, batch = session_of(self._memory, key), to_messages([message])
        put_behind(batch, session.get_all(1))
        session.add_many(batch)

    async def async_add_message(self, key: str, message: ChatMessage) -> None:
        """Store a message at the end of a session."""
        session, batch = session_of(self._memory, key), to_messages([message])
        put_behind(batch, await session.aget_all(1))
        await session.aadd_many(batch)

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a session.

        Returns:
            What it held; None if it held nothing.
        """
        session = session_of(self._memory, key)
        return [from_message(message) for message in session.backend.take(session.filters)] or None

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a session; see `delete_messages`."""
        session = session_of(self._memory, key)
        return [from_message(message) for message in await session.backend.atake(session.filters)] or None

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a place, counted from 0, or from the end if it is negative.

        Returns:
            The message; None if there is none at that place, or somebody else deletes it at the same time.
        """
        session = session_of(self._memory, key)
        found = _at(session.backend.get_all(None, session.filters), idx)
        return None if found is None else _first(session.backend.take(_only(session, found)))

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a place; see `delete_message`."""
        session = session_of(self._memory, key)
        found = _at(await session.backend.aget_all(None, session.filters), idx)
        return None if found is None else _first(await session.backend.atake(_only(session, found)))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a session and return it; None if there is none."""
        session = session_of(self._memory, key)
        while last := session.get_all(1):
            taken = session.backend.take(_only(session, last[0]))
            if taken:  # else somebody else has it: there may be one before
                return from_message(taken[0])
        return None

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a session and return it; None if there is none."""
        session = session_of(self._memory, key)
        while last := await session.aget_all(1):
            taken = await session.backend.atake(_only(session, last[0]))
            if taken:
                return from_message(taken[0])
        return None

    def get_keys(self) -> list[str]:
        """The keys of the sessions, the most recently used first."""
        return self._keys(self._memory.sessions())

    async def aget_keys(self) -> list[str]:
        """The keys of the sessions, the most recently used first."""
        return self._keys(await self._memory.asessions())


def _at(messages: list[Message], idx: int) -> Message | None:
    if not isinstance(idx, int):
        raise InvalidArgumentError(f"idx must be a whole number, not {idx!r}")
    return messages[idx] if -len(messages) <= idx < len(messages) else None


def _only(session: Memory, message: Message) -> dict[str, Any]:
    return {**session.filters, MESSAGE_ID_KEY: message.id}


def _first(taken: list[Message]) -> ChatMessage | None:
    return from_message(taken[0]) if taken else None
