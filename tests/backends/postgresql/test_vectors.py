"""Ranking by words and meaning together, with pgvector."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from dynamiq_memory.backends import PostgreSQL
from dynamiq_memory.backends._sql.tables import Prepared
from dynamiq_memory.exceptions import ConfigurationError
from tests.backends.vectors import ANN, Count, EmbedsAsynchronously, KeepsVectors, Named, say, texts
from tests.fakes.embedders import NGrams
from tests.fakes.postgresql.server import PostgreSQLServer

Open = Callable[..., PostgreSQL]
SQL = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _needs_pgvector(postgresql_server: PostgreSQLServer) -> None:
    if not postgresql_server.has_pgvector:
        pytest.skip("the server has no pgvector")


class TestVectors(KeepsVectors, EmbedsAsynchronously):
    at_once = pytest.fixture(lambda self: "dynamiq_memory.backends._sql.schema._EMBEDDED_AT_ONCE")

    @pytest.fixture
    def count_vectors(self, sql: SQL, postgresql_table: str) -> Count:
        def count() -> int:
            row = sql.execute(f'SELECT count(*) FROM "{postgresql_table}_vectors"'.encode()).fetchone()
            assert row is not None
            return int(row[0])

        return count


def test_tables_whose_embedder_has_no_name_are_opened(open_store: Open, sql: SQL, postgresql_table: str) -> None:
    """As versions before wrote them: with a dimension, and nothing else about the vectors."""
    open_store(embedder=Named("first")).add_many([say("gardening"), say("")])
    sql.execute(f"DELETE FROM \"{postgresql_table}_meta\" WHERE key IN ('embedder', 'all_embedded')".encode())
    store = open_store(embedder=Named("second"))
    assert texts(store.search("gardens", ANN)) == ["gardening"]
    open_store(embedder=Named("second"), reindex=True)
    with pytest.raises(ConfigurationError, match="'second', not of 'first'"):
        open_store(embedder=Named("first"))


def test_ranking_is_one_statement_of_the_scope(open_store: Open, sql: SQL, postgresql_table: str) -> None:
    store = open_store(embedder=NGrams(4))
    store.add_many([say(f"garden {n}") for n in range(20)])
    seen: list[str] = []
    fetch = Prepared.fetch

    def note(prepared: Prepared, connection: Any, parameters: Any) -> Any:
        seen.append(prepared.sql)
        return fetch(prepared, connection, parameters)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Prepared, "fetch", note)
        store.search("garden", ANN, 3)
    # The table of meta is checked before, and the messages are read after it.
    assert ["<=>" in statement for statement in seen] == [False, True, False]


def test_another_dimension_is_refused_and_embedded_again_on_demand(open_store: Open) -> None:
    store = open_store(embedder=NGrams(64))
    store.add(say("gardening"))
    other = open_store(embedder=NGrams(32))
    for call in (lambda: other.add(say("rain")), lambda: other.search("rain", ANN)):
        with pytest.raises(ConfigurationError, match=r"have 32 numbers.*64"):
            call()
    assert store.count() == 1
    renewed = open_store(embedder=NGrams(32), reindex=True)
    assert texts(renewed.search("garden", ANN)) == ["gardening"]
    with pytest.raises(ConfigurationError, match=r"have 64 numbers.*32.*reindex=True"):
        store.add(say("rain"))
    with pytest.raises(ConfigurationError, match=r"have 64 numbers.*32"):
        store.search("rain", ANN)


def test_of_two_first_writers_one_sets_the_dimension(open_store: Open, sql: SQL, postgresql_table: str) -> None:
    stores = [open_store(embedder=NGrams(size)) for size in (16, 32)]

    def write(store: PostgreSQL) -> bool:
        try:
            store.add_many([say(f"garden {n}") for n in range(20)])
        except ConfigurationError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(write, stores)) == [False, True]
    assert stores[0].count() == 20
    kept = sql.execute(f'SELECT DISTINCT vector_dims(embedding) FROM "{postgresql_table}_vectors"'.encode()).fetchall()
    assert len(kept) == 1


def test_a_user_without_the_right_to_create_an_extension_gets_an_error(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamiq_memory.backends.postgresql.vectors._is_there", lambda _: False)
    monkeypatch.setattr("dynamiq_memory.backends.postgresql.vectors._CREATE_EXTENSION", "CREATE EXTENSION nothere")
    with pytest.raises(ConfigurationError, match=r"pgvector.*CREATE EXTENSION vector, or leave the embedder out"):
        open_store(embedder=NGrams())
