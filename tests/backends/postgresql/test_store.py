"""What PostgreSQL adds to the contract: tables, processes, event loops, exact filters."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import create_engine, make_url

from dynamiq_memory import BackendError, ConfigurationError, Memory
from dynamiq_memory.backends import InMemory, create_backend
from dynamiq_memory.connections import PostgreSQL as PostgreSQLConnection
from dynamiq_memory.filters import parse
from dynamiq_memory.integrations.references import memory_at, reference_to, resolve
from dynamiq_memory.ranking import Tokenizer
from dynamiq_memory.testing import contents, say

SCOPE = {"user_id": "user-1", "session_id": "session-1"}


# --- opening -----------------------------------------------------------------------------------------------------

TEN_PROCESSES = """
import os, sys
from dynamiq_memory import Message
from dynamiq_memory.backends import PostgreSQL
def work(number):
    with PostgreSQL(sys.argv[1], table_name=sys.argv[2]) as store:
        store.add(Message(role="user", content=f"{number}"))
    return 0
children = []
for number in range(10):
    children.append(os.fork())
    if not children[-1]:
        status = 1
        try:
            status = work(number)
        finally:
            os._exit(status)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
"""


def test_ten_processes_create_the_tables_at_once(open_store, postgresql_url, postgresql_table, run_script):
    run_script(TEN_PROCESSES, postgresql_url, postgresql_table)
    assert sorted(contents(open_store().get_all())) == [f"{n}" for n in range(10)]


def test_threads_create_the_tables_at_once(open_store):
    start = threading.Barrier(6)

    def open_it(_):
        start.wait()
        return open_store()

    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(open_it, range(6)))
    stores[0].add(say("hello"))
    assert all(store.count() == 1 for store in stores)


def test_a_schema_of_its_own(open_store, sql, postgresql_table):
    sql.execute(f'CREATE SCHEMA "{postgresql_table} s"')
    try:
        apart = open_store(schema=f"{postgresql_table} s")
        apart.add(say("apart"))
        assert open_store().is_empty()
        assert contents(open_store(schema=f"{postgresql_table} s").search("apart")) == ["apart"]
        assert apart.delete(user_id="user-1") == 1
    finally:
        sql.execute(f'DROP SCHEMA "{postgresql_table} s" CASCADE')


@pytest.mark.parametrize("name", ['with "quotes"', "with space", "100%", "a:b", "Ünïcode", "x" * 52])
def test_any_name_of_a_table(open_store, sql, name):
    name = f"{name[:40]}{uuid.uuid4().hex[:12]}" if len(name) < 52 else name
    store = open_store(table_name=name)
    try:
        store.add(say("hello", k=1))
        assert contents(store.search("hello", {"k": 1})) == ["hello"]
        assert open_store(table_name=name).clear() == 1
    finally:
        store.close()
        quoted = name.replace('"', '""')
        for suffix in ("", "_terms", "_meta"):
            sql.execute(f'DROP TABLE "{quoted}{suffix}"')


def test_another_tokenizer_is_refused_until_reindexing(open_store):
    open_store().add(say("running shoes"))
    with pytest.raises(ConfigurationError, match="tokenizer"):
        open_store(tokenizer=Tokenizer("german"))
    reindexed = open_store(tokenizer=Tokenizer("german"), reindex=True)
    assert contents(reindexed.search("shoes")) == ["running shoes"]


@pytest.mark.parametrize("missing", ["terms", "meta"])
def test_a_table_that_is_gone_is_made_again_from_the_messages(open_store, sql, missing):
    store = open_store()
    store.add_many([say("running shoes"), say("a pair of shoes")])
    found = [(message.content, message.score) for message in store.search("running shoes")]
    sql.execute(f"DROP TABLE {store.table_name}_{missing}")
    with pytest.raises(BackendError, match="the table is gone"):
        store.search("running shoes")
    again = open_store()
    assert [(message.content, message.score) for message in again.search("running shoes")] == found


def test_an_engine_of_the_caller_stays_open(open_store, postgresql_url):
    engine = create_engine(make_url(postgresql_url).set(drivername="postgresql+psycopg"))
    try:
        store = open_store(engine)
        store.add(say("hello"))
        assert contents(asyncio.run(store.aget_all())) == ["hello"]
        assert store.to_url() is None
        store.close()
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    finally:
        engine.dispose()


def test_a_connection_by_its_settings(open_store, postgresql_url):
    url = make_url(postgresql_url)
    host, port, secret = url.host or url.query["host"], url.port or 5432, url.password or "unused"
    named = PostgreSQLConnection(host=host, port=port, database=url.database, user=url.username, password=secret)
    open_store(named).add(say("hello"))

    class OfAnotherPackage:
        def __init__(self):
            self.host, self.port, self.database = named.host, named.port, named.database
            self.user, self.password = named.user, secret

    assert open_store(OfAnotherPackage()).count() == 1


def test_settings_come_from_the_environment(monkeypatch):
    values = {"HOST": "db.example", "PORT": "6543", "DATABASE": "chats", "USER": "ann", "PASSWORD": "pw"}
    for key, value in values.items():
        monkeypatch.setenv(f"POSTGRESQL_{key}", value)
    settings = PostgreSQLConnection()
    assert (settings.host, settings.port, settings.database, settings.user) == ("db.example", 6543, "chats", "ann")
    assert settings.password.get_secret_value() == "pw"
    monkeypatch.setenv("POSTGRESQL_PORT", "")
    assert PostgreSQLConnection().port == 5432


def test_a_url_opens_the_same_store(open_store, postgresql_server, postgresql_table):
    store = open_store()
    store.add(say("hello"))
    url = store.to_url()
    assert f"table_name={postgresql_table}" in url
    with create_backend(url) as again:
        assert contents(again.get_all()) == ["hello"]
    described = json.loads(json.dumps(reference_to(Memory(backend=store))))
    described["id"] = None
    found = resolve(described)
    assert contents(found.get_all()) == ["hello"]
    memory_at(described["url"]).close()
    with create_backend(
        postgresql_server.url_with(table_name=postgresql_table, pool_size="2", pool_timeout="5")
    ) as small:
        assert (small.pool_size, small.pool_timeout, small.count()) == (2, 5.0, 1)
    for scheme in ("postgres", "postgresql+psycopg"):
        with create_backend(f"{scheme}{url[len('postgresql') :]}") as named_otherwise:
            assert contents(named_otherwise.get_all()) == ["hello"]


# --- the package's own table -------------------------------------------------------------------------------------


def test_a_table_of_the_dynamiq_package_is_upgraded(open_store, sql, postgresql_table):
    sql.execute(
        f"""CREATE TABLE {postgresql_table} (message_id UUID PRIMARY KEY, role TEXT NOT NULL, content TEXT,
        metadata JSONB, timestamp DOUBLE PRECISION NOT NULL)"""
    )
    sql.execute(f"CREATE INDEX idx_{postgresql_table[:10]}_timestamp ON {postgresql_table} (timestamp)")
    ids = [uuid.uuid4() for _ in range(4)]
    rows = [
        (ids[0], "user", "first", {"user_id": "u", "session_id": "s", "stars": 5, "deep": {"a": [1, None]}}, 1.5),
        (ids[1], "assistant", "second", {"user_id": "u", "session_id": "s", "timestamp": 2.5}, 2.5),
        (ids[2], "user", None, None, 3.0),
        (ids[3], "system", "same time", {"user_id": 7, "session_id": ""}, 3.0),
    ]
    for message_id, role, content, metadata, timestamp in rows:
        sql.execute(
            f"INSERT INTO {postgresql_table} VALUES (%s, %s, %s, %s, %s)",
            [message_id, role, content, None if metadata is None else Jsonb(metadata), timestamp],
        )
    store = open_store()
    read = store.get_all()
    assert [message.id for message in read] == [str(each) for each in ids]
    assert [message.role.value for message in read] == ["user", "assistant", "user", "system"]
    assert [message.timestamp for message in read] == [1.5, 2.5, 3.0, 3.0]
    assert read[0].metadata.items() >= {"user_id": "u", "session_id": "s", "stars": 5, "deep": {"a": [1, None]}}.items()
    assert (read[3].user_id, read[3].session_id) == ("7", None)
    assert contents(store.search("first", {"user_id": "u"})) == ["first"]
    assert open_store().count({"stars": 5}) == 1
    left = sql.execute("SELECT count(*) FROM pg_class WHERE relname LIKE %s", [f"{postgresql_table}_of_dynamiq%"])
    assert left.fetchone() == (0,)


def test_a_row_that_cannot_be_read_leaves_the_table_as_it_is(open_store, sql, postgresql_table):
    sql.execute(
        f"""CREATE TABLE {postgresql_table} (message_id UUID, role TEXT, content TEXT, metadata JSONB,
        timestamp DOUBLE PRECISION)"""
    )
    sql.execute(f"INSERT INTO {postgresql_table} VALUES (gen_random_uuid(), 'king', 'x', '{{}}', 1)")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_store()
    assert sql.execute(f"SELECT role FROM {postgresql_table}").fetchall() == [("king",)]


# --- filters and ranking -----------------------------------------------------------------------------------------

NUMBERS = [
    0, 1, -1, 1.0, 0.1, 0.5, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, float(2**63), 1e22, 1.7e308, 5e-324, -0.0,
    1152921504606846976, 1.152921504606847e18, 123456789012345678, 1.2345678901234568e17, 3, 2.5,
]  # fmt: skip
OTHERS = [True, False, "1", "", "true", None, [1], {"a": 1}, "a\0b", "\ud800", "ü", "'", '"', "\\", "{}", 'x"}', b"x"]


def test_filters_are_exact(store):
    values = [*NUMBERS, *OTHERS]
    stored = store.add_many([say(f"{n}", k=value, timestamp=float(n)) for n, value in enumerate(values)])
    wanted = [value for value in values if isinstance(value, str | int | float) and value not in ("a\0b", "\ud800")]
    plain = [value for value in wanted if not isinstance(value, str | bool)]
    filters = [{"k": value} for value in wanted] + [{"k": None}, {"k": wanted}, {"k": wanted * 4}, {"absent": None}]
    filters += [{"k": {operator: value}} for operator in ("gt", "gte", "lt", "lte") for value in plain]
    for each in filters:
        expected = [message.content for message in stored if parse(each).matches(message)]
        assert contents(store.get_all(filters=each)) == expected, each


def test_any_key_is_filtered_by(store):
    keys = ("a.b", "a b", 'a"b', "a'b", "100%", "%s", "%(k)s", ":k", "$.k", "", "ü", "a\\b", "{k}", "?")

    async def search() -> list[list[str]]:
        return [contents(await store.asearch("yes", {key: 5})) for key in keys]

    for key in keys:
        store.add_many([say(f"yes {key}", metadata={key: 5}), say("no", metadata={key: "5"})])
        store.add(say("none", of=key))
        assert contents(store.get_all(filters={key: 5})) == [f"yes {key}"]
        assert contents(store.get_all(filters={key: {"gte": 5}})) == [f"yes {key}"]
        assert contents(store.get_all(filters={key: list(range(80))})) == [f"yes {key}"]
        assert contents(store.get_all(filters={key: None, "of": key})) == ["none"]
    assert asyncio.run(search()) == [[f"yes {key}"] for key in keys]


def test_it_ranks_as_in_memory(store):
    words = ["apple", "pear", "plum", "cherry", "grape", "melon", "fig", "quince"]
    chance = random.Random(7)
    messages = [say(" ".join(chance.choices(words, k=chance.randint(1, 9))), timestamp=float(n)) for n in range(200)]
    memory = InMemory()
    for backend in (store, memory):
        backend.add_many(messages)
    for query in ("apple", "pear plum", "fig fig melon", "quinces and grapes"):
        here, there = store.search(query, SCOPE, 20), memory.search(query, SCOPE, 20)
        assert [message.id for message in here] == [message.id for message in there]
        assert [message.score for message in here] == pytest.approx([message.score for message in there])


# --- many at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [SCOPE, {"user_id": "user-1"}, {"session_id": "session-1"}], ids="-".join)
@pytest.mark.parametrize("begun", [True, False], ids=["full", "empty"])
def test_of_two_replacements_at_once_one_stands(store, scope, begun):
    for _ in range(10):
        store.clear()
        if begun:
            store.add_many([say("old") for _ in range(3)])
        start = threading.Barrier(4)

        def replace(number, start=start):
            start.wait()
            store.replace(scope, [say(f"{number}") for _ in range(5)])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(replace, range(4)))
        left = contents(store.get_all())
        assert len(left) == 5
        assert len(set(left)) == 1


def test_deadlocks_are_tried_again(store):
    stored = store.add_many([say(f"{n}") for n in range(30)])
    start = threading.Barrier(4)

    def write(number):
        start.wait()
        for _ in range(15):
            order = stored if number % 2 else stored[::-1]
            store.add_many([message.model_copy(update={"content": f"by {number}"}) for message in order])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.count() == 30
    assert len(set(contents(store.get_all()))) == 1


def test_deleting_while_others_add_leaves_no_terms(store, sql, postgresql_table):
    done = threading.Event()

    def add():
        while not done.is_set():
            store.add(say("hello"))

    with ThreadPoolExecutor(3) as pool:
        adding = [pool.submit(add) for _ in range(2)]
        try:
            for _ in range(40):
                store.delete(user_id="user-1")
        finally:
            done.set()
        for each in adding:
            each.result()
    messages, terms = [
        {row[0] for row in sql.execute(f"SELECT seq FROM {postgresql_table}{suffix}").fetchall()}
        for suffix in ("", "_terms")
    ]
    assert messages == terms


# --- event loops -------------------------------------------------------------------------------------------------


def sessions_of(sql, name: str) -> int:
    counting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    return int(sql.execute(counting, (name,)).fetchone()[0])


def comes_to_wait(sql) -> None:
    for _ in range(6000):
        if sql.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            return
        sql.execute("SELECT pg_sleep(0.01)")
    pytest.fail("nothing waits for a lock")


def comes_to(count: int, sql, name: str) -> bool:
    for _ in range(6000):
        if sessions_of(sql, name) == count:
            return True
        sql.execute("SELECT pg_sleep(0.01)")
    return False


def test_what_the_url_sets_goes_before_what_we_set(open_store, sql, postgresql_server):
    url = postgresql_server.url_with(application_name="billing", options="-c work_mem=1234kB")
    store = open_store(url, statement_timeout=5)
    assert sessions_of(sql, "billing") == 1
    with store._client.engine.connect() as connection:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("work_mem", "statement_timeout")]
    assert shown == ["1234kB", "5s"]


def test_one_object_serves_several_event_loops_and_closes_all(open_store, sql, postgresql_server, postgresql_table):
    store = open_store(postgresql_server.url_with(application_name=postgresql_table))

    async def talk(name):
        await asyncio.gather(*(store.aadd(say(f"{name} {n}")) for n in range(5)))
        return await store.acount()

    assert [asyncio.run(talk(name)) for name in "abc"] == [5, 10, 15]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: asyncio.run(talk(name)), "def"))
    assert store.count() == 30
    assert len(store._client.per_loop._clients) <= 4
    store.close()
    gc.collect()
    assert comes_to(0, sql, postgresql_table)


def test_loops_that_are_idle_or_closed_at_once_keep_no_connections(
    open_store, sql, postgresql_server, postgresql_table
):
    store = open_store(postgresql_server.url_with(application_name=postgresql_table))
    for number in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.aadd(say(f"{number}")))
        loop.close()
    idle = asyncio.new_event_loop()
    idle.run_until_complete(store.aadd(say("last")))
    assert comes_to(2, sql, postgresql_table)  # one of the synchronous methods, one of the idle loop
    store.close()
    assert comes_to(0, sql, postgresql_table)
    idle.run_until_complete(idle.shutdown_asyncgens())
    idle.close()


def test_asynchronous_calls_wait_for_the_server_and_not_for_each_other(store, sql, postgresql_table):
    async def script():
        with sql.transaction():
            sql.execute(f"LOCK TABLE {postgresql_table}_meta IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(store.aadd(say("a")))  # it reads that table first
            assert await store.acount() == 0
            assert not waiting.done()
        await waiting
        assert await store.acount() == 1

    asyncio.run(script())


def test_a_cancelled_call_leaves_the_store_usable(store, sql, postgresql_table):
    async def script():
        with sql.transaction():
            sql.execute(f"LOCK TABLE {postgresql_table} IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(store.aadd(say("a")))
            # A cancellation that reaches the server before the statement would be ignored there.
            await asyncio.to_thread(comes_to_wait, sql)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await store.aadd(say("b"))
        return contents(await store.aget_all())

    assert asyncio.run(script()) == ["b"]


def test_a_large_batch_is_stored_whole(store):
    async def script():
        await store.aadd_many([say(f"{n}") for n in range(3000)])
        return contents(await store.aget_all())

    assert asyncio.run(script()) == [f"{n}" for n in range(3000)]


def test_a_missing_driver_says_what_to_install(run_script):
    said = run_script(
        """
import sys
sys.modules["psycopg"] = None
try:
    from dynamiq_memory.backends import PostgreSQL
except ImportError as error:
    print(error)
"""
    )
    assert "pip install 'dynamiq-memory[postgresql]'" in said.stdout
