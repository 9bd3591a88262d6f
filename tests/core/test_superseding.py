"""Superseded messages: stored, found and marked, but not given as part of the conversation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import (
    InvalidArgumentError,
    Memory,
    MemoryBackend,
    MemoryRetrievalStrategy,
    Message,
    MessageError,
    MessageRole,
)

SCOPE = {"user_id": "u", "session_id": "s"}


def say(text: str, role: MessageRole | None = None, **metadata: Any) -> Message:
    """A message whose id is its text; texts that begin with q are questions."""
    role = role or (MessageRole.USER if text.startswith("q") else MessageRole.ASSISTANT)
    return Message(role=role, content=text, id=text, metadata={**SCOPE, **metadata})


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    memory = Memory(backend=store, filters=SCOPE)
    memory.add_many([say(text) for text in ("q0", "a0", "q1 ferry", "a1 ferry", "q2", "a2")])
    return memory


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


def test_a_message_and_all_that_follow_are_marked(memory: Memory) -> None:
    marked = memory.supersede("q1 ferry")
    assert texts(marked) == ["q1 ferry", "a1 ferry", "q2", "a2"]
    assert len({message.superseded_at for message in marked}) == 1
    assert texts(memory.get_all()) == ["q0", "a0", "q1 ferry", "a1 ferry", "q2", "a2"]
    assert [message.superseded_at is None for message in memory.get_all()] == [True] * 2 + [False] * 4


@pytest.mark.parametrize("strategy", MemoryRetrievalStrategy)
def test_an_agent_is_not_given_what_is_superseded(memory: Memory, strategy: MemoryRetrievalStrategy) -> None:
    memory.supersede("q1 ferry")
    memory.add_many([say("q3 edited ferry"), say("a3")])
    given = texts(memory.get_agent_conversation("ferry", strategy=strategy, limit=10))
    assert "q3 edited ferry" in given
    assert not {"q1 ferry", "a1 ferry", "q2", "a2"} & set(given)
    assert "q1 ferry" in texts(memory.search("ferry"))


def test_another_answer_takes_the_place_of_the_first(memory: Memory) -> None:
    memory.supersede("a2")
    memory.add_many([say("a2 again")])
    assert texts(memory.get_agent_conversation()) == ["q0", "a0", "q1 ferry", "a1 ferry", "q2", "a2 again"]


def test_many_superseded_messages_leave_the_limit_to_the_others(memory: Memory) -> None:
    memory.add_many([say(f"{kind}{n} ferry") for n in range(3, 200) for kind in "qa"])
    memory.supersede("q3 ferry")
    assert texts(memory.get_agent_conversation(limit=4)) == ["q1 ferry", "a1 ferry", "q2", "a2"]
    assert texts(memory.get_agent_conversation("ferry", limit=2, strategy="relevant")) == ["q1 ferry", "a1 ferry"]


def test_restoring_takes_back_one_superseding(memory: Memory) -> None:
    memory.supersede("q2")
    memory.supersede("q1 ferry")
    assert texts(memory.restore("a1 ferry")) == ["q1 ferry", "a1 ferry"]
    assert texts(memory.get_agent_conversation()) == ["q0", "a0", "q1 ferry", "a1 ferry"]
    assert memory.restore("a1 ferry") == []
    memory.restore("a2")
    assert texts(memory.get_agent_conversation()) == ["q0", "a0", "q1 ferry", "a1 ferry", "q2", "a2"]


def test_only_the_message_s_session_is_touched(store: MemoryBackend) -> None:
    memory = Memory(backend=store)
    memory.add_many([say("q0"), say("q0", session_id="t"), say("q0", user_id="v"), say("a0", user_id="v")])
    with pytest.raises(InvalidArgumentError, match="several messages have the id 'q0'"):
        memory.supersede("q0")
    assert len(memory.supersede("q0", SCOPE)) == 1
    assert [message.metadata["session_id"] for message in memory.get_all() if message.superseded_at] == ["s"]


@pytest.mark.parametrize("method", ["supersede", "restore", "asupersede", "arestore"])
def test_an_unknown_message_is_an_error(memory: Memory, method: str) -> None:
    def call(message_id: Any) -> Any:
        result = getattr(memory, method)(message_id)
        return asyncio.run(result) if method.startswith("a") else result

    with pytest.raises(InvalidArgumentError, match="no message has the id 'nothing'"):
        call("nothing")
    with pytest.raises(MessageError, match="message_id must be a string"):
        call(7)
    with pytest.raises(InvalidArgumentError, match=r"use message[.]id"):
        call(memory.get_all()[0])


def test_asynchronously(memory: Memory) -> None:
    async def check() -> None:
        assert texts(await memory.asupersede("q2")) == ["q2", "a2"]
        assert texts(await memory.aget_agent_conversation()) == ["q0", "a0", "q1 ferry", "a1 ferry"]
        assert texts(await memory.arestore("q2")) == ["q2", "a2"]

    asyncio.run(check())


@given(
    st.lists(st.integers(0, 30), max_size=4),
    st.integers(1, 12),
    st.sampled_from(list(MemoryRetrievalStrategy)),
)
def test_whatever_is_superseded_the_rest_is_given_as_if_it_were_all(
    places: list[int], limit: int, strategy: MemoryRetrievalStrategy
) -> None:
    whole, rest = Memory(filters=SCOPE), Memory(filters=SCOPE)
    for place in range(8):
        whole.add_many([say(f"q{place} ferry {place}"), say(f"a{place} ferry")])
        stored = whole.get_all()
        for superseded in places:
            if superseded // 4 == place and superseded % 4 < 2:
                whole.supersede(stored[-1 - superseded % 4].id)
    rest.add_many([message for message in whole.get_all() if message.superseded_at is None])
    options: dict[str, Any] = {"query": "ferry", "limit": limit, "strategy": strategy}
    assert texts(whole.get_agent_conversation(**options)) == texts(rest.get_agent_conversation(**options))
