"""JSON that keeps all metadata, and refusals that name the key."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import types
from collections import OrderedDict, UserDict, defaultdict
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamiq_memory import MessageError
from dynamiq_memory._json import copy_plain, dumps, is_clean, loads, normalise

# NUL and lone surrogates included; two of these that would make a pair have a test of their own.
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
ANY_TEXT = st.text(max_size=12).filter(lambda text: not PAIR.search(text))
KEYS = st.one_of(ANY_TEXT, st.sampled_from(["$type", "value", "dict", "datetime"]))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    ANY_TEXT,
    st.sampled_from(["$type", '"$type"', '{"$type":"bytes"}']),
    st.datetimes(),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.binary(max_size=8),
    st.decimals(allow_nan=False),
    st.uuids(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.fixed_dictionaries({"$type": st.sampled_from(["dict", "datetime", "bytes", "other"]), "value": inner}),
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal, of the same types, and for floats to the sign of zero."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, dt.datetime):
        return a == b and a.utcoffset() == b.utcoffset()
    return a == b and str(a) == str(b)


@given(VALUES)
@example({"$type": "datetime", "value": "not a time"})
@example({"$type": {"$type": "dict", "value": 1}})
@example({"$type": 1, "when": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "s": "\ud800"})
@example([5e-324, 1.7976931348623157e308, -0.0, 0.1, 1e16, 2**53 + 1, -(2**63)])
@example("a\0b\udfff\ud800")
@example(["\ud83d", "\ude00"])
def test_what_is_normalised_comes_back(value):
    plain = normalise(value, "x")
    assert same(plain, value)
    text = dumps(plain)
    assert is_clean(text)
    text.encode()
    json.loads(text)
    assert same(loads(text), value)


@pytest.mark.parametrize("value", ["\ud83d\ude00", {"\ud83d\ude00": 1, "\U0001f600": 2}], ids=["value", "key"])
def test_two_lone_surrogates_do_not_become_a_character(value):
    """As escapes, a high and a low one that follow each other read as one character; as keys they then collide."""
    try:
        plain = normalise(value, "x")
    except MessageError:
        return  # refused is as good
    assert same(loads(dumps(plain)), value)


@given(VALUES)
def test_a_copy_shares_nothing_mutable(value):
    def containers(part):
        if isinstance(part, dict | list):
            yield id(part)
            for inner in part.values() if isinstance(part, dict) else part:
                yield from containers(inner)

    plain = normalise(value, "x")
    again = copy_plain(plain)
    assert same(plain, again)
    for one, other in ((value, plain), (plain, again)):
        assert not set(containers(one)) & set(containers(other))


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Shade(Enum):
    DARK = "dark"


class Text(str):
    __slots__ = ()


class Ratio(float):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Shade.DARK, "dark"),
        (Text("x"), "x"),
        (Ratio(0.5), 0.5),
        ({Colour.RED: 1, Text("k"): 2}, {"red": 1, "k": 2}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (UserDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
    ],
    ids=str,
)
def test_relatives_of_plain_values_become_plain(value, plain):
    assert same(normalise(value, "x"), plain)


def nested(depth):
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "builtins.object"),
        ({1}, "builtins.set"),
        (1j, "builtins.complex"),
        (bytearray(b"x"), "bytearray"),
        (dt.timedelta(1), "datetime.timedelta"),
        (dt.time(1), "datetime.time"),
        (ValueError("x"), "ValueError"),
        (iter([1]), "list_iterator"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ({7: "x"}, "the key 7, a int"),
        ({None: "x"}, "the key None"),
        ({b"k": "x"}, "the key b'k'"),
        (nested(150), "nested deeper"),
        (CIRCLE, "contains itself"),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, str) else v,
)
def test_what_cannot_be_restored_is_refused_and_the_key_named(value, said):
    with pytest.raises(MessageError) as caught:
        normalise({"fine": 1, "odd": [0, {"deep": value}]}, "metadata")
    assert "metadata['odd'][1]['deep']" in str(caught.value)
    assert said in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_depth_that_is_still_allowed():
    assert same(loads(dumps(normalise(nested(90), "x"))), nested(90))


def test_a_decimal_and_a_uuid_are_exact():
    values = [Decimal("1.10"), Decimal("-0"), Decimal("1E+400"), Decimal("NaN"), UUID(int=7)]
    back = loads(dumps(normalise(values, "x")))
    assert [str(v) for v in back] == [str(v) for v in values]
    assert [type(v) for v in back] == [type(v) for v in values]


@pytest.mark.parametrize("text", ["", "abc", "é", "漢字", "\U0001f600", "\ud7ff\ue000"])
def test_clean_texts(text):
    assert is_clean(text)


@pytest.mark.parametrize("text", ["\0", "a\0", "é\0", "\ud800", "a\udfffb", "\udfff\ud800x"])
def test_unclean_texts(text):
    assert not is_clean(text)
