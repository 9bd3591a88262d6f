"""The conformance suite for Pinecone, over the wire, with a server that has the service's limits and its lag."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.backends.pinecone import recent_writes
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.changing import ChangingConformance
from dynamiq_memory.testing.deleting import DeletingConformance
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.searching import SearchingConformance
from dynamiq_memory.testing.stateful import StatefulConformance
from tests.backends.pinecone.conftest import REAL_INDEX, NewStore
from tests.conformance.calls import Async, Sync, Whole
from tests.fakes.pinecone.server import PineconeServer


class Serverless:
    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store() as backend:
            yield backend


class TestPinecone(Serverless, Sync, Whole):
    messages_per_writer = 6
    stateful_examples = 4
    stateful_steps = 15


class TestPineconeAsync(Serverless, Async):
    pass


if REAL_INDEX:

    class TestRealPinecone(MemoryBackendConformance):
        """The service itself, if the environment names one of its indexes."""

        messages_per_writer = 6
        stateful_examples = 3
        stateful_steps = 10

        @pytest.fixture
        def backend(self, real_store: MemoryBackend) -> MemoryBackend:
            return real_store


class TestLag(Sync, ReadingConformance, DeletingConformance, ChangingConformance, StatefulConformance):
    """The index shows writes a little later, sometimes within a test, when the store has already forgotten them."""

    # It needs deletions to be remembered for longer than here.
    test_of_many_who_take_one_gets_each_message = None  # type: ignore[assignment]

    stateful_examples = 4
    stateful_steps = 15

    @pytest.fixture
    def backend(
        self, new_store: NewStore, server: PineconeServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[MemoryBackend]:
        monkeypatch.setattr(recent_writes, "SETTLED_SECONDS", 0.0)
        server.lag = 0.01
        with new_store() as backend:
            yield backend


class TestNeverShown(Sync, DeletingConformance, SearchingConformance, StatefulConformance):
    """The index never shows any write: all are remembered."""

    stateful_examples = 4
    stateful_steps = 15

    @pytest.fixture
    def backend(self, new_store: NewStore, server: PineconeServer) -> Iterator[MemoryBackend]:
        server.hold()
        with new_store() as backend:
            yield backend


class TestPods(Sync, ReadingConformance, DeletingConformance, StatefulConformance):
    """Pods do not list ids. Here, vectors are compared by distance."""

    stateful_examples = 4
    stateful_steps = 15

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        options = {"index_type": "pod", "environment": "us-east1-gcp", "pod_type": "p1.x1", "metric": "euclidean"}
        with new_store(**options) as backend:
            yield backend
