"""Turns, and the conversation for an agent: valid for every LLM API under any strategy, limit and budget."""

from __future__ import annotations

import asyncio
import itertools
import math
import sqlite3

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message, Reason, count_tokens_approximately
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.conversation.turns import Budget, Turn, arrange, latest_turns, split_turns
from dynamiq_memory.messages import key_of

STRATEGIES = ["all", "relevant", "both"]
WORDS = ["apple", "pear", "plum", "fig"]


# --- an independent judge --------------------------------------------------------------------------------------


def call_ids(message):
    return [call["id"] for call in message.tool_calls or []] if message.role == "assistant" else []


def faults(conversation):
    """What an LLM API would refuse."""
    found = []
    spoken = [m for m in conversation if m.role != "system"]
    if spoken and spoken[0].role != "user":
        found.append(f"begins with {spoken[0].role}")
    open_calls: list[str] = []
    for message in conversation:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
            else:
                found.append(f"result {message.tool_call_id} not after its call")
            continue
        if open_calls:
            found.append(f"calls {open_calls} unanswered when {message.role} speaks")
        open_calls = call_ids(message)
        if message.role == "assistant" and not open_calls and not message.text.strip():
            found.append("an assistant's message that says nothing")
    if open_calls:
        found.append(f"calls {open_calls} unanswered at the end")
    keys = [key_of(m) for m in conversation]
    if len(set(keys)) < len(keys):
        found.append("a message twice")
    return found


def check(picked, stored, limit, max_tokens=None, count=count_tokens_approximately):
    assert faults(picked) == [], [(m.role.value, m.content, call_ids(m), m.tool_call_id) for m in picked]
    assert len(picked) <= limit
    assert max_tokens is None or sum(map(count, picked)) <= max_tokens
    place = {key_of(m): number for number, m in enumerate(stored)}
    assert all(key_of(m) in place for m in picked)
    order = [place[key_of(m)] for m in picked if m.role != "tool"]
    assert order == sorted(order), "not chronological"
    # A result stands at its own place, or further up, where another run's messages part it from its call.
    for before, behind in itertools.pairwise(picked):
        if behind.role == "tool":
            assert place[key_of(behind)] > place[key_of(before)] or before.role == "tool"
    questions = [turn for turn in by_turns(stored) if len(turn) == 1]
    least = [turn for turn in questions if max_tokens is None or count(turn[0]) <= max_tokens]
    assert picked or not least, "empty, though a question that nobody answered fits"
    for turn in by_turns(picked):
        whole = next(other for other in by_turns(stored) if key_of(other[0]) == key_of(turn[0]))
        answered = whole[-1].role == "assistant" and not whole[-1].tool_calls
        assert len(turn) > 1 or not answered, "an answered question without its answer"
    for message in picked:
        original = stored[place[key_of(message)]]
        same = message.model_copy(update={"score": None, "tool_calls": original.tool_calls})
        assert same == original
        assert all(call in (original.tool_calls or []) for call in message.tool_calls or [])


def by_turns(messages):
    """The turns of each session: a question, and what follows it."""
    turns = {}
    for message in messages:
        scope = key_of(message)[:2]
        if message.role == "user":
            turns.setdefault(scope, []).append([message])
        elif scope in turns:
            turns[scope][-1].append(message)
    return [turn for each in turns.values() for turn in each]


def test_the_judge_sees_faults():
    user, done = Message(role="user"), Message(role="assistant", content="done")
    calls = Message(role="assistant", tool_calls=[{"id": "a"}, {"id": "b"}])
    a, b = Message(role="tool", tool_call_id="a"), Message(role="tool", tool_call_id="b")
    assert faults([user, calls, b, a, done]) == []
    assert faults([Message(role="system"), user]) == []
    assert faults([done]) != []
    assert faults([user, calls, a, done]) != []
    assert faults([user, calls, a]) != []
    assert faults([user, a]) != []
    assert faults([user, calls, user, a, b]) != []
    assert faults([user, user]) != []
    assert faults([user, calls, a, b, Message(role="tool", tool_call_id="a")]) != []


# --- random conversations ----------------------------------------------------------------------------------------

CONTENT = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
IDS = st.sampled_from(["c-1", "c-2", "c-3"])  # few: ids repeat
STEPS = st.one_of(
    st.tuples(st.just("user"), CONTENT),
    st.tuples(st.just("assistant"), CONTENT),
    st.tuples(st.just("system"), CONTENT),
    # A complete round of parallel calls, its results in any order.
    st.tuples(
        st.just("round"),
        CONTENT,
        st.lists(IDS, min_size=1, max_size=3, unique=True).flatmap(
            lambda ids: st.tuples(st.just(ids), st.permutations(ids))
        ),
    ),
    # Calls and results on their own: unanswered, orphaned, answered much later.
    st.tuples(st.just("calls"), CONTENT, st.lists(IDS, min_size=1, max_size=2, unique=True)),
    st.tuples(st.just("result"), CONTENT, IDS),
)
SESSIONS = st.sampled_from([("u", "s"), ("u", "t"), ("v", "s")])
TIMES = st.sampled_from([0, 0, 1, 1, 1])  # now and then the time stands still


@st.composite
def conversations(draw, sessions=SESSIONS, most=24):
    messages = []
    time = 1000

    def say(session, role, content, **more):
        nonlocal time
        time += draw(TIMES)
        metadata = {"user_id": session[0], "session_id": session[1]}
        messages.append(
            Message(role=role, content=content, id=f"m-{len(messages)}", timestamp=time, metadata=metadata, **more)
        )

    for _ in range(draw(st.integers(0, most))):
        session = draw(sessions)
        kind, content, *more = draw(STEPS)
        if kind in ("user", "assistant", "system"):
            say(session, kind, content)
        elif kind == "result":
            say(session, "tool", content, tool_call_id=more[0])
        else:
            ids, answers = more[0] if kind == "round" else (more[0], [])
            say(session, "assistant", content, tool_calls=[{"id": i, "type": "function"} for i in ids])
            for answer in answers:
                say(session, "tool", content, tool_call_id=answer)
    return messages


ONE_SESSION = conversations(sessions=st.just(("u", "s")))
BOTH_BACKENDS = pytest.mark.parametrize("make", [InMemory, lambda: SQLite(":memory:")], ids=["InMemory", "SQLite"])


# Each example makes stores: to shrink a failing one would take minutes.
UNSHRUNK = (Phase.explicit, Phase.generate)


def budgets():
    return st.tuples(st.integers(1, 14), st.one_of(st.none(), st.integers(1, 120)))


@BOTH_BACKENDS
@settings(max_examples=70, phases=UNSHRUNK)
@given(
    stored=st.one_of(ONE_SESSION, conversations()),
    asked=st.lists(
        st.tuples(
            st.sampled_from(STRATEGIES),
            st.one_of(st.none(), CONTENT, st.just("the")),
            budgets(),
            st.sampled_from([{}, {"user_id": "u"}, {"session_id": "s"}, {"user_id": "u", "session_id": "s"}]),
            st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        ),
        min_size=4,
        max_size=8,
    ),
)
def test_what_an_agent_is_given_is_valid(make, stored, asked):
    with make() as backend:
        backend.add_many(stored)
        everything = backend.get_all()
        for strategy, query, (limit, max_tokens), filters, share in asked:
            memory = Memory(backend=backend, recent_share=share)
            scope = [m for m in everything if all(m.metadata.get(k) == v for k, v in filters.items())]
            picked = memory.get_agent_conversation(query, limit, filters, strategy, max_tokens)
            check(picked, scope, limit, max_tokens)
            explained = memory.explain_agent_conversation(query, limit, filters, strategy, max_tokens)
            assert [pick.message for pick in explained] == picked
            for pick in explained:
                if pick.reason is Reason.MATCH:
                    assert pick.message.score > 0


@BOTH_BACKENDS
@settings(max_examples=15, phases=UNSHRUNK)
@given(stored=ONE_SESSION, strategy=st.sampled_from(STRATEGIES), query=CONTENT, budget=budgets())
def test_the_async_twin_gives_the_same(make, stored, strategy, query, budget):
    async def ask(memory):
        return await memory.aget_agent_conversation(query, budget[0], None, strategy, budget[1])

    with make() as backend:
        backend.add_many(stored)
        memory = Memory(backend=backend)
        assert asyncio.run(ask(memory)) == memory.get_agent_conversation(query, budget[0], None, strategy, budget[1])


@settings(max_examples=40, phases=UNSHRUNK)
@given(stored=conversations(), strategy=st.sampled_from(STRATEGIES), query=CONTENT, budget=budgets())
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


@given(conversations())
def test_split_turns(stored):
    turns = split_turns(stored)
    kept = [m for turn in turns for m in turn.messages]
    assert len({key_of(m) for m in kept}) == len(kept)
    for message in stored:
        # Nothing is left out but results without a call, calls without a result, and answers that say nothing.
        if message.role in ("user", "system") or (message.role == "assistant" and message.text.strip()):
            assert key_of(message) in map(key_of, kept)
    for turn in turns:
        assert len({(m.user_id, m.session_id) for m in turn.messages}) == 1
        assert turn.opened == (turn.messages[0].role == "user")
        assert all(m.role != "user" for m in turn.messages[1:])
        if turn.opened:
            assert faults(turn.messages) == []
        for part in turn.rounds:
            assert len(part) == 1 + len(call_ids(part[0]))
            assert sorted(m.tool_call_id for m in part[1:]) == sorted(call_ids(part[0]))
    begins = [list(map(key_of, stored)).index(key_of(turn.rounds[0][0])) for turn in turns]
    assert begins == sorted(begins)


@given(conversations(), budgets())
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


@given(conversations())
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
