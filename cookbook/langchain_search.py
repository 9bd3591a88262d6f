"""An agent of LangChain that searches its memory by a tool, and reads on where a result is cut.

The model is a small one with a script, so that the recipe runs offline. It shows what a model needs for the tool:
`bind_tools`, which any model with tool calls has. Replace it with yours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool

from dynamiq_memory import Memory
from langchain_dynamiq_memory import DynamiqMemoryMiddleware

# How a result says that it is cut, and where to read on.
CUT = re.compile(r"more characters in message (\S+): offset=(\d+)\)")
SPRING = RunnableConfig(configurable={"user_id": "rita", "session_id": "spring"})
AUTUMN = RunnableConfig(configurable={"user_id": "rita", "session_id": "autumn"})


class SearchingModel(BaseChatModel):
    """Searches for the question's words, reads on until it finds a price, and answers with it."""

    @property
    def _llm_type(self) -> str:
        return "searching"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Offer the tools to each call of the model."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, kwargs.get("tools", [])))])

    def _answer(self, messages: list[BaseMessage], tools: list[dict[str, Any]]) -> AIMessage:
        if not tools:
            return AIMessage("Noted.")
        found = messages[-1].text if isinstance(messages[-1], ToolMessage) else ""
        if price := re.search(r"[\d.]+ euros", found):
            return AIMessage(f"You paid {price[0]}.")
        if cut := CUT.search(found):
            return self._call(tools, {"message_id": cut[1], "offset": int(cut[2])}, len(messages))
        if found:
            return AIMessage("I do not know.")
        return self._call(tools, {"query": messages[-1].text}, len(messages))

    def _call(self, tools: list[dict[str, Any]], arguments: dict[str, Any], number: int) -> AIMessage:
        name = tools[0]["function"]["name"]
        return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call-{number}"}])


def short(line: str) -> str:
    return line if len(line) < 200 else f"{line[:125]} … {line[-75:]}"


def main() -> None:
    with Memory() as memory:
        writer = create_agent(SearchingModel(), middleware=[DynamiqMemoryMiddleware(memory)])
        letter = "About my new hives. " + "The bees are well. " * 150 + "All three hives together were 412.50 euros."
        writer.invoke({"messages": [HumanMessage(letter)]}, SPRING)

        # Another session, months later: nothing of the first is recalled, but the agent can search it.
        agent = create_agent(SearchingModel(), middleware=[DynamiqMemoryMiddleware(memory, search="user")])
        asked = HumanMessage("What did my hives cost?")
        for message in agent.invoke({"messages": [asked]}, AUTUMN)["messages"]:
            for call in getattr(message, "tool_calls", []):
                print(f"call: {call['name']} with {', '.join(call['args'])}")
            if isinstance(message, ToolMessage):
                print("\n".join(f"  {short(line)}" for line in message.text.splitlines()))
            elif message.text:
                print(f"{message.type}: {message.text}")


if __name__ == "__main__":
    main()
