"""The real clients of providers, in agents with the middleware, against a server with the providers' rules."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from dynamiq_memory import Memory
from dynamiq_memory.conversation.calls import is_question
from langchain_dynamiq_memory import DynamiqMemoryMiddleware
from tests.fakes.providers import ProviderServer

CONFIG: Any = {"configurable": {"user_id": "u", "session_id": "s"}}


# The clients take seconds to import: only where these tests run.
def openai(url: str, **options: Any) -> BaseChatModel:
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    return ChatOpenAI(model="gpt-5", api_key="key", base_url=f"{url}/v1", max_retries=0, **options)


def openai_responses(url: str) -> BaseChatModel:
    return openai(url, use_responses_api=True)


def anthropic(url: str) -> BaseChatModel:
    from langchain_anthropic import ChatAnthropic  # noqa: PLC0415

    return ChatAnthropic(model="claude-test", api_key="key", base_url=url, max_retries=0)


def gemini(url: str) -> BaseChatModel:
    from langchain_google_genai import ChatGoogleGenerativeAI  # noqa: PLC0415

    return ChatGoogleGenerativeAI(model="gemini-2.5-flash", api_key="key", base_url=url, max_retries=0)


CLIENTS = [openai, openai_responses, anthropic, gemini]
# What the clients do, when they are used.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@tool
def look(port: str) -> str:
    """Look up a port."""
    return f"Ships leave {port} at nine."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderServer]:
    """A server of the test's own, since langchain-openai shares connections by their address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ProviderServer() as server:
        yield server
    gc.collect()  # connections that the clients leave open are found now, rather than in a later test


async def talk(model: BaseChatModel, memory: Memory) -> None:
    """Ask questions, each from a new state, now synchronously, now asynchronously; check the answers."""
    for number, (strategy, limit) in enumerate([("all", 5), ("all", 6), ("relevant", 6), ("both", 11)]):
        middleware = DynamiqMemoryMiddleware(memory, limit=limit, strategy=strategy)
        agent = create_agent(model, [look], system_prompt="Be brief.", middleware=[middleware])
        given: Any = {"messages": [("user", f"When do ships leave, {number}?")]}
        result = await agent.ainvoke(given, CONFIG) if number % 2 else agent.invoke(given, CONFIG)
        assert result["messages"][-1].text.startswith("The answer")


@pytest.mark.parametrize("client", CLIENTS)
def test_an_agent_talks_for_several_turns(client: Callable[[str], BaseChatModel], server: ProviderServer) -> None:
    memory = Memory()
    asyncio.run(talk(client(server.url), memory))
    assert server.refused == []
    assert memory.count() == 4 * 5
    # The last question, and two whole turns before it.
    assert sum(map(is_question, server.conversations[-1])) == 3


@pytest.mark.parametrize("client", CLIENTS)
def test_the_server_refuses_what_providers_refuse(
    client: Callable[[str], BaseChatModel], server: ProviderServer
) -> None:
    model = client(server.url)
    called = AIMessage("", tool_calls=[{"name": "look", "args": {"port": "Ostend"}, "id": "c1", "type": "tool_call"}])
    with pytest.raises(Exception, match="has no result"):
        model.invoke([HumanMessage("q"), called, HumanMessage("again")])
    assert len(server.refused) == 1
