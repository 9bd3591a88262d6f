"""For any stored session, strategy, limit and token budget: what `DynamiqMemory.get` returns is right."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage

from dynamiq_memory import Memory, Message, count_tokens_approximately
from dynamiq_memory.conversation.calls import is_question, results_of
from dynamiq_memory.testing.providers import refusals
from llama_index.memory.dynamiq import DynamiqMemory
from llama_index.memory.dynamiq._messages import from_message, from_messages, to_message
from tests.fakes.llama_index import user
from tests.fakes.sessions import IN_FIELDS, Written, any_sessions, examples, whole_sessions

AS_STORED = ("ids_are_unique", "results_are_answered_before_the_next_question")


class Asked(NamedTuple):
    strategy: str
    limit: int
    token_limit: int | None
    stored: bool
    asynchronous: bool


ASKED = st.builds(
    Asked,
    st.sampled_from(["all", "relevant", "both"]),
    st.sampled_from([1, 2, 3, 4, 5, 8, 12, 1_000]),
    st.sampled_from([None, None, 20, 40, 80, 160]),
    st.booleans(),
    st.sampled_from([False, False, True]),
)
NOW = user("And the pear now?")


def ask(messages: Sequence[Message], asked: Asked) -> list[Message]:
    """What a model is sent: an agent stores the question first, a chat engine appends it."""
    memory = DynamiqMemory(Memory(max_tokens=None), "s", "u", asked.strategy, asked.limit, asked.token_limit)
    memory.put_messages(from_messages(message for message in messages if message.role != "system"))

    async def asynchronously() -> list[ChatMessage]:
        if asked.stored:
            await memory.aput(NOW)
            return await memory.aget()
        return [*await memory.aget(NOW.content), NOW]

    if asked.asynchronous:
        return list(map(to_message, asyncio.run(asynchronously())))
    if asked.stored:
        memory.put(NOW)
        return list(map(to_message, memory.get()))
    return list(map(to_message, [*memory.get(NOW.content), NOW]))


def check(sent: Sequence[Message], asked: Asked) -> None:
    """It is within the limits, and ends with the question."""
    assert sent[-1].text == NOW.content
    chosen = sent if asked.stored else sent[:-1]
    assert len(chosen) <= asked.limit
    if asked.token_limit is not None and len(chosen) > 1:
        assert sum(map(count_tokens_approximately, chosen)) <= asked.token_limit


@examples(25)
@given(whole_sessions(IN_FIELDS), ASKED)
def test_a_conversation_of_finished_turns_is_accepted_by_every_provider(written: Written, asked: Asked) -> None:
    sent = ask(written.messages, asked)
    check(sent, asked)
    for provider in written.providers:
        assert refusals(sent, provider) == []


@examples(25)
@given(any_sessions(IN_FIELDS), ASKED)
def test_a_conversation_is_accepted_except_for_what_is_stored_so(written: Written, asked: Asked) -> None:
    sent = ask(written.messages, asked)
    check(sent, asked)
    for provider in written.providers:
        assert [fault for fault in refusals(sent, provider) if not fault.startswith(AS_STORED)] == []
    unbounded = ask(written.messages, Asked("all", 100_000, None, asked.stored, asynchronous=False))
    ends = [text(before) for before, after in itertools.pairwise(unbounded) if is_question(after)]
    for before, after in itertools.pairwise(sent):
        assert not results_of(before) or not is_question(after) or text(before) in ends


def text(message: Message) -> tuple[str | None, str]:
    return message.tool_call_id, message.text


@examples(20)
@given(any_sessions(IN_FIELDS))
def test_all_that_is_put_is_stored(written: Written) -> None:
    memory = DynamiqMemory(Memory(), "s", "u")
    messages = [from_message(message) for message in written.messages if message.role != "system"]
    memory.put_messages(messages)
    assert memory.get_all() == messages
