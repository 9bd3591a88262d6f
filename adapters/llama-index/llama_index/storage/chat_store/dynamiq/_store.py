"""The common part of both chat stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

from dynamiq_memory import Memory
from dynamiq_memory.backends import Session
from dynamiq_memory.integrations.references import reference_to
from llama_index.memory.dynamiq._by_reference import MemoryByReference, find_memory
from llama_index.storage.chat_store.dynamiq._keys import key_of


class StoreOfSessions(MemoryByReference):
    """A chat store with the sessions of a memory as its keys."""

    def __init__(self, memory: Memory | None = None, store: Mapping[str, Any] | None = None) -> None:
        """Take the memory; no I/O."""
        found = find_memory(memory, store)
        super().__init__(store=reference_to(found))
        self._memory = found

    def _keys(self, sessions: Sequence[Session]) -> list[str]:
        keys = (key_of(session, self._memory) for session in sessions)
        return [key for key in keys if key is not None]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Share the store, or take the `store` of the update."""
        return type(self)(**(update or {"memory": self._memory}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the reference to the store."""
        return (partial(type(self), None), (reference_to(self._memory),))
