"""Hooks that backends need when the process forks."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABCMeta
from typing import Any

from dynamiq_memory.messages import clock


class _Registered(ABCMeta):
    """Metaclass that registers instances once they are completely constructed."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Create an instance and register it."""
        instance = super().__call__(*args, **kwargs)
        _watched.add(instance)
        return instance


class WatchesForks(metaclass=_Registered):
    """An object with locks or connections. Its methods are called when the process forks."""

    def _before_fork(self) -> None:
        """Lock the state that must not change while the process forks."""

    def _after_fork_in_parent(self) -> None:
        """Release the locks of `_before_fork`."""

    def _after_fork(self) -> None:
        """In a forked child, replace everything that it must not share with the parent: locks and connections."""


_watched: weakref.WeakSet[WatchesForks] = weakref.WeakSet()
_forking: list[WatchesForks] = []
# Two threads may fork at the same time.
_lock = threading.Lock()
_inherited: list[Any] = []


def keep_inherited(*connections: Any) -> None:
    """Keep the parent's connections alive in a forked child. Garbage collection would close them for the parent too."""
    _inherited.extend(connections)


def _before_fork() -> None:
    _lock.acquire()
    _forking[:] = _watched
    for each in _forking:
        each._before_fork()  # noqa: SLF001 - the methods above


def _after_fork_in_parent() -> None:
    for each in _forking:
        each._after_fork_in_parent()  # noqa: SLF001 - the methods above
    _forking.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread that the child does not have may have locked the parent's
    _lock = threading.Lock()
    clock.renew_lock()
    for each in _forking:
        each._after_fork()  # noqa: SLF001 - the methods above
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
