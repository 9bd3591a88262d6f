"""Pydantic models over a memory, which they keep by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, Field, PrivateAttr, field_serializer

from dynamiq_memory import Memory
from dynamiq_memory.integrations.arguments import check_memory
from dynamiq_memory.integrations.references import reference_to, resolve


class MemoryByReference(BaseModel):
    """A model over a `Memory`: copies share it; JSON and pickles contain a reference to it and no secret."""

    store: dict[str, Any] = Field(description="The reference to the store.")

    _memory: Memory = PrivateAttr()

    @field_serializer("store")
    def _describe_store(self, _: dict[str, Any]) -> dict[str, Any]:
        # The memory may have been given a name since the model was made.
        return reference_to(self._memory)

    def __copy__(self) -> Self:
        """Return a copy that shares the store."""
        return self.model_copy()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the store."""
        return self.model_copy()


def find_memory(memory: Memory | None, store: Mapping[str, Any] | None) -> Memory:
    """Return the memory, or the one that a reference leads to.

    Raises:
        ConfigurationError: Neither is given, or the store cannot be found in this process.
    """
    return resolve(store) if memory is None and store is not None else check_memory(memory)
