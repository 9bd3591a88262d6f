"""The conformance suite for Weaviate, over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import MemoryBackend
from tests.backends.weaviate.conftest import NewStore
from tests.conformance.calls import Async, Sync, Whole


class Server:
    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store() as backend:
            yield backend


class TestWeaviate(Server, Sync, Whole):
    messages_per_writer = 6
    stateful_examples = 4
    stateful_steps = 20


class TestWeaviateAsync(Server, Async):
    pass
