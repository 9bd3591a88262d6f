"""The conformance suite for PostgreSQL, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dynamiq_memory import MemoryBackend
from dynamiq_memory.backends import PostgreSQL
from tests.conformance.calls import Async, Ranking, Sync, Whole
from tests.conformance.reused import Reused
from tests.fakes.embedders import NGrams
from tests.fakes.postgresql.server import PostgreSQLServer


@pytest.fixture(scope="class")
def table(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    with postgresql_server.new_table() as name:
        yield name


class WithoutVectors(Reused):
    @pytest.fixture
    def open_backend(self, postgresql_url: str, table: str) -> Callable[[], MemoryBackend]:
        return lambda: PostgreSQL(postgresql_url, table_name=table)


class TestPostgreSQL(WithoutVectors, Sync, Whole):
    stateful_examples = 6


class TestPostgreSQLAsync(WithoutVectors, Async):
    pass


class WithVectors(Reused):
    @pytest.fixture
    def open_backend(self, postgresql_server: PostgreSQLServer, table: str) -> Callable[[], MemoryBackend]:
        if not postgresql_server.has_pgvector:
            pytest.skip("the server has no pgvector")
        return lambda: PostgreSQL(postgresql_server.url, table_name=table, embedder=NGrams())


class TestPostgreSQLWithVectors(WithVectors, Sync, Ranking):
    pass


class TestPostgreSQLWithVectorsAsync(WithVectors, Async):
    pass
