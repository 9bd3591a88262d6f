"""Clients that send a long conversation each time: what it costs, counted in messages, and where."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from dynamiq_memory import Memory, Message, MessageRole
from langchain_dynamiq_memory import DynamiqMemoryMiddleware, _prompt, _transcript
from langchain_dynamiq_memory._messages import outline, to_message
from tests.fakes.counting import Counting
from tests.fakes.langchain import Talker

ANN = {"user_id": "ann", "session_id": "s-1"}
RUN: Any = {"configurable": ANN}


def conversation(count: int, memory: Memory) -> list[tuple[str, str]]:
    """A stored conversation, as a client without ids sends it."""
    old = [(role, f"{role} {number}") for number in range(count // 2) for role in ("user", "assistant")]
    memory.add_many([Message(role=MessageRole(role), content=text, metadata=dict(ANN)) for role, text in old])
    return old


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which messages are described, one for each time."""
    threads: list[int] = []

    def counting(message: BaseMessage, *arguments: Any) -> Message:
        threads.append(threading.get_ident())
        return outline(message, *arguments)

    for module in (_transcript, _prompt):
        monkeypatch.setattr(module, "outline", counting)
    return threads


@pytest.mark.parametrize("count", [200, 800])
def test_old_messages_are_described_and_not_converted(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, described: list[int], count: int
) -> None:
    converted: list[str] = []

    def counting(message: BaseMessage, *arguments: Any) -> Message:
        converted.append(message.text)
        return to_message(message, *arguments)

    monkeypatch.setattr(_transcript, "to_message", counting)
    model, agent = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory)])
    old = conversation(count, memory)
    agent.invoke({"messages": [*old, ("user", "new")]}, RUN)
    assert [message.text for message in model.prompts[-1]] == [*(text for _, text in old), "new"]
    assert memory.count() == count + 2
    assert set(converted) == {"new", "ok"}
    # Once to find it in the store, and once to put it in order with what is recalled.
    assert len(described) < 2 * count + 100


# To see what is stored, the question, what is recalled, whether another run has asked, the answer, and what other
# middleware has left of it.
TURN = ["Read", "Write", "ReadPage", "Read", "Write", "Read"]


@pytest.mark.parametrize("sends_all", [False, True])
def test_a_turn_asks_the_store_a_few_times_only(*, sends_all: bool) -> None:
    store = Counting()
    _, agent = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(Memory(backend=store))])
    said: list[tuple[str, str]] = []
    for number in range(3):
        store.names.clear()
        agent.invoke({"messages": [*(said if sends_all else []), ("user", f"q{number}")]}, RUN)
        said += [("user", f"q{number}"), ("assistant", "ok")]
        assert store.names == TURN


def test_a_long_conversation_without_ids_is_found_by_its_end() -> None:
    store = Counting()
    memory = Memory(backend=store)
    old = conversation(2000, memory)
    model, agent = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory)])
    store.names.clear()
    agent.invoke({"messages": [*old, ("user", "new")]}, RUN)
    # Also by the ids at both ends, and by its texts; at the end by the ids again. What is before these texts is not
    # recalled, since the conversation has it.
    assert store.names == ["Read", "Read", *(name for name in TURN if name != "ReadPage"), "Read"]
    assert [message.text for message in model.prompts[-1]] == [*(text for _, text in old), "new"]
    assert memory.count() == 2002


@pytest.mark.parametrize(("count", "kept"), [(120, 16), (600, 90), (1000, 940), (1000, 500)])
@pytest.mark.parametrize("edits", [False, True])
def test_a_client_without_ids_goes_back(memory: Memory, count: int, kept: int, *, edits: bool) -> None:
    model, agent = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory)])
    old = conversation(count, memory)
    # The stored question is "user" and a number.
    agent.invoke({"messages": [*old[:kept], ("user", "user again" if edits else "something else")]}, RUN)
    assert memory.count() == count + 2
    prompt = [message.text for message in model.prompts[-1]]
    if edits:
        assert prompt == [*(text for _, text in old[:kept]), "user again"]
    else:
        assert len(set(prompt)) == len(prompt)
    current = memory.get_agent_conversation(limit=2000, filters=ANN)
    assert len(current) == (kept if edits else count) + 2


def test_a_client_that_goes_back_is_looked_for_in_growing_pages() -> None:
    store = Counting()
    old = conversation(400, Memory(backend=store))
    _, agent = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(Memory(backend=store))])
    store.names.clear()
    agent.invoke({"messages": [*old[:10], ("user", "something else")]}, RUN)
    before = ["Read", "Read", "Read", "Read", "Read"]  # the latest 32, by ids, 64, 256, all
    assert store.names[: len(before) + 1] == [*before, "Write"]


def test_a_long_conversation_does_not_hold_the_event_loop(memory: Memory, described: list[int]) -> None:
    old = conversation(2000, memory)
    _, agent = Talker(asynchronous=True).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory, limit=10)])
    asyncio.run(agent.ainvoke({"messages": [*old, ("user", "new")]}, RUN))
    assert memory.count() == 2002
    assert len(described) >= 1000
    assert described.count(threading.get_ident()) < 400
