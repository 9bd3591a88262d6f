"""The conformance suite for one memory of a store with several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import InMemory, MemoryBackend
from dynamiq_memory.server.partition import Partition
from dynamiq_memory.testing import MemoryBackendConformance, say
from tests.conformance.calls import Async, Sync

# Other memories in the store, with ids much like that of the tested memory.
NEIGHBOURS = ("m", "m-1.", "m-10", "M-1")


def _with_neighbours(store: MemoryBackend) -> Iterator[MemoryBackend]:
    neighbours = [Partition(store, name) for name in NEIGHBOURS]
    for neighbour in neighbours:
        neighbour.add_many([say("apple of another memory", id="x"), say("hello", user=None, session=None)])
    before = [neighbour.get_all() for neighbour in neighbours]
    yield Partition(store, "m-1")
    if not store.is_closed:
        assert [neighbour.get_all() for neighbour in neighbours] == before


class PartitionOfMemory:
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with InMemory() as store:
            yield from _with_neighbours(store)


class TestPartitionOfMemory(PartitionOfMemory, Sync, MemoryBackendConformance):
    stateful_examples = 8


class TestPartitionOfMemoryAsync(PartitionOfMemory, Async):
    pass
