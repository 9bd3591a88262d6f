"""A memory within a store. A request reaches the store only through its memory's partition.

Many memories share a store. A partition stores user and session ids with the memory's id as a prefix, and marks each
message with it. Whatever is asked of a partition is thus answered from its own memory, by the store's own indexes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.backends.operations import FilteredOperation, Operation, Write, translate
from dynamiq_memory.exceptions import BackendError, ConfigurationError, InvalidArgumentError
from dynamiq_memory.filters import Absent, Condition, Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

T = TypeVar("T")
V = TypeVar("V")

_MESSAGES_ON_THE_LOOP = 200

MEMORY_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$"

_MARK = "$memory"
# A user's metadata key that looks like the mark is stored with one more "$".
_LIKE_MARK = re.compile(r"\$+memory")
_SEPARATOR = "/"
_SCOPE = (USER_KEY, SESSION_KEY)


class OtherUserError(InvalidArgumentError):
    """A message or a filter names a user other than the partition's."""


class Partition(MemoryBackend):
    """One memory of a store, or one user's part of it, as a backend of its own.

    Closing it does not close the store, which other partitions share.

    Args:
        store: The store that holds the messages.
        memory_id: The memory's id; None if the whole store is the memory.
        user_id: Only this user's messages; None for all.
    """

    described = ("memory_id", "user_id")

    def __init__(self, store: MemoryBackend, memory_id: str | None, user_id: str | None = None) -> None:
        """Nothing is read or written."""
        if memory_id is not None:
            check_memory_id(memory_id)
        super().__init__(tokenizer=store.tokenizer, bm25=store.bm25)
        self.memory_id = memory_id
        self.user_id = user_id
        self._store = store

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the store."""
        return self._store.capabilities

    def check_user(self, user_id: str | None) -> None:
        """Check that a user is the partition's.

        Raises:
            OtherUserError: It is another user, or None.
        """
        if self.user_id is not None and user_id != self.user_id:
            raise OtherUserError(f"this key is for one user, and not for user_id={user_id!r}")

    def check_filter(self, filter: Filter) -> None:
        """Check that a filter names no user other than the partition's.

        Raises:
            OtherUserError: It names another user.
        """
        for user_id in filter.scope(USER_KEY) or ():
            self.check_user(user_id)

    # Every operation is translated here: none can bypass it.

    def _perform(self, operation: Operation[T]) -> T:
        return self._decoded(self._store.execute(self._encoded(operation)))

    async def _aperform(self, operation: Operation[T]) -> T:
        encoded = await _translated(self._encoded, operation, getattr(operation, "messages", ()))
        result = await self._store.aexecute(encoded)
        return await _translated(self._decoded, result, result)

    def _encoded(self, operation: Operation[T]) -> Operation[T]:
        if not isinstance(operation, Write | FilteredOperation):
            raise TypeError(f"{type(operation).__name__} has no filter, so it would reach beyond this memory")
        return operation.translate({Message: self._encode_message, Filter: self._encode_filter})

    def _decoded(self, result: T) -> T:
        if self.memory_id is None:
            return result
        decoded: T = translate(result, {Message: self._decode_message, Session: self._decode_session})
        return decoded

    # --- into the store --------------------------------------------------------------------------------------

    def _encode_message(self, message: Message) -> Message:
        self.check_user(message.user_id)
        metadata = dict(message.metadata)
        if self.memory_id is not None:
            metadata = {_escape(key): value for key, value in metadata.items()}
            metadata |= {key: self._encode_id(message.metadata.get(key)) for key in _SCOPE} | {_MARK: self.memory_id}
        return message.model_copy(update={"metadata": metadata})

    def _encode_filter(self, filter: Filter) -> Filter:
        conditions = filter.conditions
        if self.user_id is not None:
            conditions = (*conditions, OneOf(USER_KEY, (self.user_id,)))
        if self.memory_id is None:
            return Filter(conditions)
        encoded = tuple(map(self._encode_condition, conditions))
        if not any(condition.key in _SCOPE for condition in conditions):
            encoded = (*encoded, OneOf(_MARK, (self.memory_id,)))
        return Filter(encoded, owner=self.memory_id)

    def _encode_condition(self, condition: Condition) -> Condition:
        if condition.key not in _SCOPE:
            return replace(condition, key=_escape(condition.key))
        if isinstance(condition, Absent):
            return OneOf(condition.key, (self._encode_id(None),))
        if isinstance(condition, OneOf):
            return OneOf(condition.key, tuple(self._encode_id(str(value)) for value in condition.values))
        raise TypeError(f"a range of {condition.key}")

    def _encode_id(self, value: str | None) -> str:
        """Return the stored form of an id: the memory's id alone, without a separator, for None."""
        return str(self.memory_id) if value is None else f"{self.memory_id}{_SEPARATOR}{value}"

    # --- out of the store ------------------------------------------------------------------------------------

    def _decode_message(self, message: Message) -> Message:
        metadata = {_unescape(key): value for key, value in message.metadata.items() if key != _MARK}
        metadata |= {key: self._decode_id(metadata.get(key)) for key in _SCOPE}
        present = {key: value for key, value in metadata.items() if value is not None or key not in _SCOPE}
        return message.model_copy(update={"metadata": present})

    def _decode_session(self, session: Session) -> Session:
        user_id, session_id = self._decode_id(session.user_id), self._decode_id(session.session_id)
        return replace(session, user_id=user_id, session_id=session_id)

    def _decode_id(self, stored: str | None) -> str | None:
        if stored == self.memory_id:
            return None
        memory_id, _, value = (stored or "").partition(_SEPARATOR)
        if memory_id != self.memory_id:
            raise BackendError("the store answered with a message of another memory")
        return value


async def _translated(function: Callable[[V], V], value: V, messages: Any) -> V:
    """Call a function that takes some microseconds for each message, in a thread if they are many."""
    if _count(messages) <= _MESSAGES_ON_THE_LOOP:
        return function(value)
    return await asyncio.to_thread(function, value)


def _count(messages: Any) -> int:
    return sum(map(_count, messages)) if isinstance(messages, list | tuple) else 1


def check_memory_id(memory_id: str) -> None:
    """Check the id of a memory.

    Raises:
        ConfigurationError: It is not valid.
    """
    if not re.fullmatch(MEMORY_ID_PATTERN, memory_id):
        raise ConfigurationError(f"memory id {memory_id!r} may contain only letters, digits, '.', '_' and '-'")


def _escape(key: str) -> str:
    return f"${key}" if _LIKE_MARK.fullmatch(key) else key


def _unescape(key: str) -> str:
    return key[1:] if _LIKE_MARK.fullmatch(key) else key
