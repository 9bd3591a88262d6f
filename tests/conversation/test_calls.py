"""Calls and results are paired, however a provider names them, and wherever in a message they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message
from dynamiq_memory.conversation.calls import ToolReference, calls_of, is_question, results_of, says_something
from dynamiq_memory.conversation.turns import arrange, split_turns
from tests.fakes.sessions import examples, whole_sessions

SCOPE = {"user_id": "u", "session_id": "s"}


def user(content):
    return Message(role="user", content=content)


def answer(content):
    return Message(role="assistant", content=content)


def result(content, id_=None, name=None):
    return Message(role="tool", content=content, tool_call_id=id_, name=name)


# --- one message -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "reference"),
    [
        ({"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}, ("toolu_1", "look")),
        ({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look"}, ("call_1", "look")),
        ({"type": "custom_tool_call", "call_id": "call_1", "name": "look", "input": "x"}, ("call_1", "look")),
        ({"type": "mcp_approval_request", "id": "mcpr_1", "name": "book"}, ("mcpr_1", "book")),
        ({"type": "tool_call", "id": "c", "name": "look", "args": {}}, ("c", "look")),
        ({"functionCall": {"name": "look", "args": {}}}, ("", "look")),
        ({"function_call": {"id": "g1", "name": "look", "args": {}}}, ("g1", "look")),
    ],
)
def test_calls_in_blocks(block, reference):
    message = Message(role="assistant", content=[{"type": "text", "text": "One moment."}, block])
    assert calls_of(message) == [ToolReference(*reference)]


@pytest.mark.parametrize(
    ("block", "reference"),
    [
        ({"type": "tool_result", "tool_use_id": "toolu_1", "content": "9:40"}, ("toolu_1", "")),
        ({"type": "function_call_output", "call_id": "call_1", "output": "9:40"}, ("call_1", "")),
        ({"type": "custom_tool_call_output", "call_id": "call_1", "output": "9:40"}, ("call_1", "")),
        ({"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}, ("mcpr_1", "")),
        ({"functionResponse": {"name": "look", "response": {}}}, ("", "look")),
    ],
)
def test_results_in_blocks(block, reference):
    message = Message(role="user", content=[block])
    assert results_of(message) == [ToolReference(*reference)]
    assert not is_question(message)


@pytest.mark.parametrize("kind", ["server_tool_use", "web_search_call", "mcp_call", "code_interpreter_call"])
def test_calls_that_the_provider_answers_are_not_calls(kind):
    assert calls_of(Message(role="assistant", content=[{"type": kind, "id": "x", "name": "search"}])) == []


def test_blocks_that_repeat_the_calls_of_the_field_count_once():
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    blocks = [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]
    assert calls_of(Message(role="assistant", content=blocks, tool_calls=[call])) == [ToolReference("1", "look")]


def test_a_call_of_cohere_has_neither_id_nor_function():
    message = Message(role="assistant", tool_calls=[{"name": "look", "parameters": {"port": "Ostend"}}])
    assert calls_of(message) == [ToolReference("", "look")]


# --- whole conversations, in each provider's form --------------------------------------------------------------------


@examples(40)
@given(whole_sessions())
def test_a_complete_conversation_is_given_whole(stored):
    memory = Memory(max_tokens=None)
    memory.add_many(stored.messages)
    given_back = memory.get_agent_conversation()
    assert [m.id for m in given_back] == [m.id for m in stored.messages]
    assert [m.to_openai() for m in given_back] == [m.to_openai() for m in stored.messages]


@examples(40)
@given(whole_sessions(), st.sets(st.integers(0, 20)))
def test_without_some_results_the_rest_is_given_and_words_stay(stored, lost):
    left = [m for number, m in enumerate(stored.messages) if number not in lost or not results_of(m)]
    given_back = arrange(left)
    assert sum(len(calls_of(m)) for m in given_back) == sum(len(results_of(m)) for m in given_back)
    kept = {m.id for m in given_back}
    assert {m.id for m in left if says_something(m) and not results_of(m)} <= kept


# --- cases that have a name ----------------------------------------------------------------------------------------


def calling(*ids, text="", name="approve"):
    function = {"name": name, "arguments": "{}"}
    return Message(role="assistant", content=text, tool_calls=[{"id": i, "function": function} for i in ids])


def test_the_last_result_of_a_call_counts():
    final = result("APPROVED", "c")
    messages = [user("Order it."), calling("c"), result("pending", "c"), answer("Waiting."), user("ok"), final]
    given_back = arrange(messages)
    assert [m.text for m in given_back] == ["Order it.", "", "APPROVED", "Waiting.", "ok"]


@pytest.mark.parametrize("turns", [1, 10, 50])
def test_a_result_that_comes_turns_later_is_given_with_its_call(turns):
    memory = Memory(filters=SCOPE)
    memory.add_many([user("Order it."), calling("c")])
    for number in range(turns):
        memory.add_many([user(f"question {number}"), answer(f"answer {number}")])
    memory.add_many([result("APPROVED", "c")])
    given_back = [m.text for m in memory.get_agent_conversation(limit=6)]
    assert given_back[:3] == ["Order it.", "", "APPROVED"]
    assert given_back[-1] == f"answer {turns - 1}"


def test_of_parallel_calls_with_a_missing_result_the_words_stay():
    given_back = arrange([user("q"), calling("1", "2", text="wait"), result("r", "2"), user("again"), answer("ok")])
    assert [m.text for m in given_back] == ["q", "wait", "again", "ok"]
    assert given_back[1].tool_calls is None


def test_results_in_a_users_message_begin_no_turn():
    use = [{"type": "tool_use", "id": "t", "name": "ferry", "input": {}}]
    messages = [
        user("When?"),
        Message(role="assistant", content=use),
        Message(role="user", content=[{"type": "tool_result", "tool_use_id": "t", "content": "9:40"}]),
        answer("At 9:40."),
    ]
    (turn,) = split_turns(messages)
    assert [len(part) for part in turn.rounds] == [1, 2, 1]
    memory = Memory(filters=SCOPE)
    memory.add_many(messages)
    for limit in range(1, 5):
        given_back = memory.get_agent_conversation(limit=limit)
        assert not given_back or is_question(given_back[0])


def test_what_a_user_says_beside_an_orphaned_result_stays():
    parts = [{"type": "tool_result", "tool_use_id": "gone", "content": "x"}, {"type": "text", "text": "And now?"}]
    (message,) = arrange([Message(role="user", content=parts)])
    assert message.content == [{"type": "text", "text": "And now?"}]


def test_a_call_that_is_only_a_block_goes_without_its_result():
    parts = [{"type": "text", "text": "wait"}, {"type": "function_call", "call_id": "1", "name": "look"}]
    given_back = arrange([user("q"), Message(role="assistant", content=parts), user("again"), answer("ok")])
    assert [m.text for m in given_back] == ["q", "wait", "again", "ok"]
    assert json.dumps([m.content for m in given_back]).count("function_call") == 0


def test_an_answered_question_is_not_given_without_its_answer():
    memory = Memory(filters=SCOPE)
    memory.add_many([user("Write me an essay."), answer("bees " * 300)])
    assert memory.get_agent_conversation(limit=1) == []
    for strategy in ("all", "relevant", "both"):
        assert memory.get_agent_conversation("essay", strategy=strategy, max_tokens=50) == []
    memory.add_many([user("And now?")])
    for strategy in ("all", "relevant", "both"):
        given_back = memory.get_agent_conversation("essay", strategy=strategy, max_tokens=50)
        assert [m.text for m in given_back] == ["And now?"]


def test_reading_back_is_bounded():
    memory = Memory(filters=SCOPE)
    memory.add_many([answer(f"apple {number}") for number in range(6_000)])
    read = 0
    perform = memory.backend._perform

    def counting(operation):
        nonlocal read
        found = perform(operation)
        read += len(found) if found and isinstance(found[0], Message) else 0
        return found

    memory.backend._perform = counting
    assert memory.get_agent_conversation("apple", limit=50, strategy="relevant") == []
    assert read < 15_000  # rather than 6,000 for each of 82 matches


def test_a_turn_is_not_cut_so_that_a_result_is_its_end():
    """Mistral and Cohere refuse a question directly after a result."""
    memory = Memory(filters=SCOPE)
    memory.add_many([user("go"), calling("c1"), result("zebra", "c1"), answer("word " * 50)])
    assert [m.role for m in memory.get_agent_conversation("zebra", limit=3, strategy="relevant")] == [
        "user",
        "assistant",
    ]
    assert memory.get_agent_conversation("zebra", max_tokens=40, strategy="relevant") == []
    assert len(memory.get_agent_conversation("zebra", limit=4, strategy="relevant")) == 4


@pytest.mark.parametrize("blank", ["", " ", [], [{"type": "text", "text": ""}]])
def test_a_question_that_says_nothing_is_left_out_and_its_answer_stays(blank):
    given_back = arrange([user("q"), answer("a"), user(blank), answer("What?"), user("And now?")])
    assert [m.text for m in given_back] == ["q", "a", "What?", "And now?"]


def test_a_question_of_blocks_that_only_its_framework_knows_is_given():
    block = {"$native": "Block", "value": {"class": "DocumentBlock", "fields": {"path": "ticket.pdf"}}}
    native = {"framework": "llama_index", "data": {"role": "user", "blocks": [block]}, "digest": "x"}
    assert len(arrange([Message(role="user", content="", native=native), answer("A ticket.")])) == 2


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 20])
def test_a_long_turn_is_cut_around_the_match_and_keeps_its_answer(limit):
    memory = Memory(filters=SCOPE)
    rounds = [m for n in range(10) for m in (calling(f"c{n}"), result(f"step {n} {'zebra' * (n == 1)}", f"c{n}"))]
    memory.add_many([user("go"), *rounds, answer("final"), user("thanks"), answer("welcome")])
    given_back = [m.text for m in memory.get_agent_conversation("zebra", limit=limit, strategy="relevant")]
    assert given_back[0] == "go"
    assert "step 1 zebra" in given_back
    assert given_back[-1] == "final"


def test_parallel_calls_in_several_messages_are_answered_in_order():
    first, second = calling(None, text="first"), calling(None, text="second")
    given_back = arrange([user("q"), first, second, result("r1", name="approve"), result("r2", name="approve")])
    assert [m.text for m in given_back] == ["q", "first", "r1", "second", "r2"]


def test_a_call_that_broke_off_does_not_take_the_result_of_the_next():
    again = [calling(None, text="first"), answer("that failed"), calling(None, text="second")]
    given_back = arrange([user("q"), *again, result("r2", name="approve")])
    assert [m.text for m in given_back] == ["q", "first", "that failed", "second", "r2"]


def output(*ids, text=None):
    parts = [{"type": "function_call_output", "call_id": id_, "output": "x"} for id_ in ids]
    return Message(role="user", content=[*parts, *([{"type": "text", "text": text}] if text else [])])


def block_call(id_):
    return Message(
        role="assistant", content=[{"type": "function_call", "call_id": id_, "name": "w", "arguments": "{}"}]
    )


@pytest.mark.parametrize("calls", [2, 3, 50])
def test_one_message_that_answers_calls_of_several_messages_is_given_once(calls):
    names = [f"c{number}" for number in range(calls)]
    messages = [user("q"), *map(block_call, names), output(*names), answer("Sun")]
    assert [m.id for m in arrange(messages)] == [m.id for m in messages]
    (turn,) = split_turns(messages)
    assert [len(part) for part in turn.rounds] == [1, calls + 1, 1]


def test_what_a_user_says_beside_results_that_are_not_given_stays():
    two = Message(role="assistant", content=[*block_call("c1").content, *block_call("c2").content])
    given_back = arrange([user("q"), two, output("c1", text="stop, Madrid"), answer("OK Madrid")])
    assert [m.text for m in given_back] == ["q", "stop, Madrid", "OK Madrid"]
    pending = output("c1", text="my name is Bob")
    given_back = arrange([user("q"), block_call("c1"), pending, answer("hello Bob"), output("c1")])
    assert [m.text for m in given_back] == ["q", "", "", "my name is Bob", "hello Bob"]


def test_of_a_message_with_several_results_only_those_that_count_are_given():
    two = Message(role="assistant", content=[*block_call("c1").content, *block_call("c2").content])
    (_, _, first, last, _) = arrange([user("q"), two, output("c1", "c2", text="so"), output("c2"), answer("ok")])
    assert results_of(first) == [ToolReference("c1", "")]
    assert first.text == "so"
    assert results_of(last) == [ToolReference("c2", "")]


def test_thoughts_that_led_to_a_call_go_with_it():
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    words = {"type": "text", "text": "wait"}
    broken = Message(role="assistant", content=[thought, words, thought, *block_call("c1").content])
    (_, given_back, _) = arrange([user("q"), broken, user("again")])
    assert given_back.content == [thought, words]


def test_an_orphaned_result_beside_another_is_left_out():
    (_, _, given_back) = arrange([user("q"), block_call("c1"), output("c1", "zzz")])
    assert results_of(given_back) == [ToolReference("c1", "")]


def test_an_answered_question_is_not_given_alone():
    memory = Memory(filters=SCOPE)
    memory.add_many([user("Delete all my files"), calling("c1"), result("done", "c1")])
    assert [m.text for m in memory.get_agent_conversation(limit=1)] == ["Delete all my files"]  # still in work
    memory.add_many([user("thanks, write a poem"), answer("poem " * 50)])
    assert memory.get_agent_conversation(limit=1) == []
    memory.add_many([Message(role="system", content="note")])
    assert memory.get_agent_conversation(max_tokens=20) == []
