"""Calls and results that others stored as blocks of content, as agents of the `dynamiq` package read them."""

from __future__ import annotations

import json

import pytest
from dynamiq.memory import MemoryRetrievalStrategy
from dynamiq.prompts import Message as DynamiqMessage
from dynamiq.prompts import MessageRole as DynamiqRole
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message
from dynamiq_memory.testing.providers import refusals
from dynamiq_memory_agents import AgentMemory
from tests.fakes.blocks import FORMS, Form, Seen, expected, messages, with_known_ids
from tests.fakes.sessions import ALL_PROVIDERS, IN_BLOCKS, Written, examples, whole_sessions

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
IDS = {"user_id": "u", "session_id": "s"}


def seen(message: DynamiqMessage) -> Seen:
    functions = [(call["id"], call["function"]) for call in message.tool_calls or ()]
    calls = [(id_, function["name"], json.loads(function["arguments"])) for id_, function in functions]
    return (message.role.value, message.content, calls, message.tool_call_id, message.name)


def session(form: Form) -> AgentMemory:
    core = Memory()
    core.scoped("s", "u").add_many(messages(form))
    return AgentMemory(memory=core)


@forms
@pytest.mark.parametrize("strategy", MemoryRetrievalStrategy)
def test_an_agent_is_given_calls_and_results(form: Form, strategy: MemoryRetrievalStrategy) -> None:
    found = session(form).get_agent_conversation("bus", 100, IDS, strategy)
    assert with_known_ids(list(map(seen, found)), form) == expected(form)


@forms
def test_all_messages_and_a_search_have_calls_and_results(form: Form) -> None:
    memory = session(form)
    assert with_known_ids(list(map(seen, memory.get_all())), form) == expected(form)
    assert any(message.content == "Hurry!" for message in memory.search("Hurry"))


@forms
def test_a_run_adds_its_new_messages_only(form: Form) -> None:
    memory = session(form)
    before = memory.memory.get_all()
    prompt = memory.get_agent_conversation("And now?", 100, IDS)
    new = [(DynamiqRole.USER, "And now?"), (DynamiqRole.ASSISTANT, "Done.")]
    memory.replace_messages(
        IDS, [*prompt, *(DynamiqMessage(role=role, content=text, metadata=IDS) for role, text in new)]
    )
    after = memory.memory.get_all()
    assert after[: len(before)] == before
    assert [(message.role.value, message.text) for message in after[len(before) :]] == [
        ("user", "And now?"),
        ("assistant", "Done."),
    ]


@forms
def test_all_messages_that_are_stored_again_are_all_there(form: Form) -> None:
    memory = session(form)
    given = memory.get_all()
    memory.replace_messages(IDS, given)
    assert list(map(seen, memory.get_all())) == list(map(seen, given))


@examples(40)
@given(whole_sessions(IN_BLOCKS), st.sampled_from(MemoryRetrievalStrategy))
def test_a_conversation_in_blocks_is_accepted_by_every_provider(
    written: Written, strategy: MemoryRetrievalStrategy
) -> None:
    core = Memory(max_tokens=None)
    core.add_many(written.messages)
    found = AgentMemory(memory=core).get_agent_conversation("pear", 1_000, IDS, strategy)
    sent = [
        Message(
            role=message.role.value,
            content=message.content,
            tool_calls=message.tool_calls,
            tool_call_id=message.tool_call_id,
            name=message.name,
        )
        for message in found
    ]
    for provider in ALL_PROVIDERS:
        assert refusals([*sent, Message(role="user", content="And now?")], provider) == []
