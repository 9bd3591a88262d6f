"""A file of the dynamiq package opens and is upgraded in place; nothing is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from dynamiq_memory import DynamiqMemoryError, Memory, Message
from dynamiq_memory.backends import SQLite

SCOPE = {"user_id": "u-1", "session_id": "s-1"}
CALLS = [
    {"id": "c-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Pärís"}'}},
    {"id": "c-2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
]
BASE = 1_700_000_000.0


def scoped(second, **more):
    return {**SCOPE, "timestamp": BASE + second, **more}


def conversation(old):
    old.add("id-1", "user", "What is the weather in Pärís? 😀 天気", scoped(1, sequence=0))
    old.add("id-2", "assistant", "", scoped(2, sequence=1), tool_calls=CALLS)
    old.add("id-3", "tool", "sunny", scoped(3, sequence=2), tool_call_id="c-1", name="weather")
    old.add("id-4", "tool", "rain", scoped(4, sequence=3), tool_call_id="c-2", name="weather")
    old.add("id-5", "assistant", "Sunny here, rain there.", scoped(5, sequence=4))
    old.add("id-6", "user", "Thanks", {"user_id": "u-2", "session_id": None, "timestamp": BASE + 6})


def test_a_conversation_comes_over_whole(path, old_file):
    conversation(old_file(path))
    with SQLite(path) as store:
        messages = Memory(backend=store).get_all()
        assert [m.id for m in messages] == [f"id-{n}" for n in range(1, 7)]
        assert [m.role.value for m in messages] == ["user", "assistant", "tool", "tool", "assistant", "user"]
        assert [m.content for m in messages] == [
            "What is the weather in Pärís? 😀 天気",
            "",
            "sunny",
            "rain",
            "Sunny here, rain there.",
            "Thanks",
        ]
        assert [m.timestamp for m in messages] == [BASE + n for n in range(1, 7)]
        assert messages[1].tool_calls == CALLS
        assert [m.tool_calls for m in (messages[0], *messages[2:])] == [None] * 5
        assert [m.tool_call_id for m in messages] == [None, None, "c-1", "c-2", None, None]
        assert [m.name for m in messages] == [None, None, "weather", "weather", None, None]
        assert messages[2].metadata == {
            "user_id": "u-1",
            "session_id": "s-1",
            "sequence": 2,
            "timestamp": BASE + 3,
            "message_id": "id-3",
        }
        assert messages[5].user_id == "u-2"
        assert messages[5].session_id is None


def test_what_came_over_is_ranked_scoped_and_picked(path, old_file):
    conversation(old_file(path))
    with SQLite(path) as store:
        memory = Memory(backend=store)
        assert [m.id for m in memory.search("weather")] == ["id-1"]
        assert [m.id for m in memory.search("天気")] == ["id-1"]
        assert [m.id for m in memory.search("rain", {"user_id": "u-1"})] == ["id-4", "id-5"]
        assert memory.search("rain", {"user_id": "u-2"}) == []
        picked = memory.get_agent_conversation("rain", filters=SCOPE, strategy="relevant")
        assert [m.id for m in picked] == [f"id-{n}" for n in range(1, 6)]
        assert memory.count({"user_id": "u-2", "session_id": None}) == 1
        assert [m.id for m in memory.search(filters={"sequence": {"gte": 3}})] == ["id-4", "id-5"]
        assert memory.delete(user_id="u-1", session_id="s-1") == 5


def test_scores_are_those_of_a_store_that_was_written_by_us(path, tmp_path, old_file):
    conversation(old_file(path))
    with SQLite(path) as upgraded, SQLite(tmp_path / "other.db") as fresh:
        fresh.add_many(upgraded.get_all())
        assert upgraded.get_all() == fresh.get_all()
        assert upgraded.search("sunny weather") == fresh.search("sunny weather")
        assert upgraded.search("sunny weather")


def test_new_messages_come_after_the_old(path, old_file):
    conversation(old_file(path))
    with SQLite(path) as store:
        store.add(Message(role="assistant", content="welcome", metadata=SCOPE))
        assert [m.content for m in store.get_all(limit=2)] == ["Thanks", "welcome"]


def test_a_second_opening_does_nothing(path, old_file):
    conversation(old_file(path))
    with SQLite(path) as store:
        first = store.get_all()
    with SQLite(path) as store:
        assert store.get_all() == first
    with closing(sqlite3.connect(path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert names == {"conversations", "conversations_terms", "conversations_meta"}


def test_an_empty_table_and_many_rows(path, tmp_path, old_file):
    old_file(path)
    with SQLite(path) as store:
        assert store.is_empty()
        store.add(Message(role="user", content="x"))
    many = old_file(tmp_path / "many.db")
    with closing(sqlite3.connect(many.path)) as connection, connection:
        # Written out of order; more than a batch of the upgrade.
        connection.executemany(
            "INSERT INTO conversations VALUES (?, 'user', ?, ?, ?)",
            [
                (f"id-{n}", f"text {n}", f'{{"user_id": "u-{n % 3}", "timestamp": {BASE + n}}}', BASE + n)
                for n in sorted(range(2_500), key=lambda n: n * 7919 % 2_500)
            ],
        )
    with SQLite(many.path) as store:
        assert [m.id for m in store.get_all()] == [f"id-{n}" for n in range(2_500)]
        assert store.count({"user_id": "u-1"}) == 833
        assert [m.id for m in store.search("2499")] == ["id-2499"]


def test_rows_of_one_time_keep_the_order_of_writing(path, old_file):
    old = old_file(path)
    for n in (3, 1, 2):
        old.add(f"id-{n}", "user", str(n), {**SCOPE, "timestamp": 5.0})
    with SQLite(path) as store:
        assert [m.content for m in store.get_all()] == ["3", "1", "2"]


def odd_metadata():
    yield "NULL", None, {}
    yield "empty", "", {}
    yield "null", "null", {}
    yield "NaN", '{"ratio": NaN, "low": -Infinity}', {"ratio": "NaN", "low": "-Infinity"}
    yield (
        "huge",
        f'{{"big": {2**70}, "neg": {-(2**70)}, "fits": {2**63 - 1}}}',
        {
            "big": str(2**70),
            "neg": str(-(2**70)),
            "fits": 2**63 - 1,
        },
    )
    yield "int user", '{"user_id": 7, "session_id": 0}', {"user_id": "7", "session_id": "0"}
    yield "no user", '{"user_id": "", "session_id": null}', {}
    yield "unicode", '{"имя": "Ünïcödé \\ud83d\\ude00", "nul": "a\\u0000b"}', {"имя": "Ünïcödé 😀", "nul": "a\0b"}
    yield "lone", '{"half": "\\ud83d"}', {"half": "\ud83d"}
    yield "tag", '{"deep": {"$type": "bytes", "value": "AA=="}}', {"deep": {"$type": "bytes", "value": "AA=="}}
    yield "empty calls", '{"_tool_calls": "", "_tool_call_id": "", "_name": ""}', {}
    yield "own id", '{"message_id": "mine"}', {"dynamiq_message_id": "mine"}
    yield "list", "[1, 2]", {"metadata": [1, 2]}


ODD = list(odd_metadata())


@pytest.mark.parametrize(("metadata", "expected"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_odd_metadata(path, old_file, metadata, expected):
    old_file(path).raw("id-1", "user", "odd", metadata, 12.5)
    with SQLite(path) as store:
        (message,) = store.get_all()
        assert message.timestamp == 12.5
        assert message.content == "odd"
        assert message.metadata == {**expected, "timestamp": 12.5, "message_id": "id-1"}
        assert (message.tool_calls, message.tool_call_id, message.name) == (None, None, None)
        assert [m.id for m in store.search("odd")] == ["id-1"]


@pytest.mark.parametrize(
    ("metadata", "column", "when"),
    [
        ('{"timestamp": "12.5"}', "12.5", 12.5),
        ('{"timestamp": "2024-01-02T03:04:05+00:00"}', "2024-01-02T03:04:05+00:00", 1_704_164_645.0),
        ("{}", 77, 77.0),
        (None, None, 0.0),
        ('{"timestamp": true}', True, 1.0),
    ],
)
def test_odd_times_that_can_be_read(path, old_file, metadata, column, when):
    old_file(path).raw("id-1", "user", "odd", metadata, column)
    with SQLite(path) as store:
        assert [m.timestamp for m in store.get_all()] == [when]


def test_times_in_milliseconds_do_not_stop_the_upgrade(path, old_file):
    old = old_file(path)
    times = [1_700_000_000_000 + n for n in range(3)]
    for n, time in enumerate(times):
        old.add(f"id-{n}", "user", "odd", {**SCOPE, "timestamp": time})
    with SQLite(path) as store:
        messages = store.get_all()
        assert [m.id for m in messages] == ["id-0", "id-1", "id-2"]
        for message, time in zip(messages, times, strict=True):
            assert time in (
                message.timestamp,
                (message.timestamp or 0) * 1000,
                message.metadata.get("dynamiq_timestamp"),
            )


@pytest.mark.parametrize("text", ["2024-01-02T03:04:05", "yesterday", ""])
def test_a_time_that_cannot_be_read_is_kept_beside(path, old_file, text):
    old_file(path).raw("id-1", "user", "odd", f'{{"timestamp": "{text}"}}', text)
    with SQLite(path) as store:
        (message,) = store.get_all()
        assert message.metadata["dynamiq_timestamp"] == text


@pytest.mark.parametrize("text", ["NaN", "Infinity", '"nan"'])
def test_a_time_that_is_not_a_number_does_not_stop_the_upgrade(path, old_file, text):
    """dynamiq stores `metadata={"timestamp": float("nan")}` without a word."""
    old = old_file(path)
    conversation(old)
    old.raw("id-nan", "user", "odd", f'{{"user_id": "u-9", "timestamp": {text}}}', None)
    with SQLite(path) as store:
        assert store.count() == 7
        assert [m.id for m in store.get_all(filters={"user_id": "u-9"})] == ["id-nan"]


def test_rows_without_an_id(path, old_file):
    old = old_file(path)
    for content in ("a", "b"):
        old.raw(None, "user", content, None, 1.0)
    with SQLite(path) as store:
        messages = store.get_all()
        assert [m.content for m in messages] == ["a", "b"]
        assert len({m.id for m in messages}) == 2


@pytest.mark.parametrize("kind", ["unknown role", "broken metadata", "broken tool calls"])
def test_a_row_that_cannot_be_read_leaves_the_file_to_the_old_package(path, old_file, kind):
    old = old_file(path)
    conversation(old)
    row = {
        "unknown role": ("id-7", "critic", "hm", "{}", BASE + 7),
        "broken metadata": ("id-7", "user", "hm", '{"user_id": ', BASE + 7),
        "broken tool calls": ("id-7", "assistant", "hm", '{"_tool_calls": {"not": "a list"}}', BASE + 7),
    }[kind]
    old.raw(*row)
    rows, schema = old.rows(), old.schema()
    with pytest.raises(Exception, match=r".") as caught:
        SQLite(path)
    assert old.rows() == rows
    assert old.schema() == schema
    # The old package goes on, and once the row is mended so do we.
    old.add("id-8", "user", "still here", scoped(8))
    old._execute("DELETE FROM conversations WHERE id = 'id-7'")
    with SQLite(path) as store:
        assert [m.id for m in store.get_all()] == [f"id-{n}" for n in (1, 2, 3, 4, 5, 6, 8)]
    # Our error must say which row it is.
    assert isinstance(caught.value, DynamiqMemoryError), repr(caught.value)
    assert "id-7" in str(caught.value)


def test_a_table_that_stands_in_the_way_is_not_touched(path, old_file):
    old = old_file(path)
    conversation(old)
    old._execute("CREATE TABLE conversations_terms (mine TEXT)")
    old._execute("INSERT INTO conversations_terms VALUES ('precious')")
    rows, schema = old.rows(), old.schema()
    with pytest.raises(DynamiqMemoryError):
        SQLite(path)
    assert old.rows() == rows
    assert old.schema() == schema
    assert old._execute("SELECT * FROM conversations_terms") == [("precious",)]


@pytest.mark.parametrize(
    "name",
    ['say "hi"', "two words", "a:b", "::x", "100%", "%s", "%(x)s", "it's", "[x]", "a.b", "a\\:b", "sélect", "?1"],
)
def test_any_name_of_a_table(path, old_file, name):
    conversation(old_file(path, name))
    with SQLite(path, index_name=name) as store:
        assert [m.id for m in store.get_all()] == [f"id-{n}" for n in range(1, 7)]
        assert {m.id for m in store.search("Sunny rain", SCOPE, limit=2)} == {"id-4", "id-5"}
        store.add(Message(role="user", content="hello", metadata=SCOPE | {"k": 1}))
        assert store.count({"k": 1}) == 1
        assert [m.content for m in store.get_all(1, SCOPE)] == ["hello"]
        assert len(store.sessions()) == 2
        replaced = store.replace(SCOPE, [Message(role="user", content="instead")])
        assert [m.content for m in store.get_all(filters=SCOPE)] == [m.content for m in replaced]
        assert store.delete(user_id="u-2") == 1
    with SQLite(path, index_name=name) as store:
        assert store.count() == 1


def test_two_tables_of_one_file_do_not_mix(path, old_file):
    conversation(old_file(path, "mine"))
    with SQLite(path, "mine") as mine, SQLite(path, "other") as other:
        assert other.is_empty()
        other.add(Message(role="user", content="rain"))
        assert len(mine.search("rain")) == 2
        assert mine.clear() == 6
        assert other.count() == 1


def test_an_index_of_the_users_on_the_old_table_does_not_stop_the_upgrade(path, old_file):
    old = old_file(path)
    conversation(old)
    old._execute("CREATE INDEX my_own_index ON conversations (timestamp)")
    with SQLite(path) as store:
        assert store.count() == 6
