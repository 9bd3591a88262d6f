"""What is stored of turns that are cut off, and what the next prompt says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.chat_engine import SimpleChatEngine

from dynamiq_memory import Memory, MemoryBackend
from dynamiq_memory.integrations.interruptions import ANSWER_NOTE, CALL_NOTE
from llama_index.memory.dynamiq import DynamiqMemory
from tests.fakes.llama_index import ScriptedLLM, assert_valid, assistant, calls, in_short, result, user


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store)


class Failing(ScriptedLLM):
    """Fails after the first half of its answer."""

    def __init__(self, script: Any) -> None:
        super().__init__(script)

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        def pieces() -> Iterator[ChatResponse]:
            yield next(self._pieces(messages))
            raise RuntimeError("overloaded")

        return pieces()


def put(chat: DynamiqMemory, message: ChatMessage, *, asynchronous: bool) -> None:
    if asynchronous:
        asyncio.run(chat.aput(message))
    else:
        chat.put(message)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_that_were_cut_off_are_closed_when_the_user_speaks_again(memory: Memory, asynchronous: bool) -> None:
    """A workflow of one's own puts each message as it comes; it was cancelled while a tool ran."""
    chat = DynamiqMemory(memory, "s", "ann")
    put(chat, user("q1"), asynchronous=asynchronous)
    put(chat, calls(("a", "pay", {}), ("b", "pay", {})), asynchronous=asynchronous)
    put(chat, result("a", "paid"), asynchronous=asynchronous)
    put(chat, user("q2"), asynchronous=asynchronous)
    given = chat.get()
    assert_valid(given)
    assert in_short(given) == [
        "user: q1",
        "assistant: a b",
        "tool: paid",
        f"tool: {CALL_NOTE}",
        f"assistant: {ANSWER_NOTE}",
        "user: q2",
    ]
    assert [m.interrupted for m in memory.get_all()] == [False, True, False, False]
    put(chat, assistant("ok"), asynchronous=asynchronous)
    put(chat, user("q3"), asynchronous=asynchronous)
    assert in_short(chat.get()) == [*in_short(given), "assistant: ok", "user: q3"]


def test_calls_with_results_and_unfinished_work_are_not_marked(memory: Memory) -> None:
    chat = DynamiqMemory(memory, "s", "ann")
    for message in (user("q1"), calls(("a", "pay", {})), result("a", "paid"), user("q2"), calls(("b", "pay", {}))):
        chat.put(message)
    assert in_short(chat.get()) == ["user: q1", "assistant: a", "tool: paid", "user: q2"]
    assert not any(m.interrupted for m in memory.get_all())


def test_an_answer_that_your_code_marks_is_given_with_the_note(memory: Memory) -> None:
    chat = DynamiqMemory(memory, "s", "ann")
    chat.put(user("q1"))
    memory.scoped("s", "ann").add("assistant", "It will", {"interrupted": True})
    chat.put(user("q2"))
    assert in_short(chat.get()) == ["user: q1", f"assistant: It will\n\n{ANSWER_NOTE}", "user: q2"]


def test_a_chat_engine_whose_reader_leaves_stores_the_whole_answer(memory: Memory) -> None:
    engine = SimpleChatEngine.from_defaults(llm=ScriptedLLM(["one two"]), memory=DynamiqMemory(memory, "s", "ann"))
    response = engine.stream_chat("q1")
    writing = response.write_response_to_history_thread
    assert next(response.response_gen) == "one"
    writing.join(120)
    assert [m.text for m in memory.get_all()] == ["q1", "one two"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LlamaIndex raises in its thread
def test_a_chat_engine_whose_model_fails_midway_keeps_the_question(memory: Memory) -> None:
    engine = SimpleChatEngine.from_defaults(llm=Failing(["one two"]), memory=DynamiqMemory(memory, "s", "ann"))
    response = engine.stream_chat("q1")
    writing = response.write_response_to_history_thread
    with pytest.raises(RuntimeError, match="overloaded"):
        list(response.response_gen)
    writing.join(120)
    assert [m.text for m in memory.get_all()] == ["q1"]


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20:inspect")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211:inspect")
def test_an_agent_that_is_cancelled_keeps_the_question(memory: Memory) -> None:
    """LlamaIndex's agents put their calls, results and answer at the end of a run."""

    async def go() -> None:
        started = asyncio.Event()

        async def pay() -> str:
            """Never ends."""
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        chat = DynamiqMemory(memory, "s", "ann")
        agent = FunctionAgent(llm=ScriptedLLM([calls(("a", "pay", {}))]), tools=[pay])
        handler = agent.run(user_msg="q1", memory=chat)
        await asyncio.wait_for(started.wait(), 120)
        await handler.cancel_run()
        await asyncio.gather(handler, return_exceptions=True)
        assert [m.text for m in memory.get_all()] == ["q1"]
        again = FunctionAgent(llm=ScriptedLLM(["done"]), tools=[pay])
        await again.run(user_msg="q2", memory=chat)
        assert in_short(chat.get_all()) == ["user: q1", "user: q2", "assistant: done"]

    asyncio.run(go())
