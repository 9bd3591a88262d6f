"""How many requests a conversation needs from stores behind a network, however many messages match."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dynamiq_memory import Memory, MemoryBackend, Message
from dynamiq_memory.backends import Weaviate
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from tests.fakes.weaviate.server import weaviate
from tests.trust.proxies import Gateway
from tests.trust.stores import opened

LIMIT = 20
Count = Callable[[], int]


def messages() -> Iterator[Message]:
    """A long session, in which matches are close together, and several short ones."""
    scope = {"user_id": "u", "session_id": "long"}
    for n in range(90):
        kind = "train" if n % 2 else "ferry"
        yield Message(role="user", content=f"When does {kind} {n} leave?", metadata=scope)
        yield Message(role="assistant", content=f"At {n}.", metadata=scope)
    for n in range(24):
        scope = {"user_id": "u", "session_id": f"short {n % 12}"}
        yield Message(role="user", content=f"When does bus {n} leave?", metadata=scope)
        yield Message(role="assistant", content=f"At {n}.", metadata=scope)


def on_weaviate(stack: ExitStack) -> tuple[MemoryBackend, Count]:
    server = stack.enter_context(weaviate())
    connection = WeaviateConnection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)
    return Weaviate(connection, collection_name="Requests"), lambda: sum(server.requests.values())


def counted(name: str, folder: Path, stack: ExitStack) -> tuple[MemoryBackend, Count]:
    if name == "Weaviate":
        return on_weaviate(stack)
    gateways: list[Gateway] = []

    def through(url: str) -> str:
        gateways.append(stack.enter_context(Gateway(url)))
        return gateways[-1].url

    return stack.enter_context(opened(name, folder, through)), lambda: len(gateways[-1].requests)


# For a session with matches close together, and for matches in twelve sessions: at most three for each of these.
MOST = {
    "Qdrant": {"relevant": (3, 3), "both": (4, 4)},
    "Pinecone": {"relevant": (6, 7), "both": (8, 11)},
    "DynamoDB": {"relevant": (5, 38), "both": (6, 38)},
    "Weaviate": {"relevant": (7, 40), "both": (8, 40)},
}


def cost(store: MemoryBackend, count: Count, strategy: str, filters: dict[str, str], query: str) -> int:
    """Read a conversation of whole turns, and return the number of requests."""
    memory = Memory(backend=store, filters={"user_id": "u", **filters})

    def ask() -> list[Message]:
        return memory.get_agent_conversation(query, LIMIT, strategy=strategy, max_tokens=10**6)

    ask()  # what is done once in a connection is not counted
    before = count()
    given = ask()
    used = count() - before
    assert len(given) >= LIMIT
    for question, answer in zip(given[::2], given[1::2], strict=True):
        assert str(question.content).split()[-2] == str(answer.content).split()[-1].rstrip(".")
    return used


@pytest.mark.parametrize("name", MOST)
def test_a_conversation_needs_few_requests_however_many_messages_match(name: str, tmp_path: Path) -> None:
    used: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        store, count = counted(name, tmp_path, stack)
        stack.enter_context(store)
        store.add_many(list(messages()))
        for strategy in MOST[name]:
            used[strategy] = tuple(
                cost(store, count, strategy, *asked) for asked in (({"session_id": "long"}, "train"), ({}, "bus"))
            )
    assert all(min(costs) for costs in used.values())
    too_many = {
        how: costs
        for how, costs in used.items()
        if any(cost > most for cost, most in zip(costs, MOST[name][how], strict=True))
    }
    assert not too_many
