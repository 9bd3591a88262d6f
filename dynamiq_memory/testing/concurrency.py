"""Concurrent use by threads, tasks and forked processes."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.testing.base import SCOPE, ConformanceBase, contents, say

WRITERS = 8
_CHILD_SECONDS = 120


class ConcurrencyConformance(ConformanceBase):
    """Tests with threads, tasks and forks.

    Attributes:
        messages_per_writer: Number of messages that each of the eight writers stores.
    """

    messages_per_writer = 25

    def _expect_all(self, backend: MemoryBackend) -> None:
        found = contents(backend.get_all())
        assert len(found) == WRITERS * self.messages_per_writer
        for writer in range(WRITERS):
            written = [content for content in found if content.startswith(f"{writer}:")]
            assert written == [f"{writer}:{number}" for number in range(self.messages_per_writer)]

    def test_threads_lose_nothing_and_keep_their_order(self, backend: MemoryBackend) -> None:
        start = threading.Barrier(WRITERS)

        def write(writer: int) -> None:
            start.wait()
            for number in range(self.messages_per_writer):
                backend.add(say(f"{writer}:{number}"))

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))
        self._expect_all(backend)

    def test_tasks_lose_nothing_and_keep_their_order(self, backend: MemoryBackend) -> None:
        async def write(writer: int) -> None:
            for number in range(self.messages_per_writer):
                await backend.aadd(say(f"{writer}:{number}"))

        async def write_all() -> None:
            await asyncio.gather(*(write(writer) for writer in range(WRITERS)))

        asyncio.run(write_all())
        self._expect_all(backend)

    def test_readers_see_whole_replacements(self, backend: MemoryBackend) -> None:
        if not backend.capabilities.transactions:
            pytest.skip("the store has no transactions")
        backend.replace(SCOPE, [say(f"word {0}", n=0) for _ in range(5)])
        done = threading.Event()
        seen: list[tuple[list[int], int]] = []

        def read() -> None:
            while not done.is_set():
                seen.append(([m.metadata["n"] for m in backend.get_all(filters=SCOPE)], backend.count(SCOPE)))

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for number in range(1, 20):
                    backend.replace(SCOPE, [say(f"word {number}", n=number) for _ in range(5)])
            finally:
                done.set()
            for reader in readers:
                reader.result()
        assert seen
        for numbers, count in seen:
            assert len(numbers) == count == 5
            assert len(set(numbers)) == 1

    def test_writers_and_searchers_do_not_disturb_each_other(self, backend: MemoryBackend) -> None:
        def write(writer: int) -> None:
            for number in range(self.messages_per_writer):
                backend.add(say(f"apple {number}", session=f"s{writer}"))

        def search(writer: int) -> None:
            for _ in range(self.messages_per_writer):
                found = backend.search("apple", {"session_id": f"s{writer}"})
                assert {message.session_id for message in found} <= {f"s{writer}"}
            backend.delete(session_id=f"t{writer}")

        with ThreadPoolExecutor(WRITERS) as pool:
            jobs = [pool.submit(job, writer) for writer in range(4) for job in (write, search)]
            for job in jobs:
                job.result()
        assert len(backend.search("apple")) == 4 * self.messages_per_writer

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_usable_in_a_child_after_a_fork(self, backend: MemoryBackend) -> None:
        backend.add(say("before"))
        asyncio.run(backend.aadd(say("before too")))

        def in_child() -> None:
            assert contents(backend.get_all()) == ["before", "before too"]
            backend.add(say("from the child"))
            asyncio.run(backend.aadd(say("from the child too")))
            assert len(backend.search("child")) == 2

        assert _run_in_fork(in_child) == 0
        backend.add(say("after"))
        found = contents(backend.get_all())
        assert found[:2] == ["before", "before too"]
        assert found[-1] == "after"


def _run_in_fork(work: Callable[[], None]) -> int | None:
    """Run a function in a forked child and return its exit status; a child that hangs is killed."""

    def work_in_child() -> None:
        # Shows where the child hangs, if it does.
        faulthandler.dump_traceback_later(_CHILD_SECONDS / 2, file=2)
        work()

    child = get_context("fork").Process(target=work_in_child)
    child.start()
    child.join(_CHILD_SECONDS)
    if child.is_alive():
        child.kill()
        pytest.fail("the forked child hangs")
    return child.exitcode
