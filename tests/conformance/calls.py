"""Choices between the synchronous and the asynchronous methods, which the suite tests in turn.

The asynchronous methods are the same for all stores, and `InMemory` runs the whole suite with them. What differs
between stores is how one operation, or one request, is awaited. So a store runs the whole suite with the synchronous
methods, and a part with all operations with the asynchronous ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.testing import Twin
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.stateful import StatefulConformance


class Sync:
    """Calls only the synchronous methods. It comes before the classes of the suite."""

    @pytest.fixture
    def store(self, backend: MemoryBackend) -> Twin:
        """The backend."""
        return Twin(backend, None)


class Async(ReadingConformance, StatefulConformance):
    """Every operation, with the asynchronous methods."""

    stateful_examples = 4
    stateful_steps = 20

    @pytest.fixture
    def store(self, backend: MemoryBackend) -> Iterator[Twin]:
        """The backend, called asynchronously."""
        with asyncio.Runner() as runner:
            yield Twin(backend, runner)

    def test_it_behaves_like_a_list(self, store):
        super().test_it_behaves_like_a_list(store)
