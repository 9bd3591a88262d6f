"""The contract, kept by SQLite, in a file and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamiq_memory.backends import MemoryBackend, SQLite
from dynamiq_memory.testing import MemoryBackendConformance


class TestSQLiteFile(MemoryBackendConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[MemoryBackend]:
        with SQLite(tmp_path / "memory.db") as backend:
            yield backend


class TestSQLiteInMemory(MemoryBackendConformance):
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with SQLite(":memory:", index_name='odd "name" %s :x') as backend:
            yield backend
