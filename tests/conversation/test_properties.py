"""For any stored session, strategy, limit and token budget: what an agent is given is right."""

from __future__ import annotations

import asyncio
import itertools
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message, Reason, count_tokens_approximately
from dynamiq_memory.backends import InMemory
from dynamiq_memory.conversation.calls import calls_of, is_question, results_of, says_something
from dynamiq_memory.conversation.tokens import as_sent
from dynamiq_memory.conversation.turns import OPENING_LINE
from dynamiq_memory.messages import INTERRUPTED_KEY
from dynamiq_memory.testing.providers import Provider, refusals
from tests.fakes.sessions import ONE_SCOPE, SCOPES, any_sessions, dumped, examples, whole_sessions

NOW = Message(role="user", content="And now?")
# What the store has as it is, and a provider refuses: see docs/conversations.md.
AS_STORED = ("ids_are_unique", "instructions_come_first", "results_are_answered_before_the_next_question")


class Asked(NamedTuple):
    strategy: str
    query: str | None
    limit: int
    max_tokens: int | None
    share: float
    window: str
    asynchronous: bool


ASKED = st.builds(
    Asked,
    st.sampled_from(["all", "relevant", "both"]),
    st.sampled_from(["apple", "pear", "plum fig", "nothing", None]),
    st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 1_000]),
    st.sampled_from([None, None, 5, 20, 40, 80, 160]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from(["sliding", "sliding", "stable"]),
    st.sampled_from([False, False, False, True]),
)
ALL_SCOPES = st.sampled_from(SCOPES)
U_S = {"user_id": "u", "session_id": "s"}
FILTERS = st.sampled_from([{}, {"user_id": "u"}, {"session_id": "s"}, U_S])


def ask(backend, asked, filters=None):
    """Ask a memory, in one of the two ways."""
    memory = Memory(backend, max_tokens=None, recent_share=asked.share, window=asked.window)
    arguments = (asked.query, asked.limit, filters, asked.strategy, asked.max_tokens)
    if asked.asynchronous:
        return asyncio.run(memory.aget_agent_conversation(*arguments))
    return memory.get_agent_conversation(*arguments)


def everything(backend, filters=None):
    """What is given without any bound."""
    return Memory(backend, max_tokens=None).get_agent_conversation(None, 100_000, filters)


def turns_of(messages):
    """Split messages into turns, session by session: each begins with a question, except for what comes before."""
    turns = {}
    for message in messages:
        session = turns.setdefault((message.user_id, message.session_id), [[]])
        if is_question(message):
            session.append([])
        session[-1].append(message)
    return [turn for session in turns.values() for turn in session if turn]


def spoken(messages):
    return sum(message.role != "system" for message in messages)


# --- a conversation that OpenAI, Anthropic, Gemini, Ollama, Cohere and Mistral accept --------------------------------


@examples(40)
@given(whole_sessions(), st.lists(ASKED, min_size=2, max_size=4))
def test_what_is_given_of_finished_turns_is_accepted_by_every_provider(stored, asks):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        for asked in asks:
            sent = [*ask(backend, asked), NOW]
            for provider in stored.providers:
                assert refusals(sent, provider) == [], f"{provider} of\n{dumped(sent)}"


@examples(40)
@given(any_sessions(), st.lists(ASKED, min_size=2, max_size=4))
def test_what_is_given_is_accepted_except_for_what_is_stored_so(stored, asks):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        whole = everything(backend)
        ends = {turn[-1].id for turn in turns_of(whole)}
        for asked in asks:
            sent = [*ask(backend, asked), NOW]
            for provider in stored.providers:
                for fault in refusals(sent, provider):
                    assert fault.startswith(AS_STORED), f"{provider}: {fault} of\n{dumped(sent)}"
            # A result without an answer is where the turn ends, not where it was cut.
            for before, after in itertools.pairwise(sent):
                assert not (results_of(before) and is_question(after)) or before.id in ends, dumped(sent)


@examples(40)
@given(whole_sessions(), ASKED)
def test_a_block_before_the_question_is_accepted_by_every_provider(stored, asked):
    with InMemory() as backend:
        backend.add_many([*stored.messages, Message(role="user", content="And the pear now?", metadata=U_S)])
        memory = Memory(backend, max_tokens=None, recent_share=asked.share, placement="before_question")
        sent = memory.get_agent_conversation(asked.query, asked.limit, U_S, asked.strategy, asked.max_tokens)
        for provider in stored.providers:
            assert not sent or refusals(sent, provider) == [], f"{provider} of\n{dumped(sent)}"


def test_what_is_given_of_an_interrupted_call_is_accepted_by_every_provider():
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    memory = Memory()
    memory.add("user", "When do ships leave?")
    memory.add("assistant", "", {INTERRUPTED_KEY: True}, tool_calls=[call])
    sent = [*memory.get_agent_conversation(), NOW]
    assert [fault for provider in Provider for fault in refusals(sent, provider)] == []


@examples(40)
@given(any_sessions(scopes=ALL_SCOPES), ASKED, FILTERS)
def test_no_question_that_has_been_answered_is_given_without_its_answer(stored, asked, filters):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        whole = turns_of(everything(backend, filters))
        last = {(turn[0].user_id, turn[0].session_id): turn for turn in whole}.values()
        unanswered = {turn[0].id for turn in whole if spoken(turn) == 1}
        # The work on the last question may go on after a call.
        originals = {message.id: message for message in stored.messages}
        ends = [[originals[message.id] for message in turn if message.role != "system"] for turn in last]
        unanswered |= {end[0].id for end in ends if end and (calls_of(end[-1]) or results_of(end[-1]))}
        for turn in turns_of(ask(backend, asked, filters)):
            assert spoken(turn) != 1 or turn[0].id in unanswered


@examples(40)
@given(any_sessions(scopes=ALL_SCOPES), ASKED, FILTERS)
def test_it_begins_with_a_question_after_instructions(stored, asked, filters):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        first = next((message for message in ask(backend, asked, filters) if message.role != "system"), None)
        assert first is None or is_question(first)


# --- in the order of the conversation, with no message twice ----------------------------------------------------------


@examples(40)
@given(any_sessions(scopes=ALL_SCOPES), ASKED, FILTERS)
def test_it_is_in_the_order_of_the_store_with_no_message_twice(stored, asked, filters):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        place = {(m.user_id, m.session_id, m.id): number for number, m in enumerate(backend.get_all())}
        given_now = ask(backend, asked, filters)
        assert len(given_now) <= asked.limit
        # The line before what an assistant said first is not stored.
        given_now = [message for message in given_now if message.content != OPENING_LINE]
        places = [place[m.user_id, m.session_id, m.id] for m in given_now]
        assert len(set(places)) == len(places)
        others = [number for number, message in zip(places, given_now, strict=True) if not results_of(message)]
        assert others == sorted(others)


@examples(40)
@given(any_sessions(scopes=ALL_SCOPES), ASKED, FILTERS)
def test_messages_are_given_as_stored_except_for_calls_and_results_without_each_other(stored, asked, filters):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        originals = {message.id: message for message in backend.get_all()}
        for message in ask(backend, asked, filters):
            if message.content == OPENING_LINE:
                continue
            original = originals[message.id]
            whole = message.model_copy(update={"content": original.content, "tool_calls": original.tool_calls})
            assert whole.model_copy(update={"score": None}) == original
            if message.content != original.content:
                assert all(part in original.content for part in message.content)
                assert len(results_of(message)) < len(results_of(original)) or not calls_of(message)


# --- calls and results ------------------------------------------------------------------------------------------------


@examples(40)
@given(whole_sessions(), ASKED)
def test_each_call_is_given_with_its_own_results(stored, asked):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        given_now = ask(backend, asked)
        following = {one.id: two for one, two in itertools.pairwise(stored.messages)}
        for number, message in enumerate(given_now):
            if calls_of(message) or (results_of(message) and results_of(following[message.id])):
                assert given_now[number + 1].id == following[message.id].id


@examples(40)
@given(any_sessions(styles=["openai"]), ASKED)
def test_of_several_results_of_a_call_the_last_one_is_given(stored, asked):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        last = {message.tool_call_id: message.id for message in stored.messages if message.role == "tool"}
        for message in ask(backend, asked):
            assert message.role != "tool" or message.id == last[message.tool_call_id]


@examples(40)
@given(any_sessions())
def test_what_is_said_stays_whatever_becomes_of_calls(stored):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        given_now = {message.id for message in everything(backend)}
        after = itertools.dropwhile(
            lambda message: not (is_question(message) and says_something(message)), stored.messages
        )
        for message in after:
            if message.role == "assistant" and says_something(message):
                assert message.id in given_now, dumped(stored.messages)


# --- tokens -----------------------------------------------------------------------------------------------------------


@examples(40)
@given(any_sessions(scopes=ALL_SCOPES), ASKED, FILTERS)
def test_what_is_sent_counts_as_tokens(stored, asked, filters):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        tokens = sum(count_tokens_approximately(as_sent(message)) for message in ask(backend, asked, filters))
        assert asked.max_tokens is None or tokens <= asked.max_tokens


# --- what the strategy promises ---------------------------------------------------------------------------------------


def fits(messages, asked, part=1.0):
    tokens = sum(map(count_tokens_approximately, messages))
    return len(messages) <= asked.limit * part and (asked.max_tokens is None or tokens <= asked.max_tokens * part)


@examples(40)
@given(whole_sessions(), ASKED)
def test_all_gives_the_most_recent_whole_turns(stored, asked):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        given_now = ask(backend, asked._replace(strategy="all", window="sliding"))
        turns = turns_of(stored.messages)
        recent = next(
            tail for start in range(len(turns) + 1) if fits(tail := list(itertools.chain(*turns[start:])), asked)
        )
        if recent or not turns:
            assert [message.id for message in given_now] == [message.id for message in recent]
        else:
            # A turn that alone does not fit is cut to its question and the end.
            ids = [message.id for message in given_now]
            assert ids == [message.id for message in stored.messages if message.id in ids]
            assert not ids or ids[-1] in {turn[-1].id for turn in turns}


@examples(40)
@given(whole_sessions(), ASKED)
def test_relevant_gives_the_turns_of_the_best_matches(stored, asked):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        matches = backend.search(asked.query) if asked.query else []
        given_now = {message.id for message in ask(backend, asked._replace(strategy="relevant"))}
        if not asked.query or asked.query == "nothing":
            return
        turns = {message.id: turn for turn in turns_of(stored.messages) for message in turn}
        if matches and fits(turns[matches[0].id], asked):
            assert {message.id for message in turns[matches[0].id]} <= given_now
        found = {match.id for match in matches}
        with_match = [turn for turn in turns_of(stored.messages) if found & {message.id for message in turn}]
        if any(given_now & {message.id for message in turn} for turn in with_match):
            assert given_now <= {message.id for turn in with_match for message in turn}


@examples(40)
@given(whole_sessions(), ASKED)
def test_both_gives_each_side_its_share_and_what_the_other_leaves(stored, asked):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        given_now = {message.id for message in ask(backend, asked._replace(strategy="both", window="sliding"))}
        if fits(stored.messages, asked):
            assert given_now == {message.id for message in stored.messages}
        for turn in turns_of(stored.messages)[-1:]:
            if fits(turn, asked, asked.share):
                assert {message.id for message in turn} <= given_now


@examples(40)
@given(any_sessions(scopes=ONE_SCOPE), ASKED)
def test_reasons_and_scores_say_why(stored, asked):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        memory = Memory(backend, max_tokens=None, recent_share=asked.share, window=asked.window)
        explained = memory.explain_agent_conversation(asked.query, asked.limit, None, asked.strategy, asked.max_tokens)
        assert [pick.message for pick in explained] == ask(backend, asked)
        for pick in explained:
            assert (pick.message.score is not None) == (pick.reason is Reason.MATCH)


def test_no_relevant_message_of_a_thousand_turns_ago_is_out_of_reach():
    memory = Memory()
    memory.add_many([Message(role="user", content="My zebra is ill"), Message(role="assistant", content="Poor beast")])
    for number in range(1_000):
        memory.add_many([Message(role="user", content=f"pear {number}"), Message(role="assistant", content="yes")])
    for strategy in ("relevant", "both"):
        texts = [message.text for message in memory.get_agent_conversation("zebra", 10, strategy=strategy)]
        assert texts[:2] == ["My zebra is ill", "Poor beast"]
