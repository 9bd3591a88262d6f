"""Ranking by words and meaning together, with pgvector."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import PostgreSQL
from dynamiq_memory.backends._sql.tables import Prepared
from dynamiq_memory.exceptions import ConfigurationError, EmbedderError
from tests.fakes.embedders import NGrams, Scripted
from tests.fakes.postgresql.server import PostgreSQLServer

ANN = {"user_id": "ann", "session_id": "s"}
Open = Callable[..., PostgreSQL]
SQL = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _needs_pgvector(postgresql_server: PostgreSQLServer) -> None:
    if not postgresql_server.has_pgvector:
        pytest.skip("the server has no pgvector")


def say(text: str, **metadata: str) -> Message:
    return Message(role="user", content=text, metadata={**ANN, **metadata})


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


def vectors(sql: SQL, table: str) -> int:
    row = sql.execute(f'SELECT count(*) FROM "{table}_vectors"'.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_message_without_a_common_word_is_found(open_store: Open) -> None:
    store = open_store(embedder=NGrams())
    assert store.capabilities.hybrid
    store.add_many([say("gardening in spring"), say("the invoice of May"), say("")])
    store.add(say("gardens of Ben", user_id="ben"))
    assert texts(store.search("gardenia", ANN, 1)) == ["gardening in spring"]
    assert texts(asyncio.run(store.asearch("gardenia", ANN, 1))) == ["gardening in spring"]
    by_words = open_store()
    assert by_words.search("gardenia", ANN) == []


def test_words_and_meaning_count_together(open_store: Open) -> None:
    store = open_store(embedder=NGrams())
    store.add_many([say("tulip tulips"), say("tulip bulbs from the market"), say("a tuliped tulipist"), say("rain")])
    found = store.search("tulip bulbs", ANN)
    assert texts(found)[0] == "tulip bulbs from the market"
    scores = [message.score for message in found]
    assert all(score is not None and 0 < score <= 1 for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0))


def test_filters_hold_before_the_ranking(open_store: Open) -> None:
    store = open_store(embedder=NGrams())
    store.add_many([say("garden", topic="a"), say("gardening", topic="b"), say("garden", user_id="ben", topic="b")])
    assert texts(store.search("garden", ANN | {"topic": "b"}, 5)) == ["gardening"]
    assert texts(store.search("garden", {"topic": "b"}, 5)) == ["garden", "gardening"]


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
    ranking = [statement for statement in seen if "_terms" in statement]
    assert len(ranking) == 1
    assert "<=>" in ranking[0]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_changed_message_has_the_vector_of_its_new_text(
    open_store: Open, sql: SQL, postgresql_table: str, asynchronous: bool
) -> None:
    store = open_store(embedder=NGrams())
    [message, other] = store.add_many([say("gardening"), say("rain")])
    changed = message.model_copy(update={"content": "invoicing"})
    if asynchronous:
        asyncio.run(store.aupdate([changed]))
    else:
        store.update([changed])
    assert texts(store.search("invoice", ANN, 1)) == ["invoicing"]
    assert texts(store.search("garden", ANN, 1)) != ["invoicing"]
    store.add(other.model_copy(update={"content": " "}))
    assert vectors(sql, postgresql_table) == 1


@pytest.mark.parametrize("way", ["delete", "take", "replace", "clear"])
def test_what_deletes_a_message_deletes_its_vector(open_store: Open, sql: SQL, postgresql_table: str, way: str) -> None:
    store = open_store(embedder=NGrams())
    store.add_many([say("one"), say("two")])
    plain = open_store()  # knows nothing of vectors
    ways: dict[str, Callable[[], object]] = {
        "delete": lambda: plain.delete("s", "ann"),
        "take": lambda: plain.take(ANN),
        "replace": lambda: plain.replace(ANN, []),
        "clear": plain.clear,
    }
    ways[way]()
    assert vectors(sql, postgresql_table) == 0


def test_a_store_without_an_embedder_leaves_no_vector_of_an_old_text(
    open_store: Open, sql: SQL, postgresql_table: str
) -> None:
    before = open_store()  # opened before there were vectors
    store = open_store(embedder=NGrams())
    messages = store.add_many([say("gardening"), say("rain")])
    after = open_store()
    for plain, message in zip((before, after), messages, strict=True):
        plain.add(message.model_copy(update={"content": "invoicing"}))
    assert vectors(sql, postgresql_table) == 0
    assert texts(store.search("invoicing", ANN)) == ["invoicing", "invoicing"]


def test_what_was_stored_without_an_embedder_is_embedded_on_demand(
    open_store: Open, caplog: pytest.LogCaptureFixture, sql: SQL, postgresql_table: str
) -> None:
    open_store().add_many([say(f"gardening {n}") for n in range(3)] + [say("")])
    embedder = Scripted()
    with caplog.at_level(logging.WARNING, "dynamiq_memory"):
        store = open_store(embedder=embedder)
    assert "reindex=True" in caplog.text
    assert store.search("gardenia", ANN) == []
    assert embedder.documents == []
    store = open_store(embedder=embedder, reindex=True)
    assert vectors(sql, postgresql_table) == 3
    assert len(store.search("gardenia", ANN)) == 3
    caplog.clear()
    open_store(embedder=embedder, reindex=True)
    assert len(embedder.documents) == 1  # nothing twice


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


def broken(_: list[list[float]]) -> Any:
    raise OSError("the model is not there")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (broken, "the model is not there"),
        (lambda found: found[:-1], "1 vectors for 2 texts"),
        (lambda found: [[math.nan, *found[0][1:]], *found[1:]], "NaN"),
    ],
    ids=["raises", "too few", "NaN"],
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_an_embedder_that_fails_leaves_nothing(open_store: Open, change: Any, said: str, asynchronous: bool) -> None:
    store = open_store(embedder=NGrams(64))
    store.add(say("before"))
    failing = open_store(embedder=Scripted(change))
    messages = [say("one"), say("two")]

    async def replace() -> None:
        await failing.areplace(ANN, messages)

    calls: list[Callable[[], object]] = [lambda: failing.add_many(messages), lambda: failing.replace(ANN, messages)]
    if asynchronous:
        calls = [lambda: asyncio.run(failing.aadd_many(messages)), lambda: asyncio.run(replace())]
    for call in calls:
        with pytest.raises(EmbedderError, match=said):
            call()
    assert texts(store.get_all()) == ["before"]


def test_asynchronous_calls_embed_asynchronously(open_store: Open) -> None:
    class OnlyAsync(NGrams):
        def embed_documents(self, texts: Any) -> Any:
            raise AssertionError("would hold up the event loop")

        def embed_query(self, text: str) -> Any:
            raise AssertionError("would hold up the event loop")

        async def aembed_documents(self, texts: Any) -> list[list[float]]:
            return [self._vector(text) for text in texts]

        async def aembed_query(self, text: str) -> list[float]:
            return self._vector(text)

    async def script(store: PostgreSQL) -> list[Message]:
        await store.aadd(say("gardening"))
        await store.areplace(ANN, [say(f"gardening {n}") for n in range(80)])  # so many go through a thread
        return await store.asearch("garden", ANN, 3)

    assert len(asyncio.run(script(open_store(embedder=OnlyAsync())))) == 3


def test_a_user_without_the_right_to_create_an_extension_gets_an_error(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamiq_memory.backends.postgresql.vectors._is_there", lambda _: False)
    monkeypatch.setattr("dynamiq_memory.backends.postgresql.vectors._CREATE_EXTENSION", "CREATE EXTENSION nothere")
    with pytest.raises(ConfigurationError, match=r"pgvector.*CREATE EXTENSION vector, or leave the embedder out"):
        open_store(embedder=NGrams())


def test_an_agent_recalls_by_meaning(open_store: Open) -> None:
    memory = Memory(backend=open_store(embedder=NGrams()))
    memory.add("user", "I am gardening a lot", ANN)
    memory.add("assistant", "Nice!", ANN)
    for number in range(10):
        memory.add("user", f"What about invoice {number}?", ANN)
        memory.add("assistant", "Paid.", ANN)
    found = memory.get_agent_conversation("gardens", 6, ANN, strategy="both")
    assert texts(found)[0] == "I am gardening a lot"
