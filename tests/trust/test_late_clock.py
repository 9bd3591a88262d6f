"""A process whose clock is behind adds to sessions that others have written."""

from __future__ import annotations

import time

import pytest

from dynamiq_memory import Memory, MemoryBackend, Message, MessageRole
from dynamiq_memory.testing import Twin, say
from dynamiq_memory.testing.base import SCOPE
from tests.conftest import NewStore

HOUR = 3600.0


@pytest.fixture
def ahead(store: MemoryBackend) -> MemoryBackend:
    """A store in which a machine whose clock is an hour ahead has written two turns."""
    written = [
        say(text, role) for text, role in (("one", "user"), ("1", "assistant"), ("two", "user"), ("2", "assistant"))
    ]
    later = time.time() + HOUR
    store.add_many([each.model_copy(update={"timestamp": later + n}) for n, each in enumerate(written)])
    return store


def texts(memory: Memory) -> list[str]:
    return [str(message.content) for message in memory.get_agent_conversation()]


def test_a_turn_comes_after_what_was_read_before_it(ahead: MemoryBackend) -> None:
    memory = Memory(ahead, filters=SCOPE)
    question = Message(role=MessageRole.USER, content="three")  # made before anything is read
    assert texts(memory) == ["one", "1", "two", "2"]
    memory.add_turn([question, Message(role=MessageRole.ASSISTANT, content="3")])
    memory.add("user", "four")
    memory.add_many(
        [Message(role=MessageRole.ASSISTANT, content="4a"), Message(role=MessageRole.ASSISTANT, content="4b")]
    )
    memory.add("user", "five")
    assert texts(memory) == ["one", "1", "two", "2", "three", "3", "four", "4a", "4b", "five"]


def test_a_retry_moves_nothing(ahead: MemoryBackend) -> None:
    ahead.get_all()
    first, second = say("three"), say("four")
    for message in (first, second, first):
        ahead.add(message)
        ahead.get_all()
    assert [message.content for message in ahead.get_all()][-2:] == ["three", "four"]


def test_given_times_and_other_sessions_stay(ahead: MemoryBackend) -> None:
    ahead.get_all()
    now = time.time()
    assert ahead.add(say("given", timestamp=now)).timestamp == now
    assert (ahead.add(say("elsewhere", session="other")).timestamp or 0) < now + HOUR / 2
    own = say("replaced")
    assert ahead.replace({**SCOPE, "timestamp": now}, [own])[0].timestamp == now


def test_without_such_messages_times_are_those_of_the_clock(new_store: NewStore) -> None:
    store = Twin(new_store(), None)
    message = say("hello")
    store.add(message)
    store.get_all()
    assert store.add(message).timestamp == message.timestamp
