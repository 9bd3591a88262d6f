"""A memory within a store: all that a key can reach is one of these.

Many memories share a store. The ids of users and sessions are stored behind the id of their memory, and each message
carries it, so that whatever is asked through a partition is asked of its own memory, by the store's own indexes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.backends.operations import FilteredOperation, Operation, Write
from dynamiq_memory.exceptions import BackendError, InvalidArgumentError
from dynamiq_memory.filters import Absent, Condition, Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

T = TypeVar("T")

MEMORY_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$"

_MARK = "$memory"
# A user's own key of this look is stored with one more $.
_LIKE_MARK = re.compile(r"\$+memory")
_SEPARATOR = "/"
_SCOPE = (USER_KEY, SESSION_KEY)


class OtherUserError(InvalidArgumentError):
    """A message or a filter names a user whom the partition is not for."""


class Partition(MemoryBackend):
    """One memory of a store, or one user's part of it, as a backend of its own.

    Closing it closes nothing: the store is everybody's.

    Args:
        store: Where the messages live.
        memory_id: The memory's id; None if the whole store is the memory.
        user_id: Only this user's messages; None for all.
    """

    def __init__(self, store: MemoryBackend, memory_id: str | None, user_id: str | None = None) -> None:
        """Nothing is read or written."""
        if memory_id is not None and not re.fullmatch(MEMORY_ID_PATTERN, memory_id):
            raise InvalidArgumentError(f"memory_id {memory_id!r} must be of letters, digits, '.', '_' and '-'")
        super().__init__(tokenizer=store.tokenizer, bm25=store.bm25)
        self.memory_id = memory_id
        self.user_id = user_id
        self._store = store
        self._prefix = "" if memory_id is None else memory_id + _SEPARATOR

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._store.capabilities

    def check_user(self, user_id: str | None) -> None:
        """Check that a user is the one whom this is for.

        Raises:
            OtherUserError: It is another, or nobody.
        """
        if self.user_id is not None and user_id != self.user_id:
            raise OtherUserError(f"this key is for one user, and not for user_id={user_id!r}")

    def check_filter(self, where: Filter) -> None:
        """Check that a filter asks for nobody else than the user whom this is for.

        Raises:
            OtherUserError: It names another.
        """
        for user_id in where.scope(USER_KEY) or ():
            self.check_user(user_id)

    # Every operation passes here, whatever it is: there is no way around the translation.

    def _perform(self, operation: Operation[T]) -> T:
        result: T = self._decoded(self._store.execute(self._encoded(operation)))
        return result

    async def _aperform(self, operation: Operation[T]) -> T:
        result: T = self._decoded(await self._store.aexecute(self._encoded(operation)))
        return result

    # --- into the store --------------------------------------------------------------------------------------

    def _encoded(self, operation: Operation[T]) -> Operation[T]:
        if not isinstance(operation, Write | FilteredOperation):
            raise TypeError(f"{type(operation).__name__} has no filter, and would reach beyond this memory")
        return operation.map(self._encode_message, self._encode_filter)

    def _encode_message(self, message: Message) -> Message:
        self.check_user(message.user_id)
        metadata = message.metadata
        if self.memory_id is not None:
            metadata = {_escaped(key): value for key, value in metadata.items()}
            metadata |= {key: self._stored(message.metadata.get(key)) for key in _SCOPE} | {_MARK: self.memory_id}
        return message.model_copy(update={"metadata": dict(metadata)})

    def _encode_filter(self, where: Filter) -> Filter:
        conditions = where.conditions
        if self.user_id is not None:
            conditions = (*conditions, OneOf(USER_KEY, (self.user_id,)))
        if self.memory_id is None:
            return Filter(conditions)
        encoded = tuple(map(self._encode_condition, conditions))
        if not any(condition.key in _SCOPE for condition in conditions):
            encoded = (*encoded, OneOf(_MARK, (self.memory_id,)))
        return Filter(encoded)

    def _encode_condition(self, condition: Condition) -> Condition:
        if condition.key not in _SCOPE:
            return replace(condition, key=_escaped(condition.key))
        if isinstance(condition, Absent):
            return OneOf(condition.key, (self._stored(None),))
        if isinstance(condition, OneOf):
            return OneOf(condition.key, tuple(self._stored(str(value)) for value in condition.values))
        raise TypeError(f"a range of {condition.key}")

    def _stored(self, value: str | None) -> str:
        """An id as it is stored; that of nobody is the memory's own, which has no separator."""
        return str(self.memory_id) if value is None else self._prefix + value

    # --- out of the store ------------------------------------------------------------------------------------

    def _decoded(self, result: Any) -> Any:
        if isinstance(result, list):
            return [self._decoded(item) for item in result]
        if isinstance(result, Message):
            return self._decode_message(result)
        if isinstance(result, Session):
            return replace(result, user_id=self._own(result.user_id), session_id=self._own(result.session_id))
        return result

    def _decode_message(self, message: Message) -> Message:
        if self.memory_id is None:
            return message
        metadata = {_unescaped(key): value for key, value in message.metadata.items() if key != _MARK}
        scope = {key: self._own(message.metadata.get(key)) for key in _SCOPE}
        for key, value in scope.items():
            if value is None:
                del metadata[key]
            else:
                metadata[key] = value
        return message.model_copy(update={"metadata": metadata})

    def _own(self, stored: str | None) -> str | None:
        if self.memory_id is None:
            return stored
        if stored == self.memory_id:
            return None
        if stored is None or not stored.startswith(self._prefix):
            raise BackendError("the store answered with a message of another memory")
        return stored.removeprefix(self._prefix)


def of_user(filters: Mapping[str, Any] | None, user_id: str | None, session_id: str | None) -> dict[str, Any]:
    """A filter with the ids that a request names beside it."""
    named = {USER_KEY: user_id, SESSION_KEY: session_id}
    return dict(filters or {}) | {key: value for key, value in named.items() if value is not None}


def _escaped(key: str) -> str:
    return f"${key}" if _LIKE_MARK.fullmatch(key) else key


def _unescaped(key: str) -> str:
    return key[1:] if _LIKE_MARK.fullmatch(key) else key
