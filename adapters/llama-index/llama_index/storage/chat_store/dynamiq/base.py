"""LlamaIndex's chat store over a dynamiq-memory `Memory`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore
from pydantic import Field, PrivateAttr, field_serializer

from dynamiq_memory import Memory, Message
from dynamiq_memory.messages import MESSAGE_ID_KEY, put_behind
from dynamiq_memory.references import reference_to
from llama_index.memory.dynamiq._messages import from_message, to_messages, unplaced
from llama_index.memory.dynamiq._rewrite import rewritten, scope_of
from llama_index.storage.chat_store.dynamiq._keys import key_of, session_of
from llama_index.storage.chat_store.dynamiq._store import memory_and_reference


class DynamiqChatStore(BaseChatStore):
    """A chat store whose keys are the sessions of a memory: `"session"`, or `"user/session"`.

    Everything that is added is stored, whatever the memory's save mode. A copy of this object shares its store; as
    JSON it holds a reference to the store and no secret.

    Args:
        memory: Where the messages live.
        store: Instead of `memory`, the reference to one, as `to_dict` holds it.

    Raises:
        ConfigurationError: Neither is given, or the store cannot be found in this process.
    """

    store: dict[str, Any] = Field(description="The reference to the store.")

    _memory: Memory = PrivateAttr()

    def __init__(self, memory: Memory | None = None, store: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Take the memory; no I/O."""
        found, reference = memory_and_reference(memory, store)
        super().__init__(store=reference)
        self._memory = found

    @field_serializer("store")
    def _describe_store(self, _: dict[str, Any]) -> dict[str, Any]:
        # Made anew: the memory may have been given a name since.
        return reference_to(self._memory)

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
        held = session.backend.get_all(None, session.filters)
        session.clear()
        return [from_message(message) for message in held] or None

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a session; see `delete_messages`."""
        session = session_of(self._memory, key)
        held = await session.backend.aget_all(None, session.filters)
        await session.aclear()
        return [from_message(message) for message in held] or None

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a place, counted from 0, or from the end if it is negative.

        Returns:
            The message; None if there is none at that place.
        """
        session = session_of(self._memory, key)
        found = _at(session.backend.get_all(None, session.filters), idx)
        return None if found is None else _deleted(found, session.backend.clear(_only(session, found)))

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete the message at a place; see `delete_message`."""
        session = session_of(self._memory, key)
        found = _at(await session.backend.aget_all(None, session.filters), idx)
        return None if found is None else _deleted(found, await session.backend.aclear(_only(session, found)))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a session and return it; None if there is none."""
        session = session_of(self._memory, key)
        found = _at(session.get_all(1), -1)
        return None if found is None else _deleted(found, session.backend.clear(_only(session, found)))

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a session and return it; None if there is none."""
        session = session_of(self._memory, key)
        found = _at(await session.aget_all(1), -1)
        return None if found is None else _deleted(found, await session.backend.aclear(_only(session, found)))

    def get_keys(self) -> list[str]:
        """The keys of the sessions, the most recently used first."""
        keys = (key_of(session, self._memory) for session in self._memory.sessions())
        return [key for key in keys if key is not None]

    async def aget_keys(self) -> list[str]:
        """The keys of the sessions, the most recently used first."""
        keys = (key_of(session, self._memory) for session in await self._memory.asessions())
        return [key for key in keys if key is not None]

    def __copy__(self) -> Self:
        """Share the store."""
        return type(self)(self._memory)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Share the store."""
        return type(self)(self._memory)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the reference to the store, as `to_dict` does."""
        return (type(self).from_dict, (self.to_dict(),))


def _at(messages: list[Message], idx: int) -> Message | None:
    return messages[idx] if -len(messages) <= idx < len(messages) else None


def _only(session: Memory, message: Message) -> dict[str, Any]:
    return {**session.filters, MESSAGE_ID_KEY: message.id}


def _deleted(message: Message, count: int) -> ChatMessage | None:
    return from_message(message) if count else None
