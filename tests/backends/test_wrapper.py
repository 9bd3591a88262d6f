"""A wrapper around any backend handles all operations in one method, sync and async, and keeps the contract."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from inspect import isabstract
from typing import Any, TypeVar

import pytest

from dynamiq_memory.backends import Capabilities, InMemory, MemoryBackend, SQLite, operations
from dynamiq_memory.backends.operations import (
    Around,
    AroundPage,
    Count,
    Delete,
    IsEmpty,
    Operation,
    Read,
    ReadPage,
    Replace,
    Search,
    Sessions,
    Take,
    Update,
    Write,
)
from dynamiq_memory.filters import parse
from dynamiq_memory.testing import MemoryBackendConformance, Twin, say
from dynamiq_memory.testing.base import SCOPE, SESSION, USER
from dynamiq_memory.testing.concurrency import ConcurrencyConformance
from tests.conformance.calls import Async, Sync

T = TypeVar("T")


class Counting(MemoryBackend):
    """Counts and delays every operation of a backend."""

    delay = 0.0002

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(tokenizer=backend.tokenizer, bm25=backend.bm25)
        self.backend = backend
        self.counts: Counter[type[Operation[Any]]] = Counter()

    @property
    def capabilities(self) -> Capabilities:
        return self.backend.capabilities

    def _perform(self, operation: Operation[T]) -> T:
        self.counts[type(operation)] += 1
        time.sleep(self.delay)
        return self.backend.execute(operation)

    async def _aperform(self, operation: Operation[T]) -> T:
        self.counts[type(operation)] += 1
        await asyncio.sleep(self.delay)
        return await self.backend.aexecute(operation)


class CountingInMemory:
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with InMemory() as store, Counting(store) as backend:
            yield backend


class TestCountingInMemory(CountingInMemory, Sync, MemoryBackendConformance):
    stateful_examples = 5
    messages_per_writer = 10


class TestCountingInMemoryAsync(CountingInMemory, Async):
    pass


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLite]:
    with SQLite(tmp_path_factory.mktemp("wrapped") / "memory.db", synchronous="NORMAL") as store:
        yield store


class TestCountingSQLite(Async, ConcurrencyConformance):
    messages_per_writer = 5

    @pytest.fixture
    def backend(self, sqlite: SQLite) -> Iterator[MemoryBackend]:
        with Counting(sqlite) as backend:
            yield backend
        sqlite.clear()


@pytest.mark.parametrize("runner", [None, asyncio.Runner], ids=["sync", "async"])
def test_every_call_is_counted_once(runner: type[asyncio.Runner] | None) -> None:
    counting = Counting(InMemory())
    store = Twin(counting, runner() if runner else None)
    stored = store.add_many([say("one"), say("two")])
    calls: list[tuple[type[Operation[Any]], str, tuple[Any, ...]]] = [
        (Write, "add", (say("three"),)),
        (Write, "add_many", ([say("four"), say("five")],)),
        (Read, "get_all", ()),
        (Search, "search", ("two",)),
        (Read, "search", ()),
        (ReadPage, "execute", (ReadPage(parse(SCOPE), limit=1, max_bytes=1),)),
        (Around, "around", (stored, 1, 1)),
        (AroundPage, "execute", (AroundPage(parse(SCOPE), stored, before=1, after=1, max_bytes=1),)),
        (Update, "update", (stored,)),
        (Count, "count", ()),
        (Sessions, "sessions", ()),
        (IsEmpty, "is_empty", ()),
        (Take, "take", ({"message_id": stored[0].id},)),
        (Replace, "replace", (SCOPE, stored)),
        (Delete, "delete", (SESSION, USER)),
        (Delete, "clear", ()),
    ]
    for operation, name, arguments in calls:
        counting.counts.clear()
        getattr(store, name)(*arguments)
        assert counting.counts == {operation: 1}, name
    defined = {each for each in vars(operations).values() if isinstance(each, type) and issubclass(each, Operation)}
    assert {operation for operation, _, _ in calls} == {each for each in defined if not isabstract(each)}
    assert counting.backend.is_empty()
    if store.runner is not None:
        store.runner.close()
