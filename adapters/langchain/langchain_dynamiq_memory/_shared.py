"""Memories opened by URL, one for each URL in a process."""

from __future__ import annotations

import threading

from dynamiq_memory import Memory
from dynamiq_memory.backends import create_backend

_memories: dict[str, Memory] = {}
_lock = threading.Lock()


def memory_at(url: str) -> Memory:
    """Return the process's memory for a URL.

    A chain asks for its history on every run; a store of its own each time would cost a connection, and lose what
    `memory://` holds.

    Args:
        url: As for `dynamiq_memory.backends.create_backend`.

    Raises:
        ConfigurationError: The URL is not understood.
    """
    with _lock:
        if url not in _memories:
            _memories[url] = Memory(backend=create_backend(url))
        return _memories[url]
