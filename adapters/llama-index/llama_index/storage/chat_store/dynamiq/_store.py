"""What both chat stores are: a memory, kept by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamiq_memory import ConfigurationError, Memory
from dynamiq_memory.references import reference_to, resolve


def memory_and_reference(memory: Any, store: Mapping[str, Any] | None) -> tuple[Memory, dict[str, Any]]:
    """The memory that a chat store was given, itself or by reference, and the reference to it.

    Raises:
        ConfigurationError: It was given none.
    """
    if memory is None and store is not None:
        memory = resolve(store)
    if not isinstance(memory, Memory):
        raise ConfigurationError(
            f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}: give Memory(backend=…)"
        )
    return memory, reference_to(memory)
