"""What each shape of an agent's state means: what is stored, superseded, and given to the model.

The cases are those of the table in docs/decisions/0020-what-a-state-means.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents.middleware import before_model
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from dynamiq_memory import Memory, MemoryRetrievalStrategy, Message
from langchain_dynamiq_memory import DynamiqMemoryMiddleware
from tests.fakes.langchain import ScriptedModel, Talker, calls, in_short

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


def test_a_long_thread_is_forked_at_its_beginning(talker: Talker, memory: Memory) -> None:
    thread = Thread(talker, memory)
    for number in range(40):
        thread.ask(f"q{number}")
    assert thread.ask("q99", thread.state_of("q0", "a0")) == ["q0", "a0", "q99"]
    assert len(superseded(memory)) == 78


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
@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("parallel", [1, 2, 4])
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
