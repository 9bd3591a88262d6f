"""The conformance suite for Qdrant, in this process and over the wire."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from dynamiq_memory.backends import MemoryBackend, Qdrant
from dynamiq_memory.backends.qdrant.client import Address
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.changing import ChangingConformance
from dynamiq_memory.testing.deleting import DeletingConformance
from dynamiq_memory.testing.filtering import FilteringConformance
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.searching import SearchingConformance
from tests.conformance.calls import Async, Sync, Whole
from tests.conformance.reused import Reused
from tests.fakes.embedders import NGrams
from tests.fakes.qdrant.grpc_server import QdrantGRPC
from tests.fakes.qdrant.server import QdrantServer, qdrant


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, str]]:
    """The URL of a server, and the name of a collection for the tests of this module."""
    name = f"test-{uuid.uuid4()}"
    with qdrant() as (url, _):
        yield url, name
        key = os.environ.get("QDRANT_API_KEY")
        with closing(Address(url=url, api_key=key).connect()) as client:
            client.delete_collection(name)


class TestQdrantInMemory(Sync, Whole):
    """Its asynchronous methods are the synchronous ones in threads."""

    messages_per_writer = 8
    stateful_examples = 4
    stateful_steps = 20

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with Qdrant(":memory:", NGrams()) as backend:
            yield backend


class Served(Reused):
    """The real client and Qdrant's own engine, or the server of `QDRANT_URL`."""

    @pytest.fixture
    def open_backend(self, served: tuple[str, str]) -> Callable[[], MemoryBackend]:
        url, name = served
        return lambda: Qdrant(QdrantConnection(url=url), NGrams(), name)


class TestQdrantOverTheWire(Served, Sync, MemoryBackendConformance):
    messages_per_writer = 8
    stateful_examples = 4
    stateful_steps = 20


class TestQdrantOverTheWireAsync(Served, Async):
    pass


@pytest.fixture(scope="module")
def by_grpc() -> Iterator[QdrantGRPC]:
    with QdrantServer() as rest, QdrantGRPC(rest) as server:
        yield server


class ByGRPC(Reused):
    @pytest.fixture
    def open_backend(self, by_grpc: QdrantGRPC) -> Callable[[], MemoryBackend]:
        return lambda: Qdrant(by_grpc.rest.url, NGrams(), prefer_grpc=True, grpc_port=by_grpc.port)


class TestQdrantByGRPC(
    ByGRPC,
    Sync,
    ReadingConformance,
    SearchingConformance,
    FilteringConformance,
    DeletingConformance,
    ChangingConformance,
):
    """The parts of the contract that depend on the requests, with the client's other protocol."""


class TestQdrantByGRPCAsync(ByGRPC, Async):
    pass
