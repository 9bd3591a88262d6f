"""Stable windows: their beginning stays where it is for several turns, and no budget is exceeded."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import ConfigurationError, InvalidArgumentError, Memory, Message, count_tokens_approximately
from dynamiq_memory.conversation.turns import Budget, latest_turns, split_turns
from dynamiq_memory.conversation.windows import STEP, Window, count_from_step, similar
from dynamiq_memory.integrations.references import reference_to, resolve

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def turn(number, length=2):
    question = Message(role="user", content=f"question {number}", id=f"q-{number}")
    answers = [Message(role="assistant", content=f"answer {number}", id=f"a-{number}-{n}") for n in range(length - 1)]
    return [question, *answers]


def fitting(sizes, budget):
    """How many of the sizes fit, the last ones first."""
    return sum(1 for total in itertools.accumulate(reversed(sizes)) if total <= budget)


@given(SIZES, st.integers(1, 100), st.integers(0, 10**6))
def test_a_stable_window_leaves_out_less_than_a_step(sizes, budget, seed):
    sizes = sizes[len(sizes) - fitting(sizes, budget) :]
    kept = count_from_step([f"{seed}-{n}" for n in range(len(sizes))], sizes[::-1], budget)
    assert bool(sizes) <= kept <= len(sizes)
    assert sum(sizes[: len(sizes) - kept]) < max(1, int(budget * STEP))


@given(st.lists(st.integers(1, 4), min_size=10, max_size=60), st.integers(20, 60), st.integers(0, 10**6))
def test_a_stable_window_moves_only_when_it_must(sizes, budget, seed):
    ids = [f"{seed}-{n}" for n in range(len(sizes))]
    begins = {}
    for end in range(1, len(sizes) + 1):
        start = end - fitting(sizes[:end], budget)
        landmark = min(ids[start:end], key=lambda id_: hashlib.blake2b(id_.encode(), digest_size=8).digest())
        kept = count_from_step(ids[start:end][::-1], sizes[start:end][::-1], budget)
        begin = end - kept
        before = begins.get(landmark)
        if start and before is not None:
            assert begin == before if before >= start else begin > before
        if start:
            begins = {landmark: begin}


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 20, 50, 999, 32_000])
def test_budgets_that_differ_by_little_are_similar(number):
    assert max(1, number) * 2 // 3 <= similar(number) <= max(1, number)
    assert similar(similar(number)) == similar(number)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=40),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(10, 300)),
    st.booleans(),
)
def test_a_stable_window_is_the_end_of_a_sliding_one(lengths, limit, tokens, more):
    turns = split_turns([message for number, length in enumerate(lengths) for message in turn(number, length)])
    sliding, _ = latest_turns(turns, Budget(limit, tokens), more=more)
    budget = Budget(limit, tokens, window=Window.STABLE)
    stable, full = latest_turns(turns, budget, more=more)
    assert stable == sliding[len(sliding) - len(stable) :]
    assert bool(stable) == bool(sliding)
    assert budget.messages == limit - len(stable)
    if tokens is not None:
        assert budget.tokens == tokens - sum(map(count_tokens_approximately, stable))
    if not full and not more:
        assert stable == sliding


@pytest.mark.parametrize(("limit", "tokens"), [(50, None), (50, 32_000), (1000, 600)])
def test_most_prompts_begin_like_the_one_before(store, limit, tokens):
    memory = Memory(backend=store, window="stable", max_tokens=tokens)
    begins, sizes = [], []
    for number in range(150):
        memory.add_many(turn(number)[:1])
        given = memory.get_agent_conversation(limit=limit)
        assert given[-1].id == f"q-{number}"
        memory.add_many(turn(number)[1:])
        begins.append(given[0].id)
        sizes.append(len(given))
    full = begins[50:]
    moved = sum(one != two for one, two in itertools.pairwise(full))
    assert moved < 25
    assert min(sizes[50:]) > 0.6 * max(sizes)


def test_the_beginning_is_the_same_in_all_processes(store):
    """Ids alone decide; Python's own hashes differ between processes."""
    memory = Memory(backend=store, window="stable")
    memory.add_many([message for number in range(100) for message in turn(number)])
    assert [memory.get_agent_conversation(limit=limit)[0].id for limit in (10, 20, 50, 100)] == [
        "q-95",
        "q-92",
        "q-75",
        "q-53",
    ]


def test_the_window_of_a_call_counts_before_that_of_the_memory(store):
    memory = Memory(backend=store, window="stable")
    memory.add_many([message for number in range(100) for message in turn(number)])
    assert len(memory.get_agent_conversation(limit=60, window="sliding")) == 60
    assert len(memory.get_agent_conversation(limit=60)) < 60
    assert memory.get_agent_conversation(limit=200) == memory.get_all()
    assert len(memory.get_agent_conversation(limit=199)) < 198


def test_what_fits_is_given_whole(store):
    memory = Memory(backend=store, window="stable")
    memory.add_many([Message(role="system", content="be kind"), *turn(1), *turn(2, 7)])
    assert memory.get_agent_conversation(limit=11) == memory.get_all()


def test_settings_are_checked_and_described(store):
    memory = Memory(backend=store, window="stable", placement="before_question")
    assert memory.to_dict()["window"] == "stable"
    assert memory.to_dict()["placement"] == "before_question"
    for name in ("window", "placement"):
        with pytest.raises(ConfigurationError, match=name):
            Memory(**{name: "moving"})
        for wrong in ("moving", ""):
            with pytest.raises(InvalidArgumentError, match=name):
                memory.get_agent_conversation(**{name: wrong})


def test_references_keep_the_settings(tmp_path):
    from dynamiq_memory.backends import SQLite  # noqa: PLC0415 - optional

    with Memory(backend=SQLite(tmp_path / "a.db"), window="stable", placement="before_question") as memory:
        memory.add("user", "hello")
        reference = {**reference_to(memory), "id": None}
        with resolve(reference) as again:
            assert (again.window, again.placement) == (memory.window, memory.placement)
