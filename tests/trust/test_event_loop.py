"""No asynchronous method holds up its event loop: what takes long, it does in other threads.

On a busy machine, the clock says nothing. So the longest turn of the loop is measured, in CPU time of the loop's thread.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.llms import ChatMessage

from dynamiq_memory import Memory, MemoryBackend, Message, MessageRole
from dynamiq_memory.backends import InMemory, Pinecone, PostgreSQL, Qdrant, SQLite, Weaviate
from dynamiq_memory.connections import Pinecone as PineconeConnection
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware
from llama_index.memory.dynamiq import DynamiqMemory
from llama_index.storage.chat_store.dynamiq import DynamiqAsyncChatStore, DynamiqChatStore
from tests.fakes.langchain import Talker
from tests.fakes.pinecone.server import API_KEY
from tests.fakes.pinecone.server import running as pinecone
from tests.fakes.qdrant.server import qdrant
from tests.fakes.weaviate.server import weaviate

LONGEST = 0.25
"""Seconds of CPU that the loop's thread may spend in one turn."""
MANY = 0.03
"""The same for thousands of small results, each of which takes microseconds."""
USER = {"user_id": "ann"}
WORDS = " ".join(f"word{number % 5000} ferry{number % 7}" for number in range(40_000))
QUESTION = f"Which ferry? {WORDS[:300_000]}"


class Turns:
    """Measures the turns of the event loops of this thread."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """Begin to measure."""
        self.longest: dict[str, float] = {}
        self._name = ""
        run, thread = asyncio.events.Handle._run, threading.get_ident()

        def measured(handle: asyncio.events.Handle) -> None:
            start = time.thread_time()
            run(handle)
            if threading.get_ident() == thread:
                took = time.thread_time() - start
                self.longest[self._name] = max(took, self.longest.get(self._name, 0.0))

        patch.setattr(asyncio.events.Handle, "_run", measured)

    async def of(self, name: str, call: Awaitable[Any]) -> Any:
        """Measure one call."""
        await asyncio.sleep(0)
        self._name = name
        try:
            return await call
        finally:
            self._name = ""

    def check(self) -> None:
        """Check that no call held up the loop."""
        self.longest.pop("", None)
        assert self.longest
        too_long = {name: round(took, 3) for name, took in self.longest.items() if took > LONGEST}
        assert not too_long


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    gc.collect()
    gc.disable()  # of all that other tests have left, a collection would count as a turn
    try:
        yield Turns(monkeypatch)
    finally:
        gc.enable()


class Constant:
    """An embedder that takes no time."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, len(text) % 7 + 1.0, 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 2.0, 0.5]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


def messages(count: int, length: int) -> list[Message]:
    starts = [number * 97 % 200_000 for number in range(count)]
    return [
        Message(
            role=MessageRole.USER if number % 2 == 0 else MessageRole.ASSISTANT,
            content=WORDS[start : start + length],
            metadata={**USER, "session_id": f"s-{number * 4 // count}", "kind": number},
        )
        for number, start in enumerate(starts)
    ]


def in_memory(_: ExitStack, __: pytest.FixtureRequest) -> MemoryBackend:
    return InMemory()


def sqlite(_: ExitStack, request: pytest.FixtureRequest) -> MemoryBackend:
    folder: Path = request.getfixturevalue("tmp_path")
    return SQLite(folder / "store.db", synchronous="NORMAL")


def sqlite_with_vectors(_: ExitStack, request: pytest.FixtureRequest) -> MemoryBackend:
    folder: Path = request.getfixturevalue("tmp_path")
    return SQLite(folder / "store.db", synchronous="NORMAL", embedder=Constant())


def postgresql(_: ExitStack, request: pytest.FixtureRequest) -> MemoryBackend:
    return PostgreSQL(request.getfixturevalue("postgresql_url"), request.getfixturevalue("postgresql_table"))


def on_qdrant(stack: ExitStack, _: pytest.FixtureRequest) -> MemoryBackend:
    served = stack.enter_context(qdrant())
    return Qdrant(QdrantConnection(url=served[0]), Constant(), "event-loop")


def on_weaviate(stack: ExitStack, _: pytest.FixtureRequest) -> MemoryBackend:
    server = stack.enter_context(weaviate())
    url = f"http://{server.host}:{server.http_port}"
    return Weaviate(WeaviateConnection(url=url, grpc_port=server.grpc_port), Constant(), "EventLoop")


def on_pinecone(stack: ExitStack, _: pytest.FixtureRequest) -> MemoryBackend:
    server = stack.enter_context(pinecone())
    return Pinecone(PineconeConnection(api_key=API_KEY, host=server.url), Constant())


STORES = [in_memory, sqlite, sqlite_with_vectors, postgresql, on_qdrant, on_weaviate, on_pinecone]


@pytest.fixture(params=STORES, ids=lambda make: make.__name__)
def backend(request: pytest.FixtureRequest) -> Iterator[MemoryBackend]:
    with ExitStack() as stack:
        yield stack.enter_context(request.param(stack, request))


def test_no_method_of_a_store_holds_up_the_loop(backend: MemoryBackend, turns: Turns) -> None:
    async def use() -> None:
        async with backend:
            await turns.of("add_many", backend.aadd_many(messages(240, 300)))
            large = Message(role="user", content=WORDS[:200_000], metadata={**USER, "session_id": "large"})
            await turns.of("add", backend.aadd(large))
            everything = await turns.of("get_all", backend.aget_all(None, USER))
            assert len(everything) == 241
            await turns.of("search", backend.asearch(QUESTION, USER, 10))
            many = {**USER, "kind": list(range(-20_000, 5))}
            assert await turns.of("filter", backend.acount(many)) == 5
            session = {**USER, "session_id": "s-0"}
            await turns.of("replace", backend.areplace(session, everything[:60]))
            await turns.of("update", backend.aupdate(everything[:60]))
            await turns.of("around", backend.aaround(everything[:20], 20, 20))
            assert await turns.of("take", backend.atake(session))

    asyncio.run(use())
    turns.check()


@pytest.mark.parametrize("make", [postgresql, sqlite], ids=lambda make: make.__name__)
def test_thousands_of_results_do_not_hold_up_the_loop(make: Any, request: pytest.FixtureRequest, turns: Turns) -> None:
    many = [
        Message(role="user", content=f"ferry {number}", metadata={**USER, "session_id": "s"}) for number in range(4_000)
    ]

    async def use(backend: MemoryBackend) -> None:
        async with backend:
            await backend.aadd_many(many)
            await backend.asearch("ferry", USER, 1)  # what is done once
            assert len(await turns.of("search", backend.asearch("ferry", USER))) == len(many)
            await turns.of("around", backend.aaround(many[100:200], 40, 40))

    with ExitStack() as stack:
        asyncio.run(use(make(stack, request)))
    turns.longest.pop("", None)
    assert set(turns.longest) == {"search", "around"}
    assert max(turns.longest.values()) < MANY, turns.longest


def test_no_method_of_a_memory_holds_up_the_loop(turns: Turns) -> None:
    async def use() -> None:
        async with Memory(filters={**USER, "session_id": "s"}) as memory:
            plain = [Message(role=each.role, content=each.content) for each in messages(400, 1_000)]
            await turns.of("add_many", memory.aadd_many(plain))
            await turns.of("add_turn", memory.aadd_turn(plain))
            for strategy in ("all", "relevant", "both"):
                choice = memory.aget_agent_conversation(QUESTION, 1_000, strategy=strategy, max_tokens=10**7)
                assert await turns.of(strategy, choice)
            await turns.of("search", memory.asearch(QUESTION))
            await turns.of("as string", memory.aget_all_messages_as_string())
            first = (await memory.aget_all())[0]
            await turns.of("supersede", memory.asupersede(first.id))
            await turns.of("replace", memory.areplace_messages(memory.filters, plain))

    asyncio.run(use())
    turns.check()


def test_langchain_does_not_hold_up_the_loop(turns: Turns) -> None:
    given = [(HumanMessage if n % 2 == 0 else AIMessage)(WORDS[n * 50 : n * 50 + 1_000]) for n in range(400)]

    async def use() -> None:
        memory = Memory()
        history = DynamiqChatMessageHistory(memory=memory, session_id="s", user_id="ann")
        await turns.of("add", history.aadd_messages(given))
        assert len(await turns.of("get", history.aget_messages())) == 400
        await turns.of("search", history.asearch(QUESTION, 1_000))
        _, agent = Talker(asynchronous=True).agent(lambda _: "ok", [DynamiqMemoryMiddleware(memory, limit=1_000)])
        state = {"messages": [*given, HumanMessage("new")]}
        await turns.of("middleware", agent.ainvoke(state, {"configurable": {"user_id": "ann", "session_id": "s"}}))

    asyncio.run(use())
    turns.check()


def test_llama_index_does_not_hold_up_the_loop(turns: Turns) -> None:
    given = [
        ChatMessage(role="user" if n % 2 == 0 else "assistant", content=WORDS[n * 50 : n * 50 + 1_000])
        for n in range(400)
    ]

    async def use() -> None:
        memory = DynamiqMemory(Memory(message_limit=5_000), "s", user_id="ann")
        await turns.of("put", memory.aput_messages(given))
        assert len(await turns.of("get all", memory.aget_all())) == 400
        assert await turns.of("get", memory.aget(WORDS[:100_000]))
        await turns.of("set", memory.aset(given[:200]))
        store = DynamiqAsyncChatStore(Memory())
        await turns.of("store add", store.add_messages("s", given))
        assert len(await turns.of("store get", store.get_messages("s"))) == 400
        await turns.of("store set", store.set_messages("s", given[:200]))
        await turns.of("store archive", store.archive_oldest_messages("s", 150))
        await turns.of("store delete", store.delete_message("s", 0))
        older = DynamiqChatStore(Memory())
        await turns.of("older set", older.aset_messages("s", given))
        assert len(await turns.of("older get", older.aget_messages("s"))) == 400

    asyncio.run(use())
    turns.check()
