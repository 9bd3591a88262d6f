"""Calls and results that others stored as blocks of content, as LlamaIndex reads them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock

from dynamiq_memory import Memory, Message
from dynamiq_memory.testing.providers import refusals
from langchain_dynamiq_memory import DynamiqChatMessageHistory
from llama_index.memory.dynamiq import DynamiqMemory
from llama_index.memory.dynamiq._messages import to_message
from llama_index.storage.chat_store.dynamiq import DynamiqAsyncChatStore, DynamiqChatStore
from tests.fakes.blocks import FORMS, SECOND, WORDS, Form, Seen, conversation, expected, messages, with_known_ids
from tests.fakes.sessions import ALL_PROVIDERS, IN_BLOCKS, Written, any_sessions, examples, whole_sessions

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
STRATEGIES = ["all", "relevant", "both"]


def seen(message: ChatMessage) -> Seen:
    calls = [(b.tool_call_id, b.tool_name, b.tool_kwargs) for b in message.blocks if isinstance(b, ToolCallBlock)]
    kwargs = message.additional_kwargs
    return (message.role.value, message.content or "", calls, kwargs.get("tool_call_id"), kwargs.get("name"))


def session(form: Form, writer: str) -> Memory:
    memory = Memory()
    if writer == "core":
        scoped = memory.scoped("s", "u")
        for message in messages(form):
            scoped.add(message.role, message.content)
        return memory
    classes: dict[str, Any] = {"user": HumanMessage, "assistant": AIMessage}
    history = DynamiqChatMessageHistory(memory, "s", "u")
    history.add_messages([classes[role](content) for role, content in conversation(form)])
    return memory


writers = pytest.mark.parametrize("writer", ["core", "langchain"])


@forms
@writers
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_memory_gives_calls_and_results(form: Form, writer: str, strategy: str) -> None:
    memory = DynamiqMemory(session(form, writer), "s", "u", strategy=strategy)
    assert with_known_ids([seen(message) for message in memory.get(input="bus")], form) == expected(form)


@forms
@writers
def test_the_chat_stores_give_calls_and_results(form: Form, writer: str) -> None:
    memory = session(form, writer)
    read = DynamiqChatStore(memory).get_messages("u/s")
    assert with_known_ids([seen(message) for message in read], form) == expected(form)
    assert asyncio.run(DynamiqAsyncChatStore(memory).get_messages("u/s")) == read
    assert DynamiqMemory(memory, "s", "u").get_all() == read


@forms
@writers
def test_what_is_read_and_set_again_stays_as_it_is(form: Form, writer: str) -> None:
    memory = session(form, writer)
    before = memory.get_all()
    one = DynamiqMemory(memory, "s", "u")
    one.set(one.get())
    assert memory.get_all() == before
    DynamiqChatStore(memory).set_messages("u/s", DynamiqChatStore(memory).get_messages("u/s"))
    assert memory.get_all() == before
    one.set([*one.get_all(), ChatMessage("And now?")])
    assert memory.get_all()[:-1] == before
    assert [seen(message)[:2] for message in one.get_all()[5:]] == [("assistant", "The 9:40."), ("user", "And now?")]


@forms
def test_a_part_that_is_left_out_is_left_out(form: Form) -> None:
    memory = session(form, "core")
    before = memory.get_all()
    one = DynamiqMemory(memory, "s", "u")
    given = one.get_all()
    one.set([*given[:4], *given[5:]])
    assert one.get_all() == [*given[:4], *given[5:]]
    assert [message.id for message in memory.get_all() if message.id in {each.id for each in before}] == [
        before[0].id,
        before[1].id,
        before[3].id,
    ]


@forms
@pytest.mark.parametrize("place", range(-6, 6))
def test_a_message_is_deleted_by_its_place(form: Form, place: int) -> None:
    memory = session(form, "core")
    store = DynamiqChatStore(memory)
    given = store.get_messages("u/s")
    deleted = store.delete_message("u/s", place)
    assert deleted is not None
    assert seen(deleted)[:3] == seen(given[place])[:3]
    rest = [seen(message)[:3] for number, message in enumerate(given) if number != place % 6]
    assert [seen(message)[:3] for message in store.get_messages("u/s")] == rest


@forms
@pytest.mark.parametrize("place", range(6))
def test_a_message_is_deleted_by_its_place_asynchronously(form: Form, place: int) -> None:
    store = DynamiqAsyncChatStore(session(form, "core"))

    async def use() -> None:
        given = await store.get_messages("u/s")
        deleted = await store.delete_message("u/s", place)
        assert deleted is not None
        assert seen(deleted)[:3] == seen(given[place])[:3]
        rest = [seen(message)[:3] for number, message in enumerate(given) if number != place]
        assert [seen(message)[:3] for message in await store.get_messages("u/s")] == rest

    asyncio.run(use())


def test_the_last_message_is_deleted() -> None:
    store = DynamiqChatStore(session(FORMS["anthropic"], "core"))
    texts = []
    while (last := store.delete_last_message("u/s")) is not None:
        texts.append(last.content)
    assert texts == ["The 9:40.", "Hurry!", "At 10:10.", "At 9:40.", "Looking.", "Which bus?"]


@forms
@pytest.mark.parametrize("count", range(7))
def test_the_oldest_messages_are_archived_or_deleted_as_they_are_counted(form: Form, count: int) -> None:
    async def use(*, archive: bool) -> None:
        store = DynamiqAsyncChatStore(session(form, "core"))
        given = await store.get_messages("u/s")
        assert await store.count_messages("u/s") == len(given) == 6
        change = store.archive_oldest_messages if archive else store.delete_oldest_messages
        taken = await change("u/s", count)
        assert [seen(message)[:2] for message in taken] == [seen(message)[:2] for message in given[:count]]
        left = await store.get_messages("u/s")
        assert [seen(message)[:2] for message in left] == [seen(message)[:2] for message in given[count:]]
        assert await store.count_messages("u/s") == 6 - count
        rest = await store.get_messages("u/s", status=None)
        assert [seen(m)[:2] for m in rest] == [seen(m)[:2] for m in (given if archive else given[count:])]
        assert await store.count_messages("u/s", None) == len(rest)

    asyncio.run(use(archive=True))
    asyncio.run(use(archive=False))


@pytest.mark.parametrize("place", range(6))
def test_messages_of_one_time_stay_in_order(place: int) -> None:
    memory = Memory()
    stored = [message.model_copy(update={"timestamp": 1_000.0}) for message in messages(FORMS["anthropic"])]
    memory.scoped("s", "u").add_many(stored)
    store = DynamiqAsyncChatStore(memory)

    async def use() -> None:
        given = [message.content for message in await store.get_messages("u/s")]
        await store.archive_oldest_messages("u/s", place)
        assert [message.content for message in await store.get_messages("u/s", None)] == given
        await store.delete_message("u/s", place)
        del given[place]
        assert [message.content for message in await store.get_messages("u/s", None)] == given

    asyncio.run(use())


def test_messages_are_read_page_by_page() -> None:
    store = DynamiqAsyncChatStore(session(FORMS["anthropic"], "core"))

    async def use() -> None:
        whole = await store.get_messages("u/s")
        pages = [await store.get_messages("u/s", limit=1, offset=place) for place in range(7)]
        assert [message for page in pages for message in page] == whole

    asyncio.run(use())


def test_recalled_text_is_put_into_the_question() -> None:
    memory = session(FORMS["anthropic"], "core")
    memory.scoped("s", "u").add_many([Message(role="user", content=f"tree {n}") for n in range(2)])
    one = DynamiqMemory(memory, "s", "u", strategy="both", limit=4, placement="before_question")
    given = one.get(input="bus")
    assert [message.role for message in given] == [MessageRole.USER] * len(given)
    assert given[-1].blocks[-1] == TextBlock(text="tree 1")


def test_a_call_without_a_result_is_not_an_answer() -> None:
    memory = Memory()
    call = FORMS["anthropic"].call("c-1", "look")
    memory.scoped("s", "u").add_many([Message(role="user", content="When?"), Message(role="assistant", content=[call])])
    for strategy in STRATEGIES:
        given = DynamiqMemory(memory, "s", "u", strategy=strategy, limit=1).get(input="something else")
        assert [seen(message)[:2] for message in given] == [("user", "When?")]


def test_a_result_of_an_unknown_kind_is_named() -> None:
    memory = Memory()
    form = FORMS["anthropic"]
    video = {"type": "tool_result", "tool_use_id": "c-1", "content": [{"type": "video", "id": "v"}]}
    memory.scoped("s", "u").add("assistant", [form.call("c-1", "look")])
    memory.scoped("s", "u").add("user", [video])
    assert [seen(message)[1] for message in DynamiqMemory(memory, "s", "u").get_all()] == ["", "[video]"]


def test_what_langchain_reads_of_what_llamaindex_keeps_is_as_it_was() -> None:
    memory = session(FORMS["anthropic"], "langchain")
    history = DynamiqChatMessageHistory(memory, "s", "u")
    before = history.messages
    one = DynamiqMemory(memory, "s", "u")
    one.set(one.get_all())
    assert history.messages == before
    assert json.dumps(SECOND) in json.dumps(before[2].content)
    assert WORDS in str(before[2].content)


def write(written: Written) -> Memory:
    memory = Memory(max_tokens=None)
    memory.add_many(written.messages)
    return memory


@examples(25)
@given_any(whole_sessions(IN_BLOCKS), st.sampled_from(STRATEGIES))
def test_a_conversation_in_blocks_is_accepted_by_every_provider(written: Written, strategy: str) -> None:
    memory = DynamiqMemory(write(written), "s", "u", strategy)
    sent = [*map(to_message, memory.get("pear")), Message(role="user", content="And now?")]
    for provider in ALL_PROVIDERS:
        assert refusals(sent, provider) == []


@examples(25)
@given_any(any_sessions(IN_BLOCKS), st.lists(st.integers(0, 30), max_size=3))
def test_all_messages_can_be_read_set_and_deleted(written: Written, places: list[int]) -> None:
    memory = write(written)
    before = memory.get_all(100_000)
    store = DynamiqChatStore(memory)
    read = store.get_messages("u/s")
    assert all(message.blocks for message in read)
    store.set_messages("u/s", read)
    assert memory.get_all(100_000) == before
    texts = [message.content for message in read]
    for place in places:
        assert (store.delete_message("u/s", place) is None) == (place >= len(texts))
        del texts[place : place + 1]
        assert [message.content for message in store.get_messages("u/s")] == texts
