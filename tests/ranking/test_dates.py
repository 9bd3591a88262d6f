"""Dates that a question names."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import ConfigurationError, Memory, Message
from dynamiq_memory.ranking.dates import date_of, periods_of
from tests.conftest import NewStore

SCOPE = {"user_id": "u"}
TODAY = dt.date(2026, 12, 1)  # a Tuesday


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("question", "inside", "outside"),
    [
        ("What happened on 5 May 2023?", ["2023-05-05"], ["2023-05-06", "2022-05-05"]),
        ("the 5th of May?", ["2023-05-05", "2021-05-05"], ["2023-06-05", "2023-05-15"]),
        ("on May 5th, 2023", ["2023-05-05"], ["2023-05-06"]),
        ("What did we buy in March?", ["2023-03-31", "2026-03-01"], ["2023-04-01"]),
        ("during Sept. 2022", ["2022-09-30"], ["2023-09-30"]),
        ("early in july", ["2025-07-09"], ["2025-06-09"]),
        ("since 2023-05", ["2023-05-31"], ["2023-06-01"]),
        ("at 2023-05-31 exactly", ["2023-05-31"], ["2023-05-30"]),
        ("Where did we go in 2022?", ["2022-01-01"], ["2023-01-01"]),
        ("and yesterday?", ["2026-11-30"], ["2026-12-01", "2026-11-29"]),
        ("What did I say today?", ["2026-12-01"], ["2026-11-30"]),
        ("last Friday", ["2026-11-27"], ["2026-11-20"]),
        ("What did I eat on Friday?", ["2026-11-27"], ["2026-11-20"]),
        ("this Monday", ["2026-11-30"], ["2026-12-01"]),
        ("the day before yesterday", ["2026-11-29"], ["2026-11-30", "2026-11-28"]),
        ("last night", ["2026-11-30", "2026-12-01"], ["2026-11-29"]),
        ("last Tuesday", ["2026-11-24"], ["2026-12-01"]),
        ("last week", ["2026-11-23", "2026-11-29"], ["2026-11-22", "2026-11-30"]),
        ("last weekend", ["2026-11-28", "2026-11-29"], ["2026-11-27"]),
        ("this month", ["2026-12-01"], ["2026-11-30"]),
        ("last month", ["2026-11-01"], ["2026-10-31", "2026-12-01"]),
        ("last year", ["2025-02-03"], ["2026-02-03"]),
        ("three days ago", ["2026-11-28"], ["2026-11-27"]),
        ("2 weeks ago", ["2026-11-17", "2026-11-15"], ["2026-11-25"]),
    ],
)
def test_dates_are_known(question: str, inside: list[str], outside: list[str]) -> None:
    periods = periods_of(question, TODAY)
    for text in inside:
        assert any(period.has(day(text)) for period in periods), text
    for text in outside:
        assert not any(period.has(day(text)) for period in periods), text


@pytest.mark.parametrize(
    "question",
    [
        "May I march in?",
        "Did you second that?",
        "What did I pay for room 2023?",
        "the last of the cake",
        "1999 pears",
        "",
    ],
)
def test_what_is_no_date(question: str) -> None:
    assert periods_of(question, TODAY) == []


@given(
    st.lists(st.one_of(st.text(), st.sampled_from(["999 years ago", "in May", "2023-13", "31 February 2024", "last", "0"])))
    .map(" ".join),
    st.dates(),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
def test_any_question_at_any_time(question: str, today: dt.date, timestamp: float) -> None:
    date = date_of(timestamp, dt.UTC) or today
    assert all(period.has(date) in (True, False) for period in periods_of(question, today))


def at(text: str, when: str) -> Message:
    timestamp = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC).timestamp()
    return Message(role="user", content=text, timestamp=timestamp, metadata={"user_id": "u", "session_id": when})


def test_messages_of_the_time_come_first(new_store: NewStore) -> None:
    memory = Memory(new_store(), filters=SCOPE)
    memory.add_many([at(f"We went to the lake, {n}", f"2023-0{n}-10") for n in range(1, 9)])
    for number in range(1, 9):
        month = dt.date(2023, number, 1).strftime("%B")
        for question in (f"the lake in {month}", f"the lake on 10 {month} 2023"):
            found = memory.search(question, limit=3)
            assert found[0].text.endswith(str(number))
            assert found[0].score is not None
            assert found[1].score is not None
            assert found[0].score > found[1].score
    given = memory.get_agent_conversation("the lake in March", limit=1, strategy="relevant")
    assert [message.text for message in given] == ["We went to the lake, 3"]


def test_nothing_is_found_by_its_date_alone(new_store: NewStore) -> None:
    memory = Memory(new_store(), filters=SCOPE)
    memory.add_many([at("We went to the lake", "2023-03-10"), at("A pear", "2023-05-10")])
    assert [message.text for message in memory.search("the lake in May")] == ["We went to the lake"]


def test_days_are_those_of_the_users_time_zone(new_store: NewStore) -> None:
    store = new_store()
    store.add_many([at("lake, late", "2023-03-31T23:30"), at("lake, early", "2023-04-01T23:30")])
    for zone, expected in (("Europe/Brussels", "late"), (dt.UTC, "early"), ("UTC", "early")):
        memory = Memory(store, filters=SCOPE, timezone=zone)
        assert memory.search("lake on 1 April 2023")[0].text == f"lake, {expected}"


@pytest.mark.parametrize("wrong", ["Mars/Olympus", "", 5, "../etc", None])
def test_a_wrong_time_zone_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="timezone must be"):
        Memory(timezone=wrong)  # type: ignore[arg-type]
