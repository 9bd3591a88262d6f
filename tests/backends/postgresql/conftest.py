"""A PostgreSQL backend for each test, and connections of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dynamiq_memory.backends import PostgreSQL


@pytest.fixture
def open_store(postgresql_url: str, postgresql_table: str) -> Iterator[Callable[..., PostgreSQL]]:
    """Opens the test's table, and closes what it opened at the end."""
    opened: list[PostgreSQL] = []

    def open_it(connection: Any = postgresql_url, **options: Any) -> PostgreSQL:
        opened.append(PostgreSQL(connection, **{"table_name": postgresql_table, **options}))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., PostgreSQL]) -> PostgreSQL:
    return open_store()


@pytest.fixture
def sql(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the test, with each statement a transaction."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        yield connection
