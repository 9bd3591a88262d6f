"""Failures of a server, and their errors."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
from sqlalchemy import create_engine

from dynamiq_memory import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    Memory,
    Message,
    MessageTooLargeError,
)
from dynamiq_memory.backends import PostgreSQL, create_backend
from dynamiq_memory.connections import PostgreSQL as PostgreSQLConnection
from dynamiq_memory.testing import say

SECRET = "correct-horse-battery"


@pytest.fixture
def role(sql, postgresql_server, postgresql_table):
    """A user who must give a password and may do nothing yet."""
    name = f"r_{postgresql_table}"
    sql.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    postgresql_server.ask_for_password(name)
    sql.execute("SELECT pg_reload_conf()")
    yield name
    sql.execute(f"DROP OWNED BY {name}")
    sql.execute(f"DROP ROLE {name}")


def test_a_wrong_password(open_store, postgresql_server, role):
    with pytest.raises(BackendAuthenticationError, match="refuses the user or the password") as caught:
        open_store(postgresql_server.url_with(role=(role, "wrong-" + SECRET)))
    assert SECRET not in str(caught.value)


def test_no_right_to_create_tables(open_store, postgresql_server, role):
    with pytest.raises(BackendAuthenticationError, match="lacks a right"):
        open_store(postgresql_server.url_with(role=(role, SECRET)))


def test_tables_that_are_there_need_no_right_to_create(
    open_store, store, sql, postgresql_server, postgresql_table, role
):
    store.add(say("hello"))
    for suffix in ("", "_terms", "_meta"):
        sql.execute(f"GRANT SELECT ON {postgresql_table}{suffix} TO {role}")
    reader = open_store(postgresql_server.url_with(role=(role, SECRET)))
    assert [message.content for message in reader.search("hello")] == ["hello"]
    with pytest.raises(BackendAuthenticationError, match="lacks a right"):
        reader.add(say("more"))
    assert store.count() == 1


def test_a_server_that_is_not_there(open_store):
    with pytest.raises(BackendConnectionError, match="cannot be reached"):
        open_store("postgresql://postgres@127.0.0.1:1/postgres")
    with pytest.raises(BackendConnectionError, match=r"no\.such\.host\.invalid.*cannot be reached"):
        open_store("postgresql://postgres@no.such.host.invalid/postgres")


def test_a_database_that_is_not_there(open_store, postgresql_server):
    with pytest.raises(BackendConnectionError, match='database "nothing" does not exist'):
        open_store(postgresql_server.url_with(database="nothing"))


def test_a_table_that_is_not_there(open_store, postgresql_table):
    with pytest.raises(BackendError, match=f"'{postgresql_table}' does not exist.*create_if_not_exist"):
        open_store(create_if_not_exist=False)
    with pytest.raises(BackendError, match="schema"):
        open_store(schema="nowhere")


def test_a_table_that_is_gone(store, sql, postgresql_table):
    sql.execute(f"DROP TABLE {postgresql_table}")
    with pytest.raises(BackendError, match="the table is gone"):
        store.get_all()


def test_a_table_of_another_kind(open_store, sql, postgresql_table):
    sql.execute(f"CREATE TABLE {postgresql_table} (id INT, price INT)")
    with pytest.raises(ConfigurationError, match=r"id, price.*another name"):
        open_store()


def test_a_replica_is_read_and_says_that_it_cannot_be_written(open_store, store, postgresql_server):
    store.add(say("hello"))
    replica = open_store(postgresql_server.url_with(options="-c default_transaction_read_only=on"))
    assert [message.content for message in replica.search("hello")] == ["hello"]
    assert [message.content for message in asyncio.run(replica.aget_all())] == ["hello"]
    with pytest.raises(BackendError, match="read-only, such as a replica"):
        replica.clear()
    assert store.count() == 1


def test_a_statement_that_takes_too_long(open_store, store, sql, postgresql_table):
    impatient = open_store(statement_timeout=0.2)
    with sql.transaction():
        sql.execute(f"LOCK TABLE {postgresql_table} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BackendError, match="took too long"):
            impatient.add(say("hello"))
        with pytest.raises(BackendError, match="took too long"):
            asyncio.run(impatient.aget_all())
    impatient.add(say("hello"))
    assert store.count() == 1


def test_a_pool_that_is_exhausted(open_store, sql, postgresql_table):
    small = open_store(pool_size=1, pool_timeout=0.2)
    with ThreadPoolExecutor(2) as pool:
        with sql.transaction():
            sql.execute(f"LOCK TABLE {postgresql_table} IN ACCESS EXCLUSIVE MODE")
            counts = [pool.submit(small.count) for _ in range(2)]
            done, [waiting] = wait(counts, 120, FIRST_COMPLETED)
            with pytest.raises(BackendError, match=r"all 1 connections .* in use for 0\.2 s: raise pool_size"):
                done.pop().result()
        assert waiting.result(120) == 0
    assert small.count() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"connection": "mysql://localhost/x"}, "not for PostgreSQL"),
        ({"connection": "localhost"}, "not a URL"),
        ({"connection": 5}, "not a int"),
        ({"connection": create_engine("sqlite://")}, "sqlite"),
        ({"table_name": ""}, "table_name"),
        ({"table_name": "x" * 64}, "1 to 52 bytes"),
        ({"table_name": "a\0b"}, "table_name"),
        ({"pool_size": 0}, "pool_size"),
        ({"pool_timeout": 0}, "pool_timeout"),
        ({"statement_timeout": -1}, "statement_timeout"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_wrong_settings(arguments, says):
    with pytest.raises(ConfigurationError, match=says):
        PostgreSQL(**arguments)


@pytest.mark.parametrize("options", ["pool_size=many", "create_if_not_exist=perhaps", "statement_timeout=soon"])
def test_wrong_options_of_a_url(options):
    with pytest.raises(ConfigurationError, match=options.replace("=", "='")):
        create_backend(f"postgresql://localhost/x?{options}")


def test_no_secret_shows(open_store, sql, postgresql_server, role, postgresql_table):
    sql.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    store = open_store(postgresql_server.url_with(role=(role, SECRET)))
    memory = Memory(backend=store)
    for shown in (repr(store), str(store.to_dict()), repr(memory), str(memory.to_dict()), str(store.to_url())):
        assert SECRET not in shown
        assert "password" not in shown.lower()
    assert store.to_url() is None
    assert SECRET not in repr(PostgreSQLConnection(password=SECRET))
    store.close()


def test_an_id_too_long_for_an_index(store):
    # What can be compressed fits.
    text = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(20_000))
    with pytest.raises(MessageTooLargeError, match="id is too long"):
        store.add(Message(role="user", content="x", id=text))
    assert store.is_empty()


def test_acknowledged_messages_survive_a_restart_under_load(open_store, postgresql_server):
    store = open_store()
    stop = threading.Event()
    acknowledged: list[str] = []
    failed: list[Exception] = []

    def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            text = f"{writer}:{number}"
            number += 1
            try:
                store.add(say(text, session=f"s{writer}"))
            except BackendError as error:
                failed.append(error)
                stop.wait(0.01)
            else:
                acknowledged.append(text)

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, writer) for writer in range(3)]
        try:
            while len(acknowledged) < 60 and not any(writer.done() for writer in writers):
                stop.wait(0.01)
            postgresql_server.restart()
            before = len(acknowledged)
            while len(acknowledged) < before + 60 and not any(writer.done() for writer in writers):
                stop.wait(0.01)
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    stored = {message.content for message in store.get_all()}
    assert set(acknowledged) <= stored
    assert len(acknowledged) >= 120


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_next_call_after_a_restart_works(open_store, postgresql_server, way):
    store = open_store()

    async def script() -> None:
        await asyncio.gather(*(store.aadd(say(f"{number}")) for number in range(5)))
        postgresql_server.restart()
        assert len(await store.atake({"content": None})) == 5
        postgresql_server.restart()
        await asyncio.gather(*(store.aadd(say(f"{number}")) for number in range(5)))
        assert await store.acount() == 5

    if way == "async":
        asyncio.run(script())
        return
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda number: store.add(say(f"{number}")), range(5)))
        postgresql_server.restart()
        assert len(store.take({})) == 5
        postgresql_server.restart()
        list(pool.map(lambda number: store.add(say(f"{number}")), range(5)))
    assert store.count() == 5


def test_a_broken_connection_in_the_midst_of_a_transaction_leaves_all_as_it_was(store, sql, monkeypatch):
    store.add(say("before"))
    write = store._writer.write

    def breaks(connection, rows):
        pid = connection.connection.dbapi_connection.info.backend_pid
        sql.execute("SELECT pg_terminate_backend(%s)", [pid])
        return write(connection, rows)

    monkeypatch.setattr(store._writer, "write", breaks)
    with pytest.raises(BackendConnectionError):
        store.replace({"user_id": "user-1"}, [say("a"), say("b")])
    monkeypatch.undo()
    assert [message.text for message in store.get_all()] == ["before"]
    store.add(say("c"))
    assert store.count() == 2
