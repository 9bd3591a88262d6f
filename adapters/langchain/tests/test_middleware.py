"""The middleware, in agents of `create_agent`, synchronously and asynchronously."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import itertools
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelRequest,
    PIIMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command
from pydantic import BaseModel
from typing_extensions import TypedDict

from dynamiq_memory import (
    BackendError,
    ConfigurationError,
    Memory,
    MemoryBackend,
    MemorySaveMode,
    Message,
    MessageError,
    MessageRole,
)
from dynamiq_memory.integrations.interruptions import ANSWER_NOTE, CALL_NOTE
from dynamiq_memory.integrations.native import pack
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware
from tests.fakes.langchain import ScriptedModel, Talker, calls, in_short

ANN = {"configurable": {"user_id": "ann", "session_id": "s-1"}}


@pytest.fixture(params=["sync", "async"])
def talker(request: pytest.FixtureRequest) -> Talker:
    return Talker(asynchronous=request.param == "async")


def stored(memory: Memory, session_id: str = "s-1", user_id: str | None = "ann") -> list[str]:
    return in_short(DynamiqChatMessageHistory(memory, session_id, user_id).messages)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@tool
def broken(city: str) -> str:
    """Fails."""
    raise RuntimeError(city)


# --- recalling and storing -----------------------------------------------------------------------------------


def test_a_second_run_recalls_the_first(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(["Hi Ann.", "Ann."], [DynamiqMemoryMiddleware(memory)], system_prompt="Be brief.")
    talker.invoke(agent, "I am Ann.", ANN)
    result = talker.invoke(agent, "Who am I?", ANN)
    assert in_short(model.prompts[1]) == [
        "system: Be brief.", "human: I am Ann.", "ai: Hi Ann.", "human: Who am I?",
    ]  # fmt: skip
    assert in_short(result["messages"]) == ["human: Who am I?", "ai: Ann."]
    assert stored(memory) == ["human: I am Ann.", "ai: Hi Ann.", "human: Who am I?", "ai: Ann."]


def test_users_and_sessions_are_kept_apart(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory, strategy="both", search="session")])
    for user_id in ("ann", "ben", None):
        for session_id in ("s-1", "s-2"):
            given = {"session_id": session_id} | ({} if user_id is None else {"user_id": user_id})
            talker.invoke(agent, f"I am {user_id} in {session_id}.", {"configurable": given})
            talker.invoke(agent, "Who am I?", {"configurable": given})
            assert in_short(model.prompts[-1]) == [
                f"human: I am {user_id} in {session_id}.",
                "ai: ok",
                "human: Who am I?",
            ]


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver])
def test_tool_calls_are_stored_whole_and_in_order(talker: Talker, memory: Memory, checkpointer: Any) -> None:
    saver = checkpointer() if checkpointer else None
    script = [calls(("weather", {"city": "Ghent"}), ("weather", {"city": "Bruges"})), "Rain in both.", "Take one."]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather], checkpointer=saver)
    config = {"configurable": {**ANN["configurable"], "thread_id": "s-1"}}
    talker.invoke(agent, "Weather?", config)
    talker.invoke(agent, "Umbrella?", config)
    first = ["human: Weather?", "ai: ", "tool: rain in Ghent", "tool: rain in Bruges", "ai: Rain in both."]
    assert in_short(model.prompts[1]) == first[:4]
    assert in_short(model.prompts[2]) == [*first, "human: Umbrella?"]
    assert stored(memory) == [*first, "human: Umbrella?", "ai: Take one."]
    kept = memory.get_all(filters={"session_id": "s-1"})
    assert [call["function"]["name"] for call in kept[1].tool_calls or ()] == ["weather", "weather"]


def test_a_checkpointer_and_memory_do_not_double_what_they_both_hold(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(
        [f"answer {n}" for n in range(5)], [DynamiqMemoryMiddleware(memory)], checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "t-1"}}
    for n in range(5):
        result = talker.invoke(agent, f"question {n}", config)
    said = [f"{kind} {n}" for n in range(5) for kind in ("human: question", "ai: answer")]
    assert in_short(result["messages"]) == said
    assert stored(memory, "t-1", None) == said
    assert in_short(model.prompts[-1]) == said[:-1]


def test_a_thread_recalls_what_its_session_held_before_the_thread_began(talker: Talker, memory: Memory) -> None:
    ids = {"session_id": "t-1"}
    memory.add("user", "My cat is called Tom.", ids)
    memory.add("assistant", "Noted.", ids)
    model, agent = talker.agent(["Hello.", "Tom."], [DynamiqMemoryMiddleware(memory)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t-1"}}
    talker.invoke(agent, "Hi!", config)
    talker.invoke(agent, "My cat's name?", config)
    before = ["human: My cat is called Tom.", "ai: Noted."]
    assert in_short(model.prompts[0]) == [*before, "human: Hi!"]
    assert in_short(model.prompts[1]) == [*before, "human: Hi!", "ai: Hello.", "human: My cat's name?"]


def test_a_thread_longer_than_a_page_is_stored_once(talker: Talker, memory: Memory) -> None:
    said = [kind(f"{n}") for n in range(100) for kind in (HumanMessage, AIMessage)]
    _, agent = talker.agent(["a", "b", "c"], [DynamiqMemoryMiddleware(memory)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t-1"}}
    talker.invoke(agent, {"messages": [*said, HumanMessage("q")]}, config)
    talker.invoke(agent, "r", config)
    assert stored(memory, "t-1", None) == [*in_short(said), "human: q", "ai: a", "human: r", "ai: b"]


def test_recalling_and_storing_do_not_grow_with_the_history(talker: Talker, memory: Memory) -> None:
    """The same number of messages is read from the store for a turn, early and late in a thread."""
    read: list[int] = []
    backend = memory.backend
    plain_read = backend._read

    def counting(*arguments: Any) -> Any:
        found = plain_read(*arguments)
        read.append(len(found))
        return found

    backend._read = counting  # type: ignore[assignment,method-assign]
    _, agent = talker.agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory, limit=4)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t-1"}}
    costs = []
    for n in range(45):
        read.clear()
        talker.invoke(agent, f"question {n}", config)
        costs.append(sum(read))
    assert max(costs[40:]) == max(costs[35:40])
    assert max(costs) < 200


def test_relevant_old_turns_are_recalled(talker: Talker, memory: Memory) -> None:
    ids = {"user_id": "ann", "session_id": "s-1"}
    memory.add("user", "My passport number ends in 77.", ids)
    memory.add("assistant", "Noted.", ids)
    for day in range(200):
        memory.add("user", f"How is the weather on day {day}?", ids)
        memory.add("assistant", "Sunny.", ids)
    middleware = DynamiqMemoryMiddleware(memory, strategy="both", limit=6)
    model, agent = talker.agent(["77."], [middleware])
    talker.invoke(agent, "What does my passport number end in?", ANN)
    prompt = in_short(model.prompts[0])
    assert len(prompt) == 7
    assert prompt[:2] == ["human: My passport number ends in 77.", "ai: Noted."]
    assert prompt[-2:] == ["ai: Sunny.", "human: What does my passport number end in?"]


@pytest.mark.parametrize("limit", range(1, 12))
def test_what_is_recalled_is_valid_within_any_limit(memory: Memory, limit: int) -> None:
    script = [calls(("weather", {"city": "A"}), ("weather", {"city": "B"})), calls(("weather", {"city": "C"})), "Done."]
    talker = Talker(asynchronous=False)
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])
    talker.invoke(agent, "Weather?", ANN)
    model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory, limit=limit)])
    talker.invoke(agent, "And now?", ANN)
    recalled = model.prompts[0][:-1]
    # An answered question is not given without its answer.
    assert min(limit - 1, 1) <= len(recalled) <= limit
    assert all(message.type == "human" for message in recalled[:1])
    called = {call["id"] for m in recalled if isinstance(m, AIMessage) for call in m.tool_calls}
    assert called == {m.tool_call_id for m in recalled if isinstance(m, ToolMessage)}


def test_a_budget_of_tokens_holds(talker: Talker, memory: Memory) -> None:
    ids = {"user_id": "ann", "session_id": "s-1"}
    for n in range(20):
        memory.add("user", f"question {n} " * 20, ids)
        memory.add("assistant", f"answer {n}", ids)
    model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory, max_tokens=200)])
    talker.invoke(agent, "Now?", ANN)
    recalled = model.prompts[0][:-1]
    assert recalled
    assert sum(len(m.text) for m in recalled) / 4 < 200


def test_natively_written_messages_are_recalled(talker: Talker, memory: Memory) -> None:
    ids = {"user_id": "ann", "session_id": "s-1"}
    call = {"id": "c-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ghent"}'}}
    memory.add("user", "Weather?", ids)
    memory.add("assistant", "", ids, tool_calls=[call])
    memory.add("tool", "rain", ids, tool_call_id="c-1", name="weather")
    memory.add("assistant", "Rain.", ids)
    model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory)])
    talker.invoke(agent, "Sure?", ANN)
    answer = model.prompts[0][1]
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls == [{"name": "weather", "args": {"city": "Ghent"}, "id": "c-1", "type": "tool_call"}]


def test_instructions_stay_first_and_are_not_stored(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(["one", "two"], [DynamiqMemoryMiddleware(memory)])
    talker.invoke(agent, {"messages": [SystemMessage("Be kind."), HumanMessage("a")]}, ANN)
    talker.invoke(agent, {"messages": [SystemMessage("Be kind."), HumanMessage("b")]}, ANN)
    assert in_short(model.prompts[1]) == ["system: Be kind.", "human: a", "ai: one", "human: b"]
    assert stored(memory) == ["human: a", "ai: one", "human: b", "ai: two"]


def test_a_client_that_sends_the_whole_conversation_does_not_double_it(talker: Talker, memory: Memory) -> None:
    script = [calls(("weather", {"city": "Ghent"})), "Rain.", "An umbrella.", "Bye."]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])
    talker.invoke(agent, "Weather?", ANN)
    sent = [("user", "Weather?"), ("assistant", "Rain."), ("user", "What to take?")]
    talker.invoke(agent, {"messages": sent}, ANN)
    assert in_short(model.prompts[-1]) == ["human: Weather?", "ai: Rain.", "human: What to take?"]
    talker.invoke(agent, {"messages": [*sent, ("assistant", "An umbrella."), ("user", "Thanks.")]}, ANN)
    assert stored(memory) == [
        "human: Weather?", "ai: ", "tool: rain in Ghent", "ai: Rain.",
        "human: What to take?", "ai: An umbrella.", "human: Thanks.", "ai: Bye.",
    ]  # fmt: skip


def test_the_same_short_question_twice_is_stored_twice(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(["one", "two"], [DynamiqMemoryMiddleware(memory)])
    talker.invoke(agent, "Go on.", ANN)
    talker.invoke(agent, "Go on.", ANN)
    assert stored(memory) == ["human: Go on.", "ai: one", "human: Go on.", "ai: two"]
    assert in_short(model.prompts[1]) == ["human: Go on.", "ai: one", "human: Go on."]


def test_a_model_that_gives_every_answer_the_same_id_loses_none(talker: Talker, memory: Memory) -> None:
    _, agent = talker.agent(
        [AIMessage("Yes.", id="chatcmpl-0"), AIMessage("Yes.", id="chatcmpl-0"), AIMessage("No.", id="chatcmpl-0")],
        [DynamiqMemoryMiddleware(memory)],
    )
    for question in ("a", "b", "c"):
        talker.invoke(agent, question, ANN)
    assert stored(memory) == ["human: a", "ai: Yes.", "human: b", "ai: Yes.", "human: c", "ai: No."]


def test_a_model_that_gives_every_answer_the_same_id_loses_none_in_a_tool_loop(talker: Talker, memory: Memory) -> None:
    script = [calls(("weather", {"city": "A"}), id_="0"), calls(("weather", {"city": "B"}), id_="1"), "Rain."]
    for _ in range(2):
        talker.invoke(talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])[1], "Weather?", ANN)
    assert stored(memory) == 2 * ["human: Weather?", "ai: ", "tool: rain in A", "ai: ", "tool: rain in B", "ai: Rain."]


def test_runs_of_one_session_at_the_same_time_lose_no_answer_of_one_id(memory: Memory) -> None:
    """While a run waits for its model, another run of the session begins and ends."""
    talker = Talker(asynchronous=False)
    waiting, done = threading.Event(), threading.Event()

    def slow(_: Any) -> AIMessage:
        waiting.set()
        assert done.wait(120)
        return AIMessage("Yes.", id="same")

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(talker.invoke, talker.agent(slow, [DynamiqMemoryMiddleware(memory)])[1], "a", ANN)
        assert waiting.wait(120)
        talker.invoke(talker.agent([AIMessage("Yes.", id="same")], [DynamiqMemoryMiddleware(memory)])[1], "b", ANN)
        done.set()
        run.result(120)
    assert stored(memory) == ["human: a", "ai: Yes.", "human: b", "ai: Yes."]


def test_a_client_that_numbers_its_questions_anew_loses_none(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(["one", "two", "three"], [DynamiqMemoryMiddleware(memory)])
    for question in ("I am Ann.", "Who am I?", "Sure?"):
        talker.invoke(agent, {"messages": [HumanMessage(question, id="1")]}, ANN)
    assert stored(memory) == ["human: I am Ann.", "ai: one", "human: Who am I?", "ai: two", "human: Sure?", "ai: three"]
    assert in_short(model.prompts[1])[0] == "human: I am Ann."


def test_a_client_with_ids_of_its_own_for_questions_alone_does_not_double_answers(
    talker: Talker, memory: Memory
) -> None:
    _, agent = talker.agent(lambda messages: f"re {messages[-1].text}", [DynamiqMemoryMiddleware(memory)])
    sent: list[Any] = []
    for n in range(4):
        sent.append(HumanMessage(f"q{n}", id=f"u{n}"))
        result = talker.invoke(agent, {"messages": sent}, ANN)
        sent.append(AIMessage(result["messages"][-1].text))
    assert stored(memory) == [line for n in range(4) for line in (f"human: q{n}", f"ai: re q{n}")]


def test_a_client_that_tries_again_after_a_failure_does_not_double(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(
        ["one", RuntimeError("overloaded"), RuntimeError("overloaded"), "two"], [DynamiqMemoryMiddleware(memory)]
    )
    talker.invoke(agent, "a", ANN)
    sent = {"messages": [("user", "a"), ("assistant", "one"), ("user", "b")]}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="overloaded"):
            talker.invoke(agent, sent, ANN)
    talker.invoke(agent, sent, ANN)
    assert stored(memory) == ["human: a", "ai: one", "human: b", "ai: two"]
    assert in_short(model.prompts[-1]) == ["human: a", "ai: one", "human: b"]


@pytest.mark.parametrize("window", [None, 3, 5])
@pytest.mark.parametrize("answers", ["always the same", "each its own"])
@pytest.mark.parametrize("wording", [lambda text: text, lambda text: text.replace("*", "")])
def test_no_client_that_sends_what_it_has_loses_a_message(window: int | None, answers: str, wording: Any) -> None:
    """Questions repeat, clients show windows, new tabs begin empty, answers are reworded."""
    talker, random = Talker(asynchronous=False), Random(7)
    every = Memory()
    for session_id in map(str, range(2)):
        memory = every.scoped(session_id)
        said = iter(range(100))
        _, agent = talker.agent(
            lambda _: "**Done.**" if answers == "always the same" else f"**Done {next(said)}.**",  # noqa: B023
            [DynamiqMemoryMiddleware(memory)],
        )
        tab: list[Any] = []
        expected: list[str] = []
        for _ in range(12):
            if random.random() < 0.2:
                tab = []
            question = random.choice(["on", "off", "continue"])
            tab.append(("user", question))
            result = talker.invoke(agent, {"messages": tab[-window:] if window else tab})
            answer = result["messages"][-1].text
            tab.append(("assistant", wording(answer)))
            expected += [f"human: {question}", f"ai: {answer}"]
        lines = iter(stored(memory, session_id, None))
        assert all(line in lines for line in expected), "lost or out of order"


def test_a_client_is_given_nothing_twice_at_any_call_of_a_run(talker: Talker, memory: Memory) -> None:
    script = ["one", calls(("weather", {"city": "A"})), "two"]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])
    talker.invoke(agent, "a", ANN)
    talker.invoke(agent, {"messages": [("user", "a"), ("assistant", "one"), ("user", "b")]}, ANN)
    assert in_short(model.prompts[1]) == ["human: a", "ai: one", "human: b"]
    assert in_short(model.prompts[2]) == ["human: a", "ai: one", "human: b", "ai: ", "tool: rain in A"]
    many: list[Any] = []
    for n in range(25):
        talker.invoke(talker.agent([f"re {n}"], [DynamiqMemoryMiddleware(memory)])[1], f"q{n}", ANN)
        many += [("user", f"q{n}"), ("assistant", f"re {n}")]
    model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory)])
    talker.invoke(agent, {"messages": [*many, ("user", "last")]}, ANN)
    prompt = in_short(model.prompts[0])
    assert len(prompt) == len(set(prompt)) == 6 + 51


def test_examples_before_each_question_do_not_hide_what_was_said_since(talker: Talker, memory: Memory) -> None:
    examples = [("user", "2+2?"), ("assistant", "4")]
    model, agent = talker.agent(["Hi Ann.", "Ann."], [DynamiqMemoryMiddleware(memory)])
    talker.invoke(agent, {"messages": [*examples, ("user", "I am Ann.")]}, ANN)
    talker.invoke(agent, {"messages": [*examples, ("user", "Who am I?")]}, ANN)
    prompt = in_short(model.prompts[1])
    assert "human: I am Ann." in prompt
    assert prompt.count("human: 2+2?") == 1
    assert prompt[-1] == "human: Who am I?"
    assert stored(memory).count("human: 2+2?") == 1


def test_a_client_that_gives_every_question_the_same_id_loses_no_repeated_one(talker: Talker, memory: Memory) -> None:
    script = ["one", "two", calls(("weather", {"city": "A"})), "three", "four"]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])
    for question in ("I am Ann.", "continue", "continue", "continue"):
        talker.invoke(agent, {"messages": [HumanMessage(question, id="1")]}, ANN)
    assert stored(memory) == [
        "human: I am Ann.", "ai: one", "human: continue", "ai: two",
        "human: continue", "ai: ", "tool: rain in A", "ai: three", "human: continue", "ai: four",
    ]  # fmt: skip
    assert in_short(model.prompts[-1]) == stored(memory)[:-1]


def test_a_state_that_is_trimmed_within_a_turn_does_not_double_its_rounds(talker: Talker, memory: Memory) -> None:
    class Trim(AgentMiddleware):
        def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            messages = state["messages"]
            if len(messages) <= 5:
                return None
            return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), messages[0], *messages[-4:]]}

        async def abefore_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            return self.before_model(state, runtime)

    script = ["Hi.", *(calls(("weather", {"city": f"c{n}"}), id_=f"a{n}") for n in range(5)), "Done."]
    for order in (lambda m: [Trim(), m], lambda m: [m, Trim()]):
        memory.clear()
        _, agent = talker.agent(script, order(DynamiqMemoryMiddleware(memory)), [weather], checkpointer=InMemorySaver())
        config = {"configurable": {**ANN["configurable"], "thread_id": "t"}}
        talker.invoke(agent, "Hello.", config)
        talker.invoke(agent, "Everywhere?", config)
        rounds = [line for n in range(5) for line in ("ai: ", f"tool: rain in c{n}")]
        assert stored(memory) == ["human: Hello.", "ai: Hi.", "human: Everywhere?", *rounds, "ai: Done."]


def test_a_retention_filter_that_moves_does_not_double(talker: Talker, store: MemoryBackend) -> None:
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "t"}}
    for n in range(3):
        memory = Memory(backend=store, filters={"timestamp": {"gte": time.time() - 3600 + n}})
        model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory)], checkpointer=saver)
        talker.invoke(agent, f"q{n}", config)
        assert len(model.prompts[0]) == 2 * n + 1
    assert len(stored(Memory(backend=store), "t", None)) == 6


def test_fields_that_langchain_did_not_write_fail_nothing(talker: Talker, memory: Memory) -> None:
    forged: list[dict[str, Any]] = [
        {"class": "HumanMessage"}, {"class": "HumanMessage", "fields": 5}, {"class": [], "fields": {}},
    ]  # fmt: skip
    for fields in forged:
        message = Message(role=MessageRole.USER, content="cat", metadata={"user_id": "ann", "session_id": "s-1"})
        message.native = pack("langchain", fields, message)
        memory.add_many([message])
    script = [calls(("search_memory", {"query": "cat"})), "ok", "ok"]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory, search="session", limit=1)])
    talker.invoke(agent, "q", ANN)
    assert ">cat</message>" in model.prompts[1][-1].text
    talker.invoke(agent, {"messages": [("user", "x"), ("assistant", "y"), ("user", "z")]}, ANN)


@pytest.mark.parametrize("given", ["", "a\0b", "\ud800", "x" * 10_000])
def test_odd_ids_store_each_message_once(talker: Talker, memory: Memory, given: str) -> None:
    script = [calls(("weather", {"city": "A"})), "Rain."]
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])
    talker.invoke(agent, {"messages": [HumanMessage("q", id=given)]}, ANN)
    assert stored(memory) == ["human: q", "ai: ", "tool: rain in A", "ai: Rain."]


def test_a_message_from_the_future_changes_neither_order_nor_number(talker: Talker, memory: Memory) -> None:
    """Another machine's clock is ahead, or somebody has imported it so."""
    ids = {"user_id": "ann", "session_id": "s-1"}
    memory.add("user", "imported", {**ids, "timestamp": time.time() + 86_400})
    script = [calls(("weather", {"city": "A"})), calls(("weather", {"city": "B"})), "Rain.", "Bye."]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather])
    talker.invoke(agent, "q", ANN)
    talker.invoke(agent, "r", ANN)
    first = ["human: imported", "human: q", "ai: ", "tool: rain in A", "ai: ", "tool: rain in B", "ai: Rain."]
    assert stored(memory) == [*first, "human: r", "ai: Bye."]
    assert in_short(model.prompts[-1]) == [*first, "human: r"]


def test_a_default_filter_on_the_time_holds(talker: Talker, store: MemoryBackend) -> None:
    ids = {"user_id": "ann", "session_id": "s-1"}
    Memory(backend=store).add("user", "expired", {**ids, "timestamp": time.time() - 86_400})
    for default in ({"gte": time.time() - 3600}, {"gte": time.time() - 3600, "lt": time.time() + 3600}):
        memory = Memory(backend=store, filters={"timestamp": default})
        model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory, strategy="both")])
        talker.invoke(agent, "what has expired?", ANN)
        assert "human: expired" not in in_short(model.prompts[0])


def test_instructions_inside_of_a_session_are_given_first(talker: Talker, memory: Memory) -> None:
    ids = {"user_id": "ann", "session_id": "s-1"}
    for role, content in (("user", "q"), ("assistant", "a"), ("system", "policy"), ("user", "r"), ("assistant", "b")):
        memory.add(role, content, ids)
    model, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory)], system_prompt="Be brief.")
    talker.invoke(agent, "s", ANN)
    assert [message.type for message in model.prompts[0]] == [
        "system", "system", "human", "ai", "human", "ai", "human",
    ]  # fmt: skip


def test_streaming_stores_the_whole_answer(memory: Memory) -> None:
    _, agent = Talker(asynchronous=False).agent(["one two three", "four"], [DynamiqMemoryMiddleware(memory)])
    pieces = list(agent.stream({"messages": [("user", "count")]}, ANN, stream_mode="messages"))
    assert len(pieces) >= 3
    assert [line.strip() for line in stored(memory)] == ["human: count", "ai: one two three"]

    async def stream() -> None:
        async for _ in agent.astream({"messages": [("user", "on")]}, ANN, stream_mode="updates"):
            pass

    asyncio.run(stream())
    assert len(stored(memory)) == 4


# --- save modes and structured output ------------------------------------------------------------------------


class Forecast(BaseModel):
    """A forecast."""

    city: str
    rain: bool


def test_input_output_keeps_questions_and_answers_only(talker: Talker, store: MemoryBackend) -> None:
    memory = Memory(backend=store, save_mode=MemorySaveMode.INPUT_OUTPUT)
    said = AIMessage("Let me look.", tool_calls=calls(("weather", {"city": "Ghent"})).tool_calls)
    model, agent = talker.agent([said, "Rain.", "Yes."], [DynamiqMemoryMiddleware(memory)], [weather])
    talker.invoke(agent, "Weather?", ANN)
    talker.invoke(agent, "Sure?", ANN)
    assert stored(memory) == ["human: Weather?", "ai: Rain.", "human: Sure?", "ai: Yes."]
    assert in_short(model.prompts[2]) == ["human: Weather?", "ai: Rain.", "human: Sure?"]


@pytest.mark.parametrize("save_mode", MemorySaveMode)
def test_structured_output_by_a_tool_is_kept(talker: Talker, store: MemoryBackend, save_mode: MemorySaveMode) -> None:
    memory = Memory(backend=store, save_mode=save_mode)
    script = [
        calls(("weather", {"city": "Ghent"})),
        calls(("Forecast", {"city": "Ghent", "rain": "perhaps not?"})),  # refused, asked again
        calls(("Forecast", {"city": "Ghent", "rain": True})),
        "Bye.",
    ]
    options = {"response_format": ToolStrategy(Forecast)}
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather], **options)
    result = talker.invoke(agent, "Forecast?", ANN)
    assert result["structured_response"] == Forecast(city="Ghent", rain=True)
    lines = stored(memory)
    if save_mode is MemorySaveMode.FULL:
        assert [line.partition(":")[0] for line in lines] == ["human", "ai", "tool", "ai", "tool", "ai", "tool"]
    else:
        assert lines == ["human: Forecast?", 'ai: {"city": "Ghent", "rain": true}']


def test_structured_output_by_the_provider_is_kept(talker: Talker, memory: Memory) -> None:
    script = ['{"city": "Ghent", "rain": true}']
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], response_format=ProviderStrategy(Forecast))
    assert talker.invoke(agent, "Forecast?", ANN)["structured_response"] == Forecast(city="Ghent", rain=True)
    assert stored(memory) == ["human: Forecast?", 'ai: {"city": "Ghent", "rain": true}']


def test_a_tool_that_ends_the_run_gives_the_answer(talker: Talker, store: MemoryBackend) -> None:
    @tool(return_direct=True)
    def report(city: str) -> str:
        """Report."""
        return f"Report on {city}."

    memory = Memory(backend=store, save_mode=MemorySaveMode.INPUT_OUTPUT)
    _, agent = talker.agent([calls(("report", {"city": "Ghent"}))], [DynamiqMemoryMiddleware(memory)], [report])
    talker.invoke(agent, "Report!", ANN)
    assert stored(memory) == ["human: Report!", "ai: Report on Ghent."]


# --- interruptions and failures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "result"),
    [
        ({"type": "approve"}, "rain in Ghent"),
        ({"type": "edit", "edited_action": {"name": "weather", "args": {"city": "Oslo"}}}, "rain in Oslo"),
        ({"type": "reject", "message": "No!"}, "No!"),
    ],
)
def test_a_run_that_waits_for_a_human_goes_on_elsewhere(
    talker: Talker, memory: Memory, decision: dict[str, Any], result: str
) -> None:
    saver = InMemorySaver()
    config = {"configurable": {**ANN["configurable"], "thread_id": "t-1"}}

    def middleware() -> list[Any]:
        return [DynamiqMemoryMiddleware(memory), HumanInTheLoopMiddleware(interrupt_on={"weather": True})]

    talker.invoke(talker.agent(["Hi."], middleware(), [weather], checkpointer=saver)[1], "Hello.", config)
    _, agent = talker.agent([calls(("weather", {"city": "Ghent"}))], middleware(), [weather], checkpointer=saver)
    waiting = talker.invoke(agent, "Weather?", config)
    assert waiting["__interrupt__"]
    assert stored(memory) == ["human: Hello.", "ai: Hi.", "human: Weather?"]

    _, agent = talker.agent(["Done."], middleware(), [weather], checkpointer=saver)
    state = talker.invoke(agent, Command(resume={"decisions": [decision]}), config)
    kept = DynamiqChatMessageHistory(memory, "s-1", "ann").messages
    assert kept == state["messages"]
    assert len(kept) == 6
    assert result in kept[4].text


def test_the_question_is_kept_when_the_model_fails(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent([RuntimeError("overloaded"), "Ghent."], [DynamiqMemoryMiddleware(memory)])
    with pytest.raises(RuntimeError, match="overloaded"):
        talker.invoke(agent, "I live in Ghent.", ANN)
    assert stored(memory) == ["human: I live in Ghent."]
    talker.invoke(agent, "Where?", ANN)
    assert in_short(model.prompts[1]) == ["human: I live in Ghent.", "human: Where?"]


@pytest.mark.parametrize("save_mode", MemorySaveMode)
def test_the_question_is_kept_when_a_tool_fails(
    talker: Talker, store: MemoryBackend, save_mode: MemorySaveMode
) -> None:
    memory = Memory(backend=store, save_mode=save_mode)
    script = [calls(("weather", {"city": "A"})), calls(("broken", {"city": "B"})), "Better."]
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather, broken])
    with pytest.raises(RuntimeError, match="B"):
        talker.invoke(agent, "Weather?", ANN)
    finished = ["ai: ", "tool: rain in A"] if save_mode is MemorySaveMode.FULL else []
    assert stored(memory) == ["human: Weather?", *finished]
    talker.invoke(agent, "Again?", ANN)
    failed = ["ai: ", f"tool: {CALL_NOTE}", f"ai: {ANSWER_NOTE}"] if finished else []
    assert in_short(model.prompts[-1]) == ["human: Weather?", *finished, *failed, "human: Again?"]


def test_a_failed_run_of_a_thread_goes_on_without_doubling(talker: Talker, memory: Memory) -> None:
    script = [calls(("weather", {"city": "A"})), RuntimeError("overloaded"), "Rain."]
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [weather], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "s-1", "user_id": "ann"}}
    with pytest.raises(RuntimeError, match="overloaded"):
        talker.invoke(agent, "Weather?", config)
    talker.invoke(agent, None, config)
    assert stored(memory) == ["human: Weather?", "ai: ", "tool: rain in A", "ai: Rain."]


def test_a_retried_model_call_stores_once(talker: Talker, memory: Memory) -> None:
    class Retry(AgentMiddleware):
        def wrap_model_call(self, request: ModelRequest, handler: Any) -> Any:
            try:
                return handler(request)
            except RuntimeError:
                return handler(request)

        async def awrap_model_call(self, request: ModelRequest, handler: Any) -> Any:
            try:
                return await handler(request)
            except RuntimeError:
                return await handler(request)

    for order in (lambda m: [Retry(), m], lambda m: [m, Retry()]):
        memory.clear()
        _, agent = talker.agent([RuntimeError("again"), "Yes."], order(DynamiqMemoryMiddleware(memory)))
        talker.invoke(agent, "Well?", ANN)
        assert stored(memory) == ["human: Well?", "ai: Yes."]


def test_a_failing_store_fails_the_run_before_the_model_is_asked(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(["never"], [DynamiqMemoryMiddleware(memory)])
    memory.backend.close()
    with pytest.raises(BackendError, match="closed"):
        talker.invoke(agent, "Hello?", ANN)
    assert model.prompts == []


# --- beside other middleware ---------------------------------------------------------------------------------


def test_what_other_middleware_redacts_is_not_stored(talker: Talker, memory: Memory) -> None:
    redact = PIIMiddleware("email", strategy="redact", apply_to_input=True, apply_to_output=True)
    for order in (lambda m: [redact, m], lambda m: [m, redact]):
        memory.clear()
        _, agent = talker.agent(["I wrote to ann@example.org.", "ok"], order(DynamiqMemoryMiddleware(memory)))
        talker.invoke(agent, "I am ann@example.org.", ANN)
        lines = stored(memory)
        assert len(lines) == 2
        assert not any("example.org" in line for line in lines)
        assert not any("example.org" in message.to_json() for message in memory.get_all())


marks_summaries = pytest.mark.skipif(
    "trigger" not in inspect.signature(SummarizationMiddleware).parameters,
    reason="the first langchain 1.0 releases do not mark a summary as one",
)


@marks_summaries
def test_a_summary_is_neither_stored_nor_undone(talker: Talker, memory: Memory) -> None:
    summary = ScriptedModel(script=lambda _: "They counted.")
    shorten = SummarizationMiddleware(summary, trigger=("messages", 6), keep=("messages", 2))
    model, agent = talker.agent(
        lambda messages: f"after {messages[-1].text}",
        [DynamiqMemoryMiddleware(memory), shorten],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "t-1"}}
    for n in range(8):
        result = talker.invoke(agent, f"number {n}", config)
    assert any("They counted." in message.text for message in result["messages"])
    assert stored(memory, "t-1", None) == [
        line for n in range(8) for line in (f"human: number {n}", f"ai: after number {n}")
    ]
    assert "They counted." in model.prompts[-1][0].text
    assert "number 0" not in "".join(in_short(model.prompts[-1]))


@marks_summaries
def test_a_long_loop_that_is_summarised_midway_loses_nothing(talker: Talker, memory: Memory) -> None:
    shorten = SummarizationMiddleware(
        ScriptedModel(script=lambda _: "They looked."), trigger=("messages", 8), keep=("messages", 4)
    )
    script = [calls(("weather", {"city": f"city-{n}"}), id_=f"a-{n}") for n in range(12)]
    _, agent = talker.agent([*script, "Done."], [DynamiqMemoryMiddleware(memory), shorten], [weather])
    talker.invoke(agent, "Everywhere?", {**ANN, "recursion_limit": 200})
    lines = stored(memory)
    assert lines[0] == "human: Everywhere?"
    assert [line for line in lines if line.startswith("tool")] == [f"tool: rain in city-{n}" for n in range(12)]
    assert lines[-1] == "ai: Done."
    assert len(lines) == 26


# --- whose conversation --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Context:
    user_id: str
    session_id: str | None = None


class ContextModel(BaseModel):
    user_id: str
    session_id: str


class ContextDict(TypedDict):
    user_id: str
    session_id: str


@pytest.mark.parametrize("schema", [Context, ContextModel, ContextDict])
def test_ids_come_from_the_context(talker: Talker, memory: Memory, schema: Any) -> None:
    _, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory)], context_schema=schema)
    config = {"configurable": {"user_id": "someone", "session_id": "else", "thread_id": "t"}}
    talker.invoke(agent, "a", config, context=schema(user_id="ann", session_id="s-1"))
    assert stored(memory) == ["human: a", "ai: ok"]
    assert memory.count() == 2


def test_a_context_with_the_user_alone_leaves_the_session_to_the_thread(talker: Talker, memory: Memory) -> None:
    _, agent = talker.agent(["ok"], [DynamiqMemoryMiddleware(memory)], context_schema=Context)
    thread_id = uuid.UUID(int=7)
    talker.invoke(agent, "a", {"configurable": {"thread_id": thread_id}}, context=Context("ann"))
    assert stored(memory, str(thread_id), "ann") == ["human: a", "ai: ok"]


def test_ids_come_from_the_memory_s_default_filters(talker: Talker, store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters={"user_id": "ann", "session_id": "s-1", "tenant": "acme"})
    model, agent = talker.agent(["ok", "still"], [DynamiqMemoryMiddleware(memory)])
    talker.invoke(agent, "a", {"configurable": {"thread_id": "t"}})
    talker.invoke(agent, "b")
    assert in_short(model.prompts[1]) == ["human: a", "ai: ok", "human: b"]
    assert [message.metadata["tenant"] for message in memory.get_all()] == ["acme"] * 4


def test_a_run_without_a_session_is_refused(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(["never"], [DynamiqMemoryMiddleware(memory)])
    with pytest.raises(ConfigurationError, match=r"session_id.*configurable"):
        talker.invoke(agent, "a", {"configurable": {"user_id": "ann"}})
    assert model.prompts == []


@pytest.mark.parametrize(("name", "value"), [("session_id", ""), ("session_id", 7), ("user_id", ""), ("user_id", 7)])
def test_an_id_that_is_no_text_is_refused(talker: Talker, memory: Memory, name: str, value: Any) -> None:
    _, agent = talker.agent(["never"], [DynamiqMemoryMiddleware(memory)])
    with pytest.raises(MessageError, match=name):
        talker.invoke(agent, "a", {"configurable": {**ANN["configurable"], name: value}})
    assert memory.count() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": "sqlite:///x.db"},
        {"strategy": "newest"},
        {"limit": 0},
        {"max_tokens": -1},
        {"search": "everything"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        DynamiqMemoryMiddleware(**{"memory": Memory(), **wrong})


def test_an_artifact_that_cannot_be_stored_is_refused_or_described(talker: Talker, memory: Memory) -> None:
    @tool(response_format="content_and_artifact")
    def draw(city: str) -> tuple[str, object]:
        """Draw."""
        return "drawn", unstorable

    unstorable = object()
    script = [calls(("draw", {"city": "A"})), "Here."]
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [draw])
    with pytest.raises(MessageError, match=r"artifact.*default=repr"):
        talker.invoke(agent, "Draw!", ANN)
    assert stored(memory) == ["human: Draw!"]
    memory.clear()
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory, default=repr)], [draw])
    talker.invoke(agent, "Draw!", ANN)
    kept = DynamiqChatMessageHistory(memory, "s-1", "ann").messages[2]
    assert isinstance(kept, ToolMessage)
    assert kept.artifact == repr(unstorable)


# --- searching -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["session", "user"])
def test_the_agent_searches_its_memory(talker: Talker, memory: Memory, scope: Any) -> None:
    for user_id, session_id in (("ann", "s-1"), ("ann", "s-0"), ("ben", "s-1")):
        ids = {"user_id": user_id, "session_id": session_id}
        memory.add("user", f"The passport of {user_id} in {session_id}.", ids)
        memory.add("assistant", "Noted.", ids)
    script = [calls(("search_memory", {"query": "passport"})), "Found."]
    middleware = DynamiqMemoryMiddleware(memory, limit=1, search=scope)
    model, agent = talker.agent(script, [middleware])
    talker.invoke(agent, "What of my passport?", ANN)
    result = model.prompts[1][-1]
    assert isinstance(result, ToolMessage)
    assert "passport of ann in s-1" in result.text
    assert ("passport of ann in s-0" in result.text) == (scope == "user")
    assert "ben" not in result.text
    assert "What of my passport?" not in result.text
    assert 'speaker="user"' in result.text


def test_a_search_does_not_find_earlier_searches(talker: Talker, memory: Memory) -> None:
    memory.add("user", "My cat is Tom.", {"user_id": "ann", "session_id": "s-1"})
    for _ in range(5):
        script = [calls(("search_memory", {"query": "cat"})), "Tom."]
        model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory, limit=1, search="session")])
        talker.invoke(agent, "Name?", ANN)
        assert model.prompts[1][-1].text.count("My cat is Tom.") == 1
        assert 'speaker="tool' not in model.prompts[1][-1].text


def test_searching_a_user_s_memory_needs_a_user(talker: Talker, memory: Memory) -> None:
    script = [calls(("search_memory", {"query": "passport"})), "Found."]
    _, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory, search="user")])
    with pytest.raises(ConfigurationError, match="user_id"):
        talker.invoke(agent, "What of my passport?", {"configurable": {"session_id": "s-1"}})


# --- many at once --------------------------------------------------------------------------------------------


def test_many_runs_at_once_keep_every_message(memory: Memory) -> None:
    _, agent = Talker(asynchronous=False).agent(
        lambda messages: f"re: {messages[-1].text}", [DynamiqMemoryMiddleware(memory)]
    )

    def talk(worker: int) -> None:
        for n in range(3):
            agent.invoke({"messages": [("user", f"{worker}-{n}")]}, ANN)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(talk, range(6)))

    async def talk_async() -> None:
        async def one(worker: int) -> None:
            for n in range(3):
                await agent.ainvoke({"messages": [("user", f"{worker}-{n}")]}, ANN)

        await asyncio.gather(*(one(worker) for worker in range(6, 12)))

    asyncio.run(talk_async())
    lines = stored(memory)
    assert sorted(lines) == sorted(
        line for w in range(12) for n in range(3) for line in (f"human: {w}-{n}", f"ai: re: {w}-{n}")
    )
    for worker in range(12):
        own = [line for line in lines if line.startswith(f"human: {worker}-")]
        assert own == [f"human: {worker}-{n}" for n in range(3)]


def test_without_langchain_the_extra_is_named(run_script: Any) -> None:
    run_script(
        """
import sys
sys.modules["langchain"] = None
import langchain_dynamiq_memory
langchain_dynamiq_memory.DynamiqChatMessageHistory
try:
    langchain_dynamiq_memory.DynamiqMemoryMiddleware
except ImportError as error:
    assert "pip install 'langchain-dynamiq-memory[agents]'" in str(error), error
else:
    raise SystemExit("no error")
"""
    )


def test_a_snapshot_s_config_does_not_lose_the_user(memory: Memory) -> None:
    _, agent = Talker(asynchronous=False).agent(
        lambda _: "ok", [DynamiqMemoryMiddleware(memory)], checkpointer=InMemorySaver()
    )
    config = {"configurable": {**ANN["configurable"], "thread_id": "t"}}
    for question in ("q0", "q1"):
        agent.invoke({"messages": [("user", question)]}, config)
    snapshot = next(s for s in agent.get_state_history(config) if not s.next and len(s.values["messages"]) == 2)
    with pytest.raises(ConfigurationError, match=r"names no user.*snapshot.config"):
        agent.invoke({"messages": [("user", "another way")]}, snapshot.config)
    assert memory.count({"session_id": "t"}) == 0
    both = {"configurable": {**snapshot.config["configurable"], **ANN["configurable"]}}
    agent.invoke({"messages": [("user", "another way")]}, both)


@pytest.mark.parametrize("key", ["userid", "userId", "user"])
def test_a_misspelt_user_is_refused(memory: Memory, key: str) -> None:
    _, agent = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory)])
    with pytest.raises(ConfigurationError, match=f"it names '{key}': write 'user_id'"):
        agent.invoke({"messages": [("user", "q")]}, {"configurable": {"session_id": "s", key: "ann"}})


def test_a_user_may_be_required_or_not(memory: Memory) -> None:
    run = {"configurable": {"session_id": "s"}}
    _, strict = Talker(asynchronous=False).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory, require_user=True)])
    with pytest.raises(ConfigurationError, match="names no user"):
        strict.invoke({"messages": [("user", "q")]}, run)
    loose = DynamiqMemoryMiddleware(memory, require_user=False)
    _, agent = Talker(asynchronous=False).agent(lambda _: "ok", [loose])
    agent.invoke({"messages": [("user", "q")]}, {"configurable": {"session_id": "s", "userid": "ann"}})


def test_a_state_with_its_middle_removed_is_merged_in_order(memory: Memory) -> None:
    model, agent = Talker(asynchronous=False).agent(
        ["a0", "a1", "a2", calls(("weather", {"city": "Ghent"})), "a3"],
        [DynamiqMemoryMiddleware(memory)],
        [weather],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {**ANN["configurable"], "thread_id": "t"}}
    for question in ("q0", "q1", "q2"):
        state = agent.invoke({"messages": [("user", question)]}, config)
    removed = [RemoveMessage(id=message.id) for message in state["messages"][1:-1]]
    agent.update_state(config, {"messages": removed}, as_node="model")
    agent.invoke({"messages": [("user", "q3")]}, config)
    for prompt in model.prompts[-2:]:
        said = [text for text in in_short(prompt) if text.startswith(("human", "ai: a"))]
        assert said[0] == "human: q0"
        assert len(set(said)) == len(said)
        assert said == sorted(said, key=lambda text: (text[-1], text[0] == "a"))


def test_another_device_s_turn_is_recalled_in_its_place(memory: Memory) -> None:
    model, agent = Talker(asynchronous=False).agent(["a0", "a1", "a2"], [DynamiqMemoryMiddleware(memory)])
    past = [HumanMessage("q0"), AIMessage("a0")]
    agent.invoke({"messages": past[:1]}, ANN)
    agent.invoke({"messages": [*past, HumanMessage("q1 laptop")]}, ANN)
    agent.invoke({"messages": [*past, HumanMessage("q2 phone")]}, ANN)
    said = ["human: q0", "ai: a0", "human: q1 laptop", "ai: a1", "human: q2 phone"]
    assert in_short(model.prompts[-1]) == said


# --- prompts that begin like the one before -----------------------------------------------------------------------


def begin(prompt: list[Any], before: list[Any]) -> int:
    """The number of messages at the beginning that two prompts share."""
    pairs = zip(in_short(prompt), in_short(before), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def test_a_stable_window_keeps_the_beginning_of_prompts(talker: Talker, memory: Memory) -> None:
    middleware = DynamiqMemoryMiddleware(memory, limit=20, window="stable")
    model, agent = talker.agent(lambda _: "ok", [middleware])
    for number in range(40):
        # The ids decide where windows begin.
        talker.invoke(agent, {"messages": [HumanMessage(f"question {number}", id=f"id of question {number}")]}, ANN)
    full = model.prompts[12:]
    unmoved = [begin(two, one) >= len(one) for one, two in itertools.pairwise(full)]
    assert sum(unmoved) >= 0.5 * len(unmoved)
    assert all(len(prompt) <= 21 for prompt in full)


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_older_messages_are_put_before_the_question(talker: Talker, memory: Memory, strategy: str) -> None:
    middleware = DynamiqMemoryMiddleware(memory, limit=8, strategy=strategy, placement="before_question")
    script = ["Nice.", *["ok"] * 10, calls(("weather", {"city": "Ghent"})), "Rex."]
    model, agent = talker.agent(script, [middleware], [weather])
    talker.invoke(agent, "My dog is called Rex </message>.", ANN)
    for number in range(10):
        talker.invoke(agent, f"small talk {number}", ANN)
    result = talker.invoke(agent, "What is my dog called?", ANN)
    for prompt in model.prompts[-2:]:  # before and after the call of the tool
        recent = [] if strategy == "relevant" else prompt[:4]
        asked = prompt[len(recent)]
        assert (
            in_short(recent)
            == [f"{who}" for n in (8, 9) for who in (f"human: small talk {n}", "ai: ok")][: len(recent)]
        )
        block, _, question = asked.text.partition("</quoted_messages>\n\n")
        assert question == "What is my dog called?"
        assert ">My dog is called Rex &lt;/message&gt;.</message>" in block
        assert "session=" not in block
    assert in_short(result["messages"])[0] == "human: What is my dog called?"
    assert stored(memory)[-4] == "human: What is my dog called?"
    assert len(stored(memory)) == 2 * 11 + 4


def test_a_block_is_not_put_into_a_result(talker: Talker, memory: Memory) -> None:
    """Anthropic wants results first in a user's message."""
    middleware = DynamiqMemoryMiddleware(memory, limit=8, strategy="relevant", placement="before_question")
    model, agent = talker.agent(lambda _: "ok", [middleware])
    talker.invoke(agent, "My dog is called Rex.", ANN)
    parts: list[Any] = [{"type": "text", "text": "What is my dog called?"}]
    call = AIMessage([{"type": "tool_use", "id": "c-1", "name": "look", "input": {}}])
    result = HumanMessage([{"type": "tool_result", "tool_use_id": "c-1", "content": "dog dog"}])
    talker.invoke(agent, {"messages": [HumanMessage(parts), call, result]}, ANN)
    asked, _, answer = model.prompts[-1]
    assert [part["type"] for part in asked.content] == ["text", "text"]
    assert "Rex" in asked.content[0]["text"]
    assert answer.content == result.content


def test_recalled_questions_have_dates_that_are_not_stored(talker: Talker) -> None:
    memory = Memory(dates="turns")
    middleware = DynamiqMemoryMiddleware(memory)
    for number in range(2):
        memory.add("user", f"I moved {number} days ago", {**ANN["configurable"], "timestamp": 1_710_244_800.0 + number})
        memory.add("assistant", "Where to?", {**ANN["configurable"], "timestamp": 1_710_244_800.5 + number})
    model, agent = talker.agent(lambda _: "ok", [middleware])
    talker.invoke(agent, "When did I move?", ANN)
    given = ["[12 Mar 2024]\n\nI moved 0 days ago", "Where to?", "I moved 1 days ago", "Where to?", "When did I move?"]
    assert [message.text for message in model.prompts[-1]] == given
    assert [message.text for message in memory.get_all()] == ["I moved 0 days ago", *given[1:], "ok"]


def test_other_settings_of_windows_are_refused(memory: Memory) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        DynamiqMemoryMiddleware(memory, window="moving")
    with pytest.raises(ConfigurationError, match="placement"):
        DynamiqMemoryMiddleware(memory, placement="moving")
    with pytest.raises(ConfigurationError, match="window"):
        DynamiqChatMessageHistory(memory, "s-1", window="moving")


def test_a_history_has_a_stable_window_too(memory: Memory) -> None:
    history = DynamiqChatMessageHistory(memory, "s-1", limit=50, window="stable")
    for number in range(100):
        # The ids decide where the window begins.
        history.add_messages([HumanMessage(f"question {number}", id=f"q{number}"), AIMessage("ok", id=f"a{number}")])
    assert 34 <= len(history.messages) < 50
    again = DynamiqChatMessageHistory(Memory(backend=memory.backend, window="stable"), "s-1", limit=50)
    assert again.messages == history.messages
