"""The encodings that order and scope depend on."""

from __future__ import annotations

import math
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from dynamiq_memory.backends._order import Arrivals, time_digits, time_of
from dynamiq_memory.backends.dynamodb.filters import attribute_name, comparable
from dynamiq_memory.backends.dynamodb.keys import (
    POSITION_DIGITS,
    highest_position,
    key_attributes,
    key_part,
    lowest_position,
    message_key,
    partition,
    registration_key,
    shifted,
)
from tests.fakes.dynamodb.limits import check_key, check_value

TIMES = st.floats(allow_nan=False)
# What an identifier may be: no NUL, no lone surrogates.
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=500)


@given(TIMES, TIMES)
def test_times_sort_as_numbers(one: float, other: float) -> None:
    assert (one < other) == (time_digits(one) < time_digits(other))
    assert (one == other) == (time_digits(one) == time_digits(other))
    assert time_of(time_digits(one)) == one


def test_neighbouring_times_differ() -> None:
    for moment in (0.0, -0.0, 1.7e9, -1.5, 5e-324):
        after = math.nextafter(moment, math.inf)
        assert lowest_position(moment) < highest_position(moment) < lowest_position(after)
        assert shifted(highest_position(moment), 1) == lowest_position(after)
        assert len(lowest_position(moment)) == POSITION_DIGITS


@settings(max_examples=40)  # long texts take time to make
@given(st.none() | IDS, st.none() | IDS, IDS, st.none() | IDS, st.none() | IDS, IDS)
def test_keys_are_valid_and_of_one_message_each(
    user: str | None, session: str | None, id_: str, user2: str | None, session2: str | None, id2: str
) -> None:
    one, other = message_key(user, session, id_), message_key(user2, session2, id2)
    check_key(key_attributes(one))
    assert (one == other) == ((user, session, id_) == (user2, session2, id2))


@given(IDS, IDS)
def test_a_registration_key_is_not_a_message_key(session: str, user: str) -> None:
    key = registration_key(session, user)
    check_key(key_attributes(key))
    assert key[0] == partition(None, session)
    assert "@" < key[1] < "A"
    assert not "@" <= message_key(None, session, user)[1] <= "A"


def test_no_session_lies_within_another() -> None:
    names = ["a", "a/", "a/b", "a%2F", "%", "%%", "A" * 401, "%%" + "0" * 64, "", "ä", "a\u0308"]
    parts = [key_part(name) for name in names if name] + [key_part(None)]
    assert len(set(parts)) == len(parts)
    assert not any("/" in each for each in parts)


@given(st.dictionaries(st.text(max_size=600), st.integers(), max_size=3))
def test_attribute_names_are_plain_and_distinct(keys: dict[str, int]) -> None:
    clean = [key for key in keys if not any("\ud800" <= c <= "\udfff" for c in key)]
    names = [attribute_name(key) for key in clean]
    assert len(set(names)) == len(clean)
    assert all(name and name.isascii() and "." not in name and len(name) < 255 * 5 for name in names)


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_values_are_within_the_services_numbers(value: float) -> None:
    typed = comparable(value)
    if typed is not None:
        check_value(typed)


def test_arrivals_increase_over_threads() -> None:
    arrivals = Arrivals()
    found: list[list[str]] = []

    def draw() -> None:
        found.append([each for _ in range(100) for each in arrivals.keys(3)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in found)
    assert len({each for own in found for each in own}) == 4 * 300
