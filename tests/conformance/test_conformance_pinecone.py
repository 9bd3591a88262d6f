"""The contract, kept by Pinecone: over the wire, by a server with the service's limits and its lag."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.testing import MemoryBackendConformance
from tests.pinecone.fixtures import NewStore, connection, module_server, new_store, server

__all__ = ["connection", "module_server", "new_store", "server"]


class TestPinecone(MemoryBackendConformance):
    messages_per_writer = 6
    stateful_examples = 8
    stateful_steps = 15

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store() as backend:
            yield backend
