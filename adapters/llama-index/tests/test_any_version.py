"""Features of every supported release of LlamaIndex, including the first."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import ChatMemoryBuffer

from dynamiq_memory import Memory, MemoryBackend
from llama_index.memory.dynamiq import DynamiqMemory
from llama_index.storage.chat_store.dynamiq import DynamiqAsyncChatStore, DynamiqChatStore

CALL = {"id": "c-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ghent"}'}}


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store)


def test_an_engine_remembers(memory: Memory) -> None:
    for number in range(2):
        chat = DynamiqMemory.from_defaults(memory=memory, session_id="s", user_id="u")
        engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=chat)
        engine.chat(f"question {number}")
        asyncio.run(engine.achat(f"and {number}"))
    assert [m.content for m in chat.get_all() if m.role == "user"] == ["question 0", "and 0", "question 1", "and 1"]
    assert chat.get("question 0")[0].content == "question 0"


def test_messages_come_back_equal(memory: Memory) -> None:
    chat = DynamiqMemory(memory, "s")
    messages = [
        ChatMessage(role="user", content="rain?"),
        ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [CALL]}),
        ChatMessage(role="tool", content="rain", additional_kwargs={"tool_call_id": "c-1", "name": "weather"}),
        ChatMessage(role="assistant", content="Yes.", additional_kwargs={"odd": (1, {2: b"3"})}),
    ]
    chat.put_messages(messages)
    assert chat.get_all() == chat.get() == messages
    assert [call["id"] for call in memory.get_all()[1].tool_calls or ()] == ["c-1"]


def test_native_messages_read_with_their_calls(memory: Memory) -> None:
    ids = {"session_id": "s"}
    memory.add("user", "rain?", ids)
    memory.add("assistant", "", ids, tool_calls=[CALL])
    memory.add("tool", "rain", ids, tool_call_id="c-1", name="weather")
    call, result = DynamiqMemory(memory, "s").get_all()[1:]
    assert result.additional_kwargs == {"name": "weather", "tool_call_id": "c-1"}
    blocks: list[Any] = [block for block in call.blocks if getattr(block, "block_type", "") == "tool_call"]
    assert call.additional_kwargs.get("tool_calls") == [CALL] or blocks[0].tool_kwargs == {"city": "Ghent"}


def test_copies_and_json_share_the_store(memory: Memory) -> None:
    chat = DynamiqMemory(memory, "s")
    chat.put(ChatMessage(role="user", content="a"))
    written = json.loads(json.dumps(chat.to_dict()))
    for other in (copy.deepcopy(chat), DynamiqMemory.from_dict(written)):
        assert other.get_all() == chat.get_all()


def test_chat_stores(memory: Memory) -> None:
    chats = DynamiqChatStore(memory=memory)
    buffer = ChatMemoryBuffer.from_defaults(chat_store=chats, chat_store_key="u/s", tokenizer_fn=str.split)
    buffer.put(ChatMessage(role="user", content="a"))
    assert chats.get_keys() == ["u/s"]
    assert [message.content for message in buffer.get_all()] == ["a"]

    async def archive() -> None:
        store = DynamiqAsyncChatStore(memory=memory)
        await store.add_message("u/s", ChatMessage(role="user", content="b"))
        assert [message.content for message in await store.archive_oldest_messages("u/s", 1)] == ["a"]
        assert [message.content for message in await store.get_messages("u/s")] == ["b"]
        assert await store.count_messages("u/s", None) == 2

    asyncio.run(archive())
