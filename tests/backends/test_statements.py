"""How many statements each call sends to a SQL database: over a network, each is a round trip."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import ClauseElement

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import InMemory, MemoryBackend, PostgreSQL, SQLite, _threads, plans
from dynamiq_memory.backends._weights import weigh
from dynamiq_memory.backends.in_memory import backend as in_memory
from dynamiq_memory.backends.postgresql import writer

psycopg = pytest.importorskip("psycopg")

SCOPE = {"user_id": "u", "session_id": "s"}
TURNS = 150
LONG = 40
"""A turn with as many calls of tools as to be read in several steps."""


def conversation() -> Iterator[Message]:
    for n in range(TURNS):
        yield Message(role="user", content=f"How far is it to town {n} by train?", metadata=SCOPE)
        for call in range(LONG if n == TURNS // 2 else 0):
            calls = [{"id": f"c{n}.{call}", "type": "function", "function": {"name": "map", "arguments": "{}"}}]
            yield Message(role="assistant", tool_calls=calls, metadata=SCOPE)
            yield Message(role="tool", content="map", tool_call_id=f"c{n}.{call}", metadata=SCOPE)
        yield Message(role="assistant", content=f"Town {n} is {n * 7} km away.", metadata=SCOPE)


Counted = Callable[[Callable[[Memory], Any]], list[str]]


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return list(conversation())


@pytest.fixture
def sqlite(tmp_path: Path, messages: list[Message], monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    said: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(said.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    with SQLite(tmp_path / "file.db") as store:
        store.add_many(messages)
        yield lambda call: counted(store, said, call)


@pytest.fixture
def postgresql(
    postgresql_url: str, postgresql_table: str, messages: list[Message], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Counted]:
    said: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        said.append(str(query))
        return execute(cursor, query, *args, **options)

    with PostgreSQL(postgresql_url, table_name=postgresql_table) as store:
        store.add_many(messages)
        monkeypatch.setattr(psycopg.Cursor, "execute", note)
        yield lambda call: counted(store, said, call)


def counted(store: MemoryBackend, said: list[str], call: Callable[[Memory], Any]) -> list[str]:
    memory = Memory(backend=store, filters=SCOPE)
    call(memory)  # what is done once in a connection is not counted
    said.clear()
    call(memory)
    return [sql for sql in said if not sql.startswith(("BEGIN", "COMMIT", "SET"))]


def conversing(strategy: str, query: str = "How far is town 12?", limit: int | None = 20) -> Callable[[Memory], Any]:
    return lambda memory: memory.get_agent_conversation(query, limit, strategy=strategy, max_tokens=10**9)


CALLS: dict[str, tuple[int, Callable[[Memory], Any]]] = {
    "newest": (1, lambda memory: memory.get_all(50)),
    "is_empty": (1, lambda memory: memory.is_empty()),
    "count": (1, lambda memory: memory.count()),
    # One reads the index of terms and checks it, one reads the messages.
    "search": (2, lambda memory: memory.search("town 12", limit=20)),
    "all": (1, conversing("all")),
    "relevant": (3, conversing("relevant")),
    "both": (4, conversing("both")),
    "relevant, large": (3, conversing("relevant", limit=100)),
    # Every message matches, and a long turn is read in several steps.
    "relevant, without a limit": (5, conversing("relevant", "town map train", None)),
}


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_call_sends_few_statements_however_many_messages_match(store, request):
    counted_of = request.getfixturevalue(store)
    sent = {name: counted_of(call) for name, (_, call) in CALLS.items()}
    assert all(sent.values())
    assert {name: said for name, said in sent.items() if len(said) > CALLS[name][0]} == {}


def test_a_call_gives_the_same_in_all_stores(sqlite, postgresql, messages):
    given: list[list[str]] = []

    def note(call: Callable[[Memory], list[Message]]) -> Callable[[Memory], Any]:
        return lambda memory: given.append([message.id for message in call(memory)])

    own = InMemory()
    own.add_many(messages)
    for _, call in CALLS.values():
        if call in (CALLS["is_empty"][1], CALLS["count"][1]):
            continue
        given.clear()
        sqlite(note(call))
        postgresql(note(call))
        note(call)(Memory(backend=own, filters=SCOPE))
        assert given[0] == given[2] == given[4] != []


def test_in_process_a_message_is_copied_once_for_each_read(messages, monkeypatch):
    copied: list[int] = []
    views = in_memory.views
    monkeypatch.setattr(in_memory, "views", lambda stored: copied.append(1) or views(stored))
    store = InMemory()
    store.add_many(messages)
    windows = store.around(messages, 6, 6)
    assert len(copied) == 1
    distinct = {id(message) for window in windows for message in window} - set(map(id, messages))
    assert len(distinct) == len(messages)


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What psycopg sends to the server, each a round trip: statements, BEGIN and COMMIT."""
    sent: list[str] = []

    def noting(kind: Any, method: str) -> None:
        send = getattr(kind, method)

        def note(self: Any, query: Any, *args: Any, **options: Any) -> Any:
            sent.append(str(query))
            return send(self, query, *args, **options)

        monkeypatch.setattr(kind, method, note)

    for connection, cursor in (
        (psycopg.Connection, psycopg.Cursor),
        (psycopg.AsyncConnection, psycopg.AsyncCursor),
    ):
        noting(connection, "_exec_command")
        noting(cursor, "_execute_gen")
        noting(cursor, "_executemany_gen_pipeline")
    return sent


def say(text: str) -> Message:
    return Message(role="user", content=text, metadata=SCOPE)


TRIPS: dict[str, tuple[int, Callable[[PostgreSQL], Any]]] = {
    "append": (1, lambda store: store.add(say("one"))),
    "batch": (1, lambda store: store.add_many([say(f"{n}") for n in range(100)])),
    "newest": (1, lambda store: store.get_all(50, SCOPE)),
    "count": (1, lambda store: store.count(SCOPE)),
    "search": (2, lambda store: store.search("one", SCOPE)),
    # A search that reads no terms looks why.
    "search of nobody's": (2, lambda store: store.search("one", {"user_id": "nobody"})),
    # Locks its scope, deletes and inserts, in a transaction.
    "replace": (5, lambda store: store.replace(SCOPE, [say(f"{n}") for n in range(50)])),
    "delete": (3, lambda store: store.delete("s", "u")),
}


def test_round_trips_to_postgresql(postgresql_url, postgresql_table, trips):
    for exists in (False, True):
        trips.clear()
        with PostgreSQL(postgresql_url, table_name=postgresql_table) as store:
            assert not exists or len(trips) == 3, trips
            sent = {}
            for name, (_, call) in TRIPS.items():  # each is the first of its kind
                trips.clear()
                call(store)
                sent[name] = list(trips)
            assert {name: len(each) for name, each in sent.items()} == {name: most for name, (most, _) in TRIPS.items()}

            async def script(store: PostgreSQL = store) -> None:
                # The first call opens a connection.
                for call in (store.acount(), store.aadd(say("one")), store.aadd_many([say("two"), say("three")])):
                    trips.clear()
                    await call
                    assert len(trips) == 1, trips

            asyncio.run(script())
            assert store.count() == 3
            store.delete("s", "u")


def test_postgresql_builds_a_replacement_once(
    postgresql_url: str, postgresql_table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes: list[dict[str, Any]] = [{"user_id": "u"}, SCOPE, {"user_id": "u", "session_id": None}]

    def replace(store: PostgreSQL) -> None:
        for scope in scopes:
            messages = [Message(role="user", content=text, metadata=scope) for text in ("one", "two")]
            assert len(store.replace(scope, messages)) == 2
            assert [message.content for message in store.get_all(filters=scope)] == ["one", "two"]
            assert store.delete(scope.get("session_id"), "u") == 2
        assert store.is_empty()

    with PostgreSQL(postgresql_url, table_name=postgresql_table) as store:
        replace(store)
        for name in ("_deleting", "_locking_scope"):
            monkeypatch.delattr(writer, name)
        monkeypatch.setattr(sa.Connection, "execute", None)
        replace(store)


def test_a_sqlite_file_is_opened_by_few_statements_and_nothing_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    compiled: list[int] = []
    connect, compile_ = sqlite3.connect, ClauseElement.compile

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(said.append)
        return connection

    def counting(*args: Any, **options: Any) -> Any:
        compiled.append(1)
        return compile_(*args, **options)

    with SQLite(tmp_path / "first.db") as first:
        tokenizer = first.tokenizer
    SQLite(tmp_path / "second.db").close()
    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(ClauseElement, "compile", counting)
    monkeypatch.setattr("sqlalchemy.create_engine", counting)
    with SQLite(tmp_path / "second.db") as store:
        assert store.tokenizer is tokenizer  # which knows the words by now
        assert len([sql for sql in said if not sql.startswith(("BEGIN", "COMMIT", "PRAGMA"))]) == 3, said
        store.add(say("one"))
    assert compiled == []


def test_an_asynchronous_append_weighs_its_messages_once_in_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[Any] = []

    def weigh_and_note(data: Any) -> int:
        weighed.append(data)
        return weigh(data)

    for module in (plans, _threads):
        monkeypatch.setattr(module, "weigh", weigh_and_note)

    async def script(memory: Memory) -> None:
        await memory.aadd("user", "one")
        assert len(weighed) == 2, weighed
        weighed.clear()
        await memory.backend.aadd_many([say("two"), say("three")])
        assert len(weighed) == 1, weighed

    asyncio.run(script(Memory()))
