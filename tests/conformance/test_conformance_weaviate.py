"""The contract, kept by Weaviate over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.testing import MemoryBackendConformance
from tests.weaviate_store.fixtures import NewStore, collection_name, connection, new_store, one_ssl_context, server

__all__ = ["collection_name", "connection", "new_store", "one_ssl_context", "server"]


class TestWeaviate(MemoryBackendConformance):
    messages_per_writer = 6
    stateful_examples = 8
    stateful_steps = 20

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store() as backend:
            yield backend
