"""YAML, traces, copies of agents, agents as tools."""

from __future__ import annotations

import copy
import json

import pytest
from dynamiq import Workflow
from dynamiq.callbacks import TracingCallbackHandler
from dynamiq.flows import Flow
from dynamiq.memory import MemorySaveMode
from dynamiq.nodes.node import InputTransformer
from dynamiq.nodes.operators import Map
from dynamiq.nodes.tools.agent_tool import SubAgentTool
from dynamiq.nodes.types import InferenceMode
from dynamiq.runnables import RunnableConfig

from dynamiq_memory import ConfigurationError, Memory, register_memory
from dynamiq_memory.backends import SQLite
from dynamiq_memory_agents import AgentMemory
from tests.fakes.dynamiq.agents import IDS, final, in_short, use

DEFAULT = InferenceMode.DEFAULT


def echo(messages):
    return final(DEFAULT, f"Re: {messages[-1]['content']}")


@pytest.fixture
def saved(tmp_path):
    """A memory in a file, and the path of a YAML file."""
    with Memory(backend=SQLite(tmp_path / "memory.db"), filters={"tenant": "t-1"}) as memory:
        yield memory, tmp_path / "workflow.yaml"


def test_a_workflow_goes_through_yaml(agent, talk, model, saved):
    core, path = saved
    model.play(echo)
    memory = AgentMemory(memory=core, save_mode=MemorySaveMode.INPUT_OUTPUT, message_limit=7)
    workflow = Workflow(flow=Flow(nodes=[agent(memory, memory_limit=5)]))
    workflow.run(input_data={"input": "first", **IDS})
    workflow.to_yaml_file(path)

    again = Workflow.from_yaml_file(str(path), init_components=True)
    (loaded,) = again.flow.nodes
    assert type(loaded.memory) is AgentMemory
    assert loaded.memory.memory is core
    assert (loaded.memory.message_limit, loaded.memory.filters) == (7, {"tenant": "t-1"})
    assert loaded.memory.save_mode is MemorySaveMode.INPUT_OUTPUT
    result = again.run(input_data={"input": "second", **IDS})
    assert result.output[loaded.id]["output"]["content"] == "Re: second"
    assert in_short(core.get_all()) == ["user: first", "assistant: Re: first", "user: second", "assistant: Re: second"]
    assert again.to_yaml_file_data().nodes[loaded.id].to_dict()["memory"] == memory.to_dict()


def test_another_process_finds_the_store(agent, model, saved):
    core, path = saved
    model.play(echo)
    memory = AgentMemory(memory=core)
    workflow = Workflow(flow=Flow(nodes=[agent(memory)]))
    workflow.run(input_data={"input": "first", **IDS})
    workflow.to_yaml_file(path)
    # Another process does not have the object with this identity.
    path.write_text(path.read_text().replace(memory.to_dict()["memory"]["id"], "unknown-here"))
    again = Workflow.from_yaml_file(str(path), init_components=True)
    again.run(input_data={"input": "second", **IDS})
    (loaded,) = again.flow.nodes
    assert loaded.memory.memory is not core
    assert [message.text for message in core.get_all() if message.role == "user"] == ["first", "second"]
    loaded.memory.memory.close()


def test_yaml_written_by_hand(model, tmp_path):
    url = f"sqlite:///{tmp_path / 'own.db'}"
    path = tmp_path / "workflow.yaml"
    path.write_text(f"""
connections:
  model: {{type: dynamiq.connections.OpenAI, api_key: key, url: "{model.url}"}}
nodes:
  node:
    type: dynamiq.nodes.agents.Agent
    name: assistant
    role: A helpful assistant.
    llm: {{type: dynamiq.nodes.llms.OpenAI, connection: model, model: gpt-4o}}
    memory:
      type: dynamiq_memory_agents.AgentMemory
      memory: "{url}"
      save_mode: input_output
flows:
  flow: {{name: flow, nodes: [node]}}
workflows:
  wf: {{flow: flow, version: 1}}
""")
    model.play(echo)
    workflow = Workflow.from_yaml_file(str(path), init_components=True)
    workflow.run(input_data={"input": "first", **IDS})
    memory = workflow.flow.nodes[0].memory
    assert [message.content for message in memory.get_all()] == ["first", "Re: first"]
    memory.memory.close()


def test_a_memory_by_its_name():
    core = Memory()
    register_memory("tests-of-agents", core)
    described = AgentMemory(memory=core).to_dict()
    described["memory"]["id"] = "of another process"
    assert AgentMemory(**described).memory is core


def test_a_memory_that_cannot_be_found_again():
    described = AgentMemory(memory=Memory()).to_dict()
    with pytest.raises(ConfigurationError, match="register_memory"):
        AgentMemory(**described)


def test_to_dict_is_plain_and_holds_no_message(agent, model, saved):
    core, _ = saved
    core.add("user", "a secret", metadata=IDS)
    assistant = agent(AgentMemory(memory=core))
    described = assistant.to_dict()["memory"]
    assert described["type"] == "dynamiq_memory_agents.AgentMemory"
    assert "a secret" not in json.dumps(described)
    for options in ({"include_secure_params": True}, {"for_tracing": True}, {"by_alias": True}):
        assert assistant.to_dict(**options)["memory"] == described


def test_traces(agent, talk, model):
    model.play(echo)
    tracing = TracingCallbackHandler()
    talk.ask(agent(AgentMemory(memory=Memory())), "first", RunnableConfig(callbacks=[tracing]))
    assert tracing.runs


# --- copies ----------------------------------------------------------------------------------------------------


def test_copies_share_the_store(agent, model):
    memory = AgentMemory(memory=Memory(), message_limit=5)
    memory.memory.add("user", "Hello.", metadata=IDS)
    for other in (copy.copy(memory), copy.deepcopy(memory), memory.model_copy(deep=True), agent(memory).clone().memory):
        assert other.memory is memory.memory
        assert other.message_limit == 5


def test_map_runs_copies_of_an_agent(agent, model):
    core = Memory()
    model.play(echo)
    node = Map(node=agent(AgentMemory(memory=core)), max_workers=3)
    given = [{"input": f"asks {number}", "user_id": f"u-{number}", "session_id": "s"} for number in range(6)]
    Workflow(flow=Flow(nodes=[node])).run(input_data={"input": given})
    for number in range(6):
        said = in_short(core.get_all(filters={"user_id": f"u-{number}"}))
        assert said == [f"user: asks {number}", f"assistant: Thought: Known.\nAnswer: Re: asks {number}"]


# --- agents as tools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["agent", "tool", "factory"])
def test_an_agent_as_a_tool_of_another(agent, talk, model, core, how):
    memory = AgentMemory(memory=core)

    def scout():
        return agent(memory, name="scout", role="A scout.", description="Finds things out.")

    tool = scout()
    if how == "tool":
        tool = SubAgentTool(name="scout", description="Finds things out.", agent=tool)
    elif how == "factory":
        tool = SubAgentTool(name="scout", description="Finds things out.", agent_factory=scout)
    boss = agent(memory, name="boss", tools=[tool])

    def speak(messages):
        if "A scout." in messages[0]["content"]:
            return final(DEFAULT, "The key is red.")
        if "Observation" in messages[-1]["content"]:
            return final(DEFAULT, "Red.")
        return use(DEFAULT, "scout", {"input": f"Find the key for: {messages[-1]['content']}"})

    model.play(speak)
    for number in range(3):
        assert talk.ask(boss, f"Question {number}?") == "Red."
    own = core.get_all(filters=IDS)
    assert [m.text for m in own if m.role == "user"] == [f"Question {number}?" for number in range(3)]
    assert len(own) == 12
    inner = core.get_all(filters={"user_id": "ann:scout", "session_id": "monday:scout"})
    assert [m.text for m in inner if m.role == "user"] == [
        f"Find the key for: Question {number}?" for number in range(3)
    ]
    assert core.count() == 18


def test_two_agents_of_a_flow_share_a_session(agent, model, core):
    memory = AgentMemory(memory=core, save_mode=MemorySaveMode.INPUT_OUTPUT)
    first = agent(memory, name="first")
    second = agent(memory, name="second", input_transformer=InputTransformer()).depends_on(first)
    model.play(echo)
    Workflow(flow=Flow(nodes=[first, second])).run(input_data={"input": "Hello", **IDS})
    assert in_short(core.get_all()) == ["user: Hello", "assistant: Re: Hello"] * 2
