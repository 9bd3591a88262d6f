"""The real clients of providers, in agents with the middleware, against a server with the providers' rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI

from dynamiq_memory import Memory
from dynamiq_memory.conversation.calls import is_question
from langchain_dynamiq_memory import DynamiqMemoryMiddleware
from tests.fakes.providers import ProviderServer

CONFIG: Any = {"configurable": {"user_id": "u", "session_id": "s"}}
CLIENTS: dict[str, Callable[[str], BaseChatModel]] = {
    "openai": lambda url: ChatOpenAI(model="gpt-4o", api_key="key", base_url=f"{url}/v1", max_retries=0),
    "openai-responses": lambda url: ChatOpenAI(
        model="gpt-5", api_key="key", base_url=f"{url}/v1", max_retries=0, use_responses_api=True
    ),
    "anthropic": lambda url: ChatAnthropic(model="claude-test", api_key="key", base_url=url, max_retries=0),
    "gemini": lambda url: ChatGoogleGenerativeAI(model="gemini-2.5-flash", api_key="key", base_url=url, max_retries=0),
}

# google-genai makes a class of its own of aiohttp's session.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


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


async def talk(client: str, server: ProviderServer, *, asynchronous: bool) -> Memory:
    """Ask nine questions, three with each strategy, from a new state each time; check the answers."""
    memory = Memory()
    for limit, strategy in ((5, "all"), (6, "relevant"), (11, "both")):
        middleware = DynamiqMemoryMiddleware(memory, limit=limit, strategy=strategy)
        agent = create_agent(CLIENTS[client](server.url), [look], system_prompt="Be brief.", middleware=[middleware])
        for number in range(3):
            given: Any = {"messages": [("user", f"When do ships leave, {number}?")]}
            result = await agent.ainvoke(given, CONFIG) if asynchronous else agent.invoke(given, CONFIG)
            assert result["messages"][-1].text.startswith("The answer")
    return memory


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("client", CLIENTS)
def test_an_agent_talks_for_several_turns(client: str, asynchronous: bool, server: ProviderServer) -> None:
    memory = asyncio.run(talk(client, server, asynchronous=asynchronous))
    assert server.refused == []
    assert memory.count() == 9 * 5
    # The last question, and two whole turns before it.
    assert sum(map(is_question, server.conversations[-1])) == 3


@pytest.mark.parametrize("client", CLIENTS)
def test_the_server_refuses_what_providers_refuse(client: str, server: ProviderServer) -> None:
    model = CLIENTS[client](server.url)
    called = AIMessage("", tool_calls=[{"name": "look", "args": {"port": "Ostend"}, "id": "c1", "type": "tool_call"}])
    with pytest.raises(Exception, match="has no result"):
        model.invoke([HumanMessage("q"), called, HumanMessage("again")])
    assert len(server.refused) == 1
