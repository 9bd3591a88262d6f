"""The conformance suite for InMemory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import InMemory, MemoryBackend
from dynamiq_memory.testing import MemoryBackendConformance
from tests.conformance.calls import Ranking
from tests.fakes.embedders import NGrams


class TestInMemory(MemoryBackendConformance):
    stateful_examples = 30

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with InMemory() as backend:
            yield backend


class TestInMemoryWithVectors(Ranking):
    """With the synchronous and the asynchronous methods."""

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with InMemory(NGrams()) as backend:
            yield backend
