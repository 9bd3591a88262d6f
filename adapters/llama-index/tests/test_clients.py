"""The real clients of providers, in agents with `DynamiqMemory`, against a server with the providers' rules."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool

from dynamiq_memory import Memory
from dynamiq_memory.conversation.calls import is_question
from llama_index.memory.dynamiq import DynamiqMemory
from tests.fakes.providers import ProviderServer


# The clients take a while to import: only where these tests run.
def ollama(url: str) -> FunctionCallingLLM:
    from llama_index.llms.ollama import Ollama  # noqa: PLC0415

    llm: FunctionCallingLLM = Ollama(model="llama3.1", base_url=url, context_window=8_000)
    return llm


def cohere(url: str) -> FunctionCallingLLM:
    from llama_index.llms.cohere import Cohere  # noqa: PLC0415

    llm: FunctionCallingLLM = Cohere(model="command-r", api_key="key", base_url=url, max_retries=1)
    return llm


def gemini(url: str) -> FunctionCallingLLM:
    from google.genai.types import HttpOptions  # noqa: PLC0415
    from llama_index.llms.google_genai import GoogleGenAI  # noqa: PLC0415

    return GoogleGenAI(
        model="gemini-2.5-flash",
        api_key="key",
        http_options=HttpOptions(base_url=url),
        max_tokens=1_000,
        context_window=8_000,
        max_retries=1,
    )


CLIENTS = [ollama, cohere, gemini]
# What LlamaIndex and the clients do, when they are used.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{warning}")
    for warning in (
        ":pydantic.warnings.PydanticDeprecatedSince20:inspect",
        ":pydantic.warnings.PydanticDeprecatedSince211:inspect",
        "is_running called from within a step:DeprecationWarning",
        "Inheritance class AiohttpClientSession:DeprecationWarning",
        "unclosed:ResourceWarning",
    )
]


def look(port: str) -> str:
    """Look up a port."""
    return f"Ships leave {port} at nine."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ProviderServer() as server:
        yield server
    gc.collect()  # connections that the clients leave open are found now, rather than in a later test


async def talk(llm: FunctionCallingLLM, memory: Memory) -> None:
    """Ask an agent questions, each with a new memory object; check the answers."""
    for number, (strategy, limit) in enumerate([("all", 5), ("all", 6), ("relevant", 6), ("both", 11)]):
        tools = [FunctionTool.from_defaults(look)]
        agent = FunctionAgent(llm=llm, tools=tools, system_prompt="Be brief.", streaming=False)
        session = DynamiqMemory(memory, "s", "u", strategy, limit)
        answer: Any = await agent.run(f"When do ships leave, {number}?", memory=session)
        assert str(answer).startswith("The answer")


@pytest.mark.parametrize("client", CLIENTS)
def test_an_agent_and_a_chat_engine_talk_for_several_turns(
    client: Callable[[str], FunctionCallingLLM], server: ProviderServer
) -> None:
    memory, llm = Memory(), client(server.url)
    asyncio.run(talk(llm, memory))
    assert server.refused == []
    results = 1 if client is cohere else 2
    assert memory.count() == 4 * (3 + results)
    # The last question, and two whole turns before it.
    assert sum(map(is_question, server.conversations[-1])) == 3
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=DynamiqMemory(memory, "s", "u", limit=9))
    for number in range(2):
        engine.chat(f"And the pear, {number}?")
    assert server.refused == []


@pytest.mark.parametrize("client", CLIENTS)
def test_the_server_refuses_what_providers_refuse(
    client: Callable[[str], FunctionCallingLLM], server: ProviderServer
) -> None:
    model = client(server.url)
    called = ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"port": "Ostend"})
    messages = [
        ChatMessage(role="user", content="q"),
        ChatMessage(role="assistant", blocks=[called]),
        ChatMessage(role="user", content="again"),
    ]
    with pytest.raises(Exception, match=r"has no result|is empty"):
        model.chat(messages)
    assert len(server.refused) == 1
