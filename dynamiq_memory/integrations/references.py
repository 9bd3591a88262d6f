"""Memories by reference, so that a framework that saves its state as JSON gets its memory back, with its store.

A reference contains no secret and no message.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory._ids import new_id
from dynamiq_memory.backends import create_backend
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.memory import Memory

__all__ = ["memory_at", "reference_to", "register_memory", "resolve"]

_SETTINGS = (
    *("message_limit", "filters", "save_mode", "max_tokens"),
    *("recent_share", "score_cutoff", "timezone", "dates", "window", "placement"),
)


class _Locks(WatchesForks):
    """A lock for each URL that is opened, since a server may be slow. A forked child has none of them."""

    def __init__(self) -> None:
        self._by_url: dict[str, threading.Lock] = {}

    def of(self, url: str) -> threading.Lock:
        return self._by_url.setdefault(url, threading.Lock())

    def _before_fork(self) -> None:
        _lock.acquire()

    def _after_fork_in_parent(self) -> None:
        _lock.release()

    def _after_fork(self) -> None:
        _lock.release()
        self._by_url = {}


_locks = _Locks()
_lock = threading.RLock()
_by_url: dict[str, Memory] = {}
_by_name: dict[str, Memory] = {}
_by_id: weakref.WeakValueDictionary[str, Memory] = weakref.WeakValueDictionary()
_ids: weakref.WeakKeyDictionary[Memory, str] = weakref.WeakKeyDictionary()


def memory_at(url: str) -> Memory:
    """Return the process's memory for a URL, which is opened once, and again after it has been closed.

    Args:
        url: As for `dynamiq_memory.backends.create_backend`.

    Raises:
        ConfigurationError: The URL is unknown or wrong.
    """
    text = str(url)  # what is not a URL is refused below
    with _locks.of(text):
        known = _by_url.get(text)
        if known is None or known.backend.is_closed:
            known = _by_url[text] = Memory(backend=create_backend(url))
        return known


def register_memory(name: str, memory: Memory) -> None:
    """Give a memory a name by which references to it are resolved, also in another process that does the same.

    Needed for a store that has no URL without secrets, and for settings that JSON does not know, such as a function.

    Args:
        name: The name; it now refers to this memory only.
        memory: The memory.

    Raises:
        ConfigurationError: The name is not a non-empty string, or the memory is not a `Memory`.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"name must be a non-empty string, not {name!r}")
    if not isinstance(memory, Memory):
        raise ConfigurationError(f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}")
    with _lock:
        _by_name[name] = memory


def reference_to(memory: Memory) -> dict[str, Any]:
    """Describe a memory as JSON without secrets, for `resolve`."""
    with _lock:
        if memory not in _ids:
            _ids[memory] = new_id()
            _by_id[_ids[memory]] = memory
        name = next((name for name, known in _by_name.items() if known is memory), None)
        described = memory.to_dict()
        settings = {key: described[key] for key in _SETTINGS}
        kind = memory.backend.name
        return {"id": _ids[memory], "name": name, "backend": kind, "url": memory.backend.to_url(), "settings": settings}


def resolve(reference: Mapping[str, Any]) -> Memory:
    """Find the memory of a reference: the object itself, the memory registered under its name, or its store reopened.

    Raises:
        ConfigurationError: The object is not in this process, no memory is registered under its name, and its store
            has no URL without secrets.
    """
    settings = reference.get("settings", {}) if isinstance(reference, Mapping) else None
    if not isinstance(settings, Mapping) or not settings.keys() <= set(_SETTINGS):
        raise ConfigurationError("not a reference to a memory: use a result of reference_to, or a saved state")
    with _lock:
        for known, key in ((_by_id, "id"), (_by_name, "name")):
            name = reference.get(key)
            found = known.get(name) if isinstance(name, str) else None
            if found is not None and not (found.backend.is_closed and reference.get("url")):
                return found
    url = reference.get("url")
    if not url:
        named = f" named {reference['name']!r}" if reference.get("name") else ""
        raise ConfigurationError(
            f"a memory on {reference.get('backend')}{named} cannot be opened again in this process: call "
            "dynamiq_memory.register_memory(name, memory) in both processes, before saving and before restoring"
        )
    return Memory(backend=memory_at(url).backend, **settings)
