"""Row j of the reference's defects: what an agent is given is valid for every LLM API."""

from __future__ import annotations

import pytest

from dynamiq_memory import Memory, MessageRole

SCOPE = {"user_id": "u", "session_id": "s"}
STRATEGIES = ["all", "relevant", "both"]


def call(number):
    return {"id": f"c-{number}", "type": "function", "function": {"name": "search", "arguments": "{}"}}


def tool_round(memory, number, result):
    memory.add(MessageRole.ASSISTANT, "", SCOPE, tool_calls=[call(number)])
    memory.add(MessageRole.TOOL, result, SCOPE, tool_call_id=f"c-{number}", name="search")


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_j_a_hit_on_a_tool_result_brings_its_call(store, strategy):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "Look it up", SCOPE)
    tool_round(memory, 1, "The vault code is 4711")
    memory.add(MessageRole.ASSISTANT, "Done.", SCOPE)
    for number in range(30):
        memory.add(MessageRole.USER, f"small talk {number}", SCOPE)
        memory.add(MessageRole.ASSISTANT, f"indeed {number}", SCOPE)
    picked = memory.get_agent_conversation("vault code", limit=8, filters=SCOPE, strategy=strategy)
    roles = [m.role.value for m in picked][:4]
    assert [m.content for m in picked][:4] == ["Look it up", "", "The vault code is 4711", "Done."]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert [c["id"] for c in picked[1].tool_calls] == [picked[2].tool_call_id]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_j_a_tool_loop_longer_than_the_limit_is_cut_not_dropped(store, strategy):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "do the long thing", SCOPE)
    for number in range(20):
        tool_round(memory, number, f"step {number}")
    picked = memory.get_agent_conversation("step 7", limit=20, filters=SCOPE, strategy=strategy)
    assert picked
    assert len(picked) <= 20
    assert picked[0].content == "do the long thing"
    calls = [c["id"] for m in picked for c in m.tool_calls or []]
    assert calls == [m.tool_call_id for m in picked if m.role == "tool"]
    assert len(calls) == 9
    if strategy == "all":
        assert calls == [f"c-{n}" for n in range(11, 20)]
    else:
        assert "c-7" in calls


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_j_a_call_without_its_result_is_left_out(store, strategy):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "look twice", SCOPE)
    tool_round(memory, 1, "first look")
    memory.add(MessageRole.ASSISTANT, "", SCOPE, tool_calls=[call(2), call(3)])
    memory.add(MessageRole.TOOL, "only one look came back", SCOPE, tool_call_id="c-2", name="search")
    picked = memory.get_agent_conversation("look", filters=SCOPE, strategy=strategy)
    assert [m.content for m in picked] == ["look twice", "", "first look"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("limit", range(1, 9))
def test_j_no_limit_separates_a_result_from_its_call(store, strategy, limit):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "hi", SCOPE)
    memory.add(MessageRole.ASSISTANT, "hello", SCOPE)
    memory.add(MessageRole.USER, "compare the two", SCOPE)
    memory.add(MessageRole.ASSISTANT, "", SCOPE, tool_calls=[call(1), call(2)])
    memory.add(MessageRole.TOOL, "result two", SCOPE, tool_call_id="c-2", name="search")
    memory.add(MessageRole.TOOL, "result one", SCOPE, tool_call_id="c-1", name="search")
    memory.add(MessageRole.ASSISTANT, "equal", SCOPE)
    picked = memory.get_agent_conversation("result two", limit=limit, filters=SCOPE, strategy=strategy)
    assert picked or limit == 1  # an answered question is not given without its answer
    assert len(picked) <= limit
    assert not picked or picked[0].role == "user"
    called = {c["id"] for m in picked for c in m.tool_calls or []}
    assert called == {m.tool_call_id for m in picked if m.role == "tool"}
    assert called in (set(), {"c-1", "c-2"})
