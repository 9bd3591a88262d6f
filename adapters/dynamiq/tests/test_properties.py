"""For any stored session, strategy and limit: what `AgentMemory` gives an agent is right, and the run gets stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dynamiq.memory import MemoryRetrievalStrategy
from dynamiq.prompts import Message as DynamiqMessage
from dynamiq.prompts import MessageRole as DynamiqRole
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message
from dynamiq_memory.conversation.calls import is_question, results_of
from dynamiq_memory.testing.providers import refusals
from dynamiq_memory_agents import AgentMemory
from tests.fakes.sessions import IN_FIELDS, Written, any_sessions, examples, whole_sessions

IDS = {"user_id": "u", "session_id": "s"}
AS_STORED = ("ids_are_unique", "instructions_come_first", "results_are_answered_before_the_next_question")
ASKED = st.tuples(
    st.sampled_from(MemoryRetrievalStrategy),
    st.sampled_from(["apple", "pear", "nothing"]),
    st.sampled_from([1, 2, 3, 4, 5, 8, 12, 1_000]),
)
RUNS = st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=3)


def ours(message: DynamiqMessage) -> Message:
    """What a model is sent."""
    return Message(
        role=message.role.value,
        content=message.content,
        tool_calls=message.tool_calls,
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def write(written: Written) -> AgentMemory:
    core = Memory(max_tokens=None)
    core.add_many(written.messages)
    return AgentMemory(memory=core)


def given_to_agent(memory: AgentMemory, asked: tuple[MemoryRetrievalStrategy, str, int]) -> list[Message]:
    strategy, query, limit = asked
    found = memory.get_agent_conversation(query, limit, IDS, strategy)
    assert len(found) <= limit
    return [*map(ours, found), Message(role="user", content=query)]


@examples(40)
@given(whole_sessions(IN_FIELDS), ASKED)
def test_a_conversation_of_finished_turns_is_accepted_by_every_provider(
    written: Written, asked: tuple[MemoryRetrievalStrategy, str, int]
) -> None:
    sent = given_to_agent(write(written), asked)
    for provider in written.providers:
        assert refusals(sent, provider) == []


@examples(40)
@given(any_sessions(IN_FIELDS), ASKED)
def test_a_conversation_is_accepted_except_for_what_is_stored_so(
    written: Written, asked: tuple[MemoryRetrievalStrategy, str, int]
) -> None:
    memory = write(written)
    sent = given_to_agent(memory, asked)
    for provider in written.providers:
        assert [fault for fault in refusals(sent, provider) if not fault.startswith(AS_STORED)] == []
    whole = given_to_agent(memory, (MemoryRetrievalStrategy.ALL, "nothing", 100_000))
    ends = [(before.tool_call_id, before.text) for before, after in itertools.pairwise(whole) if is_question(after)]
    for before, after in itertools.pairwise(sent):
        if results_of(before) and is_question(after):
            assert (before.tool_call_id, before.text) in ends


@examples(40)
@given(any_sessions(IN_FIELDS), ASKED, RUNS, st.integers(0, 3))
def test_what_a_run_adds_is_stored_and_nothing_else_changes(
    written: Written, asked: tuple[MemoryRetrievalStrategy, str, int], runs: Sequence[int], trimmed: int
) -> None:
    memory = write(written)
    strategy, _, limit = asked
    for number, rounds in enumerate(runs):
        before = memory.memory.get_all(limit=100_000)
        question = f"question {number}"
        loaded = memory.get_agent_conversation(question, limit, IDS, strategy)
        new = [DynamiqMessage(role=DynamiqRole.USER, content=question, metadata=IDS)]
        for place in range(rounds):
            call = {"id": f"c-{number}-{place}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            new.append(DynamiqMessage(role=DynamiqRole.ASSISTANT, content="", tool_calls=[call], metadata=IDS))
            new.append(DynamiqMessage(role=DynamiqRole.TOOL, content="found", tool_call_id=call["id"], metadata=IDS))
        new.append(DynamiqMessage(role=DynamiqRole.ASSISTANT, content=f"answer {number}", metadata=IDS))
        prompt = [message for message in loaded if message.role != DynamiqRole.SYSTEM]
        memory.replace_messages(IDS, [*prompt[min(trimmed, len(prompt)) :], *new])
        after = memory.memory.get_all(limit=100_000)
        assert [message.id for message in after[: len(before)]] == [message.id for message in before]
        assert [(message.role.value, message.text) for message in after[len(before) :]] == [
            (message.role.value, message.content) for message in new
        ]
