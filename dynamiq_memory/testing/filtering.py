"""The filter language."""

from __future__ import annotations

from typing import Any

from dynamiq_memory.testing.base import SESSION, USER, ConformanceBase, Twin, contents, say

ODD_KEYS = (
    "a.b",
    "a",
    'quo"te',
    "apostrophe's",
    "with space",
    "per%cent",
    "under_score",
    "$.x",
    "[0]",
    "",
    "ünï",
    "k') = 'x' OR 1=1 OR json_extract(metadata, '$.k",
    ":name",
    "?",
    "back\\slash",
    "user_id ",
)
TYPED: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({"k": 7}, ["int", "float"]),
    ({"k": 7.0}, ["int", "float"]),
    ({"k": "7"}, ["text"]),
    ({"k": True}, ["true"]),
    ({"k": 1}, ["one"]),
    ({"k": False}, ["false"]),
    ({"k": 0}, []),
    ({"k": None}, ["null", "absent"]),
    ({"k": [7, "7"]}, ["int", "float", "text"]),
    ({"k": [1, "nothing"]}, ["one"]),
    ({"k": []}, []),
    ({"k": ""}, ["empty"]),
    ({"k": {"gte": 1, "lt": 7}}, ["one"]),
    ({"k": {"gt": 1}}, ["int", "float"]),
    ({"k": {"lte": 7, "gte": 7}}, ["int", "float"]),
    ({"k": {"lt": 0}}, []),
    ({"k": 7, "l": "x"}, ["int"]),
    ({"k": 7, "l": None}, ["float"]),
)
"""Filters, and the messages of `test_values_are_typed` that they match."""


class FilteringConformance(ConformanceBase):
    """Tests of filters and of the scope by user and session."""

    def test_values_are_typed(self, store: Twin) -> None:
        values: dict[str, Any] = {"int": 7, "float": 7.0, "text": "7", "true": True, "one": 1, "false": False}
        values |= {"null": None, "absent": ..., "list": [7, "7", True], "dict": {"k": 7}, "empty": ""}
        messages = [say(name) if value is ... else say(name, k=value) for name, value in values.items()]
        messages[0].metadata["l"] = "x"
        store.add_many(messages)
        words = {"int", "float", "text", "null"}
        for filters, expected in (*TYPED, ({}, list(values))):
            assert contents(store.get_all(filters=filters)) == expected, filters
            assert store.count(filters) == len(expected), filters
            assert contents(store.search(filters=filters)) == expected, filters
            found = contents(store.search("int float text null", filters))
            assert sorted(found) == sorted(words & set(expected)), filters

    def test_strings_are_exact(self, store: Twin) -> None:
        values = ["%", "_", "a", "A", "a%", "ab", "a ", " a", "*", "a'b", 'a"b', "a;b", "ä", "a\u0308", "u 1", "u-1"]
        store.add_many([say(value, k=value) for value in values])
        for value in values:
            assert contents(store.get_all(filters={"k": value})) == [value]

    def test_user_and_session_are_exact(self, store: Twin) -> None:
        ids = ["user-1", "user 1", "USER-1", "%", "_", "user-1%", "u'; --", 'q"', "ä", "user-1 "]
        sessions = ("s", "S", "%")
        store.add_many([say(f"{user}|{session}", user=user, session=session) for user in ids for session in sessions])
        for user in ids:
            assert store.count({"user_id": user}) == 3
            assert contents(store.get_all(filters={"user_id": user, "session_id": "%"})) == [f"{user}|%"]
            assert contents(store.search("user", {"user_id": user, "session_id": "S"})) in ([], [f"{user}|S"])
        assert store.count({"session_id": "s"}) == len(ids)
        assert store.count({"user_id": ["%", "_"], "session_id": ["s", "S"]}) == 4

    def test_scope_may_be_absent(self, store: Twin) -> None:
        for user in (USER, None):
            for session in (SESSION, None):
                store.add(say(f"{user} {session}", user=user, session=session))
        assert contents(store.get_all(filters={"user_id": None})) == [f"None {SESSION}", "None None"]
        assert contents(store.get_all(filters={"user_id": USER, "session_id": None})) == [f"{USER} None"]
        assert contents(store.get_all(filters={"user_id": None, "session_id": None})) == ["None None"]
        message = store.get_all(filters={"user_id": None, "session_id": None})[0]
        assert message.user_id is None
        assert "user_id" not in message.metadata

    def test_any_key_is_a_key(self, store: Twin) -> None:
        for number, key in enumerate(ODD_KEYS):
            store.add_many(
                [
                    say(f"with {key}", metadata={key: "value", "nested": {"a": {"b": 1}}}, n=number),
                    say("without", metadata={f"{key}x": "value"}, n=number),
                ]
            )
        for number, key in enumerate(ODD_KEYS):
            assert contents(store.get_all(filters={key: "value"})) == [f"with {key}"]
            assert contents(store.get_all(filters={key: ["value", 3]})) == [f"with {key}"]
            assert contents(store.get_all(filters={key: None, "n": number})) == ["without"]
            assert store.count({key: "other"}) == 0

    def test_injected_filters_reach_nobody_else(self, store: Twin) -> None:
        store.add(say("secret", user="victim"))
        key = "user_id') = 'x' OR 1=1 OR json_extract(metadata, '$.user_id"
        assert store.get_all(filters={key: "x"}) == []
        assert store.search("secret", {key: "x"}) == []
        for value in ("' OR '1'='1", "%", "x') OR ('1'='1", "victim' --", "*"):
            assert store.get_all(filters={"user_id": value}) == []
            assert store.get_all(filters={"user_id": "victim", "k": value}) == []
            assert store.search("secret", {"user_id": value}) == []
            assert store.delete(user_id=value) == 0
        assert store.count() == 1

    def test_own_time_and_id_can_be_filtered(self, store: Twin) -> None:
        stored = store.add_many([say(f"{n}", timestamp=float(n)) for n in range(5)])
        assert contents(store.get_all(filters={"timestamp": {"gte": 1, "lt": 3}})) == ["1", "2"]
        assert contents(store.get_all(filters={"timestamp": 4})) == ["4"]
        assert contents(store.get_all(filters={"message_id": stored[2].id})) == ["2"]
        assert contents(store.get_all(filters={"message_id": [stored[0].id, stored[3].id, "none"]})) == ["0", "3"]
        assert store.count({"timestamp": None}) == store.count({"message_id": None}) == 0
        assert store.count({"timestamp": "4"}) == 0

    def test_fractions_and_large_numbers_compare_exactly(self, store: Twin) -> None:
        numbers = [0.1 + 0.2, 0.3, 1e-300, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 5e-324, 1.7976931348623157e308]
        for number in numbers:
            store.add(say(repr(number), k=number))
        for number in numbers:
            assert contents(store.get_all(filters={"k": number})) == [repr(number)]
        assert store.count({"k": {"gt": 0.3}}) == 5

    def test_the_filter_applies_before_the_limit(self, store: Twin) -> None:
        store.add(say("small", tenant="small"))
        store.add_many([say(f"{number}", tenant="big") for number in range(300)])
        assert contents(store.get_all(limit=1, filters={"tenant": "small"})) == ["small"]
        assert contents(store.search(limit=2, filters={"tenant": "small"})) == ["small"]
