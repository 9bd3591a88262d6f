"""Calls and results that others stored as blocks of content, in canonical fields."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Message
from dynamiq_memory._blocks import _CALLS, _RESULTS, block_call, block_result
from dynamiq_memory.conversation.calls import calls_of, results_of, says_something
from dynamiq_memory.integrations.blocks import in_fields
from dynamiq_memory.integrations.native import pack
from tests.fakes.blocks import FORMS, messages, texts_of
from tests.fakes.sessions import IN_FIELDS, SCOPES, STYLES, Written, any_sessions, examples

TEXT = {"type": "text", "text": "Hurry!"}


def said(role: str, *parts: dict[str, Any], **fields: Any) -> Message:
    return Message(role=role, content=list(parts), **fields)


def flat(given_: Sequence[Message], framework: str = "any") -> list[Message]:
    return list(chain.from_iterable(in_fields(given_, framework)))


def has_no_blocks(message: Message) -> bool:
    if isinstance(message.content, str):
        return True
    return all(block_call(part) is None and block_result(part) is None for part in message.content)


@pytest.mark.parametrize("kind", _CALLS)
def test_a_call_of_any_kind_is_a_call_of_a_function(kind: str) -> None:
    block = {"type": kind, _CALLS[kind]: "c-1", "name": "look", "arguments": "{}"}
    (message,) = flat([said("assistant", TEXT, block)])
    function = {"name": "look", "arguments": '{"input": "{}"}' if kind == "custom_tool_call" else "{}"}
    assert message.tool_calls == [{"id": "c-1", "type": "function", "function": function}]
    assert message.content == [TEXT]


@pytest.mark.parametrize("kind", _RESULTS)
@pytest.mark.parametrize("content", ["9:40", [{"type": "text", "text": "9:40"}], {"time": "9:40"}], ids=type)
def test_a_result_of_any_kind_is_a_message_of_the_tool(kind: str, content: Any) -> None:
    result = {"type": kind, _RESULTS[kind]: "c-1", "output": content}
    for message in (said("user", result), said("tool", result), said("tool", result, tool_call_id="c-1")):
        (answer,) = flat([message])
        assert (answer.id, answer.role, answer.tool_call_id) == (message.id, "tool", "c-1")
        assert "9:40" in str(answer.content)
        assert has_no_blocks(answer)


def test_an_approval_is_a_result() -> None:
    approval = {"type": "mcp_approval_response", "approval_request_id": "r-1", "approve": True}
    (answer,) = flat([said("user", approval)])
    assert (answer.tool_call_id, answer.content) == ("r-1", '{"approve": true}')


def test_what_the_framework_wrote_itself_stays_and_names_the_results_of_others() -> None:
    given_ = messages(FORMS["anthropic"])
    given_[1].native = pack("any", {}, given_[1])
    question, calling, first, second, words, answer = flat(given_)
    assert calling is given_[1]
    assert [(one.name, one.tool_call_id) for one in (first, second)] == [("look", "c-1"), ("book", "c-2")]
    assert (words.role, words.text) == ("user", "Hurry!")
    given_[2].native = pack("any", {}, given_[2])
    assert flat(given_) == given_
    assert len(flat(given_, "other")) == 6
    assert question is given_[0]
    assert answer is given_[3]


def test_ids_and_times_are_such_that_a_store_keeps_all_parts_in_order() -> None:
    message = messages(FORMS["gemini"])[2]
    message.metadata = {"message_id": message.id, "timestamp": message.timestamp}
    parts = flat([message])
    assert [part.id for part in parts] == [message.id, f"{message.id}/1", f"{message.id}/2"]
    assert [part.metadata["message_id"] for part in parts] == [part.id for part in parts]
    assert {part.timestamp for part in parts} == {message.timestamp}
    assert parts[0].metadata["timestamp"] == message.timestamp


def test_several_results_of_a_tool_in_one_message_are_apart() -> None:
    results = [{"functionResponse": {"name": name, "response": {"text": name}}} for name in ("look", "book")]
    assert [(part.name, part.content) for part in flat([said("tool", *results)])] == [
        ("look", '{"text": "look"}'),
        ("book", '{"text": "book"}'),
    ]
    # Any other part belongs to the one result.
    (whole,) = flat([said("tool", results[0], TEXT, tool_call_id="c-1")])
    assert whole.content == [{"type": "text", "text": '{"text": "look"}'}, TEXT]


def test_a_custom_call_in_the_field_is_a_call_of_a_function() -> None:
    call = {"id": "c-1", "type": "custom", "custom": {"name": "look", "input": "x"}}
    (message,) = flat([Message(role="assistant", tool_calls=[call])])
    assert message.tool_calls == [
        {"id": "c-1", "type": "function", "function": {"name": "look", "arguments": '{"input": "x"}'}}
    ]


def test_texts_of_gemini_get_a_type_and_thoughts_are_left_out() -> None:
    (message,) = flat([said("user", {"text": "hm", "thought": True}, {"text": "Hurry!"})])
    assert message.content == [TEXT]


@examples(40)
@given(any_sessions(scopes=st.sampled_from(SCOPES)))
def test_nothing_is_lost_nor_empty_nor_changed(written: Written) -> None:
    before = copy.deepcopy(written.messages)
    groups = in_fields(written.messages, "any")
    assert written.messages == before
    assert len(groups) == len(before)
    for message, group in zip(before, groups, strict=True):
        assert sum(len(results_of(part)) for part in group) == len(results_of(message))
        assert sum(len(calls_of(part)) for part in group) == len(calls_of(message))
        assert all(map(has_no_blocks, group))
        assert says_something(group[0]) or calls_of(group[0]) or not says_something(message)
        for text in texts_of(message):
            assert any(text in str(part.content) for part in group)
    parts = list(chain.from_iterable(groups))
    assert len({(part.user_id, part.session_id, part.id) for part in parts}) == len(parts)
    assert flat(parts) == parts


@examples(50)
@given(any_sessions(IN_FIELDS))
def test_messages_without_blocks_stay_the_same_objects(written: Written) -> None:
    assert all(part is message for part, message in zip(flat(written.messages), written.messages, strict=True))
    assert set(IN_FIELDS) < set(STYLES)
