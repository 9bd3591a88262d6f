"""Calls and results that others stored as blocks of content, as LangChain reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from dynamiq_memory import Memory, Message
from dynamiq_memory.testing.providers import refusals
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware
from langchain_dynamiq_memory._messages import to_message
from tests.fakes.blocks import FORMS, Form, Seen, conversation, expected, messages, texts_of, with_known_ids
from tests.fakes.sessions import ALL_PROVIDERS, IN_BLOCKS, Written, any_sessions, examples, whole_sessions

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
ROLES = {"human": "user", "ai": "assistant", "tool": "tool", "system": "system"}
CONTEXT = {"user_id": "u", "session_id": "s"}


def seen(message: BaseMessage) -> Seen:
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    answered = message.tool_call_id if isinstance(message, ToolMessage) else None
    called = [(call["id"], call["name"], call["args"]) for call in calls]
    return (ROLES[message.type], str(message.text), called, answered, message.name)


def session(form: Form) -> Memory:
    memory = Memory()
    memory.scoped("s", "u").add_many(messages(form))
    return memory


class Model(GenericFakeChatModel):
    """Answers, and keeps what it was asked."""

    asked: list[Any]

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.asked.append(messages)
        return super()._generate(messages, *args, **kwargs)


def agent(memory: Memory, **options: Any) -> tuple[Any, Model]:
    model = Model(messages=iter([AIMessage("Done.")] * 9), asked=[])
    return create_agent(model, middleware=[DynamiqMemoryMiddleware(memory, **options)]), model


@forms
@pytest.mark.parametrize("limit", [None, 100])
def test_a_history_gives_calls_and_results(form: Form, limit: int | None) -> None:
    read = DynamiqChatMessageHistory(session(form), "s", "u", limit).messages
    assert with_known_ids([seen(message) for message in read], form) == expected(form)
    assert len({message.id for message in read}) == len(read), "a state keeps one message of each id"
    assert not any(isinstance(part, dict) and "type" not in part for m in read for part in m.content)


@forms
@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
def test_an_agent_is_given_calls_and_results(form: Form, strategy: str) -> None:
    graph, model = agent(session(form), strategy=strategy, placement="chronological")
    graph.invoke({"messages": [HumanMessage("bus")]}, {"configurable": CONTEXT})
    assert with_known_ids([seen(message) for message in model.asked[-1][:-1]], form) == expected(form)


@forms
def test_what_langchain_wrote_reads_back_as_it_was(form: Form) -> None:
    history = DynamiqChatMessageHistory(Memory(), "s", "u")
    classes: dict[str, Any] = {"user": HumanMessage, "assistant": AIMessage}
    written = [classes[role](content) for role, content in conversation(form)]
    history.add_messages(written)
    assert history.messages == written
    history.limit = 100
    assert history.messages == written


@forms
def test_a_search_gives_results(form: Form) -> None:
    found = DynamiqChatMessageHistory(session(form), "s", "u").search("Hurry")
    assert ("user", "Hurry!") in [seen(message)[:2] for message in found]
    assert all(message.content for message in found)


@forms
def test_a_history_that_is_given_back_is_not_stored_again(form: Form) -> None:
    memory = session(form)
    before = [message.id for message in memory.get_all()]
    history = DynamiqChatMessageHistory(memory, "s", "u").messages
    graph, model = agent(memory)
    graph.invoke({"messages": [*history, HumanMessage("And now?")]}, {"configurable": CONTEXT})
    after = memory.get_all()
    assert [message.id for message in after[: len(before)]] == before
    assert [(message.role, message.text) for message in after[len(before) :]] == [
        ("user", "And now?"),
        ("assistant", "Done."),
    ]
    sent = [seen(message) for message in model.asked[-1] if not isinstance(message, SystemMessage)]
    assert with_known_ids(sent, form) == [*expected(form), ("user", "And now?", [], None, None)]


def test_what_is_beside_the_calls_stays() -> None:
    memory = Memory()
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    call = {"type": "tool_use", "id": "c-1", "name": "look", "input": {}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    result = {"type": "tool_result", "tool_use_id": "c-1", "content": [image]}
    memory.scoped("s", "u").add_many(
        [Message(role="assistant", content=[thought, call]), Message(role="user", content=[result])]
    )
    calling, answer = DynamiqChatMessageHistory(memory, "s", "u").messages
    assert calling.content == [thought]
    assert seen(calling)[2] == [("c-1", "look", {})]
    assert answer.content == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


def write(written: Written) -> Memory:
    memory = Memory(max_tokens=None)
    memory.add_many(written.messages)
    return memory


@examples(25)
@given(whole_sessions(IN_BLOCKS))
def test_a_window_in_blocks_is_accepted_by_every_provider(written: Written) -> None:
    read = DynamiqChatMessageHistory(write(written), "s", "u", 1_000).messages
    sent = [*map(to_message, read), Message(role="user", content="And now?")]
    for provider in ALL_PROVIDERS:
        assert refusals(sent, provider) == []


@examples(20)
@given(whole_sessions(IN_BLOCKS), st.sampled_from(["all", "relevant", "both"]))
def test_an_agent_with_blocks_is_accepted_by_every_provider(written: Written, strategy: str) -> None:
    graph, model = agent(write(written), strategy=strategy, placement="chronological")
    graph.invoke({"messages": [HumanMessage("pear")]}, {"configurable": CONTEXT})
    for provider in ALL_PROVIDERS:
        assert refusals(list(map(to_message, model.asked[-1])), provider) == []


@examples(25)
@given(any_sessions(IN_BLOCKS))
def test_a_history_in_blocks_has_everything(written: Written) -> None:
    read = DynamiqChatMessageHistory(write(written), "s", "u").messages
    for text in (text for message in written.messages for text in texts_of(message)):
        assert any(text in str(message.content) for message in read)
    assert not any(isinstance(message, HumanMessage) and message.content == [] for message in read)
