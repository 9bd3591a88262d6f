"""The contract, on a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory import MemoryBackend
from dynamiq_memory.backends import PostgreSQL
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.changing import ChangingConformance
from dynamiq_memory.testing.deleting import DeletingConformance
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.searching import SearchingConformance
from dynamiq_memory.testing.stateful import StatefulConformance
from tests.conformance.calls import Async, Sync
from tests.fakes.embedders import NGrams
from tests.fakes.postgresql.server import PostgreSQLServer


class WithoutVectors:
    @pytest.fixture
    def backend(self, postgresql_url: str, postgresql_table: str) -> Iterator[MemoryBackend]:
        with PostgreSQL(postgresql_url, table_name=postgresql_table) as backend:
            yield backend


class TestPostgreSQL(WithoutVectors, Sync, MemoryBackendConformance):
    stateful_examples = 10


class TestPostgreSQLAsync(WithoutVectors, Async):
    pass


class WithVectors:
    @pytest.fixture
    def backend(self, postgresql_server: PostgreSQLServer, postgresql_table: str) -> Iterator[MemoryBackend]:
        if not postgresql_server.has_pgvector:
            pytest.skip("the server has no pgvector")
        with PostgreSQL(postgresql_server.url, table_name=postgresql_table, embedder=NGrams()) as backend:
            yield backend


class TestPostgreSQLWithVectors(
    WithVectors,
    Sync,
    ReadingConformance,
    SearchingConformance,
    DeletingConformance,
    ChangingConformance,
    StatefulConformance,
):
    """What vectors are a part of; the rest is the same code as without them."""

    stateful_examples = 6


class TestPostgreSQLWithVectorsAsync(WithVectors, Async):
    pass
