"""The contract, kept by Pinecone: over the wire, by a server with the service's limits and its lag."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.backends.pinecone import recent
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.changing import ChangingConformance
from dynamiq_memory.testing.deleting import DeletingConformance
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.searching import SearchingConformance
from dynamiq_memory.testing.stateful import StatefulConformance
from tests.backends.pinecone.conftest import REAL_INDEX, NewStore
from tests.fakes.pinecone.server import PineconeServer


class TestPinecone(MemoryBackendConformance):
    messages_per_writer = 6
    stateful_examples = 8
    stateful_steps = 15

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store() as backend:
            yield backend


if REAL_INDEX:

    class TestRealPinecone(MemoryBackendConformance):
        """The service itself, where the environment names an index of it."""

        messages_per_writer = 6
        stateful_examples = 3
        stateful_steps = 10

        @pytest.fixture
        def backend(self, real_store: MemoryBackend) -> MemoryBackend:
            return real_store


class TestBehind(ReadingConformance, DeletingConformance, ChangingConformance, StatefulConformance):
    """What is written is seen a little later, at times within a test, and is then no longer remembered."""

    # What deletions are remembered for, a while longer than here.
    test_of_many_who_take_one_gets_each_message = None  # type: ignore[assignment]

    stateful_examples = 8
    stateful_steps = 15

    @pytest.fixture
    def backend(
        self, new_store: NewStore, server: PineconeServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[MemoryBackend]:
        monkeypatch.setattr(recent, "SETTLED_SECONDS", 0.0)
        server.lag = 0.01
        with new_store() as backend:
            yield backend


class TestNeverSeen(DeletingConformance, SearchingConformance, StatefulConformance):
    """Nothing that is written is ever seen: all is remembered."""

    stateful_examples = 8
    stateful_steps = 15

    @pytest.fixture
    def backend(self, new_store: NewStore, server: PineconeServer) -> Iterator[MemoryBackend]:
        server.hold()
        with new_store() as backend:
            yield backend


class TestPods(ReadingConformance, DeletingConformance, StatefulConformance):
    """Pods do not list ids; here, their vectors are compared by distance."""

    stateful_examples = 8
    stateful_steps = 15

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        options = {"index_type": "pod", "environment": "us-east1-gcp", "pod_type": "p1.x1", "metric": "euclidean"}
        with new_store(**options) as backend:
            yield backend
