"""Parts of the suite, which as a whole tests the synchronous and the asynchronous methods in turn.

The asynchronous methods are the same for all stores, and `InMemory` runs the whole suite with them. Stores differ
in how they await one operation or one request. So a store runs the whole suite with the synchronous
methods, and every operation with the asynchronous ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.testing import MemoryBackendConformance, Twin
from dynamiq_memory.testing.changing import ChangingConformance
from dynamiq_memory.testing.content import ContentConformance
from dynamiq_memory.testing.deleting import DeletingConformance
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.searching import SearchingConformance
from dynamiq_memory.testing.stateful import StatefulConformance


class Sync:
    """Calls only the synchronous methods. It comes before the classes of the suite."""

    @pytest.fixture
    def store(self, backend: MemoryBackend) -> Twin:
        """The backend."""
        return Twin(backend, None)


class Operations(ReadingConformance, StatefulConformance):
    """Every operation."""

    stateful_examples = 2
    stateful_steps = 20


class WithOldClients(Operations, SearchingConformance):
    """What depends on a store's client: the requests, and how large they may be."""

    test_five_megabytes = ContentConformance.test_five_megabytes


class Ranking(SearchingConformance, DeletingConformance, ChangingConformance, StatefulConformance):
    """What the vectors of a store with an embedder are a part of; the rest is the same code as without one."""

    stateful_examples = 3


# The dynamiq package pins old clients. Without it, the whole suite runs with the newest ones.
if TYPE_CHECKING or not find_spec("dynamiq"):  # noqa: SIM108 - a type cannot be conditional
    Whole = MemoryBackendConformance
else:
    Whole = WithOldClients


class Async(Operations):
    """Every operation, with the asynchronous methods."""

    @pytest.fixture
    def store(self, backend: MemoryBackend) -> Iterator[Twin]:
        """The backend, called asynchronously."""
        with asyncio.Runner() as runner:
            yield Twin(backend, runner)

    def test_it_behaves_like_a_list(self, store):
        super().test_it_behaves_like_a_list(store)
