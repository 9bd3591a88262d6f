"""Clients that are made when they are first needed, and again in a forked child."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dynamiq_memory._forks import WatchesForks, keep_inherited
from dynamiq_memory.exceptions import BackendError

T = TypeVar("T")


class LazyClient(WatchesForks, Generic[T]):
    """A client for all threads, or a model. If it is not closed before, it is when this object is collected.

    Args:
        make: Makes the client.
        close: Closes it.
        stale: The error for a forked child that must not make its own client; None if it may.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Any], stale: str | None = None) -> None:
        """Make no client yet."""
        self._make = make
        self._close = close
        self._stale = stale
        self._is_stale = False
        self._client: T | None = None
        self._closing: weakref.finalize[..., Any] | None = None
        self._lock = threading.Lock()

    @classmethod
    def given(cls, client: T, location: str) -> LazyClient[T]:
        """Return the same for a client that is owned by the caller, who closes it."""
        return cls(
            lambda: client,
            leave_open,
            f"{location}: the client was made before this process was forked, and shares its connections with the "
            "parent. Make a new one in this process, or pass a connection instead",
        )

    def get(self) -> T:
        """Return the client.

        Raises:
            BackendError: It cannot be used in a forked child.
        """
        with self._lock:
            if self._client is None:
                if self._is_stale:
                    raise BackendError(self._stale)
                self._client = self._make()
                self._closing = weakref.finalize(self, self._close, self._client)
            return self._client

    def close(self) -> None:
        """Close the client, if there is one; it is made again when it is needed."""
        if self._closing is not None:
            self._closing()
            self._client = None

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._closing is not None:
            self._closing.detach()
        keep_inherited(self._client)
        self._client = None
        self._is_stale = self._stale is not None


def leave_open(_: Any) -> None:
    """Leave a client open that is owned by the caller."""
