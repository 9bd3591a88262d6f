"""Turns, and the conversation for an agent: valid for every LLM API under any strategy, limit and budget."""

from __future__ import annotations

import math
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message, count_tokens_approximately
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.conversation.calls import calls_of
from dynamiq_memory.conversation.turns import Budget, Turn, arrange, latest_turns, split_turns
from dynamiq_memory.messages import key_of
from dynamiq_memory.testing.providers import (
    begins_with_a_question,
    calls_have_results,
    messages_say_something,
    results_have_calls,
)
from tests.fakes.sessions import IN_FIELDS, SCOPES, WORDS, any_sessions, examples

STRATEGIES = ["all", "relevant", "both"]
STORED = any_sessions(IN_FIELDS, st.sampled_from(SCOPES)).map(lambda written: written.messages)
ONE_SESSION = any_sessions(IN_FIELDS).map(lambda written: written.messages)


def budgets():
    return st.tuples(st.integers(1, 14), st.one_of(st.none(), st.integers(1, 120)))


def faults(messages):
    """What is wrong with messages, wherever a conversation is cut."""
    rules = (begins_with_a_question, calls_have_results, results_have_calls, messages_say_something)
    return [f"{rule.__name__}: {fault}" for rule in rules for fault in rule(messages)]


@examples(30)
@given(stored=STORED, strategy=st.sampled_from(STRATEGIES), query=st.sampled_from(WORDS), budget=budgets())
def test_both_backends_give_the_same(stored, strategy, query, budget):
    with InMemory() as one, SQLite(":memory:") as two:
        one.add_many(stored)
        two.add_many(stored)
        assert [m.id for m in one.search(query)] == [m.id for m in two.search(query)]
        picked = [
            [
                (m.id, None if m.score is None else round(m.score, 9))
                for m in Memory(backend=backend).get_agent_conversation(query, budget[0], None, strategy, budget[1])
            ]
            for backend in (one, two)
        ]
        assert picked[0] == picked[1]


@examples(40)
@given(STORED)
def test_split_turns(stored):
    turns = split_turns(stored)
    kept = [m for turn in turns for m in turn.messages]
    assert len({key_of(m) for m in kept}) == len(kept)
    for message in stored:
        # Nothing is left out but results without a call, calls without a result, and messages that say nothing.
        if message.role == "system" or (message.role != "tool" and message.text):
            assert key_of(message) in map(key_of, kept)
    for turn in turns:
        assert len({(m.user_id, m.session_id) for m in turn.messages}) == 1
        assert turn.opened == (turn.messages[0].role == "user")
        assert all(m.role != "user" for m in turn.messages[1:])
        if turn.opened:
            assert faults(turn.messages) == []
        for part in turn.rounds:
            assert len(part) == 1 + len(calls_of(part[0]))
    begins = [list(map(key_of, stored)).index(key_of(turn.rounds[0][0])) for turn in turns]
    assert begins == sorted(begins)


@examples(40)
@given(STORED, budgets())
def test_cut(stored, budget):
    limit, tokens = budget
    for turn in split_turns(stored):
        whole = turn.messages
        for keep in [None, *map(key_of, whole)]:
            left = Budget(limit, tokens)
            part = turn.cut(left, keep)
            assert [m for m in whole if m in part] == part
            assert len(part) <= limit
            assert left.messages == limit - len(part)
            if tokens is not None:
                assert left.tokens == tokens - sum(map(count_tokens_approximately, part)) >= 0
            if part and turn.opened:
                assert faults(part) == []
                assert part[0] is whole[0]
            if part and keep is not None:
                assert keep in map(key_of, part)
            if Budget(limit, tokens).take(whole):
                assert part == ([] if turn.question_alone else whole)
            assert not part or not Turn([[m] for m in part], answered=turn.answered).question_alone


@examples(40)
@given(ONE_SESSION, budgets())
def test_latest_turns(stored, budget):
    limit, tokens = budget
    turns = split_turns(stored)
    taken, full = latest_turns(turns, Budget(limit, tokens))
    assert faults(taken) == []
    assert len(taken) <= limit
    assert tokens is None or sum(map(count_tokens_approximately, taken)) <= tokens
    given_ones = [turn for turn in turns if (turn.opened and not turn.question_alone) or turn.instructions]
    wanted = [m for turn in given_ones for m in turn.messages]
    if Budget(limit, tokens).take(wanted):
        assert (taken, full) == (wanted, False)
    else:
        assert full


@examples(40)
@given(STORED)
def test_arrange(stored):
    arranged = arrange(stored)
    assert {key_of(m) for m in arranged} == {key_of(m) for turn in split_turns(stored) for m in turn.messages}
    others = [key_of(m) for m in arranged if m.role != "tool"]
    assert [key_of(m) for m in stored if key_of(m) in others] == others
    assert [fault for fault in faults(arranged) if not fault.startswith("begins")] == []
    assert arrange(arranged) == arranged


# --- cases that have a name ----------------------------------------------------------------------------------------

SCOPE = {"user_id": "u", "session_id": "s"}


def talk(store, *script):
    """Store "u:text", "a:text", "s:text", "a:text!id,id" (calls) and "t:text!id" (a result)."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    messages = []
    for line in script:
        role, text = roles[line[0]], line[2:]
        text, _, ids = text.partition("!")
        message = Message(role=role, content=text, metadata=SCOPE)
        if role == "tool":
            message.tool_call_id = ids
        elif ids:
            message.tool_calls = [{"id": i, "type": "function"} for i in ids.split(",")]
        messages.append(message)
    store.add_many(messages)
    return Memory(backend=store)


def texts(messages):
    return [m.content for m in messages]


def test_whole_turns_only(store):
    memory = talk(store, "u:1", "a:2", "u:3", "a:4", "a:5", "u:6")
    assert [texts(memory.get_agent_conversation(limit=n)) for n in range(1, 7)] == [
        ["6"],
        ["6"],
        ["6"],
        ["3", "4", "5", "6"],
        ["3", "4", "5", "6"],
        ["1", "2", "3", "4", "5", "6"],
    ]


def test_system_messages_before_the_first_user_stay_there(store):
    memory = talk(store, "s:be kind", "u:1", "a:2", "s:be brief", "u:3")
    assert texts(memory.get_agent_conversation()) == ["be kind", "1", "2", "be brief", "3"]


def test_a_greeting_before_the_first_user_is_left_out(store):
    memory = talk(store, "a:Hello, I am Bob", "u:1", "a:2")
    assert texts(memory.get_agent_conversation()) == ["1", "2"]


def test_two_runs_of_one_session_interleaved(store):
    memory = talk(store, "u:one", "a:!c1", "u:two", "a:!c2", "t:of one!c1", "t:of two!c2", "a:done one", "a:done two")
    assert texts(memory.get_agent_conversation()) == [
        "one", "", "of one", "two", "", "of two", "done one", "done two",
    ]  # fmt: skip


def test_a_repeated_call_id_answers_each_call(store):
    memory = talk(store, "u:1", "a:!c", "t:first!c", "u:2", "a:!c", "t:second!c")
    assert texts(memory.get_agent_conversation()) == ["1", "", "first", "2", "", "second"]


@pytest.mark.parametrize("limit", [3, 4, 5, 1000])
def test_a_call_of_a_run_that_broke_off_does_not_take_a_later_runs_result(store, limit):
    """Some providers number calls from 1 in every turn. A crash must not shift all later results by one call."""
    memory = talk(store, "u:broken", "a:first call!c", "u:again", "a:second call!c", "t:result!c")
    picked = texts(memory.get_agent_conversation(limit=limit))
    assert picked[-3:] == ["again", "second call", "result"]
    assert picked[:-3] == ([] if limit < 5 else ["broken", "first call"])  # the words stay, the call is dropped


def test_one_crash_does_not_shift_all_later_results(store):
    script = ["u:broken", "a:call 0!c"]
    for n in range(1, 4):
        script += [f"u:{n}", f"a:call {n}!c", f"t:result {n}!c"]
    picked = texts(talk(store, *script).get_agent_conversation())
    assert picked == ["broken", "call 0", *(f"{word}{n}" for n in range(1, 4) for word in ("", "call ", "result "))]


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_a_hit_on_a_result_that_another_runs_message_parts_from_its_call(store, strategy):
    small_talk = [f"{who}:small talk {n}" for n in range(30) for who in "ua"]
    between = [f"a:step {n}" for n in range(7)]
    memory = talk(store, "u:one", "a:!c1", *between, "u:two", "a:wait", "t:zebra!c1", *small_talk)
    picked = texts(memory.get_agent_conversation("zebra", limit=6, strategy=strategy))
    assert picked[:3] == ["one", "", "zebra"]


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_a_hit_that_does_not_fit_gives_way_to_the_next(store, strategy):
    """The best hit needs three messages; the next one fits."""
    memory = talk(
        store, "u:find it", "a:!c", "t:zebra zebra zebra!c", "u:I like a zebra", "u:small talk", "u:more small talk"
    )
    limit = 1 if strategy == "relevant" else 2
    assert texts(memory.get_agent_conversation("zebra", limit=limit, strategy=strategy))[0] == "I like a zebra"


def test_instructions_of_another_session_do_not_crowd_out_the_conversation(store):
    store.add_many(
        [
            Message(role="user", content="hi", metadata={"user_id": "u", "session_id": "a"}),
            Message(role="system", content="be kind", metadata={"user_id": "u", "session_id": "b"}),
        ]
    )
    picked = Memory(backend=store).get_agent_conversation(limit=1, filters={"user_id": "u"})
    assert texts(picked) == ["hi"]


def test_relevant_without_a_hit_acts_as_all(store):
    memory = talk(store, "u:1", "a:2", "u:3")
    for query in ("giraffe", "", "  ", None, "?!"):
        for strategy in ("relevant", "both"):
            assert texts(memory.get_agent_conversation(query, strategy=strategy)) == ["1", "2", "3"]


def test_reasons(store):
    memory = talk(store, "u:zebra", "a:yes", *[f"u:small talk {n}" for n in range(5)])
    explained = memory.explain_agent_conversation("zebra", 4, strategy="both")
    assert [(p.message.content, p.reason.value) for p in explained] == [
        ("zebra", "match"),
        ("yes", "context"),
        ("small talk 3", "recent"),
        ("small talk 4", "recent"),
    ]
    assert [p.message.score is not None for p in explained] == [True, False, False, False]


def test_a_budget_of_tokens(store):
    memory = talk(store, "u:" + "x" * 400, "a:" + "y" * 40, "u:" + "z" * 40)
    count = count_tokens_approximately
    costs = [count(m) for m in memory.get_all()]
    assert costs == [104, 14, 14]
    assert len(memory.get_agent_conversation(max_tokens=14)) == 1
    assert len(memory.get_agent_conversation(max_tokens=131)) == 1
    assert len(memory.get_agent_conversation(max_tokens=132)) == 3
    assert memory.get_agent_conversation(max_tokens=13) == []


def test_a_token_counter_of_ones_own(store):
    talk(store, "u:1", "a:2", "u:3", "u:4")
    memory = Memory(backend=store, token_counter=lambda message: 10)
    assert texts(memory.get_agent_conversation(max_tokens=25)) == ["3", "4"]


def test_a_newest_message_that_does_not_fit_gives_way_to_the_one_before(store):
    memory = talk(store, "u:short", "u:" + "x" * 4000)
    assert texts(memory.get_agent_conversation(max_tokens=20)) == ["short"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_turn_of_many_messages_is_read_to_its_beginning(store, strategy):
    memory = talk(store, "u:go", *[f"a:step {n}" for n in range(450)], "a:zebra")
    picked = texts(memory.get_agent_conversation("zebra", limit=5, strategy=strategy))
    assert picked[0] == "go"
    assert picked[-1] == "zebra"
    assert len(picked) == 5


def test_messages_of_one_time_keep_their_order(store):
    """Only the store knows the order of equal times; ids do not show it."""
    store.add_many([Message(role="user", content=str(n), timestamp=1.0, id=f"i-{n * 7919 % 300}") for n in range(300)])
    for strategy in STRATEGIES:
        picked = Memory(backend=store).get_agent_conversation("299", 300, strategy=strategy)
        assert texts(picked) == [str(n) for n in range(299 if strategy == "relevant" else 0, 300)]


def test_more_messages_of_one_time_than_sqlite_takes_values(new_store, monkeypatch):
    """By default 32,766 in one statement; here as few as the package asks for at once elsewhere."""
    connect = sqlite3.connect

    def limited(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 5_500)
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    store = new_store(tokenizer=lambda text: [])
    store.add_many([Message(role="user", content=str(n), timestamp=1.0) for n in range(6_000)])
    assert len(Memory(backend=store).get_agent_conversation(limit=6_000)) == 6_000


# --- counting tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (Message(role="user"), 4),
        (Message(role="user", content="x" * 8), 6),
        (Message(role="user", content="x" * 9), 7),
        (Message(role="user", content="漢" * 3), 6),
        (Message(role="user", content=[{"type": "text", "text": "x" * 8}, {"type": "image_url"}]), 1006),
        (Message(role="user", content=[]), 4),
    ],
    ids=lambda value: str(getattr(value, "content", value)),
)
def test_token_estimates(message, tokens):
    assert count_tokens_approximately(message) == tokens


def test_tool_calls_cost_tokens():
    call = {"id": "c", "function": {"name": "f", "arguments": "x" * 400}}
    assert count_tokens_approximately(Message(role="assistant", tool_calls=[call])) > 104
    assert math.isfinite(count_tokens_approximately(Message(role="assistant", tool_calls=[{"id": object()}])))
