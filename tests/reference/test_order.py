"""Rows h and i of the reference's defects: metadata, order, limits."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from types import MappingProxyType

import pytest

from dynamiq_memory import Memory, Message, MessageError, MessageRole


def test_h_the_callers_metadata_is_not_changed(store):
    memory = Memory(backend=store)
    metadata = {"user_id": "u-1", "session_id": None, "note": None, "nested": {"list": [1]}}
    memory.add(MessageRole.USER, "one", metadata)
    assert metadata == {"user_id": "u-1", "session_id": None, "note": None, "nested": {"list": [1]}}
    memory.add(MessageRole.USER, "two", MappingProxyType(metadata))
    metadata["nested"]["list"].append(2)
    stored = memory.get_all()
    assert [m.metadata["nested"] for m in stored] == [{"list": [1]}, {"list": [1]}]
    assert [m.metadata["note"] for m in stored] == [None, None]
    stored[0].metadata["nested"]["list"].append(3)
    assert memory.get_all()[0].metadata["nested"] == {"list": [1]}


def test_h_each_message_has_a_time_of_its_own_though_the_dict_is_reused(store):
    memory = Memory(backend=store)
    metadata = {"user_id": "u-1"}
    for number in range(5):
        memory.add(MessageRole.USER, str(number), metadata)
    times = [m.metadata["timestamp"] for m in memory.get_all()]
    assert len(set(times)) == 5
    assert times == sorted(times)
    # A dict that was read back belongs to the message that it shows.
    memory.add(MessageRole.USER, "5", memory.get_all()[0].metadata)
    assert [m.content for m in memory.get_all()] == list("012345")


def test_h_times_of_any_kind_are_sorted_as_times(store):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "third", {"timestamp": 3_000})
    memory.add(MessageRole.USER, "first", {"timestamp": "1000.5"})
    memory.add(MessageRole.USER, "fourth", {"timestamp": "1970-01-01T01:06:40+00:00"})
    memory.add(MessageRole.USER, "second", {"timestamp": dt.datetime.fromtimestamp(2_000, dt.UTC)})
    stored = memory.get_all()
    assert [m.content for m in stored] == ["first", "second", "third", "fourth"]
    assert [m.metadata["timestamp"] for m in stored] == [1000.5, 2000.0, 3000.0, 4000.0]
    with pytest.raises(MessageError, match="timestamp"):
        memory.add(MessageRole.USER, "never", {"timestamp": "yesterday"})


def test_h_typed_values_come_back_as_they_were(store):
    values = {
        "when": dt.datetime(2024, 5, 7, 12, 30, tzinfo=dt.UTC),
        "day": dt.date(2024, 5, 7),
        "raw": b"\x00\xff",
        "price": Decimal("12.30"),
        "ratio": 0.1,
        "deep": {"list": [1.5, {"n": 2}], "none": None},
        "big": 2**62 + 1,
    }
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "x", values)
    back = memory.get_all()[0].metadata
    assert {key: back[key] for key in values} == values
    assert [type(back[key]) for key in values] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, float("nan"), float("inf"), 2**63, {7: "seven"}, 1j], ids=lambda v: type(v).__name__
)
def test_h_what_cannot_be_restored_is_refused_by_name(store, value):
    memory = Memory(backend=store)
    with pytest.raises(MessageError, match="'odd'"):
        memory.add(MessageRole.USER, "x", {"fine": 1, "odd": {"deep": [value]}})
    assert memory.get_all() == []


@pytest.fixture
def ten(store):
    memory = Memory(backend=store)
    for number in range(10):
        memory.add(MessageRole.USER, str(number), {"user_id": "u", "even": number % 2 == 0})
    return memory


def contents(messages):
    return "".join(m.content for m in messages)


def test_i_a_limit_is_the_most_recent_oldest_first_in_every_read(ten):
    assert contents(ten.get_all(limit=3)) == "789"
    assert contents(ten.search(limit=3)) == "789"
    assert contents(ten.search(filters={"user_id": "u"}, limit=3)) == "789"
    assert contents(ten.search(filters={"even": True}, limit=3)) == "468"
    assert contents(ten.get_agent_conversation(limit=3)) == "789"


def test_i_no_limit_is_everything_of_the_backend(ten):
    assert contents(ten.backend.get_all()) == "0123456789"
    assert contents(ten.backend.search()) == "0123456789"
    for number in range(30):
        ten.add(MessageRole.USER, "x", {"number": number})
    assert len(ten.backend.search("x")) == 30
    assert len(ten.backend.search()) == 40


@pytest.mark.parametrize("limit", [0, -1])
def test_i_a_limit_below_one_is_an_error_everywhere(ten, limit):
    for read in (
        lambda: ten.get_all(limit=limit),
        lambda: ten.search(limit=limit),
        lambda: ten.search("1", limit=limit),
        lambda: ten.get_agent_conversation(limit=limit),
        lambda: ten.backend.get_all(limit),
    ):
        with pytest.raises(ValueError, match=f"limit.*{limit}"):
            read()


def test_i_equal_times_keep_the_order_of_arrival(store):
    memory = Memory(backend=store)
    for number in (3, 1, 2, 0):
        memory.add(MessageRole.ASSISTANT if number % 2 else MessageRole.USER, str(number), {"timestamp": 5.0})
    memory.add(MessageRole.USER, "4", {"timestamp": 4.0})
    assert contents(memory.get_all()) == "43120"
    assert contents(memory.get_all(limit=2)) == "20"
    # A limit smaller than the session does not change the order.
    assert contents(memory.get_agent_conversation()) == "43120"


def test_i_a_batch_keeps_its_order(store):
    memory = Memory(backend=store)
    memory.add_many([Message(role="user", content=str(number)) for number in range(10)])
    assert contents(memory.get_all()) == "0123456789"
