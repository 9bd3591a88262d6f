"""Which share of a prompt is unchanged since the question before."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from dynamiq_memory import Memory, Message, count_tokens_approximately

SCOPE = {"user_id": "u", "session_id": "s"}


def say(role, content):
    return Message(role=role, content=content, metadata=SCOPE)


def shared(prompt, before):
    """The share of the tokens of a prompt that are those of the prompt before."""
    same = itertools.takewhile(
        lambda pair: pair[0].to_openai() == pair[1].to_openai(), zip(prompt, before, strict=False)
    )
    return sum(count_tokens_approximately(one) for one, _ in same) / sum(map(count_tokens_approximately, prompt))


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
@pytest.mark.parametrize("window", ["sliding", "stable"])
@pytest.mark.parametrize("placement", ["chronological", "before_question"])
@pytest.mark.parametrize("limit", [6, 1000])
def test_it_is_the_share_that_the_prompts_have_in_common(strategy, window, placement, limit):
    memory = Memory(filters=SCOPE, window=window, placement=placement)
    before = None
    for number in range(12):
        question = f"question {number} about the {['zebra', 'lamp'][number % 2]}"
        memory.add_many([say("user", question)])
        explained = memory.explain_agent_conversation(question, limit, strategy=strategy, compare=True)
        prompt = memory.get_agent_conversation(question, limit, strategy=strategy)
        assert explained.conversation == prompt
        if before is None:
            assert explained.unchanged is None
        else:
            assert explained.unchanged == pytest.approx(shared(prompt, before))
        before = prompt
        memory.add_many([say("assistant", f"answer {number}")])
    if (strategy, limit) == ("all", 1000):
        assert explained.unchanged > 0.8


def test_a_question_that_is_not_stored_yet(store):
    memory = Memory(backend=store, filters=SCOPE)
    assert memory.explain_agent_conversation("one", compare=True).unchanged is None
    memory.add_many([say("user", "one"), say("assistant", "1"), say("user", "two"), say("assistant", "2" * 100)])
    explained = memory.explain_agent_conversation("three", compare=True)
    prompt = explained.conversation
    assert explained.unchanged == pytest.approx(shared(prompt, prompt[:3]))
    assert memory.explain_agent_conversation("three").unchanged is None


def test_a_long_turn_and_a_filter_on_the_time(store):
    memory = Memory(backend=store, filters=SCOPE, max_tokens=None)
    memory.add_many([say("user", "one"), *(say("assistant", f"step {n}") for n in range(250)), say("user", "two")])
    stored = memory.get_all()
    explained = memory.explain_agent_conversation("two", compare=True)
    assert explained.unchanged == pytest.approx(shared(stored, stored[:1]))
    at = memory.get_all(limit=1)[0].timestamp
    before = memory.explain_agent_conversation(filters={"timestamp": {"lt": at}}, compare=True)
    assert before.unchanged is not None
    assert memory.explain_agent_conversation(filters={"timestamp": at}, compare=True).unchanged is None


def test_the_async_twin_gives_the_same(store):
    memory = Memory(backend=store, filters=SCOPE)
    memory.add_many([say("user", "one"), say("assistant", "1"), say("user", "two")])
    explained = asyncio.run(memory.aexplain_agent_conversation("two", compare=True))
    assert explained.unchanged == memory.explain_agent_conversation("two", compare=True).unchanged > 0
