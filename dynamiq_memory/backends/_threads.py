"""A thread pool in which a backend runs synchronous code for asynchronous callers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from dynamiq_memory._forks import WatchesForks

T = TypeVar("T")
V = TypeVar("V")


class ShutDownError(Exception):
    """The pool has been shut down; the function was not called."""


_THREADS = 8


class Threads(WatchesForks):
    """A thread pool that starts on first use.

    Args:
        name: Prefix of the threads' names.
    """

    def __init__(self, name: str) -> None:
        """Create the pool without starting it."""
        self._name = name
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread, with the context variables of the calling task.

        A cancelled task ends only when the function has returned, since a running function cannot be stopped and must
        be finished before the caller continues.

        Raises:
            ShutDownError: The pool has been shut down.
        """
        run = partial(contextvars.copy_context().run, function, *arguments)
        try:
            started = self._pool().submit(run)
        except RuntimeError as error:
            raise ShutDownError from error
        result = asyncio.wrap_future(started)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not started.cancel():
                await _until_over(result)
            raise

    def map(self, function: Callable[[V], T], values: Iterable[V]) -> list[T]:
        """Call a function for all values concurrently, and wait for the results.

        The function must not use this pool itself, since it would wait for a thread while occupying one.
        """
        return list(self._pool().map(function, values))

    def shut_down(self) -> None:
        """Wait for running functions and stop the threads."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)

    def _after_fork(self) -> None:
        # A child has no threads.
        self._executor = None
        self._lock = threading.Lock()

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix=self._name)
            return self._executor


async def _until_over(operation: asyncio.Future[Any]) -> None:
    """Wait for an operation that cannot be stopped, even if the waiting task is cancelled repeatedly."""
    while not operation.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([operation])
