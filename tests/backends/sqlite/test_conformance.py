"""The conformance suite for SQLite, in a file and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamiq_memory.backends import MemoryBackend, SQLite
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.concurrency import ConcurrencyConformance
from dynamiq_memory.testing.lifecycle import LifecycleConformance
from dynamiq_memory.testing.stateful import StatefulConformance
from tests.conformance.calls import Async, Ranking, Sync
from tests.fakes.embedders import NGrams


class File:
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[MemoryBackend]:
        with SQLite(tmp_path / "memory.db") as backend:
            yield backend


class TestSQLiteFile(File, Sync, MemoryBackendConformance):
    stateful_examples = 12


class TestSQLiteFileAsync(File, Async):
    pass


class TestSQLiteInMemory(Sync, ConcurrencyConformance, LifecycleConformance, StatefulConformance):
    """Other connections, and a name that must be quoted; the statements are the same as for a file."""

    stateful_examples = 4

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with SQLite(":memory:", index_name='odd "name" %s :x') as backend:
            yield backend


class WithVectors:
    @pytest.fixture(params=["file", "memory"])
    def backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryBackend]:
        place = tmp_path / "memory.db" if request.param == "file" else ":memory:"
        with SQLite(place, embedder=NGrams()) as backend:
            yield backend


class TestSQLiteWithVectors(WithVectors, Sync, Ranking):
    pass


class TestSQLiteWithVectorsAsync(WithVectors, Async):
    pass
