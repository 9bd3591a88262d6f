"""What both chat stores are: a memory, kept by reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from pydantic import BaseModel, Field, PrivateAttr, field_serializer

from dynamiq_memory import ConfigurationError, Memory
from dynamiq_memory.backends import Session
from dynamiq_memory.references import reference_to, resolve
from llama_index.storage.chat_store.dynamiq._keys import key_of


class MemoryByReference(BaseModel):
    """A pydantic model over a memory: copies share it, JSON and pickles hold a reference to it and no secret."""

    store: dict[str, Any] = Field(description="The reference to the store.")

    _memory: Memory = PrivateAttr()

    def __init__(
        self,
        memory: Memory | None = None,
        store: Mapping[str, Any] | None = None,
        class_name: str | None = None,  # noqa: ARG002 - what LlamaIndex writes into its JSON
    ) -> None:
        """Take the memory; no I/O."""
        if memory is None and store is not None:
            memory = resolve(store)
        if not isinstance(memory, Memory):
            raise ConfigurationError(
                f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}: give Memory(backend=…)"
            )
        super().__init__(store=reference_to(memory))
        self._memory = memory

    @field_serializer("store")
    def _describe_store(self, _: dict[str, Any]) -> dict[str, Any]:
        # Made anew: the memory may have been given a name since.
        return reference_to(self._memory)

    def _keys(self, sessions: list[Session]) -> list[str]:
        keys = (key_of(session, self._memory) for session in sessions)
        return [key for key in keys if key is not None]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Share the store, or with another `store` in the update, take that one."""
        return type(self)(**(update or {"memory": self._memory}))

    def __copy__(self) -> Self:
        """Share the store."""
        return type(self)(self._memory)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Share the store."""
        return type(self)(self._memory)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the reference to the store."""
        return (partial(type(self), None), (self.model_dump()["store"],))
