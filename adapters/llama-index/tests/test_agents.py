"""LlamaIndex's agents and workflows with a `DynamiqMemory`."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.agent.workflow import AgentWorkflow, BaseWorkflowAgent, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.workflow import Context, JsonSerializer

from dynamiq_memory import ConfigurationError, Memory, MemoryBackend
from dynamiq_memory.backends import InMemory, SQLite
from langchain_dynamiq_memory import DynamiqChatMessageHistory
from llama_index.memory.dynamiq import DynamiqMemory
from tests.fakes.llama_index import ScriptedLLM, assert_valid, calls, in_short, result, texts, user

# LlamaIndex's own: it looks at all members of an agent, pydantic's deprecated ones among them, and its ReAct agent asks
# its context what workflows no longer like to be asked.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20:inspect"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211:inspect"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store)


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def broken(city: str) -> str:
    """Fail."""
    raise ValueError(f"no service in {city}")


def agent_of(script: Any, **options: Any) -> tuple[ScriptedLLM, FunctionAgent]:
    llm = ScriptedLLM(script)
    return llm, FunctionAgent(llm=llm, tools=[weather, broken], system_prompt="Be brief.", **options)


def run(agent: Any, question: str | None, **options: Any) -> str:
    async def go() -> str:
        return str(await agent.run(user_msg=question, **options))

    return asyncio.run(go())


TOOL_TURN: list[Any] = [
    calls(("c1", "weather", {"city": "Oslo"}), ("c2", "weather", {"city": "Rome"})),
    "Sunny in both.",
]
TOOL_TURN_IN_SHORT = [
    "user: How is the weather in Oslo and Rome?",
    "assistant: c1 c2",
    "tool: sunny in Oslo",
    "tool: sunny in Rome",
    "assistant: Sunny in both.",
]


# --- FunctionAgent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
def test_turn_two_sees_turn_one_with_its_parallel_tool_calls(memory, streaming):
    _, agent = agent_of(TOOL_TURN, streaming=streaming)
    chat = DynamiqMemory(memory, "s", "ann")
    assert run(agent, "How is the weather in Oslo and Rome?", memory=chat) == "Sunny in both."
    assert in_short(chat.get_all()) == TOOL_TURN_IN_SHORT
    assert chat.get_all()[1:3] == [TOOL_TURN[0], result("c1", "sunny in Oslo")]
    # Another agent, in another run, with another object.
    llm, agent = agent_of(["As I said, sunny."], streaming=streaming)
    run(agent, "And there?", memory=DynamiqMemory(memory, "s", "ann"))
    assert in_short(llm.prompts[0]) == ["system: Be brief.", *TOOL_TURN_IN_SHORT, "user: And there?"]
    assert in_short(chat.get_all()) == [*TOOL_TURN_IN_SHORT, "user: And there?", "assistant: As I said, sunny."]


def test_several_rounds_of_tools_and_a_failing_one_are_kept_in_order(memory):
    script = [calls(("c1", "weather", {"city": "Oslo"})), calls(("c2", "broken", {"city": "Rome"})), "Half of it."]
    llm, agent = agent_of(script)
    chat = DynamiqMemory(memory, "s")
    run(agent, "Both?", memory=chat)
    expected = [
        "user: Both?",
        "assistant: c1",
        "tool: sunny in Oslo",
        "assistant: c2",
        "tool: no service in Rome",
        "assistant: Half of it.",
    ]
    assert in_short(chat.get_all()) == expected
    assert in_short(llm.prompts[2]) == ["system: Be brief.", *expected[:-1]]
    assert_valid(chat.get_all())


@pytest.mark.parametrize(
    ("strategy", "limit"),
    [("all", 1), ("all", 4), ("all", 100), ("relevant", 2), ("relevant", 7), ("both", 1), ("both", 7)],
)
def test_the_model_is_given_a_valid_conversation_with_the_question(memory, strategy, limit):
    chat = DynamiqMemory(memory, "s", strategy=strategy, limit=limit)
    for number in range(4):
        _, agent = agent_of([calls((f"c{number}", "weather", {"city": f"city{number}"})), "Sunny."])
        run(agent, f"The weather in city{number}?", memory=chat)
    llm, agent = agent_of([calls(("d1", "weather", {"city": "city1"})), calls(("d2", "weather", {"city": "x"})), "Ok."])
    run(agent, "Again in city1?", memory=chat)
    for prompt in llm.prompts:
        assert_valid(prompt)
        assert texts(prompt).count("Again in city1?") == 1
    assert texts(llm.prompts[0])[-1] == "Again in city1?"
    if limit == 100 or (strategy != "all" and limit == 7):
        assert "The weather in city1?" in texts(llm.prompts[0])
    assert len(chat.get_all()) == 4 * 4 + 6


def test_input_output_keeps_questions_and_answers(store):
    chat = DynamiqMemory(Memory(backend=store, save_mode="input_output"), "s")
    _, agent = agent_of(TOOL_TURN)
    run(agent, "How is the weather in Oslo and Rome?", memory=chat)
    assert in_short(chat.get_all()) == [TOOL_TURN_IN_SHORT[0], TOOL_TURN_IN_SHORT[-1]]


def test_what_an_agent_does_to_its_prompt_changes_nothing_that_is_stored(memory):
    """With a state, an agent writes it into the text of the last message."""
    llm, agent = agent_of(["Hello."], initial_state={"mood": "fine"})
    chat = DynamiqMemory(memory, "s")
    run(agent, "Hi", memory=chat)
    assert "mood" in texts(llm.prompts[0])[-1]
    assert texts(chat.get_all()) == ["Hi", "Hello."]


def test_a_history_that_is_given_takes_the_place_of_the_stored_one(memory):
    chat = DynamiqMemory(memory, "s")
    chat.put(user("old"))
    llm, agent = agent_of(["Hello."])
    run(agent, "Hi", memory=chat, chat_history=[user("a"), ChatMessage(role="assistant", content="b")])
    assert texts(llm.prompts[0]) == ["Be brief.", "a", "b", "Hi"]
    assert texts(chat.get_all()) == ["a", "b", "Hi", "Hello."]


@pytest.mark.parametrize(
    "script",
    [
        [RuntimeError("overloaded")],
        [calls(("c1", "weather", {"city": "Oslo"})), RuntimeError("overloaded")],
    ],
    ids=["at once", "after a tool"],
)
def test_a_model_that_fails_midway_leaves_the_question(memory, script):
    chat = DynamiqMemory(memory, "s")
    _, agent = agent_of(script)
    with pytest.raises(RuntimeError, match="overloaded"):
        run(agent, "The first question", memory=chat)
    assert in_short(chat.get_all()) == ["user: The first question"]
    llm, agent = agent_of(["Both answered."])
    run(agent, "The second", memory=chat)
    assert texts(llm.prompts[0]) == ["Be brief.", "The first question", "The second"]
    assert texts(chat.get_all()) == ["The first question", "The second", "Both answered."]


def test_users_at_the_same_time_are_apart(memory):
    async def talk(name: str) -> list[str]:
        said = []
        for number in range(3):
            llm, agent = agent_of([f"Hello {name} {number}."])
            await agent.run(user_msg=f"I am {name} {number}.", memory=DynamiqMemory(memory, "s", name))
            said.append(" ".join(texts(llm.prompts[0])))
        return said

    async def go() -> list[list[str]]:
        return await asyncio.gather(*(talk(name) for name in ("ann", "bea", "cid")))

    for name, said in zip(("ann", "bea", "cid"), asyncio.run(go()), strict=True):
        assert all(other not in " ".join(said) for other in {"ann", "bea", "cid"} - {name})
        assert f"Hello {name} 1." in said[2]
        assert len(DynamiqMemory(memory, "s", name).get_all()) == 6


def test_our_memory_gives_no_warning_that_llama_indexs_own_does_not(memory):
    def warned(chat: Any) -> set[str]:
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            _, agent = agent_of(TOOL_TURN)

            async def go() -> None:
                ctx = Context(agent)
                await agent.run(user_msg="How is the weather in Oslo and Rome?", ctx=ctx, memory=chat)
                saved = json.dumps(ctx.to_dict(serializer=JsonSerializer()))
                Context.from_dict(agent, json.loads(saved), serializer=JsonSerializer())

            asyncio.run(go())
            assert in_short(chat.get_all()) == TOOL_TURN_IN_SHORT
        return {f"{warning.category.__name__}: {warning.message}" for warning in given}

    assert warned(DynamiqMemory(memory, "s")) <= warned(ChatMemoryBuffer.from_defaults())


# --- the context of a workflow -----------------------------------------------------------------------------------


def test_a_context_keeps_the_memory(memory):
    async def go() -> tuple[ScriptedLLM, Any]:
        llm, agent = agent_of([*TOOL_TURN, "As I said."])
        ctx = Context(agent)
        await agent.run(user_msg="How is the weather in Oslo and Rome?", ctx=ctx, memory=DynamiqMemory(memory, "s"))
        await agent.run(user_msg="And there?", ctx=ctx)
        return llm, await ctx.store.get("memory")

    llm, kept = asyncio.run(go())
    assert type(kept) is DynamiqMemory
    assert in_short(llm.prompts[-1]) == ["system: Be brief.", *TOOL_TURN_IN_SHORT, "user: And there?"]
    assert in_short(DynamiqMemory(memory, "s").get_all())[-2:] == ["user: And there?", "assistant: As I said."]


async def saved_context(memory: Memory, session_id: str = "s") -> str:
    _, agent = agent_of(TOOL_TURN)
    ctx = Context(agent)
    chat = DynamiqMemory(memory, session_id, "ann", strategy="both", limit=50)
    await agent.run(user_msg="How is the weather in Oslo and Rome?", ctx=ctx, memory=chat)
    return json.dumps(ctx.to_dict(serializer=JsonSerializer()))


def test_a_context_brings_the_memory_back_from_json_bound_to_its_store(memory):
    async def go() -> tuple[ScriptedLLM, Any]:
        saved = await saved_context(memory)
        memory.scoped("s", "ann").add("assistant", "Added by others.")
        llm, agent = agent_of(["As I said."])
        ctx = Context.from_dict(agent, json.loads(saved), serializer=JsonSerializer())
        await agent.run(user_msg="And there?", ctx=ctx)
        return llm, await ctx.store.get("memory")

    llm, restored = asyncio.run(go())
    assert type(restored) is DynamiqMemory
    assert (restored.session_id, restored.user_id, restored.strategy, restored.limit) == ("s", "ann", "both", 50)
    expected = [*TOOL_TURN_IN_SHORT, "assistant: Added by others.", "user: And there?"]
    assert in_short(llm.prompts[0]) == ["system: Be brief.", *expected]
    assert in_short(DynamiqMemory(memory, "s", "ann").get_all()) == [*expected, "assistant: As I said."]


class WithSecret(InMemory):
    """A store whose password nobody may read."""

    def __init__(self) -> None:
        super().__init__()
        self.password = "hunter2"


def test_no_secret_and_no_message_of_the_store_is_in_a_saved_context():
    memory = Memory(backend=WithSecret())
    memory.scoped("s", "ann").add("user", "private words")
    saved = asyncio.run(saved_context(memory))
    assert "DynamiqMemory" in saved
    assert "hunter2" not in saved
    assert "private words" not in saved


def test_a_context_whose_store_is_gone_says_so():
    async def go() -> None:
        saved = json.loads(await saved_context(Memory()))
        _, agent = agent_of(["Hello."])
        ctx = Context.from_dict(agent, saved, serializer=JsonSerializer())
        await agent.run(user_msg="And there?", ctx=ctx)

    with pytest.raises(Exception, match="register_memory") as caught:
        asyncio.run(go())
    causes: list[BaseException | None] = [caught.value]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    assert any(isinstance(cause, ConfigurationError) for cause in causes)


CONTINUED = """
import asyncio, json, sys, warnings
import pydantic
for category in (pydantic.PydanticDeprecatedSince20, pydantic.warnings.PydanticDeprecatedSince211):
    warnings.filterwarnings("ignore", category=category, module="inspect")
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.workflow import Context, JsonSerializer
from tests.fakes.llama_index import ScriptedLLM, in_short

async def go():
    llm = ScriptedLLM(["As I said."])
    agent = FunctionAgent(llm=llm, system_prompt="Be brief.")
    ctx = Context.from_dict(agent, json.loads(sys.argv[1]), serializer=JsonSerializer())
    await agent.run(user_msg="And there?", ctx=ctx)
    print(json.dumps(in_short(llm.prompts[0])))

asyncio.run(go())
"""


def test_another_process_continues_a_saved_context(tmp_path: Path, run_script):
    with Memory(backend=SQLite(tmp_path / "conversations.db")) as memory:
        saved = asyncio.run(saved_context(memory))
        prompt = json.loads(run_script(CONTINUED, saved).stdout)
        assert prompt == ["system: Be brief.", *TOOL_TURN_IN_SHORT, "user: And there?"]
        history = in_short(DynamiqMemory(memory, "s", "ann").get_all())
        assert history == [*TOOL_TURN_IN_SHORT, "user: And there?", "assistant: As I said."]


# --- ReActAgent and AgentWorkflow --------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
def test_a_react_agent_recalls_the_first_turn(memory, streaming):
    def react(script: Sequence[Any]) -> tuple[ScriptedLLM, ReActAgent]:
        llm = ScriptedLLM(script, function_calling=False)
        return llm, ReActAgent(llm=llm, tools=[weather], streaming=streaming)

    _, agent = react(
        [
            'Thought: I need a tool.\nAction: weather\nAction Input: {"city": "Oslo"}',
            "Thought: I can answer without using any more tools.\nAnswer: Sunny.",
        ]
    )
    assert run(agent, "How is the weather in Oslo?", memory=DynamiqMemory(memory, "s")) == "Sunny."
    llm, agent = react(["Thought: I can answer without using any more tools.\nAnswer: As I said."])
    chat = DynamiqMemory(memory, "s")
    assert run(agent, "And there?", memory=chat) == "As I said."
    prompt = " ".join(texts(llm.prompts[0]))
    assert "How is the weather in Oslo?" in prompt
    assert "Sunny." in prompt
    assert texts(llm.prompts[0])[-1] == "And there?"
    history = chat.get_all()
    assert texts(history)[0] == "How is the weather in Oslo?"
    assert [message.role.value for message in history] == ["user", "assistant", "user", "assistant"]


def team(front: Any, back: Any) -> tuple[ScriptedLLM, ScriptedLLM, AgentWorkflow]:
    first, second = ScriptedLLM(front), ScriptedLLM(back)
    agents: list[BaseWorkflowAgent] = [
        FunctionAgent(name="front", description="Answers the door", llm=first, can_handoff_to=["back"]),
        FunctionAgent(name="back", description="Knows the weather", llm=second, tools=[weather]),
    ]
    return first, second, AgentWorkflow(agents=agents, root_agent="front")


HANDOFF = calls(("h1", "handoff", {"to_agent": "back", "reason": "weather"}))


def test_a_workflow_keeps_a_handoff_and_both_agents_see_the_first_turn(memory):
    chat = DynamiqMemory(memory, "s", "ann")
    _, second, workflow = team([HANDOFF], TOOL_TURN)
    assert run(workflow, "How is the weather in Oslo and Rome?", memory=chat) == "Sunny in both."
    history = chat.get_all()
    assert_valid(history)
    assert in_short(history)[:2] == ["user: How is the weather in Oslo and Rome?", "assistant: h1"]
    assert history[2].additional_kwargs == {"tool_call_id": "h1"}
    assert in_short(history)[-4:] == TOOL_TURN_IN_SHORT[1:]
    assert in_short(second.prompts[0])[0] == TOOL_TURN_IN_SHORT[0]
    before = in_short(history)
    first, second, workflow = team([HANDOFF], ["As I said."])
    run(workflow, "And there?", memory=DynamiqMemory(memory, "s", "ann"))
    assert in_short(first.prompts[0]) == [*before, "user: And there?"]
    assert in_short(second.prompts[0])[: len(before) + 1] == [*before, "user: And there?"]
    assert in_short(chat.get_all())[-1] == "assistant: As I said."
    assert_valid(chat.get_all())


def test_a_workflows_context_brings_the_memory_back(memory):
    async def go() -> ScriptedLLM:
        _, _, workflow = team(["Hello Ann."], [])
        ctx = Context(workflow)
        await workflow.run(user_msg="I am Ann.", ctx=ctx, memory=DynamiqMemory(memory, "s"))
        saved = json.dumps(ctx.to_dict(serializer=JsonSerializer()))
        first, _, workflow = team(["You are Ann."], [])
        restored = Context.from_dict(workflow, json.loads(saved), serializer=JsonSerializer())
        await workflow.run(user_msg="Who am I?", ctx=restored)
        return first

    assert texts(asyncio.run(go()).prompts[0]) == ["I am Ann.", "Hello Ann.", "Who am I?"]
    assert texts(DynamiqMemory(memory, "s").get_all()) == ["I am Ann.", "Hello Ann.", "Who am I?", "You are Ann."]


# --- with LangChain ----------------------------------------------------------------------------------------------


def test_a_conversation_begun_in_langchain_continues_here_and_goes_back(memory):
    history = DynamiqChatMessageHistory(memory, "s", "ann")
    history.add_messages(
        [
            HumanMessage("How is the weather in Oslo and Rome?"),
            AIMessage(
                "",
                tool_calls=[
                    {"name": "weather", "args": {"city": "Oslo"}, "id": "c1"},
                    {"name": "weather", "args": {"city": "Rome"}, "id": "c2"},
                ],
            ),
            ToolMessage("sunny in Oslo", tool_call_id="c1"),
            ToolMessage("sunny in Rome", tool_call_id="c2"),
            AIMessage("Sunny in both."),
        ]
    )
    llm, agent = agent_of([calls(("c3", "weather", {"city": "Bonn"})), "Sunny as well."])
    run(agent, "And in Bonn?", memory=DynamiqMemory(memory, "s", "ann"))
    assert in_short(llm.prompts[0]) == ["system: Be brief.", *TOOL_TURN_IN_SHORT, "user: And in Bonn?"]
    assert llm.prompts[0][2:4] == [TOOL_TURN[0], result("c1", "sunny in Oslo")]
    back = history.messages
    assert [type(message) for message in back[-4:]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert back[-3].tool_calls == [{"name": "weather", "args": {"city": "Bonn"}, "id": "c3", "type": "tool_call"}]
    assert back[-2].tool_call_id == "c3"
    assert back[-1].content == "Sunny as well."


def test_a_conversation_begun_here_continues_in_langchain(memory):
    _, agent = agent_of(TOOL_TURN)
    run(agent, "How is the weather in Oslo and Rome?", memory=DynamiqMemory(memory, "s", "ann"))
    history = DynamiqChatMessageHistory(memory, "s", "ann", limit=10)
    said = history.messages
    assert [type(message) for message in said] == [HumanMessage, AIMessage, ToolMessage, ToolMessage, AIMessage]
    assert [(call["id"], call["args"]) for call in said[1].tool_calls] == [
        ("c1", {"city": "Oslo"}),
        ("c2", {"city": "Rome"}),
    ]
    history.add_messages([HumanMessage("And there?"), AIMessage("As I said.")])
    assert in_short(DynamiqMemory(memory, "s", "ann").get()) == [
        *TOOL_TURN_IN_SHORT,
        "user: And there?",
        "assistant: As I said.",
    ]
