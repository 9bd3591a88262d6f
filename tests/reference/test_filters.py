"""Rows b, b2, c, l of the reference's defects: filters."""

from __future__ import annotations

import pytest

from dynamiq_memory import FilterError, Memory, MessageRole


@pytest.mark.parametrize("pattern", ["%", "u-%", "u__", "U-1", "*", "u-1 "])
def test_b_a_filter_value_is_not_a_pattern(store, pattern):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "mine", {"user_id": "u-1", "label": "u-1"})
    assert memory.search(filters={"user_id": pattern}) == []
    assert memory.search(filters={"label": pattern}) == []
    assert memory.search("mine", filters={"user_id": pattern}) == []
    memory.add(MessageRole.USER, "wild", {"user_id": pattern, "label": pattern})
    assert [m.content for m in memory.search(filters={"user_id": pattern})] == ["wild"]
    assert [m.content for m in memory.search(filters={"label": pattern})] == ["wild"]
    assert [m.content for m in memory.get_all()] == ["mine", "wild"]


@pytest.mark.parametrize(
    "key",
    [
        "user_id') = 'x' OR 1=1 OR json_extract(metadata, '$.user_id",
        "a') IS NULL OR ('1",
        "'; DROP TABLE conversations; --",
        'say "hi"',
        "a.b[0]",
        "$.user_id",
        "",
        "100 %s ?1 :x",
    ],
)
def test_b2_a_filter_key_is_a_key_and_nothing_else(store, key):
    memory = Memory(backend=store)
    for number in range(3):
        memory.add(MessageRole.USER, f"m{number}", {"user_id": f"u-{number}"})
    assert memory.search(filters={key: "x"}) == []
    memory.add(MessageRole.USER, "keyed", {"user_id": "u-9", key: "x"})
    assert [m.content for m in memory.search(filters={key: "x"})] == ["keyed"]
    assert [m.content for m in memory.search(filters={key: ["y", "x"]})] == ["keyed"]
    assert [m.content for m in memory.search(filters={key: None})] == ["m0", "m1", "m2"]
    assert len(memory.get_all()) == 4


VALUES = {"true": True, "false": False, "one": 1, "zero": 0, "seven": 7, "text7": "7", "half": 0.5, "null": None}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (True, {"true"}),
        (False, {"false"}),
        (1, {"one"}),
        (1.0, {"one"}),
        (0, {"zero"}),
        (7, {"seven"}),
        ("7", {"text7"}),
        (["7", 1], {"text7", "one"}),
        ([True, 7], {"true", "seven"}),
        ([], set()),
        ({"gte": 0.5, "lt": 7}, {"one", "half"}),
        ({"gt": 0, "lte": 7}, {"one", "seven", "half"}),
        (None, {"null", "missing"}),
    ],
)
def test_c_one_typed_language_on_every_backend(store, condition, expected):
    memory = Memory(backend=store)
    for name, value in VALUES.items():
        memory.add(MessageRole.USER, name, {"user_id": "u", "value": value})
    memory.add(MessageRole.USER, "missing", {"user_id": "u"})
    found = memory.search(filters={"user_id": "u", "value": condition})
    assert {m.content for m in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("condition", [{"$gt": 1}, {"like": "%"}, {"gte": "a"}, {}, [["a"]], [None], float("nan")])
def test_c_other_filters_are_an_error_everywhere(store, condition):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "x", {"value": 1})
    with pytest.raises(FilterError, match="value"):
        memory.search(filters={"value": condition})


def test_l_default_filters_apply_to_every_call(store):
    everything = Memory(backend=store)
    mine = Memory(backend=store, filters={"user_id": "u-1"})
    for user in ("u-1", "u-2"):
        everything.add(MessageRole.USER, f"hello of {user}", {"user_id": user, "session_id": "same"})
    assert [m.content for m in mine.get_all()] == ["hello of u-1"]
    assert [m.content for m in mine.search("hello")] == ["hello of u-1"]
    assert [m.content for m in mine.get_agent_conversation()] == ["hello of u-1"]
    assert mine.get_all_messages_as_string() == "user: hello of u-1"
    mine.add(MessageRole.USER, "again", {"session_id": "same"})
    assert [m.metadata["user_id"] for m in everything.search("again")] == ["u-1"]


def test_l_delete_of_a_session_leaves_other_users_session_of_that_name(store):
    everything = Memory(backend=store)
    mine = Memory(backend=store, filters={"user_id": "u-1"})
    for user in ("u-1", "u-2"):
        everything.add(MessageRole.USER, f"of {user}", {"user_id": user, "session_id": "same"})
    mine.delete(session_id="same")
    assert [m.content for m in everything.get_all()] == ["of u-2"]


def test_l_clear_and_is_empty_stay_within_the_default_filters(store):
    everything = Memory(backend=store)
    mine = Memory(backend=store, filters={"user_id": "u-1"})
    everything.add(MessageRole.USER, "theirs", {"user_id": "u-2"})
    assert mine.is_empty()
    mine.add(MessageRole.USER, "mine")
    assert not mine.is_empty()
    mine.clear()
    assert mine.is_empty()
    assert [m.content for m in everything.get_all()] == ["theirs"]
