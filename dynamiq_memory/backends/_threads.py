"""A thread pool in which a backend runs synchronous code for asynchronous callers.

A function in a thread cannot be stopped, but what it waits for may be: a statement that reads, for example.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.backends._weights import LARGE, weigh

T = TypeVar("T")
V = TypeVar("V")


class ShutDownError(Exception):
    """The pool has been shut down; the function was not called."""


_THREADS = 8
_STOPPED_AGAIN_SECONDS = 0.05


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
        be finished before the caller continues. Within `stoppable`, the function is stopped.

        Raises:
            ShutDownError: The pool has been shut down.
        """
        stopping, context = _Stopping(), contextvars.copy_context()
        context.run(_current.set, stopping)
        run = partial(context.run, function, *arguments)
        try:
            started = self._pool().submit(run)
        except RuntimeError as error:
            raise ShutDownError from error
        result = asyncio.wrap_future(started)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not started.cancel():
                await until_over(result, stopping.stop)
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


_COMPUTING = Threads("dynamiq-memory-computing")


async def computed(function: Callable[..., T], *data: Any) -> T:
    """Call a function that waits for nothing; in a thread if its arguments are so large that it would hold up the loop.

    Args:
        function: The function.
        data: Its arguments.
    """
    result: T = await caller_for(data)(function, *data)
    return result


def caller_for(data: Any) -> Callable[..., Awaitable[Any]]:
    """Return what calls several functions of the same data or of copies of it, which is weighed only once.

    Args:
        data: The data.

    Returns:
        Calls a function with its arguments; in a thread if the data is so large that it would hold up the loop.
    """
    return _at_once if weigh(data) < LARGE else in_thread


async def _at_once(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that computes for long in a thread; see `Threads.run`."""
    return await _COMPUTING.run(function, *arguments)


async def until_over(operation: asyncio.Future[Any], stop: Callable[[], object] | None = None) -> None:
    """Wait for an operation, even if the waiting task is cancelled repeatedly.

    Args:
        operation: The operation.
        stop: Stops what the operation is waiting for. Is called in a thread, and again while it goes on.
    """
    loop = asyncio.get_running_loop()
    while not operation.done():
        with suppress(asyncio.CancelledError):
            if stop is not None:
                await asyncio.shield(loop.run_in_executor(None, stop))
            await asyncio.wait([operation], timeout=None if stop is None else _STOPPED_AGAIN_SECONDS)
    if not operation.cancelled():
        operation.exception()  # the caller raises the cancellation; asyncio would log what nobody has looked at


class _Stopping:
    """How a cancelled task stops the function that runs for it in a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None

    def stop(self) -> None:
        with self._lock:
            if self._stop is not None:
                self._stop()

    def set(self, stop: Callable[[], object] | None) -> None:
        with self._lock:
            self._stop = stop


_current: contextvars.ContextVar[_Stopping | None] = contextvars.ContextVar("stopping", default=None)


@contextmanager
def stoppable(stop: Callable[[], object]) -> Iterator[None]:
    """Let a cancelled task stop what its thread does within this context, and nothing after it.

    Args:
        stop: Makes it fail. Is called in another thread, and may be called again.
    """
    stopping = _current.get()
    if stopping is None:  # the caller is synchronous
        yield
        return
    stopping.set(stop)
    try:
        yield
    finally:
        stopping.set(None)
