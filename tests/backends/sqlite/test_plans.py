"""How SQLite executes a read: an index in reading order, only rows in scope, bound values; what is stopped."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import threading
from contextlib import closing, suppress

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import SQLite, operations
from dynamiq_memory.backends._sql import records
from dynamiq_memory.backends.sqlite import filters
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.server.partition import Partition

SESSION = {"user_id": "u-1", "session_id": "s-1"}


def fill(store):
    store.add_many(
        [
            Message(
                role="user",
                content=f"text {n}",
                metadata={"user_id": f"u-{n % 3}", "session_id": f"s-{n % 5}", "n": n},
            )
            for n in range(60)
        ]
    )


def plans(path, record):
    """The query plan of each SELECT that was executed."""
    with closing(sqlite3.Connection(path)) as connection:
        # Only its name matters for a plan.
        connection.create_function("dynamiq_memory_matches", 2, lambda *_: True, deterministic=True)
        return [
            [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            for sql, values in record.selects()
            if "sqlite_master" not in sql
        ]


READS = [
    pytest.param(SESSION, "conversations_by_scope", "user_id=? AND session_id=?", id="session"),
    pytest.param({"user_id": "u-1"}, "conversations_by_user", "user_id=?", id="user"),
    pytest.param({"session_id": "s-1"}, "conversations_by_session", "session_id=?", id="name of a session"),
    pytest.param({}, "conversations_by_time", None, id="everything"),
    pytest.param({"user_id": None, "session_id": None}, "conversations_by_scope", "user_id=?", id="without a scope"),
]


@pytest.mark.parametrize(("filters", "index", "key"), READS)
def test_the_newest_are_read_from_an_index_in_order(path, record, filters, index, key):
    with SQLite(path) as store:
        fill(store)
        record.statements.clear()
        assert len(store.get_all(3, filters)) == (0 if None in filters.values() else 3)
        found = plans(path, record)
    assert len(found) == 1
    (plan,) = found
    assert len(plan) == 1, plan
    assert index in plan[0]
    assert plan[0].startswith("SEARCH" if key else "SCAN"), plan
    assert key is None or key in plan[0]
    assert "TEMP B-TREE" not in plan[0]


@pytest.mark.parametrize(("filters", "index", "key"), READS[:4])
@pytest.mark.parametrize("direction", ["before", "after"])
def test_the_neighbours_of_a_message_are_read_from_an_index_in_order(path, record, filters, index, key, direction):
    with SQLite(path) as store:
        fill(store)
        anchor = store.get_all(limit=30)[0]
        record.statements.clear()
        store.get_all(5, filters, **{direction: anchor})
        found = plans(path, record)
    assert found
    assert not [step for plan in found for step in plan if "TEMP B-TREE" in step]
    (step,) = [step for plan in found for step in plan if f"conversations USING INDEX {index}" in step]
    # Bounded by the time as well, so that what lies far away is not even looked at.
    assert step.startswith("SEARCH")
    assert "timestamp<?" in step or "timestamp>?" in step


@pytest.mark.parametrize("filters", [SESSION, {"user_id": "u-1"}, {}, {"n": {"gte": 3}}], ids=str)
def test_the_neighbours_of_many_messages_are_read_by_one_statement_from_indexes(path, record, filters):
    with SQLite(path) as store:
        fill(store)
        anchors = store.get_all(40)
        record.statements.clear()
        store.around(anchors, 2, 2, filters)
        (plan,) = plans(path, record)
    assert not [step for step in plan if step.startswith("SCAN conversations")], plan
    read = [step for step in plan if step.startswith("SEARCH conversations")]
    assert len(read) == 2
    assert "timestamp<?" in read[0]
    assert "timestamp>?" in read[1]


def test_neighbours_of_a_message_that_is_gone_are_those_of_its_time(path):
    with SQLite(path) as store:
        # Not every decimal number is read exactly by SQLite.
        times = [1700000000.1234567, 0.1 + 0.2, 1e-300, -5.000000000000001, 253402300798.99997]
        for time in times:
            gone = Message(role="user", timestamp=time, metadata=SESSION)
            store.replace(SESSION, [Message(role="user", content=side, timestamp=time) for side in "ab"])
            ((first, *rest),) = store.around([gone], 0, 2)
            assert (first, [message.content for message in rest]) == (gone, ["a", "b"])
            assert store.around([gone], 2, 0) == [[gone]]


def test_a_session_within_a_filter_on_metadata_still_reads_by_its_index(path, record):
    with SQLite(path) as store:
        fill(store)
        record.statements.clear()
        assert len(store.get_all(2, {**SESSION, "n": {"gte": 0}})) == 2
        (plan,) = plans(path, record)
    assert len(plan) == 1
    assert "conversations_by_scope" in plan[0]


@pytest.mark.parametrize("filters", [SESSION, {"user_id": "u-1"}], ids=["session", "user"])
def test_a_search_reads_the_terms_of_its_own_scope_only(path, record, filters):
    with SQLite(path) as store:
        fill(store)
        record.statements.clear()
        assert store.search("text", filters, limit=3)
        of_terms = [plan for plan in plans(path, record) if any("conversations_terms" in step for step in plan)]
    assert len(of_terms) == 1
    (plan,) = of_terms
    reads = [step for step in plan if "conversations" in step and "conversations_meta" not in step]
    assert len(reads) == 1, plan
    assert reads[0].startswith("SEARCH conversations_terms USING PRIMARY KEY (user_id=?"), plan
    if "session_id" in filters:
        assert "session_id=?" in reads[0]


@pytest.mark.parametrize(
    "filters",
    [{**SESSION, "n": {"gte": 10}}, {"session_id": "s-1"}],
    ids=["session and metadata", "name of a session"],
)
def test_a_search_beyond_a_user_scans_no_whole_table(path, record, filters):
    with SQLite(path) as store:
        fill(store)
        record.statements.clear()
        assert store.search("text", filters, limit=3)
        found = plans(path, record)
    assert found
    assert not [step for plan in found for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step], (
        found
    )


def test_a_message_is_replaced_by_its_key(path, record):
    with SQLite(path) as store:
        fill(store)
        again = store.get_all()[7]
        record.statements.clear()
        store.add(again)
        writes = [(sql, values) for sql, values in record.statements if sql.startswith("INSERT")]
        assert len(writes) == 2
        with closing(sqlite3.Connection(path)) as connection:
            steps = [
                row[3] for sql, values in writes for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            ]
    assert not [step for step in steps if step.startswith("SCAN")], steps


SECRET = "s3cr3t-value"
KEY = "s3cr3t-key'\"; --"


def test_statements_hold_neither_values_nor_keys(path, record):
    scope = {"user_id": f"user {SECRET}", "session_id": f"session {SECRET}"}
    with SQLite(path) as store:
        record.statements.clear()
        stored = store.add_many(
            [
                Message(role="user", content=f"{SECRET} {n}", id=f"id {SECRET} {n}", metadata={**scope, KEY: SECRET})
                for n in range(3)
            ]
        )
        for filters in (
            scope,
            {KEY: SECRET},
            {**scope, KEY: [SECRET, "x"]},
            {KEY: None},
            {KEY: {"gte": 1}},
            {"message_id": [m.id for m in stored], "timestamp": {"gt": 0}},
            {"user_id": [scope["user_id"], "x"], "session_id": [scope["session_id"], "y"]},
        ):
            store.get_all(2, filters)
            store.search(SECRET, filters, 2)
            store.count(filters)
            store.sessions(filters)
            store.around(stored[1:2], 1, 1, filters)
        store.get_all(2, scope, before=stored[2])
        store.replace(scope, stored[:1])
        store.delete(**scope, filters={KEY: SECRET})
        store.clear({KEY: SECRET})
        assert store.is_empty()
    assert len(record.statements) > 40
    values = str([parameters for _, parameters in record.statements])
    assert SECRET in values
    assert "s3cr3t-key" in values
    assert not [sql for sql, _ in record.statements if "s3cr3t" in sql]


def test_a_search_in_a_scope_costs_the_same_whatever_else_is_stored(path):
    """Counted in SQLite's own steps, not in seconds."""

    def steps(store, connection_steps):
        connection_steps.clear()
        assert len(store.search("text", SESSION, limit=3)) == 3
        assert len(store.get_all(3, SESSION)) == 3
        return len(connection_steps)

    counted: list[int] = []
    connect = sqlite3.connect

    def counting(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_progress_handler(lambda: counted.append(1) or 0, 1)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", counting)
        with SQLite(path) as store:
            fill(store)
            store.search("text", SESSION)
            before = steps(store, counted)
            store.add_many(
                [
                    Message(role="user", content=f"text {n}", metadata={"user_id": f"v-{n}", "session_id": "s-1"})
                    for n in range(1_000)
                ]
            )
            after = steps(store, counted)
    assert 0 < after <= before * 1.1


def test_a_memory_of_the_service_reads_its_own_messages_only(path, record, monkeypatch):
    looked_at = []
    with SQLite(path) as store:
        many, few = Partition(store, "many"), Partition(store, "few")
        fill(many)
        alike = Partition(store, "few-2")
        alike.add(Message(role="user", content="alike"))
        few.add_many([Message(role="user", content="of ann", metadata={"user_id": "ann"}), Message(role="user")])
        record.statements.clear()
        loads = filters.loads
        monkeypatch.setattr(filters, "loads", lambda text: looked_at.append(text) or loads(text))
        assert [message.content for message in few.get_all(50)] == ["of ann", ""]
        assert len(few.search("ann")) == few.count({"user_id": "ann"}) == 1
        assert (few.count(), len(few.sessions()), few.is_empty()) == (2, 2, False)
        assert few.clear() == 2
        assert (many.count({"n": 1}), alike.count()) == (1, 1)
        found = plans(path, record)
    assert len([text for text in looked_at if '"$memory":"few"' in text]) == len(looked_at) - 60 - 1
    reading = [plan for plan in found if any("conversations_by_owner" in step for step in plan)]
    assert len(reading) >= 6
    assert "TEMP B-TREE" not in "".join(reading[0])


# --- what a filter costs, and what is stopped ----------------------------------------------------------------


def test_a_filter_of_many_values_is_given_to_sqlite_as_one_number(path, record):
    with SQLite(path) as store:
        store.add_many([Message(role="user", content=f"{n}", metadata={"n": n}) for n in range(300)])
        record.statements.clear()
        many = list(range(10, 20_000))
        assert len(store.get_all(filters={"n": many})) == 290
        assert store.count({"n": many}) == 290
        assert max(len(str(values)) for _, values in record.statements) < 200


@pytest.mark.parametrize("file", [":memory:", "memory.db"])
def test_a_cancelled_read_is_stopped(tmp_path, file):
    """The statement would go on as long as it is not stopped: each row waits for the test."""
    looked_at, go, begun = [], threading.Event(), threading.Event()

    class Slow(str):
        __slots__ = ()

        def __hash__(self):
            return str.__hash__(self)

        def __eq__(self, other):
            looked_at.append(other)
            begun.set()
            go.wait(0.01)
            return False

    async def script(store):
        filter = Filter((OneOf("n", (Slow("x"),)),))
        reading = asyncio.create_task(store.aexecute(operations.Count(filter)))
        await asyncio.to_thread(begun.wait, 60)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert len(looked_at) < 3_000
        assert await store.acount() == 3_000
        # Writing is not stopped.
        writing = asyncio.create_task(store.aadd_many([Message(role="user", content=f"{n}") for n in range(1_000)]))
        await asyncio.sleep(0.01)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        assert await store.acount() in (3_000, 4_000)

    with SQLite(file if file == ":memory:" else tmp_path / file) as store:
        store.add_many([Message(role="user", content="x", metadata={"n": "x"}) for _ in range(3_000)])
        asyncio.run(asyncio.wait_for(script(store), 120))


def test_rows_are_parsed_by_column(path, monkeypatch):
    day = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
    given = [
        Message(role="user", content="plain"),
        Message(role="user", content="\0", metadata={"day": day}, native={"$type": "datetime", "value": "mine"}),
        Message(role="tool", content='"$type"', tool_call_id='"$type"', metadata={"$type": {"day": day}}),
        Message(role="assistant", tool_calls=[{"id": "c"}], name="ann", native={"day": day}),
    ]
    parsed = []
    with SQLite(path) as store:
        store.add_many(given)
        loads = records.loads
        monkeypatch.setattr(records, "loads", lambda text: parsed.append(text) or loads(text))
        found = store.get_all(50)
    assert len(parsed) == 2
    fields = {"id", "role", "content", "tool_calls", "tool_call_id", "name", "native"}
    assert [message.model_dump(include=fields) for message in found] == [
        one.model_dump(include=fields) for one in given
    ]
    views = {"timestamp", "message_id"}
    assert [{k: v for k, v in message.metadata.items() if k not in views} for message in found] == [
        message.metadata for message in given
    ]
