"""Agents in workflows, asked turn by turn: what is stored, and what the model is given."""

from __future__ import annotations

import json

import pytest
from dynamiq import Workflow
from dynamiq.callbacks.streaming import StreamingIteratorCallbackHandler
from dynamiq.connections import OpenAI as OpenAIConnection
from dynamiq.flows import Flow
from dynamiq.memory import Memory as DynamiqMemory
from dynamiq.memory import MemoryRetrievalStrategy, MemorySaveMode
from dynamiq.nodes.agents import Agent
from dynamiq.nodes.llms import OpenAI
from dynamiq.nodes.types import InferenceMode
from dynamiq.runnables import RunnableConfig
from dynamiq.types.streaming import StreamingConfig

from dynamiq_memory import Memory, MessageRole
from dynamiq_memory_agents import AgentMemory
from tests.fakes.dynamiq.agents import IDS, MODES, final, history, in_short, texts, use, weather

TOPICS = ["dog", "bread", "oven", "bees", "roof", "piano", "tax", "boat", "garden", "knee"]
QUESTIONS = [f"What about the {topic}?" for topic in TOPICS]


def speak(messages):
    asked = messages[-1]["content"].removeprefix("What about the ").removesuffix("?")
    return final(InferenceMode.DEFAULT, f"The {asked} is fine.")


def answer(topic):
    return f"Thought: Known.\nAnswer: The {topic} is fine."


def ten_turns(agent, talk, model):
    model.play(speak)
    for question in QUESTIONS:
        talk.ask(agent, question)


def test_the_package_s_own_memory_forgets(agent, talk, model):
    """What the rest of these tests would say of it."""
    own = DynamiqMemory()
    ten_turns(agent(own, memory_limit=3), talk, model)
    assert len(own.get_all()) < 20


def test_the_first_example_of_the_package_s_documentation_with_one_line_changed(model):
    model.play(
        lambda prompt: final(
            InferenceMode.DEFAULT, "TechCorp" if any("TechCorp" in m["content"] for m in prompt[:-1]) else "Hello Alex"
        )
    )
    llm = OpenAI(connection=OpenAIConnection(api_key="key", url=model.url), model="gpt-4o")
    agent = Agent(
        name="assistant",
        llm=llm,
        role="Helpful assistant that remembers prior turns.",
        memory=AgentMemory(memory=Memory()),
    )
    wf = Workflow(flow=Flow(nodes=[agent]))
    ids = {"user_id": "demo-user", "session_id": "demo-session"}
    wf.run(input_data={"input": "My name is Alex and I work at TechCorp.", **ids})
    result = wf.run(input_data={"input": "Where do I work?", **ids})
    assert result.output[agent.id]["output"]["content"] == "TechCorp"


def test_ten_turns_of_an_agent_that_loads_three_messages_are_all_stored(agent, talk, model, core):
    ten_turns(agent(AgentMemory(memory=core), memory_limit=3), talk, model)
    said = [line for topic in TOPICS for line in (f"user: What about the {topic}?", f"assistant: {answer(topic)}")]
    stored = core.get_all(filters=IDS)
    assert in_short(stored) == said
    assert len({message.id for message in stored}) == 20
    # Messages stored early have not been written again.
    assert [message.timestamp for message in stored] == sorted(message.timestamp for message in stored)


def test_ids_and_times_stay(agent, talk, model, core):
    assistant = agent(AgentMemory(memory=core), memory_limit=3)
    model.play(speak)
    talk.ask(assistant, QUESTIONS[0])
    before = core.get_all()
    for question in QUESTIONS[1:4]:
        talk.ask(assistant, question)
    assert core.get_all()[:2] == before


@pytest.mark.parametrize(
    ("strategy", "limit", "expected"),
    [
        (MemoryRetrievalStrategy.ALL, 3, ["knee"]),
        (MemoryRetrievalStrategy.ALL, 4, ["garden", "knee"]),
        (MemoryRetrievalStrategy.ALL, 100, TOPICS),
        (MemoryRetrievalStrategy.RELEVANT, 3, ["dog"]),
        (MemoryRetrievalStrategy.BOTH, 4, ["dog", "knee"]),
        (None, 3, ["knee"]),
    ],
)
def test_the_eleventh_prompt_holds_what_the_strategy_promises(agent, talk, model, core, strategy, limit, expected):
    memory = AgentMemory(memory=core)
    ten_turns(agent(memory, memory_limit=3), talk, model)
    model.play(speak)
    talk.ask(agent(memory, memory_limit=limit, memory_retrieval_strategy=strategy), "How old is my dog?")
    (prompt,) = model.prompts
    assert prompt[-1]["content"] == "How old is my dog?"
    assert texts(history(prompt)) == [
        line for topic in expected for line in (f"What about the {topic}?", answer(topic))
    ]
    assert len(core.get_all()) == 22


@pytest.mark.parametrize("strategy", list(MemoryRetrievalStrategy))
def test_a_session_goes_on_for_ever_with_each_strategy(agent, talk, model, core, strategy):
    """Messages recalled from far back are neither stored again nor mistaken for new ones."""
    assistant = agent(AgentMemory(memory=core), memory_limit=4, memory_retrieval_strategy=strategy)
    model.play(speak)
    asked = QUESTIONS + QUESTIONS[:3] + ["What about the dog?"] * 3
    for question in asked:
        talk.ask(assistant, question)
    assert [message.text for message in core.get_all() if message.role is MessageRole.USER] == asked
    assert core.count() == 2 * len(asked)


# --- tools ---------------------------------------------------------------------------------------------------


def tool_turn(mode, city="Oslo", last="Take an umbrella."):
    return [use(mode, "weather", {"city": city}), final(mode, last)]


@pytest.mark.parametrize("mode", MODES)
def test_full_keeps_calls_and_observations(agent, talk, model, core, mode):
    assistant = agent(AgentMemory(memory=core), inference_mode=mode, tools=[weather()])
    model.play(tool_turn(mode))
    assert talk.ask(assistant, "Do I need an umbrella in Oslo?") == "Take an umbrella."
    asked, call, result, said = core.get_all()
    assert (asked.role, asked.text) == (MessageRole.USER, "Do I need an umbrella in Oslo?")
    assert call.role is MessageRole.ASSISTANT
    assert call.tool_calls[0]["function"]["name"] == "weather"
    assert "Oslo" in call.tool_calls[0]["function"]["arguments"]
    assert (result.role, result.tool_call_id) == (MessageRole.TOOL, call.tool_calls[0]["id"])
    assert "It rains in Oslo." in result.text
    assert (said.role, said.tool_calls) == (MessageRole.ASSISTANT, None)
    assert "Take an umbrella." in said.text


@pytest.mark.parametrize("mode", MODES)
def test_the_next_prompt_holds_the_round_as_the_model_made_it(agent, talk, model, core, mode):
    assistant = agent(AgentMemory(memory=core), inference_mode=mode, tools=[weather()])
    model.play(tool_turn(mode))
    talk.ask(assistant, "Do I need an umbrella in Oslo?")
    first = [message for message in model.prompts[-1] if message["role"] != "system"]
    model.play([final(mode, "Yes, in Oslo.")])
    talk.ask(assistant, "Where was that?")
    (prompt,) = model.prompts
    assert history(prompt)[:-1] == first
    assert "Take an umbrella." in history(prompt)[-1]["content"]
    assert core.count() == 6


@pytest.mark.parametrize("mode", MODES)
def test_input_output_keeps_the_input_and_the_answer(agent, talk, model, core, mode):
    memory = AgentMemory(memory=core, save_mode=MemorySaveMode.INPUT_OUTPUT)
    assistant = agent(memory, inference_mode=mode, tools=[weather()], memory_limit=3)
    for number in range(4):
        model.play(tool_turn(mode, last=f"Take {number} umbrellas."))
        talk.ask(assistant, f"Question {number}?")
    assert in_short(core.get_all()) == [
        line for n in range(4) for line in (f"user: Question {n}?", f"assistant: Take {n} umbrellas.")
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_turn_of_tools_is_one_turn_when_it_is_cut(agent, talk, model, core, mode):
    assistant = agent(AgentMemory(memory=core), inference_mode=mode, tools=[weather()], memory_limit=3)
    model.play([use(mode, "weather", {"city": "Oslo"})] * 3 + [final(mode, "It rains.")])
    talk.ask(assistant, "How is Oslo?")
    model.play([final(mode, "Oslo.")])
    talk.ask(assistant, "Which city?")
    said = history(model.prompts[0])
    assert texts(said)[0] == "How is Oslo?"
    assert "It rains." in texts(said)[-1]
    assert len(said) <= 3
    assert core.count() == 8 + 2


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_that_fails_and_a_model_that_babbles(agent, talk, model, core, mode):
    """Corrections are part of the turn, not questions of the user."""
    assistant = agent(AgentMemory(memory=core), inference_mode=mode, tools=[weather()], memory_limit=20)
    babble = {"content": "Hm.", "tool_calls": None} if mode is InferenceMode.FUNCTION_CALLING else "Hm."
    model.play([use(mode, "weather", {"city": "Atlantis"}), babble, final(mode, "No such city.")])
    talk.ask(assistant, "How is Atlantis?")
    stored = core.get_all()
    assert [m.text for m in stored if m.role is MessageRole.USER] == ["How is Atlantis?"]
    assert "No such city." in stored[-1].text
    first = [message for message in model.prompts[-1] if message["role"] != "system"]
    model.play([final(mode, "Atlantis.")])
    talk.ask(assistant, "Which?")
    assert history(model.prompts[0])[: len(first)] == first


def test_several_calls_at_once(agent, talk, model, core):
    mode = InferenceMode.FUNCTION_CALLING
    assistant = agent(AgentMemory(memory=core), inference_mode=mode, tools=[weather()])
    both = use(mode, "weather", {"city": "Oslo"})
    both["tool_calls"] += use(mode, "weather", {"city": "Rome"})["tool_calls"]
    model.play([both, final(mode, "Rain in both.")])
    talk.ask(assistant, "Oslo and Rome?")
    _, call, first, second, said = core.get_all()
    assert [one["id"] for one in call.tool_calls] == [first.tool_call_id, second.tool_call_id]
    assert said.text == "Rain in both."
    assert json.loads(call.tool_calls[1]["function"]["arguments"])["action_input"] == {"city": "Rome"}


# --- failures and streams --------------------------------------------------------------------------------------


def test_the_input_of_a_run_that_fails_is_kept(agent, talk, model, core):
    assistant = agent(AgentMemory(memory=core), memory_limit=3)
    ten_turns(assistant, talk, model)
    model.play([400])
    talk.fail(assistant, "What about the car?")
    assert in_short(core.get_all())[-1] == "user: What about the car?"
    assert core.count() == 21
    model.play(speak)
    talk.ask(assistant, "What about the car?")
    assert in_short(core.get_all())[-3:] == ["user: What about the car?"] * 2 + [f"assistant: {answer('car')}"]
    assert core.count() == 23


def test_a_failing_run_in_a_new_session(agent, talk, model, core):
    model.play([400])
    talk.fail(agent(AgentMemory(memory=core)), "Hello?")
    assert in_short(core.get_all(filters=IDS)) == ["user: Hello?"]


@pytest.mark.parametrize("mode", MODES)
def test_streaming(agent, talk, model, core, mode):
    assistant = agent(
        AgentMemory(memory=core), inference_mode=mode, tools=[weather()], streaming=StreamingConfig(enabled=True)
    )
    model.play(tool_turn(mode))
    callback = StreamingIteratorCallbackHandler()
    answered = talk.ask(assistant, "Do I need an umbrella?", RunnableConfig(callbacks=[callback]))
    assert answered == "Take an umbrella."
    assert all(request["stream"] for request in model.requests)
    assert list(callback)
    stored = core.get_all()
    assert [message.role.value for message in stored] == ["user", "assistant", "tool", "assistant"]
    assert "Take an umbrella." in stored[-1].text


# --- scopes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["user_id", "session_id"])
def test_only_one_of_the_ids(agent, talk, model, core, missing):
    assistant = agent(AgentMemory(memory=core), memory_limit=4)
    model.play(speak)
    for question in QUESTIONS[:3]:
        talk.ask(assistant, question, **{missing: None})
    assert [m.text for m in core.get_all() if m.role is MessageRole.USER] == QUESTIONS[:3]
    assert core.count() == 6
    assert texts(history(model.prompts[-1]))[0] == QUESTIONS[0]
    assert all(missing not in message.metadata for message in core.get_all())


def test_without_ids_nothing_is_stored(agent, talk, model, core):
    model.play(speak)
    talk.ask(agent(AgentMemory(memory=core)), QUESTIONS[0], user_id=None, session_id=None)
    assert core.count() == 0


def test_users_and_sessions_are_apart(agent, talk, model, core):
    assistant = agent(AgentMemory(memory=core))
    model.play(speak)
    talk.ask(assistant, QUESTIONS[0])
    talk.ask(assistant, QUESTIONS[1], user_id="ben")
    talk.ask(assistant, QUESTIONS[2], session_id="tuesday")
    assert [history(prompt) for prompt in model.prompts] == [[], [], []]
    assert core.count() == 6


def test_metadata_of_the_run(agent, talk, model, core):
    assistant = agent(AgentMemory(memory=core))
    model.play(speak)
    given = {"channel": "web", "timestamp": "yesterday", "message_id": "m-1", "odd": object(), "none": None}
    talk.ask(assistant, QUESTIONS[0], metadata=given)
    for message in core.get_all(filters=IDS):
        assert message.metadata["channel"] == "web"
        assert message.metadata["dynamiq_timestamp"] == "yesterday"
        assert message.metadata["dynamiq_message_id"] == "m-1"
        assert "object object" in message.metadata["odd"]
        assert "none" not in message.metadata


def said(core):
    return [(message.role.value, message.text) for message in core.get_all()]


@pytest.mark.parametrize("failed", [False, True], ids=["answered", "failed"])
def test_a_question_that_looks_like_an_observation_is_kept_without_its_trace(agent, talk, model, failed):
    core = Memory(save_mode="input_output")
    asking = agent(AgentMemory(memory=core))
    if failed:
        model.play([400])
        talk.fail(asking, "Q1")
    else:
        model.play([final(InferenceMode.DEFAULT, "A1")])
        talk.ask(asking, "Q1")
    model.play([final(InferenceMode.DEFAULT, "A2")])
    talk.ask(asking, "Observation: it rains")
    begun = [("user", "Q1")] if failed else [("user", "Q1"), ("assistant", "A1")]
    assert said(core) == [*begun, ("user", "Observation: it rains"), ("assistant", "A2")]


def test_a_program_that_reads_the_memory_before_a_run_changes_nothing(agent, talk, model):
    core = Memory()
    memory = AgentMemory(memory=core)
    asking = agent(memory, memory_limit=1)
    for _ in range(3):
        model.play([400])
        talk.fail(asking, "q?")
    memory.get_agent_conversation(filters=IDS, limit=100)
    model.play([final(InferenceMode.DEFAULT, "yes")])
    talk.ask(asking, "q?")
    assert said(core)[:4] == [("user", "q?")] * 4
    memory.delete("monday", "ann")
    model.play([final(InferenceMode.DEFAULT, "again")])
    talk.ask(asking, "q?")
    assert [role for role, _ in said(core)][-2:] == ["user", "assistant"]


def test_a_run_outside_of_the_default_filters_fails_before_it_begins(agent, talk, model):
    core = Memory(filters={"user_id": "zed"})
    talk.fail(agent(AgentMemory(memory=core)), "q?")
    assert model.requests == []
