"""The contract, kept by Qdrant in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamiq_memory.backends import MemoryBackend, Qdrant
from dynamiq_memory.testing import MemoryBackendConformance
from tests.embedders import NGrams


class TestQdrantInMemory(MemoryBackendConformance):
    messages_per_writer = 8
    stateful_examples = 6
    stateful_steps = 20

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with Qdrant(":memory:", NGrams()) as backend:
            yield backend
