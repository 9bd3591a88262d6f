"""What each shape of an agent's state means: what is stored, superseded, and given to the model.

The cases are those of the table in docs/decisions/0020-what-a-state-means.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import after_model, before_model
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.outputs import ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from dynamiq_memory import Memory, MemoryRetrievalStrategy, Message
from dynamiq_memory.conversation.turns import OPENING_LINE
from langchain_dynamiq_memory import DynamiqMemoryMiddleware
from tests.fakes.langchain import ScriptedModel, Talker, calls, in_short
from tests.fakes.sessions import examples

ANN = {"user_id": "ann", "session_id": "s-1"}
CONFIG = {"configurable": ANN}
THREAD = {"configurable": {**ANN, "thread_id": "t"}}


@pytest.fixture(params=["sync", "async"])
def talker(request: pytest.FixtureRequest) -> Talker:
    return Talker(asynchronous=request.param == "async")


def echo(messages: list[BaseMessage]) -> str:
    """Answer q0 by a0, q1 by a1 …; another time, by a1 again …."""
    return "a" + messages[-1].text.removeprefix("q")


def talk(*texts: str, ids: bool = False) -> list[BaseMessage]:
    """A conversation as a client has it."""
    return [
        (HumanMessage if text.startswith("q") else AIMessage)(text, id=f"id-{text.split()[0]}" if ids else None)
        for text in texts
    ]


def lines(memory: Memory) -> list[tuple[str, bool]]:
    """The stored texts, and whether they are superseded."""
    stored = memory.get_all(filters=ANN)
    return [(message.text, message.superseded_at is not None) for message in stored]


def current(memory: Memory) -> list[str]:
    return [text for text, superseded in lines(memory) if not superseded]


def superseded(memory: Memory) -> list[str]:
    return [text for text, is_superseded in lines(memory) if is_superseded]


def texts(prompt: Sequence[BaseMessage]) -> list[str]:
    return [message.text for message in prompt]


class Client:
    """A client that sends conversations to an agent without a checkpointer."""

    def __init__(self, talker: Talker, memory: Memory, **options: Any) -> None:
        self.talker = talker
        self.model, self.agent = talker.agent(echo, [DynamiqMemoryMiddleware(memory, **options)])

    def send(self, *conversation: str, ids: bool = False) -> list[str]:
        self.talker.invoke(self.agent, {"messages": talk(*conversation, ids=ids)}, CONFIG)
        return texts(self.model.prompts[-1])


class Thread(Client):
    """A thread of a checkpointer."""

    def __init__(self, talker: Talker, memory: Memory, **options: Any) -> None:
        self.talker = talker
        self.model, self.agent = talker.agent(
            echo, [DynamiqMemoryMiddleware(memory, **options)], checkpointer=InMemorySaver()
        )

    def ask(self, question: str | None, config: Any = None) -> list[str]:
        given = None if question is None else {"messages": [HumanMessage(question)]}
        config = {"configurable": {**THREAD["configurable"], **(config or {}).get("configurable", {})}}
        self.talker.invoke(self.agent, given, config)
        return texts(self.model.prompts[-1])

    def state_of(self, *held: str, next_: tuple[str, ...] = ()) -> Any:
        """The config of the checkpoint whose state has these texts."""
        history = self.agent.get_state_history(THREAD)
        return next(
            each.config for each in history if each.next == next_ and texts(each.values.get("messages", [])) == [*held]
        )

    def messages(self) -> list[BaseMessage]:
        return list(self.agent.get_state(THREAD).values["messages"])

    def change(self, *messages: BaseMessage) -> None:
        self.agent.update_state(THREAD, {"messages": list(messages)}, as_node="model")


# --- nothing is replaced -------------------------------------------------------------------------------------


def test_a_suffix_of_the_conversation(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    for question in ("q0", "q1", "q2"):
        client.send(question)
    assert client.send("a1", "q2", "a2", "q3") == ["q0", "a0", "q1", "a1", "q2", "a2", "q3"]
    assert lines(memory)[-2:] == [("q3", False), ("a3", False)]


@pytest.mark.parametrize(
    "kept", [["q0", "a2"], ["q0", "a0", "a2"], ["q0", "q2", "a2"], ["a2"], ["a0", "q2", "a2"], ["q1"], ["q0", "a1"]]
)
def test_a_thread_whose_middle_was_removed(talker: Talker, memory: Memory, kept: list[str]) -> None:
    thread = Thread(talker, memory)
    for question in ("q0", "q1", "q2"):
        thread.ask(question)
    whole = current(memory)
    thread.change(*(RemoveMessage(id=str(m.id)) for m in thread.messages() if m.text not in kept))
    prompt = thread.ask("q3")
    # What was removed after the last message that was kept was undone, but an answer alone was trimmed.
    last = max(whole.index(text) for text in kept)
    last = len(whole) - 1 if whole[last].startswith("q") else last
    assert prompt == [*whole[: last + 1], "q3"]
    assert superseded(memory) == whole[last + 1 :]
    assert len(lines(memory)) == 8


@pytest.mark.parametrize("limit", range(1, 8))
@pytest.mark.parametrize("strategy", MemoryRetrievalStrategy)
def test_whole_turns_are_given_in_order_within_any_limit(
    memory: Memory, limit: int, strategy: MemoryRetrievalStrategy
) -> None:
    thread = Thread(Talker(asynchronous=False), memory, limit=limit, strategy=strategy)
    for question in ("q0", "q1", "q2", "q3"):
        thread.ask(question)
    keep = ("q0", "a3")
    thread.change(*(RemoveMessage(id=str(m.id)) for m in thread.messages() if m.text not in keep))
    prompt = thread.ask("q4")
    assert prompt == sorted(prompt, key=lambda text: (text[1], text[0] == "a"))
    assert len(set(prompt)) == len(prompt)
    assert prompt[-1] == "q4"
    for question, answer in zip(prompt[:-1:2], prompt[1:-1:2], strict=True):
        assert (question[0], answer) == ("q", f"a{question[1]}")


def test_another_device_of_the_user(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    client.send("q0")
    client.send("q0", "a0", "q1 from the laptop")
    assert client.send("q0", "a0", "q2 by phone") == [
        "q0",
        "a0",
        "q1 from the laptop",
        "a1 from the laptop",
        "q2 by phone",
    ]
    assert superseded(memory) == []


def test_threads_of_several_devices(talker: Talker, memory: Memory) -> None:
    laptop, phone = Thread(talker, memory), Thread(talker, memory)
    laptop.ask("q0")
    phone.ask("q1", {"configurable": {"thread_id": "phone"}})
    assert laptop.ask("q2") == ["q0", "a0", "q1", "a1", "q2"]
    assert phone.ask("q3", {"configurable": {"thread_id": "phone"}}) == ["q0", "a0", "q1", "a1", "q2", "a2", "q3"]
    assert superseded(memory) == []


def test_a_question_asked_again_without_the_conversation_is_a_new_one(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    client.send("q0")
    assert client.send("q0") == ["q0", "a0", "q0"]
    assert superseded(memory) == []


def test_agents_in_one_graph_replace_nothing_of_each_other(talker: Talker, memory: Memory) -> None:
    def agent(name: str) -> Any:
        return talker.agent(lambda _: f"a by {name}", [DynamiqMemoryMiddleware(memory)], name=name)[1]

    graph = StateGraph(MessagesState)
    for name in ("one", "two"):
        graph.add_node(name, agent(name))
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", END)
    both = graph.compile(checkpointer=InMemorySaver())
    for question in ("q0", "q1"):
        talker.invoke(both, {"messages": [HumanMessage(question)]}, THREAD)
    assert lines(memory) == [(text, False) for q in ("q0", "q1") for text in (q, "a by one", "a by two")]


# --- something is replaced -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [False, True])
def test_a_client_sends_an_edited_question(talker: Talker, memory: Memory, ids: bool) -> None:
    client = Client(talker, memory)
    client.send("q0", ids=ids)
    client.send("q0", "a0", "q1 ferry to Dover", ids=ids)
    client.send("q0", "a0", "q1 ferry to Dover", "a1 ferry to Dover", "q2", ids=ids)
    assert client.send("q0", "a0", "q1 ferry to Ostend", ids=ids) == ["q0", "a0", "q1 ferry to Ostend"]
    assert superseded(memory) == ["q1 ferry to Dover", "a1 ferry to Dover", "q2", "a2"]
    after = client.send("q0", "a0", "q1 ferry to Ostend", "a1 ferry to Ostend", "q3", ids=ids)
    assert after == ["q0", "a0", "q1 ferry to Ostend", "a1 ferry to Ostend", "q3"]
    assert "q1 ferry to Dover" in texts_of(memory.search("Dover", ANN))


def texts_of(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages]


def test_a_client_with_ids_edits_a_question_in_other_words(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    client.send("q0", ids=True)
    client.send("q0", "a0", "q1 ferry", ids=True)
    assert client.send("q0", "a0", "q1 train", ids=True) == ["q0", "a0", "q1 train"]
    assert superseded(memory) == ["q1 ferry", "a1 ferry"]


def test_an_answer_is_given_again(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    client.send("q0")
    client.send("q0", "a0", "q1")
    assert client.send("q0", "a0", "q1") == ["q0", "a0", "q1"]
    assert lines(memory) == [("q0", False), ("a0", False), ("q1", False), ("a1", True), ("a1", False)]


@pytest.mark.parametrize("question", ["q1 edited", "q7 something else"])
def test_a_thread_is_forked(talker: Talker, memory: Memory, question: str) -> None:
    thread = Thread(talker, memory)
    for text in ("q0", "q1", "q2"):
        thread.ask(text)
    assert thread.ask(question, thread.state_of("q0", "a0")) == ["q0", "a0", question]
    assert superseded(memory) == ["q1", "a1", "q2", "a2"]
    assert thread.ask("q8") == ["q0", "a0", question, echo(talk(question)), "q8"]


@pytest.mark.parametrize(("kept", "parallel"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_results_without_their_call_are_given_with_it(
    talker: Talker, memory: Memory, kept: int, parallel: int, saver: Any
) -> None:
    working = calls(*[("ferry", {})] * parallel)
    middleware = [DynamiqMemoryMiddleware(memory), before_model(keep_last(kept))]
    model, agent = talker.agent([working, "done", "a1"], middleware, [ferry], checkpointer=saver and saver())
    talker.invoke(agent, "q0", THREAD)
    assert [m.type for m in model.prompts[1]] == ["human", "ai", *["tool"] * parallel]
    stored = memory.get_all()
    assert [m.role.value for m in stored] == ["user", "assistant", *["tool"] * parallel, "assistant"]
    assert not any(m.interrupted for m in stored)


def test_a_long_thread_is_forked_at_its_beginning(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    for number in range(20):
        thread.ask(f"q{number}")
    assert thread.ask("q99", thread.state_of("q0", "a0")) == ["q0", "a0", "q99"]
    assert len(superseded(memory)) == 38


def test_a_thread_answers_again(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    thread.ask("q1")
    assert thread.ask(None, thread.state_of("q0", "a0", "q1", next_=("model",))) == ["q0", "a0", "q1"]
    assert superseded(memory) == ["a1"]
    assert thread.ask("q2") == ["q0", "a0", "q1", "a1", "q2"]


def test_the_first_answer_of_a_thread_is_given_again(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    assert thread.ask(None, thread.state_of("q0", next_=("model",))) == ["q0"]
    assert lines(memory) == [("q0", False), ("a0", True), ("a0", False)]


def test_a_turn_of_a_thread_is_undone(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    thread.ask("q1")
    thread.change(*(RemoveMessage(id=str(m.id)) for m in thread.messages()[-2:]))
    assert thread.ask("q2") == ["q0", "a0", "q2"]
    assert superseded(memory) == ["q1", "a1"]


def test_a_thread_returns_to_a_branch_that_it_left(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    for text in ("q0", "q1", "q2"):
        thread.ask(text)
    thread.ask("q7", thread.state_of("q0", "a0"))
    assert thread.ask("q8", thread.state_of("q0", "a0", "q1", "a1")) == ["q0", "a0", "q1", "a1", "q8"]
    assert current(memory) == ["q0", "a0", "q1", "a1", "q8", "a8"]
    assert superseded(memory) == ["q2", "a2", "q7", "a7"]


def test_an_earlier_answer_is_corrected_in_the_state(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    for text in ("q0", "q1"):
        thread.ask(text)
    first = thread.messages()[1]
    thread.change(AIMessage("a0 corrected", id=first.id))
    assert thread.ask("q2") == ["q0", "a0 corrected", "q1", "a1", "q2"]
    assert lines(memory)[:4] == [("q0", False), ("a0", True), ("a0 corrected", False), ("q1", False)]
    assert thread.ask("q3") == ["q0", "a0 corrected", "q1", "a1", "q2", "a2", "q3"]
    assert len(lines(memory)) == 9


def test_the_last_answer_is_corrected_in_the_state(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    thread.change(AIMessage("a0 corrected", id=thread.messages()[1].id))
    assert thread.ask("q1") == ["q0", "a0 corrected", "q1"]
    assert current(memory) == ["q0", "a0 corrected", "q1", "a1"]


def test_a_state_that_was_written_anew(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    thread.ask("q1")
    thread.change(RemoveMessage(id=REMOVE_ALL_MESSAGES), *talk("q5", "a5"))
    assert "q5" in thread.ask("q6")
    assert {"q0", "a0", "q1", "a1", "q5", "a5", "q6"} <= {text for text, _ in lines(memory)}


def test_superseded_messages_are_no_longer_given_to_agents_without_a_thread(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    for question in ("q0", "q1"):
        client.send(question)
    memory.supersede(memory.get_all(filters=ANN)[2].id, ANN)
    assert client.send("q2") == ["q0", "a0", "q2"]


def test_a_trimmed_state_begins_with_a_question(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent([calls(("ferry", {})), "a0", "a1"], [DynamiqMemoryMiddleware(memory, limit=1)], [ferry])
    talker.invoke(agent, "q0", CONFIG)
    held = [ToolMessage("9:40", tool_call_id="call-ferry-0"), *talk("a0", "q1")]
    talker.invoke(agent, {"messages": held}, CONFIG)
    assert in_short(model.prompts[-1]) == ["human: q1"]


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
def test_a_greeting_that_the_state_begins_with_is_given_after_a_line_of_the_user(
    talker: Talker, memory: Memory, strategy: str
) -> None:
    model, agent = talker.agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory, strategy=strategy)])
    messages: list[BaseMessage] = [SystemMessage("Be brief."), AIMessage("Welcome!", id="w")]
    greeted = ["system: Be brief.", f"human: {OPENING_LINE}", "ai: Welcome!"]
    for number in range(3):
        messages.append(HumanMessage(f"q{number}", id=f"q{number}"))
        messages = talker.invoke(agent, {"messages": messages}, CONFIG)["messages"]
        talk_so_far = [text for n in range(number) for text in (f"human: q{n}", "ai: ok")]
        assert in_short(model.prompts[-1]) == [*greeted, *talk_so_far, f"human: q{number}"]
    assert [message.text for message in memory.get_all()] == ["Welcome!", "q0", "ok", "q1", "ok", "q2", "ok"]


def ferry() -> str:
    """Find the next ferry."""
    return "9:40"


def test_a_result_whose_call_was_removed_from_the_state_is_left_out(memory: Memory) -> None:
    talker = Talker(asynchronous=False)
    model: ScriptedModel
    model, agent = talker.agent(
        [calls(("ferry", {})), "a0", "a1"], [DynamiqMemoryMiddleware(memory)], [ferry], checkpointer=InMemorySaver()
    )
    talker.invoke(agent, "q0", THREAD)
    call = agent.get_state(THREAD).values["messages"][1]
    agent.update_state(THREAD, {"messages": [RemoveMessage(id=call.id)]}, as_node="model")
    talker.invoke(agent, "q1", THREAD)
    assert in_short(model.prompts[-1]) == ["human: q0", "ai: a0", "human: q1"]


def test_a_client_without_ids_that_omits_a_turn_gets_no_round_twice(talker: Talker, memory: Memory) -> None:
    call = calls(("ferry", {}))
    model, agent = talker.agent([call, "a0", "a1", "a2"], [DynamiqMemoryMiddleware(memory)], [ferry])
    first = [HumanMessage("q0"), call, ToolMessage("9:40", tool_call_id="call-ferry-0"), AIMessage("a0")]
    talker.invoke(agent, "q0", CONFIG)
    talker.invoke(agent, "q1", CONFIG)
    talker.invoke(agent, {"messages": [*first, HumanMessage("q2")]}, CONFIG)
    assert texts(model.prompts[-1]) == ["q0", "", "9:40", "a0", "q1", "a1", "q2"]


def test_a_thread_is_forked_before_its_first_question(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    thread.ask("q1")
    root = next(each.config for each in thread.agent.get_state_history(THREAD) if not each.values.get("messages"))
    assert thread.ask("q2", root) == ["q2"]
    assert superseded(memory) == ["q0", "a0", "q1", "a1"]


def test_a_thread_that_lost_its_checkpoints_supersedes_nothing(talker: Talker, memory: Memory) -> None:
    Thread(talker, memory).ask("q0")
    assert Thread(talker, memory).ask("q1") == ["q0", "a0", "q1"]
    assert superseded(memory) == []


def test_the_first_question_is_edited_under_its_own_id(talker: Talker, memory: Memory) -> None:
    client = Client(talker, memory)
    for text in ("q0", "q1 edited"):
        given = {"messages": [HumanMessage(text, id="6c1ae0b2-31a5-4f3e-9d0e-7b1f0c6f2a11")]}
        talker.invoke(client.agent, given, CONFIG)
    assert texts(client.model.prompts[-1]) == ["q1 edited"]
    assert superseded(memory) == ["q0", "a0"]


def trim(state: Any, runtime: Any) -> Any:
    """Keep the first and the last messages, as in LangChain's documentation of short-term memory."""
    messages = state["messages"]
    if len(messages) <= 3:
        return None
    recent = messages[-3:] if len(messages) % 2 == 0 else messages[-4:]
    return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), messages[0], *recent]}


def first_and_newest(state: Any, runtime: Any) -> Any:
    """Keep the first message and the newest one."""
    messages = state["messages"]
    return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), messages[0], *messages[1:][-1:]]}


@pytest.mark.parametrize("hook", [trim, first_and_newest])
@pytest.mark.parametrize(("rounds", "parallel"), [(1, 1), (4, 1), (1, 4), (4, 2)])
def test_what_a_hook_trims_is_not_superseded(
    talker: Talker, memory: Memory, hook: Any, rounds: int, parallel: int
) -> None:
    working = [calls(*[("ferry", {})] * parallel, id_=f"call {n}") for n in range(rounds)]
    for number, message in enumerate(working):
        message.tool_calls = [{**each, "id": f"{number}-{place}"} for place, each in enumerate(message.tool_calls)]
    middleware = [before_model(hook), DynamiqMemoryMiddleware(memory)]
    _, agent = talker.agent(["a0", "a1", *working, "a2", "a3"], middleware, [ferry], checkpointer=InMemorySaver())
    for question in ("q0", "q1", "q2", "q3"):
        talker.invoke(agent, question, THREAD)
        assert superseded(memory) == []
    said = [text for text in current(memory) if text.startswith(("q", "a"))]
    assert said == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3"]


def test_agents_side_by_side_replace_nothing_of_each_other(talker: Talker, memory: Memory) -> None:
    graph = StateGraph(MessagesState)
    for name in ("one", "two"):
        script = [f"{name} {n}" for n in range(3)]
        graph.add_node(name, talker.agent(script, [DynamiqMemoryMiddleware(memory)], name=name)[1])
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    both = graph.compile(checkpointer=InMemorySaver())
    for number in range(3):
        talker.invoke(both, {"messages": [HumanMessage(f"q{number}")]}, THREAD)
    assert superseded(memory) == []
    assert sorted(current(memory)) == sorted(f"{who}{n}" for n in range(3) for who in ("q", "one ", "two "))


def test_an_interrupted_answer_goes_with_its_question(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    thread.ask("q0")
    thread.ask("q1")
    answer = memory.get_all(filters=ANN)[-1]
    answer.metadata["interrupted"] = True
    memory.backend.update([answer])
    assert thread.ask("q2", thread.state_of("q0", "a0")) == ["q0", "a0", "q2"]
    assert superseded(memory) == ["q1", "a1"]


# --- replays, and what others have stored since ----------------------------------------------------------------


def with_rounds(*answers: Any, rounds: int = 1, parallel: int = 1) -> list[Any]:
    """A script: the first answer after rounds of calls."""
    made = []
    for number in range(rounds):
        call = calls(*[("ferry", {})] * parallel)
        call.tool_calls = [{**each, "id": f"{number}-{place}"} for place, each in enumerate(call.tool_calls)]
        made.append(call)
    return [*made, *answers]


def scripted(talker: Talker, memory: Memory, script: Any, hook: Any = None, **options: Any) -> tuple[Any, Any]:
    """A model, and its agent in a checkpointer's thread, with a hook that trims the state before the model is called."""
    middleware = [*([before_model(hook)] if hook else []), DynamiqMemoryMiddleware(memory, **options)]
    made: tuple[Any, Any] = talker.agent(script, middleware, [ferry], checkpointer=InMemorySaver())
    return made


def replay(talker: Talker, agent: Any, count: int, next_: str) -> None:
    """Go on from the checkpoint with a number of messages, before a node."""
    config = next(
        each.config
        for each in agent.get_state_history(THREAD)
        if each.next == (next_,) and len(each.values["messages"]) == count
    )
    talker.invoke(agent, None, {"configurable": {**ANN, **config["configurable"]}})


@pytest.mark.parametrize(("count", "before", "gone"), [(3, "model", ["a0"]), (2, "tools", ["9:40", "a0"])])
def test_an_answer_after_calls_is_given_again(
    talker: Talker, memory: Memory, count: int, before: str, gone: list[str]
) -> None:
    model, agent = scripted(talker, memory, with_rounds("a0", "a0 again", "a0 once more", "a1"))
    talker.invoke(agent, "q0", THREAD)
    replay(talker, agent, count, before)
    assert current(memory) == ["q0", "", "9:40", "a0 again"]
    assert superseded(memory) == gone
    replay(talker, agent, count, before)
    assert current(memory) == ["q0", "", "9:40", "a0 once more"]
    talker.invoke(agent, "q1", THREAD)
    assert texts(model.prompts[-1]) == ["q0", "", "9:40", "a0 once more", "q1"]


@pytest.mark.parametrize(("count", "before"), [(1, "model"), (2, "tools"), (3, "model")])
def test_an_answer_is_given_again_where_calls_are_not_stored(
    talker: Talker, memory: Memory, count: int, before: str
) -> None:
    memory = Memory(backend=memory.backend, save_mode="input_output")
    _, agent = scripted(talker, memory, with_rounds("a0", "b", "a0 again"))
    talker.invoke(agent, "q0", THREAD)
    talker.invoke(agent, "q by phone", {"configurable": {**ANN, "thread_id": "phone"}})
    replay(talker, agent, count, before)
    assert current(memory) == ["q0", "a0 again", "q by phone", "b"]
    assert superseded(memory) == ["a0"]


def test_all_that_followed_an_answer_that_is_given_again_is_superseded(talker: Talker, memory: Memory) -> None:
    _, agent = scripted(talker, memory, with_rounds("a0", "a1", "a0 again"))
    talker.invoke(agent, "q0", THREAD)
    talker.invoke(agent, "q1", THREAD)
    replay(talker, agent, 3, "model")
    assert current(memory) == ["q0", "", "9:40", "a0 again"]
    assert superseded(memory) == ["a0", "q1", "a1"]


def test_a_client_has_an_answer_after_calls_given_again(talker: Talker, memory: Memory) -> None:
    model, agent = talker.agent(with_rounds("a0", "a0 again"), [DynamiqMemoryMiddleware(memory)], [ferry])
    said = talker.invoke(agent, "q0", CONFIG)["messages"]
    talker.invoke(agent, {"messages": said[:3]}, CONFIG)
    assert texts(model.prompts[-1]) == ["q0", "", "9:40"]
    assert current(memory) == ["q0", "", "9:40", "a0 again"]
    assert superseded(memory) == ["a0"]


@pytest.mark.parametrize(("rounds", "count", "before"), [(0, 1, "model"), (1, 3, "model"), (1, 2, "tools")])
def test_an_answer_given_again_comes_before_what_others_have_stored_since(
    talker: Talker, memory: Memory, rounds: int, count: int, before: str
) -> None:
    model, agent = scripted(talker, memory, with_rounds("a0", "b", "a0 again", "a0 once more", "a1", rounds=rounds))
    elsewhere = {"configurable": {**ANN, "thread_id": "phone"}}
    talker.invoke(agent, "q0", THREAD)
    talker.invoke(agent, "q by phone", elsewhere)
    replay(talker, agent, count, before)
    turn = ["q0", *["", "9:40"] * rounds]
    assert current(memory) == [*turn, "a0 again", "q by phone", "b"]
    replay(talker, agent, count, before)
    talker.invoke(agent, "q1", THREAD)
    assert texts(model.prompts[-1]) == [*turn, "a0 once more", "q by phone", "b", "q1"]
    given = memory.get_agent_conversation(filters=ANN)
    assert texts_of(given) == [*turn, "a0 once more", "q by phone", "b", "q1", "a1"]


def test_a_run_that_failed_goes_on_before_what_others_have_stored_since(talker: Talker, memory: Memory) -> None:
    _, agent = scripted(talker, memory, [ValueError("no model"), "b", "a0"])
    with pytest.raises(ValueError, match="no model"):
        talker.invoke(agent, "q0", THREAD)
    talker.invoke(agent, "q by phone", {"configurable": {**ANN, "thread_id": "phone"}})
    talker.invoke(agent, None, THREAD)
    assert lines(memory) == [("q0", False), ("a0", False), ("q by phone", False), ("b", False)]


def keep_last(count: int) -> Any:
    """A hook that keeps the last messages only."""

    def trim_to_last(state: Any, runtime: Any) -> Any:
        messages = state["messages"][-count:]
        return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *messages]}

    return trim_to_last


def in_detail(messages: Sequence[BaseMessage]) -> list[str]:
    """The texts of messages, and the calls that they make or answer."""
    return [
        f"{message.text} {[call['id'] for call in message.tool_calls]}"
        if isinstance(message, AIMessage)
        else f"{message.text} {getattr(message, 'tool_call_id', '')}"
        for message in messages
    ]


@pytest.mark.parametrize(
    ("hook", "rounds", "parallel", "strategy"),
    [
        (keep_last(2), 4, 1, "all"),
        (keep_last(3), 4, 1, "relevant"),
        (keep_last(4), 4, 1, "both"),
        (trim, 4, 1, "all"),
        (trim, 3, 2, "relevant"),
        (keep_last(5), 14, 3, "both"),
    ],
)
def test_what_a_hook_trims_of_a_running_turn_is_recalled(
    talker: Talker, memory: Memory, hook: Any, rounds: int, parallel: int, strategy: str
) -> None:
    script = ["a0", *with_rounds("a1", rounds=rounds, parallel=parallel)]
    whole, untrimmed = scripted(talker, Memory(), script)
    model, agent = scripted(talker, memory, script, hook, strategy=strategy)
    for question in ("q0", "q1"):
        talker.invoke(untrimmed, question, THREAD)
        talker.invoke(agent, question, THREAD)
    for expected, prompt in zip(whole.prompts[1:], model.prompts[1:], strict=True):
        assert in_detail(prompt)[-len(expected) + 2 :] == in_detail(expected)[2:]
        if strategy is MemoryRetrievalStrategy.ALL:
            assert in_detail(prompt) == in_detail(expected)
    assert superseded(memory) == []


@pytest.mark.parametrize("hook", [keep_last(3), trim])
def test_a_trimmed_turn_goes_on_before_what_others_have_stored_since(talker: Talker, memory: Memory, hook: Any) -> None:
    script = ["a0", *with_rounds("a1", rounds=3), "a2"]

    def said(prompt: list[BaseMessage]) -> Any:
        if len(model.prompts) == 4:
            memory.add("user", "q by phone", ANN)
        return script[len(model.prompts) - 1]

    model, agent = scripted(talker, memory, said, hook)
    for question in ("q0", "q1"):
        talker.invoke(agent, question, THREAD)
    assert current(memory) == ["q0", "a0", "q1", *["", "9:40"] * 3, "a1", "q by phone"]
    assert texts(model.prompts[-1]) == ["q0", "a0", "q1", *["", "9:40"] * 3]


@pytest.mark.parametrize("limit", range(1, 9))
def test_of_a_running_turn_the_latest_rounds_are_recalled_within_the_limit(memory: Memory, limit: int) -> None:
    talker = Talker(asynchronous=False)
    model, agent = scripted(
        talker, memory, ["a0", *with_rounds("a1", "a2", rounds=4)], keep_last(2), limit=limit, max_tokens=10_000
    )
    for question in ("q0", "q1"):
        talker.invoke(agent, question, THREAD)
    prompt = in_detail(model.prompts[-1])
    rounds = [text for n in range(4) for text in (f" ['{n}-0']", f"9:40 {n}-0")]
    recalled = min(3, (limit - 1) // 2)
    turns = ["q0 ", "a0 []"] if limit >= 9 else []
    assert prompt == [*turns, "q1 ", *rounds[-2 - 2 * recalled :]]


def test_a_round_that_a_client_sends_without_ids_is_not_given_twice(talker: Talker, memory: Memory) -> None:
    script = with_rounds(*[ValueError("no model")] * 2, rounds=2)
    model, agent = talker.agent(script, [DynamiqMemoryMiddleware(memory)], [ferry])
    question = HumanMessage("q0", id="id-q0")
    with pytest.raises(ValueError, match="no model"):
        talker.invoke(agent, {"messages": [question]}, CONFIG)
    prompt = model.prompts[-1]
    again = [question, *(message.model_copy(update={"id": None}) for message in prompt[1:])]
    with pytest.raises(ValueError, match="no model"):
        talker.invoke(agent, {"messages": again}, CONFIG)
    assert in_detail(model.prompts[-1]) == in_detail(prompt)


# --- two runs of a thread at the same time ---------------------------------------------------------------------


class InTurns(ScriptedModel):
    """A model of two runs at the same time, each of which goes on until it calls the model or ends.

    Attributes:
        order: Whose call is answered next; other calls are answered at once.
        running: Number of runs that have not come to their next call.
    """

    order: list[str]
    running: int = 0

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        question = next(message.text for message in reversed(messages) if isinstance(message, HumanMessage))
        name = question.split()[0]
        if name in self.order:
            self.running -= 1
            await until(lambda: self.order[0] == name and not self.running)
            self.running += 1
            self.order.pop(0)
        return self._generate(messages)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks go on until something is so."""
    while not condition():  # noqa: ASYNC110 - conditions of several kinds, and some steps only
        await asyncio.sleep(0)


def call_or_answer(messages: list[BaseMessage]) -> AIMessage | str:
    places = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    question: str = messages[places[-1]].text
    done = sum(1 for message in messages[places[-1] :] if isinstance(message, ToolMessage))
    if done < int(question.partition(" ")[2] or 0):
        return AIMessage("", tool_calls=[ToolCall(name="ferry", args={}, id=f"{question}.{done}", type="tool_call")])
    return f"answer to {question}"


ROUNDS = st.tuples(st.integers(0, 2), st.integers(0, 2))
RUNS = ROUNDS.flatmap(
    lambda rounds: st.permutations(["qA"] * (rounds[0] + 1) + ["qB"] * (rounds[1] + 1)).map(
        lambda order: (f"qA {rounds[0]}", f"qB {rounds[1]}", order)
    )
)


@examples(25)
@given(RUNS, st.integers(0, 2), st.booleans(), st.booleans())
def test_two_runs_at_the_same_time_keep_their_turns(
    runs: tuple[str, str, list[str]], late: int, keeps_state: bool, keep_interrupted: bool
) -> None:
    one, other, order = runs
    config: Any = THREAD
    memory = Memory()
    model = InTurns(script=call_or_answer, order=order)
    middleware = [DynamiqMemoryMiddleware(memory, keep_interrupted=keep_interrupted)]
    agent = create_agent(model, [ferry], middleware=middleware, checkpointer=InMemorySaver() if keeps_state else None)

    async def ask(question: str, after: int = 0) -> None:
        await until(lambda: not after or (len(model.prompts) > after and not model.running))
        model.running += 1
        given: Any = {"messages": [HumanMessage(question)]}
        await agent.ainvoke(given, config)
        model.running -= 1

    async def talk() -> None:
        await ask("q0")
        await asyncio.gather(ask(one), ask(other, min(late, order.index("qB"))))
        for question in ("q1", "q2"):
            await ask(question)

    asyncio.run(asyncio.wait_for(talk(), 60))
    rounds = {q: [text for n in range(int(q[-1])) for text in (f" ['{q}.{n}']", f"9:40 {q}.{n}")] for q in (one, other)}
    turns = [[f"{q} ", *rounds[q], f"answer to {q} []"] for q in (one, other)]
    if texts_of(memory.get_all(filters=ANN))[2] == other:
        turns.reverse()
    said = ["q0 ", "answer to q0 []", *turns[0], *turns[1], "q1 ", "answer to q1 []", "q2 "]
    assert in_detail(model.prompts[-2]) == said[:-2]
    assert in_detail(model.prompts[-1]) == said
    assert superseded(memory) == []
    assert len(lines(memory)) == len(said) + 1
    assert not any(message.interrupted for message in memory.get_all(filters=ANN))


def test_an_answer_that_others_change_while_another_run_begins_is_replaced(memory: Memory) -> None:
    talker = Talker(asynchronous=False)
    waiting, done = threading.Event(), threading.Event()

    def redact(state: Any, runtime: Any) -> Any:
        answer = state["messages"][-1]
        if answer.text != "a1":
            return None
        waiting.set()
        assert done.wait(120)
        return {"messages": [AIMessage("redacted", id=answer.id)]}

    _, agent = talker.agent(echo, [DynamiqMemoryMiddleware(memory), after_model(redact)])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(talker.invoke, agent, "q1", CONFIG)
        assert waiting.wait(120)
        talker.invoke(agent, "q2", CONFIG)
        done.set()
        first.result(120)
    assert lines(memory) == [("q1", False), ("redacted", False), ("q2", False), ("a2", False)]
