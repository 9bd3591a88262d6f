"""Checks of the arguments that adapters share."""

from __future__ import annotations

from dynamiq_memory._checks import check_choice, check_whole_number
from dynamiq_memory.conversation.placement import Placement
from dynamiq_memory.conversation.strategies import MemoryRetrievalStrategy
from dynamiq_memory.conversation.windows import Window
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.memory import Memory

__all__ = ["check_limit", "check_memory", "check_placement", "check_strategy", "check_window"]


def check_memory(memory: object, alternative: str = "") -> Memory:
    """Check that an argument is a `Memory`.

    Args:
        memory: The argument.
        alternative: Another way to pass a memory, for the error.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(memory, Memory):
        return memory
    raise ConfigurationError(
        f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}: give Memory(backend=…){alternative}"
    )


def check_limit(name: str, limit: int | None) -> int | None:
    """Check a maximum number of messages or tokens.

    Args:
        name: The argument's name, for the error.
        limit: The argument.

    Raises:
        ConfigurationError: It is neither None nor a whole number of 1 or more.
    """
    return None if limit is None else check_whole_number(name, limit)


def check_strategy(strategy: MemoryRetrievalStrategy | str) -> MemoryRetrievalStrategy:
    """Check a strategy, given as such or by its name.

    Raises:
        ConfigurationError: It is unknown.
    """
    return check_choice(MemoryRetrievalStrategy, strategy, "strategy", ConfigurationError)


def check_window(window: Window | str | None) -> Window | None:
    """Check a window, given as such, by its name, or as None for the memory's own.

    Raises:
        ConfigurationError: It is unknown.
    """
    return None if window is None else check_choice(Window, window, "window", ConfigurationError)


def check_placement(placement: Placement | str | None) -> Placement | None:
    """Check a placement, given as such, by its name, or as None for the memory's own.

    Raises:
        ConfigurationError: It is unknown.
    """
    return None if placement is None else check_choice(Placement, placement, "placement", ConfigurationError)
