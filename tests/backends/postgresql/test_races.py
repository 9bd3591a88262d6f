"""Interruptions: cancellations, and re-indexing while others write."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import waiting
from psycopg._pipeline_async import AsyncPipeline
from sqlalchemy import create_engine, make_url

from dynamiq_memory import Message
from dynamiq_memory.backends import PostgreSQL
from dynamiq_memory.backends._sql import schema
from dynamiq_memory.backends._sql.writer import SQLWriter
from dynamiq_memory.exceptions import BackendConnectionError, ConfigurationError
from tests.fakes.embedders import NGrams
from tests.fakes.postgresql.server import PostgreSQLServer

ANN = {"user_id": "ann", "session_id": "s"}
Open = Callable[..., PostgreSQL]
SQL = psycopg.Connection[Any]


def say(text: str, **fields: Any) -> Message:
    return Message(role="user", content=text, metadata=ANN, **fields)


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


class Words:
    """A tokenizer of another kind."""

    signature = "words"

    def __call__(self, text: str) -> list[str]:
        return text.lower().split()


# --- searches ----------------------------------------------------------------------------------------------------


def test_a_search_sees_one_state(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = open_store(), open_store()
    red, _ = store.add_many([say("a red bird"), say("a blue bird")])
    changes: list[Callable[[], Any]] = []
    best = store._words._best

    def change_after_ranking(*arguments: Any) -> Any:
        found = best(*arguments)
        if changes:
            changes.pop()()
        return found

    monkeypatch.setattr(store._words, "_best", change_after_ranking)
    for change, found in (
        (lambda: other.add(say("a green bird")), {"a red bird", "a blue bird"}),
        (lambda: other.add(red.model_copy(update={"content": "a ship"})), {"a blue bird", "a green bird"}),
        (lambda: other.replace(ANN, [say("a black bird")]), {"a black bird"}),
        (lambda: other.delete("s", "ann"), set()),
    ):
        changes.append(change)
        assert set(texts(store.search("bird", ANN))) == found
        assert not changes


# --- cancellations -----------------------------------------------------------------------------------------------


@pytest.fixture
def _needs_pgvector(postgresql_server: PostgreSQLServer) -> None:
    if not postgresql_server.has_pgvector:
        pytest.skip("the server has no pgvector")


@pytest.mark.usefixtures("_needs_pgvector")
def test_a_cancellation_within_a_pipeline_spoils_no_connection(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(pool_size=1, embedder=NGrams(8))
    armed = False
    enter = AsyncPipeline.__aenter__

    async def cancel_there(pipeline: AsyncPipeline) -> AsyncPipeline:
        nonlocal armed
        if armed:
            armed = False
            monkeypatch.setattr(waiting, "_last_yield", 0, raising=False)  # it yields to the loop there and then
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return await enter(pipeline)

    monkeypatch.setattr(AsyncPipeline, "__aenter__", cancel_there)

    async def script() -> None:
        nonlocal armed
        await store.aadd(say("before"))
        armed = True
        # For a message without a vector, a batch is more than one statement.
        writing = asyncio.create_task(store.aadd_many([say("one"), say("two"), say("")]))
        (result,) = await asyncio.gather(writing, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError)
        assert not armed
        assert texts(await store.aget_all()) == ["before"]
        await store.aadd_many([say("three"), say("four")])
        assert texts(await store.aget_all()) == ["before", "three", "four"]
        assert await store.acount() == 3

    asyncio.run(script())


def test_cancelled_calls_leave_the_pool_whole(open_store: Open) -> None:
    store = open_store(pool_size=2)
    store.add(say("before"))

    async def script() -> None:
        for step in range(40):
            call = store.aadd_many([say("a"), say("b")]) if step % 2 else store.aget_all(filters=ANN)
            task: asyncio.Task[Any] = asyncio.create_task(call)
            for _ in range(step % 8):
                await asyncio.sleep(0)
            task.cancel()
            ended: Any = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended[0], asyncio.CancelledError | list), repr(ended)
        found = await store.aget_all(filters=ANN)
        assert texts(found)[0] == "before"
        assert len(found) == await store.acount()
        assert len(found) % 2 == 1  # no batch in part

    asyncio.run(script())


def wait_until(condition: Callable[[], Any]) -> None:
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_call_that_is_cancelled_twice_changes_nothing_afterwards(open_store: Open, sql: SQL) -> None:
    """The end of the statement waits in a trigger that a cancellation wakes and does not stop."""
    store = open_store()
    name = store.table_name
    sql.execute(
        f"""CREATE FUNCTION {name}_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.3); END; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {name} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION {name}_slow()"""
    )
    commits = f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%{name}%' AND wait_event = 'PgSleep'"

    async def script() -> int:
        writing = asyncio.create_task(store.aadd(say("cancelled")))
        await asyncio.to_thread(wait_until, lambda: sql.execute(commits).fetchone())
        for _ in range(2):
            writing.cancel()
            await asyncio.sleep(0.05)
        with suppress(asyncio.CancelledError):
            await writing
        return await store.acount()

    counted = asyncio.run(script())
    wait_until(lambda: not sql.execute(commits).fetchone())
    assert store.count() == counted


@pytest.mark.parametrize("own", [True, False], ids=["asynchronous connections", "an engine in threads"])
def test_a_cancelled_read_ends_in_the_server(postgresql_url: str, open_store: Open, sql: SQL, own: bool) -> None:
    engine = create_engine(make_url(postgresql_url).set(drivername="postgresql+psycopg"))
    store = open_store() if own else open_store(engine)
    name = store.table_name
    waiting_for_lock = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    ended = threading.Event()

    async def script() -> None:
        reading = asyncio.create_task(store.aget_all(filters=ANN))
        await asyncio.to_thread(wait_until, lambda: sql.execute(waiting_for_lock, [name]).fetchone())
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        ended.set()
        assert not sql.execute(waiting_for_lock, [name]).fetchone()

    with sql.transaction():
        sql.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        asyncio.run(asyncio.wait_for(script(), 60))
    assert ended.is_set()
    assert store.get_all() == []
    engine.dispose()


# --- re-indexing while others write ------------------------------------------------------------------------------


def during_a_write(store: PostgreSQL, sql: SQL, write: Callable[[], Any], call: Callable[[], PostgreSQL]) -> PostgreSQL:
    """While the store is within a statement that writes, call something that must wait for it, and return its result."""
    name = store.table_name
    sql.execute(
        f"""CREATE FUNCTION {name}_hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('{name}')); RETURN NEW; END $$;
        CREATE TRIGGER hold BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_hold()"""
    )
    sql.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        wait_until(lambda: waits_for_locks(sql) == 1)
        calling = pool.submit(call)
        wait_until(lambda: waits_for_locks(sql) == 2 or calling.done())
        sql.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
        writing.result(120)
        return calling.result(120)


def waits_for_locks(sql: SQL) -> int:
    """How many transactions wait for a lock."""
    row = sql.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return 0 if row is None else int(row[0])


@pytest.mark.parametrize("several", [False, True], ids=["one", "a batch"])
def test_a_write_in_flight_is_indexed_by_the_tokenizer_that_comes(open_store: Open, sql: SQL, several: bool) -> None:
    store = open_store()
    store.add(say("first running"))
    more = [say("second running"), *([say("running on")] if several else [])]
    renewed = during_a_write(
        store, sql, lambda: store.add_many(more), lambda: open_store(tokenizer=Words(), reindex=True)
    )
    assert sorted(texts(renewed.search("running", ANN))) == sorted(["first running", *texts(more)])
    assert texts(renewed.search("second", ANN)) == ["second running"]
    with pytest.raises(ConfigurationError, match=r"re-indexed"):
        store.add(say("third"))


WRITES: dict[str, Callable[[PostgreSQL, str], Any]] = {
    "one": lambda store, text: store.add(say(text)),
    "a batch": lambda store, text: store.add_many([say(text), say(text)]),
    "a replacement": lambda store, text: store.replace({**ANN, "message_id": "none"}, [say(text)]),
    "an update": lambda store, text: store.update([say(text, id="stored")]),
}


@pytest.mark.parametrize(
    ("times_before", "isolation"),
    [(0, "read committed"), (7, "read committed"), (0, "serializable")],
    ids=["for the first time", "prepared by the server", "where a transaction sees one state by default"],
)
@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_waits_for_another_tokenizer_stores_nothing(
    open_store: Open, postgresql_server: PostgreSQLServer, sql: SQL, name: str, times_before: int, isolation: str
) -> None:
    """It must see what was committed while it waited, even if it is a single statement that began before."""
    url = postgresql_server.url_with(options="-c default_transaction_isolation=" + isolation.replace(" ", r"\ "))
    store = open_store(url, pool_size=1)
    store.add(say("before", id="stored"))
    for _ in range(times_before):
        WRITES[name](store, "earlier")
    stored = texts(store.get_all())
    with ThreadPoolExecutor(1) as pool:
        with sql.transaction():
            sql.execute(f"LOCK TABLE {store.table_name} IN SHARE ROW EXCLUSIVE MODE")
            sql.execute(f"UPDATE {store.table_name}_meta SET value = 'words' WHERE key = 'tokenizer'")
            writing = pool.submit(WRITES[name], store, "late")
            wait_until(lambda: waits_for_locks(sql) == 1 or writing.done())
        with pytest.raises(ConfigurationError, match="re-indexed by the tokenizer 'words'"):
            writing.result(120)
    assert texts(store.get_all()) == stored


def test_writers_lock_no_row_that_they_share(open_store: Open, sql: SQL) -> None:
    store = open_store()
    with sql.transaction():
        sql.execute(f"SELECT * FROM {store.table_name}_meta FOR UPDATE")
        store.add(say("one"))
        store.replace(ANN, [say("two"), say("three")])
        store.update([say("four")])
    assert texts(store.get_all()) == ["two", "three"]


class Earlier(Words):
    """Stands for version 1 of the default tokenizer."""

    signature = "words-1/english/7a2a7537"


def test_a_write_in_flight_is_indexed_by_the_later_version(open_store: Open, sql: SQL) -> None:
    store = open_store(tokenizer=Earlier())
    store.add(say("I bought a canoe"))
    renewed = during_a_write(store, sql, lambda: store.add(say("I bought a kayak")), open_store)
    assert texts(renewed.search("buy", ANN)) == ["I bought a kayak", "I bought a canoe"]
    for call in (lambda: store.add(say("late")), lambda: store.search("bought", ANN)):
        with pytest.raises(ConfigurationError, match=r"re-indexed by the tokenizer 'words-2"):
            call()
    assert texts(store.get_all(filters=ANN)) == ["I bought a canoe", "I bought a kayak"]


def test_an_interrupted_renewal_is_continued_by_two_processes(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BATCH", 10)
    open_store(tokenizer=Earlier()).add_many([say(f"I bought canoe {n}") for n in range(45)])
    index = SQLWriter.index
    indexed: list[str] = []

    def interrupted(self: SQLWriter, connection: Any, messages: Any) -> None:
        index(self, connection, messages)
        indexed.extend(message.text for message in messages)
        if len(indexed) == 20:
            raise KeyboardInterrupt  # before the commit of the second batch

    monkeypatch.setattr(SQLWriter, "index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_store()
    with ThreadPoolExecutor(2) as pool:
        stores = [future.result(120) for future in [pool.submit(open_store) for _ in range(2)]]
    assert len(indexed) == 20 + 35
    assert len(set(indexed)) == 45
    for each in stores:
        assert len(each.search("buy", ANN, None)) == 45


@pytest.mark.usefixtures("_needs_pgvector")
def test_a_write_in_flight_has_no_vector_of_the_old_dimension(open_store: Open, sql: SQL) -> None:
    store = open_store(embedder=NGrams(64))
    store.add(say("hello world"))
    renewed = during_a_write(
        store, sql, lambda: store.add(say("another text")), lambda: open_store(embedder=NGrams(32), reindex=True)
    )
    assert texts(renewed.search("another", ANN, 1)) == ["another text"]
    with pytest.raises(ConfigurationError, match=r"64 numbers.*32"):
        store.add(say("late"))


@pytest.mark.usefixtures("_needs_pgvector")
def test_a_text_that_changes_while_it_is_embedded_gets_no_vector_of_the_old_one(open_store: Open) -> None:
    plain = open_store()
    message = plain.add(say("apples and oranges"))

    class Slow(NGrams):
        def embed_documents(self, texts: Any) -> Any:
            plain.add(message.model_copy(update={"content": "zebra giraffe"}))
            return super().embed_documents(texts)

    store = open_store(embedder=Slow(64), reindex=True)
    assert store.search("apples", ANN) == []
    assert texts(store.search("zebra", ANN)) == ["zebra giraffe"]
    again = open_store(embedder=NGrams(64), reindex=True)
    assert texts(again.search("giraffes", ANN)) == ["zebra giraffe"]


@pytest.mark.usefixtures("_needs_pgvector")
def test_one_odd_answer_of_an_embedder_spoils_nothing(open_store: Open) -> None:
    class Odd(NGrams):
        answers = 0

        def _vector(self, text: str) -> list[float]:
            self.answers += 1
            return [1.0] * (4 if self.answers == 1 else 8)

    store = open_store(embedder=Odd())
    with pytest.raises(ConfigurationError, match=r"8 numbers.*4"):
        store.add_many([say("a"), say("b")])
    store.add(say("c"))
    assert texts(store.get_all()) == ["c"]


# --- connections and engines -------------------------------------------------------------------------------------


def test_a_connection_that_idled_for_too_long_is_replaced(
    open_store: Open, sql: SQL, postgresql_server: PostgreSQLServer, postgresql_table: str
) -> None:
    # Long enough not to end while the store is being opened on a busy machine.
    options = "-c idle_session_timeout=1000"
    store = open_store(postgresql_server.url_with(options=options, application_name=postgresql_table))
    counting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"

    def has_ended() -> bool:
        return sql.execute(counting, (postgresql_table,)).fetchall() == [(0,)]

    store.add(say("hello"))
    wait_until(has_ended)
    assert store.count() == 1
    wait_until(has_ended)
    assert texts(store.take(ANN)) == ["hello"]


def test_a_break_at_the_commit_says_that_nobody_knows(
    open_store: Open, sql: SQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    store.add(say("hello"))
    delete = store._writer.delete

    def then_break(connection: Any, filter: Any) -> int:
        count = delete(connection, filter)
        sql.execute("SELECT pg_terminate_backend(%s)", (connection.connection.driver_connection.info.backend_pid,))
        return count

    monkeypatch.setattr(store._writer, "delete", then_break)
    with pytest.raises(BackendConnectionError, match="may have been made or not"):
        store.delete("s", "ann")


def test_an_engine_that_renames_schemas_is_refused(open_store: Open, postgresql_url: str) -> None:
    engine = create_engine(make_url(postgresql_url).set(drivername="postgresql+psycopg"))
    renaming = engine.execution_options(schema_translate_map={None: "tenant"})
    try:
        with pytest.raises(ConfigurationError, match="schema_translate_map"):
            open_store(renaming)
        with pytest.raises(ConfigurationError, match="statement_timeout is for connections that are made here"):
            open_store(engine, statement_timeout=1)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://app@h:s3cret/db", "is not a URL"),
        ("postgresql://app:pa@s3cret@127.0.0.1/db", "write %40"),
    ],
    ids=["port", "at"],
)
def test_a_wrong_url_does_not_show_what_may_be_a_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        PostgreSQL(url)
    assert "s3cret" not in str(caught.value)
