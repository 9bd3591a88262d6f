"""How the server executes each call, in a store of 20,000 messages."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import PostgreSQL
from tests.fakes.embedders import NGrams
from tests.fakes.postgresql.server import PostgreSQLServer

MESSAGES = 20_000
SESSIONS = 500
SCOPE = {"user_id": "u-7", "session_id": "s-7"}


@pytest.fixture(scope="module")
def large(postgresql_server: PostgreSQLServer) -> Iterator[PostgreSQL]:
    name = f"t_large_{uuid.uuid4().hex[:8]}"
    embedder = NGrams(8) if postgresql_server.has_pgvector else None
    with PostgreSQL(postgresql_server.url, table_name=name, embedder=embedder) as store:
        with psycopg.connect(postgresql_server.url, autocommit=True) as sql:
            sql.execute(
                f"""INSERT INTO {name} (user_id, session_id, id, timestamp, role, content, metadata, extra, filterable)
                SELECT 'u-' || n % {SESSIONS}, 's-' || n % {SESSIONS}, 'id-' || n, n, 'user', 'word ' || n,
                       '{{"n": ' || n || '}}', NULL, ('{{"n": ' || n || '}}')::jsonb
                FROM generate_series(1, {MESSAGES}) n"""
            )
            sql.execute(
                f"""INSERT INTO {name}_terms (user_id, session_id, seq, timestamp, length, terms)
                SELECT user_id, session_id, seq, timestamp, 1, '\\x000000000001' FROM {name}"""
            )
            if embedder is not None:
                sql.execute(f"INSERT INTO {name}_vectors SELECT seq, '[1,2,3,4,5,6,7,8]' FROM {name}")
                sql.execute(f"VACUUM ANALYZE {name}_vectors")
            sql.execute(f"VACUUM ANALYZE {name}, {name}_terms")
        yield store
        with psycopg.connect(postgresql_server.url, autocommit=True) as sql:
            sql.execute(f"DROP TABLE IF EXISTS {name}, {name}_terms, {name}_meta, {name}_vectors")


@pytest.fixture
def plans_of(large: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[str]]:
    """Returns the plans of the statements that a call executes, as JSON."""

    def explain(call: Callable[[], Any]) -> list[str]:
        said: list[tuple[Any, Any]] = []
        execute, many = psycopg.Cursor.execute, psycopg.Cursor.executemany

        def note(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
            said.append((query, params))
            return execute(cursor, query, params, **options)

        def note_many(cursor: Any, query: Any, params: Any, **options: Any) -> Any:
            params = list(params)
            said.extend((query, each) for each in params)
            return many(cursor, query, params, **options)

        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Cursor, "execute", note)
            patched.setattr(psycopg.Cursor, "executemany", note_many)
            call()
        plans = []
        with psycopg.connect(large._client.engine.url.set(drivername="postgresql").render_as_string(False)) as sql:
            for query, params in said:
                if re.match(r"\s*(SELECT|INSERT|DELETE|UPDATE|WITH)\b", str(query)) and "advisory" not in str(query):
                    plans.append(json.dumps(sql.execute(f"EXPLAIN (FORMAT JSON) {query}", params).fetchone()))
            sql.rollback()
        return plans

    return explain


CALLS: dict[str, Callable[[PostgreSQL], Any]] = {
    "the newest of a session": lambda store: store.get_all(10, SCOPE),
    "all of a session": lambda store: store.get_all(None, SCOPE),
    "a user's newest": lambda store: store.get_all(10, {"user_id": "u-7"}),
    "the newest of a session's name": lambda store: store.get_all(10, {"session_id": "s-7"}),
    "the newest of all": lambda store: store.get_all(10),
    "some of several users": lambda store: store.get_all(10, {"user_id": ["u-7", "u-8"], "session_id": "s-7"}),
    "by a key within a session": lambda store: store.get_all(10, SCOPE | {"n": 7}),
    "by a key of all": lambda store: store.get_all(10, {"n": 7}),
    "by many values of a key": lambda store: store.get_all(10, {"n": [1, 2, 3]}),
    "by ids": lambda store: store.get_all(None, SCOPE | {"message_id": ["id-7", "id-507"]}),
    "before a message": lambda store: store.get_all(10, SCOPE, before=anchor()),
    "after a message": lambda store: store.get_all(10, SCOPE, after=anchor()),
    "around a message": lambda store: store.around([anchor()], 3, 3),
    "searching a session": lambda store: store.search("word", SCOPE, 5),
    "searching a user": lambda store: store.search("word", {"user_id": "u-7"}, 5),
    "searching a user by a key": lambda store: store.search("word", {"user_id": "u-7", "n": 7}, 5),
    "counting a session": lambda store: store.count(SCOPE),
    "appending": lambda store: store.add(Message(role="user", content="new", metadata=SCOPE)),
    "updating": lambda store: store.update([anchor()], {"n": 7}),
    "deleting a session": lambda store: store.delete("s-11", "u-11"),
    "taking a message": lambda store: store.take({"user_id": "u-9", "session_id": "s-9", "message_id": "id-9"}),
    "replacing a session": lambda store: store.replace({"user_id": "u-8", "session_id": "s-8"}, []),
    "an agent's conversation": lambda store: Memory(backend=store).get_agent_conversation(
        "word", filters=SCOPE, strategy="both"
    ),
}


def anchor() -> Message:
    return Message(role="user", content="word", id="id-10007", timestamp=10007.0, metadata={**SCOPE, "n": 7})


@pytest.mark.parametrize("name", CALLS)
def test_no_call_reads_a_whole_table(large, plans_of, name):
    plans = plans_of(lambda: CALLS[name](large))
    assert plans
    for plan in plans:
        scanned = re.findall(r'"Node Type": "Seq Scan".*?"Relation Name": "(\w+)"', plan)
        assert [table for table in scanned if not table.endswith("_meta")] == [], plan


@pytest.mark.parametrize("name", ["the newest of a session", "a user's newest", "before a message"])
def test_the_newest_are_read_in_the_order_of_an_index(large, plans_of, name):
    for plan in plans_of(lambda: CALLS[name](large)):
        assert '"Node Type": "Sort"' not in plan
        assert '"Node Type": "Incremental Sort"' not in plan


def test_a_key_of_all_messages_has_an_index(large, plans_of):
    [plan] = plans_of(lambda: large.get_all(None, {"n": 7}))
    assert re.search(r'"Index Name": "t_large_\w+_by_filter"', plan)
