"""The filter language: its forms, its meaning, and the same meaning on both backends."""

from __future__ import annotations

import math
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from dynamiq_memory import FilterError, InvalidArgumentError, Message
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.filters import Filter, parse, to_mapping

# Each example makes stores: to shrink a failing one would take minutes.
UNSHRUNK = (Phase.explicit, Phase.generate)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
SCALARS = st.one_of(TEXT, NUMBERS, st.booleans())
KEYS = TEXT.filter(lambda key: key not in ("user_id", "session_id", "message_id"))
RANGES = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), NUMBERS, min_size=1)
CONDITIONS = st.one_of(
    st.none(),
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.lists(SCALARS, max_size=4).map(tuple),
    st.sets(SCALARS, max_size=4),
    st.frozensets(SCALARS, max_size=4),
    RANGES,
)
TEXT_CONDITIONS = st.one_of(st.none(), TEXT, st.lists(TEXT, max_size=3))
FILTERS = st.builds(
    lambda own, others: {**others, **own},
    st.fixed_dictionaries(
        {}, optional={"user_id": TEXT_CONDITIONS, "session_id": TEXT_CONDITIONS, "message_id": TEXT_CONDITIONS}
    ),
    st.dictionaries(KEYS, CONDITIONS, max_size=3),
)


@settings(max_examples=60)
@given(FILTERS)
def test_all_of_the_language_is_accepted(filters):
    parsed = parse(filters)
    assert [condition.key for condition in parsed.conditions] == list(filters)
    parse(MappingProxyType(filters))


class Thing:
    pass


NOT_SCALARS = st.one_of(
    st.just(math.nan),
    st.just(math.inf),
    st.integers(min_value=2**63),
    st.integers(max_value=-(2**63) - 1),
    st.binary(),
    st.builds(Thing),
    st.builds(complex, st.just(1), st.just(1)),
    st.just("a\0b"),
    st.just("\ud800"),
)
NO_CONDITIONS = st.one_of(
    NOT_SCALARS,
    st.just({}),
    st.lists(st.one_of(st.none(), NOT_SCALARS, st.just([1]), st.just({"gte": 1})), min_size=1, max_size=2),
    st.dictionaries(
        st.one_of(st.sampled_from(["$gt", "eq", "ne", "in", "GTE", "", ">="]), st.integers(), st.none()),
        NUMBERS,
        min_size=1,
    ),
    st.dictionaries(
        st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(TEXT, st.booleans(), st.none(), NOT_SCALARS), min_size=1
    ),
    st.builds(iter, st.just([1])),
    st.just({"a": 1}.keys()),
    st.builds(range, st.just(3)),
)


@given(st.dictionaries(KEYS, CONDITIONS, max_size=2), KEYS, NO_CONDITIONS)
@example({}, "k", {"gte": 1, "like": 2})
@example({}, "k", [1, {"gte": 1}])
def test_nothing_else_is_accepted_and_the_key_is_named(others, key, condition):
    with pytest.raises(FilterError) as caught:
        parse({**others, key: condition})
    assert repr(key) in str(caught.value)
    assert isinstance(caught.value, InvalidArgumentError)


@pytest.mark.parametrize("filters", ["user_id", [("user_id", "u")], 5, {"a"}, True])
def test_filters_that_are_not_a_dict(store, filters):
    for call in (parse, lambda f: store.get_all(filters=f), lambda f: store.search("x", f), store.count, store.clear):
        with pytest.raises(FilterError, match=r"must be a dict"):
            call(filters)


@pytest.mark.parametrize("key", [1, None, b"k", ("a",), "a\0", "\ud800"])
def test_keys_that_no_message_can_have(key):
    with pytest.raises(FilterError, match="key"):
        parse({key: 1})


@pytest.mark.parametrize("key", ["user_id", "session_id", "message_id"])
@pytest.mark.parametrize("value", [7, True, 1.5, ["u", 7], {"gte": 1}])
def test_ids_are_strings(key, value):
    with pytest.raises(FilterError, match=rf"{key}.*string"):
        parse({key: value})


@pytest.mark.parametrize("filters", [None, {}, MappingProxyType({})], ids=["None", "empty", "empty mapping"])
def test_no_filter_matches_everything(store, filters):
    store.add(Message(role="user", content="x"))
    assert store.count(filters) == 1


# --- the meaning, written a second time ---------------------------------------------------------------------------


def kind(value):
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def meets(value, condition):
    if condition is None:
        return value is None
    if isinstance(condition, dict):
        return kind(value) == "number" and all(
            {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[operator]
            for operator, bound in condition.items()
        )
    options = condition if isinstance(condition, list | tuple | set | frozenset) else [condition]
    return any(kind(value) == kind(option) and value == option for option in options)


STORED_KEYS = ["a.b", "$type", 'q"']
# Few values, so that filters hit; neighbours that a careless comparison takes for equal.
LIKELY = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        1.0,
        -0.0,
        0.5,
        "1",
        "",
        "true",
        "a",
        "A",
        "a ",
        "é",
        "e\u0301",
        "%",
        "_",
        2**53,
        2**53 + 1,
    ]
)
METADATA = st.dictionaries(
    st.sampled_from(STORED_KEYS), st.one_of(LIKELY, st.just([1]), st.just({"$type": "x"})), min_size=1, max_size=3
)
LIKELY_SCALARS = LIKELY.filter(lambda value: value is not None)
LIKELY_FILTERS = st.dictionaries(
    st.sampled_from(STORED_KEYS),
    st.one_of(
        LIKELY,
        st.lists(LIKELY_SCALARS, max_size=3),
        st.dictionaries(
            st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from([0, 1, 0.5, 2**53, float(2**53)]), min_size=1
        ),
    ),
    min_size=1,
    max_size=2,
)
IDS = st.sampled_from([None, "u", "v", "U", "%"])
ID_FILTERS = st.fixed_dictionaries(
    {}, optional={key: st.one_of(IDS, st.lists(IDS.filter(bool), max_size=3)) for key in ("user_id", "session_id")}
)


def test_keys_are_taken_literally(store):
    keys = ["a", "A", "a.b", "$type", "", 'q"', "it's", "100%", "é", "e\u0301", "timestamp ", "\\", "[0]", "$", "\n"]
    for number, key in enumerate(keys):
        store.add(Message(role="user", content=key, metadata={key: number}))
    for number, key in enumerate(keys):
        assert [m.content for m in store.get_all(filters={key: number})] == [key]
        assert store.count({key: None}) == len(keys) - 1


@settings(max_examples=30, phases=UNSHRUNK)
@given(
    st.lists(st.tuples(IDS, IDS, METADATA), min_size=4, max_size=8),
    st.lists(st.builds(dict.__or__, ID_FILTERS, LIKELY_FILTERS), min_size=4, max_size=8),
    ID_FILTERS,
)
def test_both_backends_mean_what_the_language_says(stored, filters, scope):
    messages = [
        Message(role="user", content=f"word {n}", metadata={**metadata, "user_id": user, "session_id": session})
        for n, (user, session, metadata) in enumerate(stored)
    ]
    for backend in (InMemory(), SQLite(":memory:")):
        with backend:
            backend.add_many(messages)
            for each in [*filters, scope]:
                expected = [m.content for m in messages if all(meets(m.metadata.get(k), v) for k, v in each.items())]
                assert [m.content for m in backend.get_all(filters=each)] == expected, each
                assert backend.count(each) == len(expected)
                assert sum(s.messages for s in backend.sessions(each)) == len(expected)
                assert [m.content for m in backend.get_all(2, each)] == expected[-2:]
                assert sorted(m.content for m in backend.search("word", each)) == expected
            assert backend.clear(filters[0]) == len(
                [m for m in messages if all(meets(m.metadata.get(k), v) for k, v in filters[0].items())]
            )


def test_timestamp_and_message_id_are_the_messages_own(store):
    stored = store.add_many([Message(role="user", content=str(n), timestamp=float(n)) for n in range(5)])

    def found(filters):
        return "".join(m.content for m in store.get_all(filters=filters))

    assert found({"timestamp": 3}) == "3"
    assert found({"timestamp": [1.0, 4, True, "2"]}) == "14"
    assert found({"timestamp": {"gte": 1, "lt": 3.5}}) == "123"
    assert found({"timestamp": {"gt": 3}, "message_id": [stored[3].id, stored[4].id]}) == "4"
    assert found({"timestamp": None}) == ""
    assert found({"timestamp": True}) == ""
    assert found({"timestamp": "3"}) == ""
    assert found({"timestamp": []}) == ""
    assert found({"message_id": stored[2].id}) == "2"
    assert found({"message_id": None}) == ""
    assert found({"message_id": []}) == ""


class User(StrEnum):
    ME = "u-1"


def test_subclasses_of_plain_values_filter_as_these(store):
    store.add(Message(role="user", content="x", metadata={"user_id": User.ME, "who": User.ME}))
    for filters in ({"user_id": User.ME}, {"user_id": "u-1"}, {"who": User.ME}, {"who": ["u-1"]}):
        assert store.count(filters) == 1


def test_as_many_values_as_one_likes(store):
    """SQLite takes 32,766 parameters by default, this build of it perhaps more."""
    store.add_many([Message(role="user", content="x", id=f"i-{n}", metadata={"user_id": f"u-{n}"}) for n in range(3)])
    many = 260_000
    assert store.count({"user_id": [f"u-{n}" for n in range(many)]}) == 3
    assert store.count({"message_id": [f"i-{n}" for n in range(many)]}) == 3


class Compared(str):
    """Counts how often it is compared."""

    __slots__ = ()
    times = 0

    def __eq__(self, other):
        type(self).times += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_message_is_not_compared_with_each_of_many_values():
    """Retrieval asks for as many ids as it picked: comparing each with each is quadratic."""
    many = 400
    with InMemory() as store:
        store.add_many([Message(role="user", content="x", id=f"i-{n}", metadata={"k": f"v-{n}"}) for n in range(many)])
        for key, letter in (("message_id", "i"), ("k", "v")):
            Compared.times = 0
            assert store.count({key: [Compared(f"{letter}-{n}") for n in range(many)]}) == many
            assert Compared.times <= 10 * many


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"k": 1}, {"l": 2}, {"k": [1], "l": [2]}),
        ({"k": [1, "1", True, 2]}, {"k": [True, 2.0, "x"]}, {"k": [True, 2.0]}),
        ({"k": [1, 5, "a"]}, {"k": {"gt": 1}}, {"k": [5]}),
        ({"k": {"gte": 1, "lt": 9}}, {"k": {"gte": 3, "lt": 5, "gt": 2}}, {"k": {"gte": 3, "lt": 5, "gt": 2}}),
        ({"k": None}, {"k": None}, {"k": None}),
        ({"k": None}, {"k": 1}, {"k": []}),
        ({"k": {"lt": 1}}, {"k": None}, {"k": []}),
        ({"user_id": None}, {"user_id": ["u"]}, {"user_id": []}),
    ],
)
def test_two_filters_in_one_mapping(one: dict[str, Any], other: dict[str, Any], both: dict[str, Any]) -> None:
    joined = Filter(parse(one).conditions + parse(other).conditions)
    assert repr(to_mapping(joined)) == repr(both)
    assert parse(to_mapping(joined)).conditions == parse(both).conditions
