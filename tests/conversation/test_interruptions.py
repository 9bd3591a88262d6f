"""Interrupted answers and calls: what an agent is given of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import InMemory
from dynamiq_memory.conversation.interruptions import ANSWER_NOTE, CALL_NOTE
from dynamiq_memory.conversation.turns import arrange
from tests.conversation.test_turns import STRATEGIES, faults

SCOPE = {"user_id": "u", "session_id": "s"}
CUT_OFF = {"interrupted": True}
CUT = {**SCOPE, **CUT_OFF}


def call(id_, name="pay"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}}


def said(memory, **options):
    return [(m.role.value, m.text) for m in memory.get_agent_conversation(**options)]


@pytest.fixture
def memory():
    return Memory(filters=dict(SCOPE))


def test_an_interrupted_answer_is_given_with_a_note(memory):
    memory.add("user", "q1")
    memory.add("assistant", "The answer begins", CUT)
    memory.add("user", "q2")
    given_ = memory.get_agent_conversation()
    assert [m.text for m in given_] == ["q1", f"The answer begins\n\n{ANSWER_NOTE}", "q2"]
    assert [m.interrupted for m in given_] == [False, True, False]
    # What is stored stays as it was said.
    assert [m.content for m in memory.get_all()] == ["q1", "The answer begins", "q2"]
    assert memory.get_all(filters={"interrupted": True})[0].text == "The answer begins"


def test_the_note_of_an_answer_in_parts_is_a_part(memory):
    memory.add("user", "q1")
    memory.add("assistant", [{"type": "text", "text": "It"}], CUT)
    assert memory.get_agent_conversation()[1].content == [
        {"type": "text", "text": "It"}, {"type": "text", "text": ANSWER_NOTE},
    ]  # fmt: skip


def test_only_true_marks_an_interruption(memory):
    memory.add("user", "q1")
    memory.add("assistant", "whole", {**SCOPE, "interrupted": "no"})
    assert said(memory) == [("user", "q1"), ("assistant", "whole")]


def test_an_interrupted_call_gets_a_result_that_says_so(memory):
    memory.add("user", "q1")
    memory.add("assistant", "I pay.", CUT, tool_calls=[call("a"), call("b")])
    memory.add("tool", "paid", SCOPE, tool_call_id="a")
    memory.add("user", "q2")
    given_ = memory.get_agent_conversation()
    assert [m.text for m in given_] == ["q1", "I pay.", "paid", CALL_NOTE, ANSWER_NOTE, "q2"]
    assert [m.tool_call_id for m in given_] == [None, None, "a", "b", None, None]
    assert given_[3].name == "pay"
    assert memory.count() == 4


def test_a_call_without_an_id_is_closed_by_its_tools_name(memory):
    memory.add("user", "q1")
    memory.add("assistant", "", CUT, tool_calls=[{"function": {"name": "pay", "arguments": "{}"}}])
    result = memory.get_agent_conversation()[-2]
    assert (result.text, result.tool_call_id, result.name) == (CALL_NOTE, None, "pay")


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
@pytest.mark.parametrize("result", [("a", "pay"), (None, "pay"), ("pay", "pay"), ("other", "pay"), ("a", None)])
@pytest.mark.parametrize("ids", [("a", None), (None, "a")])
def test_of_parallel_calls_with_and_without_an_id_the_result_that_came_is_given(memory, ids, result, strategy):
    memory.add("user", "the kettle?")
    memory.add("assistant", "wait", CUT, tool_calls=[call(id_) for id_ in ids])
    memory.add("tool", "bought", tool_call_id=result[0], name=result[1])
    memory.add_many([Message(role="user", content="the kettle!"), Message(role="assistant", content="ok")])
    texts = [m.text for m in memory.get_agent_conversation("kettle", strategy=strategy)]
    assert texts == ["the kettle?", "wait", "bought", CALL_NOTE, ANSWER_NOTE, "the kettle!", "ok"]


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
@pytest.mark.parametrize("sessions", [["s"], ["s", "other"]])
@pytest.mark.parametrize("apart", [0.0, 2e-7, 4e-7])
def test_what_is_added_to_an_interrupted_call_comes_once_before_the_next_question(strategy, sessions, apart):
    memory = Memory(filters={"user_id": "u"})
    for session in sessions:
        scope = {"user_id": "u", "session_id": session}
        memory.add_many(
            [
                Message(role="user", content="the kettle?", timestamp=1000.0, metadata=scope),
                Message(role="assistant", tool_calls=[call("a")], timestamp=1001.0, metadata=scope | CUT_OFF),
                Message(role="user", content="the kettle!", timestamp=1001.0 + apart, metadata=scope),
                Message(role="assistant", content="ok", timestamp=1002.0, metadata=scope),
            ]
        )
    for limit in (6, 12, 13):
        given = memory.get_agent_conversation("kettle", limit, strategy=strategy)
        assert len({(m.session_id, m.id) for m in given}) == len(given) <= limit
        for session in {m.session_id for m in given}:
            texts = [m.text for m in given if m.session_id == session]
            assert texts in (
                ["the kettle?", "", CALL_NOTE, ANSWER_NOTE, "the kettle!", "ok"],
                ["the kettle?", "", CALL_NOTE, ANSWER_NOTE],
                ["the kettle!", "ok"],
            )


def test_a_call_that_got_its_result_after_all_is_whole(memory):
    memory.add("user", "q1")
    memory.add("assistant", "I pay.", CUT, tool_calls=[call("a")])
    memory.add("user", "q2")
    memory.add("tool", "paid", SCOPE, tool_call_id="a")
    assert said(memory) == [("user", "q1"), ("assistant", "I pay."), ("tool", "paid"), ("user", "q2")]


def test_an_answer_that_was_given_again_replaces_the_interrupted_one(memory):
    memory.add("user", "q1")
    for words in ("The", "The ans"):
        memory.add("assistant", words, CUT)
    memory.add("assistant", "The answer.")
    memory.add("user", "q2")
    assert said(memory) == [("user", "q1"), ("assistant", "The answer."), ("user", "q2")]
    assert memory.search("ans", limit=1)


def test_an_interrupted_answer_that_says_nothing_is_left_out(memory):
    memory.add("user", "q1")
    memory.add("assistant", " ", CUT)
    memory.add("user", "q2")
    assert said(memory) == [("user", "q2")]


def test_the_note_counts_as_tokens(memory):
    memory.add("user", "q1")
    memory.add("assistant", "yes", CUT)
    counted = memory.explain_agent_conversation().tokens
    assert said(memory, max_tokens=counted) == said(memory)
    assert said(memory, max_tokens=counted - 1) == []


@st.composite
def sessions(draw):
    """Turns in which any answer, call or result may be missing or interrupted."""
    messages = []
    for turn in range(draw(st.integers(1, 5))):
        messages.append(Message(role="user", content=f"apple {turn}", metadata=dict(SCOPE)))
        for step in range(draw(st.integers(0, 3))):
            count = draw(st.integers(0, 2))
            scope = {**SCOPE, **({"interrupted": True} if draw(st.booleans()) else {})}
            ids = [f"c{draw(st.integers(0, 3))}" for _ in range(count)]
            words = draw(st.sampled_from(["", "pear", f"fig {step}"]))
            calls = [call(id_) for id_ in dict.fromkeys(ids)]
            messages.append(Message(role="assistant", content=words, metadata=scope, tool_calls=calls or None))
            answered = draw(st.lists(st.sampled_from(calls), unique_by=str)) if calls else []
            messages += [
                Message(role="tool", content="plum", metadata=dict(SCOPE), tool_call_id=made["id"]) for made in answered
            ]
    return messages


@given(sessions(), st.sampled_from(STRATEGIES), st.integers(1, 12), st.none() | st.integers(1, 120))
def test_any_session_with_interruptions_is_given_valid(stored, strategy, limit, max_tokens):
    memory = Memory(backend=InMemory(), filters=dict(SCOPE))
    memory.add_many(stored)
    picks = memory.explain_agent_conversation("apple fig", limit, strategy=strategy, max_tokens=max_tokens)
    picked = [pick.message for pick in picks]
    assert faults(picked) == []
    assert len(picked) <= limit
    if max_tokens is not None:
        assert picks.tokens <= max_tokens
    assert [m.model_dump() for m in arrange(picked)] == [m.model_dump() for m in picked]
    kept = {message.id: message for message in stored}
    for message in picked:
        if message.id not in kept:
            assert message.text in (CALL_NOTE, ANSWER_NOTE)
        elif message.text != kept[message.id].text:
            assert message.text.endswith(ANSWER_NOTE)
            assert kept[message.id].interrupted
        elif message.role == "assistant" and not message.tool_calls:
            assert not message.interrupted or kept[message.id].tool_calls
