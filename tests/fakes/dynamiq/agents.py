"""Agents of the dynamiq package, and how the tests talk to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dynamiq import Workflow
from dynamiq.connections import OpenAI as OpenAIConnection
from dynamiq.flows import Flow
from dynamiq.nodes.agents import Agent
from dynamiq.nodes.agents.exceptions import ToolExecutionException
from dynamiq.nodes.llms import OpenAI
from dynamiq.nodes.tools.function_tool import function_tool
from dynamiq.nodes.types import InferenceMode
from dynamiq.runnables import RunnableResult

from dynamiq_memory import Message

IDS = {"user_id": "ann", "session_id": "monday"}
MODES = list(InferenceMode)


@function_tool
def weather(city: str, **_: Any) -> str:
    """Tells the weather in a city."""
    if city == "Atlantis":
        raise ToolExecutionException("no such city", recoverable=True)
    return f"It rains in {city}."


def new_agent(url: str, memory: Any, **options: Any) -> Agent:
    llm = OpenAI(connection=OpenAIConnection(api_key="key", url=url), model="gpt-4o")
    settings = {"name": "assistant", "role": "A helpful assistant.", **options}
    return Agent(llm=llm, memory=memory, **settings)


class Talk:
    """Runs an agent in a workflow."""

    def run(self, agent: Agent, question: str, config: Any = None, **given: Any) -> RunnableResult:
        workflow = Workflow(flow=Flow(nodes=[agent]))
        return workflow.run(input_data={"input": question, **(IDS | given)}, config=config)

    def ask(self, agent: Agent, question: str, config: Any = None, **given: Any) -> str:
        """Ask, and return the answer."""
        result = self.run(agent, question, config, **given).output[agent.id]
        assert result["status"] == "success", result
        return str(result["output"]["content"])

    def fail(self, agent: Agent, question: str, **given: Any) -> None:
        """Ask an agent that is to fail."""
        assert self.run(agent, question, **given).output[agent.id]["status"] == "failure"


# --- what a model says, by mode --------------------------------------------------------------------------------


def final(mode: InferenceMode, text: str) -> Any:
    """An answer."""
    if mode is InferenceMode.FUNCTION_CALLING:
        return calls(("provide_final_answer", {"thought": "Known.", "answer": text}))
    if mode is InferenceMode.XML:
        return f"<output><thought>Known.</thought><answer>{text}</answer></output>"
    if mode is InferenceMode.STRUCTURED_OUTPUT:
        return json.dumps({"thought": "Known.", "action": "finish", "action_input": text, "output_files": ""})
    return f"Thought: Known.\nAnswer: {text}"


def use(mode: InferenceMode, tool: str, arguments: dict[str, Any]) -> Any:
    """The use of a tool."""
    given = json.dumps(arguments)
    if mode is InferenceMode.FUNCTION_CALLING:
        return calls((tool, {"thought": "Look.", "action_input": arguments}))
    if mode is InferenceMode.XML:
        return f"<output><thought>Look.</thought><action>{tool}</action><action_input>{given}</action_input></output>"
    if mode is InferenceMode.STRUCTURED_OUTPUT:
        return json.dumps({"thought": "Look.", "action": tool, "action_input": given, "output_files": ""})
    return f"Thought: Look.\nAction: {tool}\nAction Input: {given}"


_count = iter(range(10**9))


def calls(*named: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A message that calls functions."""
    made = [
        {
            "id": f"call-{next(_count)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in named
    ]
    return {"content": None, "tool_calls": made}


def in_short(messages: Sequence[Message]) -> list[str]:
    """Stored messages in short."""
    return [f"{message.role}: {message.text}" for message in messages]


def history(prompt: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a request between the instructions and the question."""
    spoken = [message for message in prompt if message["role"] != "system"]
    return spoken[:-1]


def texts(messages: Sequence[dict[str, Any]]) -> list[str]:
    return [str(message["content"]) for message in messages]
