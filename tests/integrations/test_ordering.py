"""The times of messages that an adapter stores as one batch."""

from __future__ import annotations

import time

from dynamiq_memory import Memory, Message, MessageRole
from dynamiq_memory.integrations.ordering import move_after, set_batch_times, set_times_between
from dynamiq_memory.messages import LATEST


def batch(*texts: str) -> list[Message]:
    return [Message(role=MessageRole.USER, content=text) for text in texts]


def put(memory: Memory, *texts: str) -> None:
    messages = batch(*texts)
    set_batch_times(messages, after=memory.get_all(limit=1))
    memory.add_many(messages)


def test_nothing_of_this_process_comes_between() -> None:
    first, second = batch("a", "b", "c"), batch("d", "e")
    set_batch_times(first)
    set_batch_times(second)
    between = batch("f")
    ordered = sorted([*second, *between, *first], key=lambda message: message.timestamp or 0.0)
    assert [message.text for message in ordered] == ["a", "b", "c", "d", "e", "f"]


def test_a_session_of_the_far_future_leaves_the_others_alone() -> None:
    memory = Memory()
    far, near = memory.scoped("far"), memory.scoped("near")
    far.add("user", "far", {"timestamp": time.time() + 365 * 86_400})
    near.add("user", "near", {"timestamp": time.time() + 0.5})
    put(far, "x", "y")
    put(near, "a", "b")
    assert [message.text for message in far.get_all()] == ["far", "x", "y"]
    assert [message.text for message in near.get_all()] == ["near", "a", "b"]
    assert (near.get_all()[-1].timestamp or 0.0) < time.time() + 2


def test_the_last_time_there_is_can_still_be_followed() -> None:
    memory = Memory().scoped("s")
    memory.add("user", "last", {"timestamp": LATEST})
    put(memory, "x", "y")
    put(memory, "z")
    assert [message.text for message in memory.get_all()] == ["last", "x", "y", "z"]


def test_what_belongs_between_two_messages_comes_directly_after_the_first() -> None:
    memory = Memory().scoped("s")
    first, other = memory.add("user", "first"), memory.add("user", "other")
    for texts in (("a", "b"), ("c",)):
        between = batch(*texts)
        set_times_between(between, memory.get_all()[-2], other)
        memory.add_many(between)
    assert [message.text for message in memory.get_all()] == ["first", "a", "b", "c", "other"]
    assert all((message.timestamp or 0.0) < (first.timestamp or 0.0) + 1e-3 for message in memory.get_all()[:-1])


def test_where_no_time_is_between_the_arrival_counts() -> None:
    memory = Memory().scoped("s")
    put(memory, "first", "other")
    between = batch("a", "b")
    set_times_between(between, *memory.get_all())
    memory.add_many(between)
    assert [message.text for message in memory.get_all()] == ["first", "a", "b", "other"]


def test_batches_after_the_same_message_do_not_mix() -> None:
    memory = Memory().scoped("s")
    future = memory.add("user", "future", {"timestamp": time.time() + 60})
    first, second = batch("a", "b"), batch("c", "d")
    set_batch_times(first, after=[future])
    set_batch_times(second, after=[future])
    memory.add_many([*second, *first])
    assert [message.text for message in memory.get_all()] == ["future", "a", "b", "c", "d"]


def test_times_are_kept_unless_the_session_is_ahead_of_the_clock() -> None:
    messages = batch("a", "b")
    times = [message.timestamp for message in messages]
    move_after(messages, [])
    move_after(messages, batch("stored in the meantime"))
    assert [message.timestamp for message in messages] == times
    move_after(messages, [Message(role=MessageRole.USER, timestamp=time.time() + 60)])
    assert all((message.timestamp or 0.0) > time.time() + 59 for message in messages)
