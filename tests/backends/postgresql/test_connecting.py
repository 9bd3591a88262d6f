"""Connections: options of URLs, encodings, and a pooler between the store and the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from dynamiq_memory import BackendConnectionError, BackendError, ConfigurationError, Message
from dynamiq_memory.backends import PostgreSQL, create_backend
from dynamiq_memory.backends.postgresql.client import url_of
from dynamiq_memory.backends.postgresql.errors import translated
from tests.fakes.postgresql.pooler import PROGRAM, pooler
from tests.fakes.postgresql.server import PostgreSQLServer

ANN = {"user_id": "ann", "session_id": "s"}
Open = Callable[..., PostgreSQL]


def say(text: str, **metadata: Any) -> Message:
    return Message(role="user", content=text, metadata=ANN | metadata)


# --- options of a URL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    ["prepare_threshold=0", "prepare_threshold=None", "autocommit=1", "row_factory=x", "sslmoed=require", "timeout=5"],
)
def test_an_unknown_option_is_named(option: str) -> None:
    name = option.partition("=")[0]
    for make in (create_backend, PostgreSQL):
        with pytest.raises(ConfigurationError, match=rf"option '{name}', which libpq does not have"):
            make(f"postgresql://ann@/db?host=/nowhere&{option}")


@pytest.mark.parametrize("option", ["sslmode=always", "connect_timeout=soon"])
def test_an_option_with_a_wrong_value_is_named(postgresql_server: PostgreSQLServer, option: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(ConfigurationError, match=rf"{name}.*{value}|{value}.*{name}"):
        create_backend(make_url(postgresql_server.url).update_query_dict({name: value}).render_as_string(False))


def test_the_options_of_the_store_are_named_in_a_url_for_the_class() -> None:
    with pytest.raises(ConfigurationError, match=r"'pool_size'.*arguments of the class"):
        PostgreSQL("postgresql://ann@/db?host=/nowhere&pool_size=3")
    assert url_of("postgresql://ann@one,two/db?sslmode=require&application_name=a&options=-c%20x").query


# --- encodings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def database(sql: psycopg.Connection[Any], postgresql_server: PostgreSQLServer, postgresql_table: str) -> Iterator[Any]:
    """Makes a database in an encoding, and returns its URL."""

    def make(encoding: str) -> str:
        sql.execute(f"CREATE DATABASE {postgresql_table} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        return postgresql_server.url_with(database=postgresql_table)

    yield make
    sql.execute(f"DROP DATABASE IF EXISTS {postgresql_table} WITH (FORCE)")


def test_a_database_without_an_encoding_stores_every_character(database: Any) -> None:
    with PostgreSQL(database("SQL_ASCII")) as store:
        store.add(say("Käse 日本 😀", key="日本"))
        assert [message.content for message in store.get_all(filters={"key": "日本"})] == ["Käse 日本 😀"]
        assert len(store.search("käse")) == 1


def test_an_encoding_without_a_character_of_the_message_is_named(database: Any) -> None:
    url = database("LATIN1")
    with PostgreSQL(url) as store:
        store.add(say("Käse"))
        for call in (lambda: store.add(say("日本")), lambda: asyncio.run(store.aadd(say("日本")))):
            with pytest.raises(BackendError, match=r"encoding lacks a character.*UTF8"):
                call()
        assert [message.content for message in store.get_all()] == ["Käse"]
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with PostgreSQL(engine) as store:
        with pytest.raises(BackendError, match=r"encoding lacks a character.*UTF8"):
            store.add(say("日本"))
        assert store.count() == 1
    engine.dispose()


# --- PgBouncer ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pooled(postgresql_url: str) -> Iterator[str]:
    """The URL of a pooler in front of the server."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    with pooler(postgresql_url) as url:
        yield url


def test_a_store_behind_a_pooler(pooled: str, open_store: Open, postgresql_table: str) -> None:
    url = f"{pooled}?prepared_statements=false&statement_timeout=60&table_name={postgresql_table}"
    with create_backend(url) as store:

        def talk(number: int) -> None:
            for n in range(15):
                store.add_many([say(f"{number} {n}", n=n), say(f"{number} {n}+", n=n)])
                assert len(store.get_all(filters={**ANN, "n": n})) >= 2
                assert store.search(f"{number} {n}", ANN, 3)

        async def atalk() -> None:
            for n in range(15):
                await asyncio.gather(*(store.aadd_many([say(f"a{n}"), say(f"a{n}+")]) for _ in range(4)))
                await store.aget_all(5, ANN)

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(talk, range(5)))
        asyncio.run(atalk())
        assert store.count() == 5 * 30 + 15 * 8
        store.replace(ANN, [say("all")])
        assert store.to_url() is not None
        assert "prepared_statements=false" in str(store.to_url())


def test_a_pooler_keeps_no_setting_of_the_store(pooled: str, open_store: Open, postgresql_table: str) -> None:
    store = open_store(pooled, statement_timeout=0.3, prepared_statements=False)
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as beside:
        beside.execute("SET application_name = 'beside'")
        blocking = psycopg.connect(pooled)
        blocking.execute(f"LOCK TABLE {postgresql_table} IN ACCESS EXCLUSIVE MODE")
        for call in (store.get_all, lambda: asyncio.run(store.aget_all())):
            with pytest.raises(BackendError, match="statement_timeout"):
                call()
        blocking.close()
        for _ in range(5):
            assert beside.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_pooler_that_refuses_a_setting_is_explained(pooled: str) -> None:
    with pytest.raises(BackendConnectionError, match="prepared_statements=False"):
        PostgreSQL(pooled, statement_timeout=5)


@pytest.mark.parametrize("kind", [psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement])
def test_a_prepared_statement_of_another_connection_is_explained(kind: type[psycopg.Error]) -> None:
    assert "prepared_statements=False" in str(translated(kind('prepared statement "_pg3_0"'), "server"))
