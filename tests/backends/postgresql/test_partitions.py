"""The statements of the docs turn a store's tables into partitioned ones, and the store continues with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dynamiq_memory import Memory, MemoryRetrievalStrategy
from dynamiq_memory.backends import PostgreSQL

DOCS = Path(__file__).resolve().parents[3] / "docs/postgresql.md"
ANN, BEN = ({"user_id": name, "session_id": "s"} for name in ("ann", "ben"))


@pytest.fixture
def schema(postgresql_url: str, postgresql_table: str) -> Iterator[str]:
    with psycopg.connect(postgresql_url, autocommit=True) as sql:
        sql.execute(f'CREATE SCHEMA "{postgresql_table}"'.encode())
        yield postgresql_table
        sql.execute(f'DROP SCHEMA "{postgresql_table}" CASCADE'.encode())


@pytest.fixture
def partition(postgresql_url: str, schema: str) -> Callable[[], None]:
    def run() -> None:
        statements = re.search(r"```sql\n(BEGIN;.*?)```", DOCS.read_text(), re.DOTALL)
        assert statements is not None
        with psycopg.connect(postgresql_url, autocommit=True) as sql:
            sql.execute(f'SET search_path TO "{schema}"'.encode())
            sql.execute(statements[1].encode())

    return run


def test_a_store_goes_on_with_partitioned_tables(
    postgresql_url: str, schema: str, partition: Callable[[], None]
) -> None:
    with PostgreSQL(postgresql_url, schema=schema) as store:
        memory = Memory(backend=store)
        for number in range(3):
            memory.add("user", f"Tulips for garden {number}?", ANN)
            memory.add("assistant", f"Planted {number}.", ANN)
        before = memory.get_all()
    partition()
    with PostgreSQL(postgresql_url, schema=schema, create_if_not_exist=False) as store:
        memory = Memory(backend=store)
        assert memory.get_all() == before
        memory.add("user", "Roses?", BEN)
        late = memory.add("user", "More tulips?", ANN)
        memory.add_many([late])  # again: nothing is doubled
        assert memory.count() == 8
        found = memory.search("tulips", ANN, limit=2)
        assert [message.text for message in found] == ["More tulips?", "Tulips for garden 2?"]
        turns = memory.get_agent_conversation("roses", 4, BEN, strategy=MemoryRetrievalStrategy.BOTH)
        assert [message.text for message in turns] == ["Roses?"]
        memory.replace_messages(filters=BEN, messages=[])
        assert memory.delete(user_id="ann") == 7
        assert memory.is_empty()


def test_a_scoped_read_touches_one_partition(postgresql_url: str, schema: str, partition: Callable[[], None]) -> None:
    with PostgreSQL(postgresql_url, schema=schema):
        pass
    partition()
    with psycopg.connect(postgresql_url) as sql:
        plan = sql.execute(
            f'EXPLAIN SELECT * FROM "{schema}".conversations WHERE user_id = %s AND session_id = %s '
            "ORDER BY timestamp DESC, seq DESC LIMIT 50".encode(),
            ("ann", "s"),
        ).fetchall()
    touched = set(re.findall(r" on (conversations_\d+)", "\n".join(line for (line,) in plan)))
    assert len(touched) == 1
