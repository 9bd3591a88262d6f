"""Rows b3, e, k of the reference's defects: ranked search."""

from __future__ import annotations

from collections import Counter

import pytest

from dynamiq_memory import Memory, MessageRole

FACTS = [
    "Caroline went to the LGBTQ support group on the seventh of May.",
    "Melanie painted a sunrise over the lake last year.",
    "My invoice of June was charged twice, please refund it!",
    "The children loved camping in the mountains.",
    "I prefer my coffee black.",
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When did Caroline go to the support group?", 0),
        ("What did Melanie paint?", 1),
        ("Why was I charged twice on the invoice?", 2),
        ("Where did the kids go camping?", 3),
        ("How do you like your coffee?", 4),
    ],
)
def test_b3_a_question_finds_its_answer(store, question, answer):
    memory = Memory(backend=store)
    for fact in FACTS:
        memory.add(MessageRole.USER, fact, {"user_id": "u-1"})
    found = memory.search(question, filters={"user_id": "u-1"}, limit=1)
    assert [m.content for m in found] == [FACTS[answer]]
    assert found[0].score is not None
    assert found[0].score > 0


def test_b3_the_only_message_is_found(store):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, FACTS[1])
    assert [m.content for m in memory.search("sunrises?")] == [FACTS[1]]


def test_b3_punctuation_and_case_do_not_hide_a_word(store):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "We met in (Paris), in spring.")
    memory.add(MessageRole.USER, "We never met.")
    assert [m.content for m in memory.search("PARIS?")] == ["We met in (Paris), in spring."]


def test_b3_what_does_not_match_at_all_is_not_returned(store):
    memory = Memory(backend=store)
    memory.add(MessageRole.USER, "apples")
    memory.add(MessageRole.USER, "pears and apples")
    assert [m.content for m in memory.search("apples pears bananas")] == ["pears and apples", "apples"]
    assert memory.search("bananas") == []


def test_b3_equal_scores_the_latest_first(store):
    memory = Memory(backend=store)
    for number in range(4):
        memory.add(MessageRole.USER, "same words", {"number": number, "session_id": f"s{number}"})
    assert [m.metadata["number"] for m in memory.search("words", limit=3)] == [3, 2, 1]


class CountingTokenizer:
    """Splits at spaces and counts the texts that it is given."""

    def __init__(self):
        self.calls = Counter()

    def __call__(self, text):
        self.calls[text] += 1
        return text.lower().split()


def test_e_a_search_tokenises_the_query_and_no_stored_message(new_store):
    tokenizer = CountingTokenizer()
    memory = Memory(backend=new_store(tokenizer=tokenizer))
    texts = [f"message {number} of {number % 7}" for number in range(50)]
    for text in texts:
        memory.add(MessageRole.USER, text, {"user_id": "u", "even": len(text) % 2 == 0})
    assert tokenizer.calls == Counter(texts)
    tokenizer.calls.clear()
    for filters in (None, {"user_id": "u"}, {"user_id": "u", "even": True}, {"even": False}):
        assert memory.search("message 3", filters=filters)
    assert set(tokenizer.calls) == {"message 3"}
    tokenizer.calls.clear()
    memory.add(MessageRole.USER, "one more", {"user_id": "u"})
    assert tokenizer.calls == Counter({"one more": 1})
    tokenizer.calls.clear()
    memory.get_agent_conversation("message 3", strategy="both", limit=6)
    assert set(tokenizer.calls) == {"message 3"}


def test_e_statistics_are_those_of_the_scope(store):
    """What other users say changes neither order nor score."""
    memory = Memory(backend=store)
    for text in ("red apple", "green apple", "red car"):
        memory.add(MessageRole.USER, text, {"user_id": "a"})
    alone = [(m.content, m.score) for m in memory.search("red apple", {"user_id": "a"})]
    for _ in range(20):
        memory.add(MessageRole.USER, "red red red", {"user_id": "b"})
    assert [(m.content, m.score) for m in memory.search("red apple", {"user_id": "a"})] == alone
    assert alone[0][0] == "red apple"


def chat(memory, turns, scope):
    for question, answer in turns:
        memory.add(MessageRole.USER, question, scope)
        memory.add(MessageRole.ASSISTANT, answer, scope)


def small_talk(count):
    return [(f"And how about number {n}?", f"Number {n} is quite alright.") for n in range(count)]


def test_k_relevant_keeps_the_best_hit_not_the_latest(store):
    memory = Memory(backend=store)
    scope = {"user_id": "u", "session_id": "s"}
    chat(memory, [("My passport number is X123, keep the passport number", "Noted.")], scope)
    chat(memory, [(f"I lost a number, number {n}", "Sorry.") for n in range(30)], scope)
    picked = memory.get_agent_conversation("passport number", limit=2, filters=scope, strategy="relevant")
    assert [m.content for m in picked] == ["My passport number is X123, keep the passport number", "Noted."]


def test_k_relevant_counts_a_hit_on_an_assistants_message(store):
    memory = Memory(backend=store)
    scope = {"user_id": "u", "session_id": "s"}
    chat(memory, [("What is it called?", "The restaurant is called Aurora.")], scope)
    chat(memory, small_talk(20), scope)
    picked = memory.get_agent_conversation("restaurant Aurora", limit=4, filters=scope, strategy="relevant")
    assert [m.content for m in picked] == ["What is it called?", "The restaurant is called Aurora."]


def test_k_both_keeps_the_relevant_one_from_long_ago_and_the_recent_ones(store):
    memory = Memory(backend=store)
    scope = {"user_id": "u", "session_id": "s"}
    chat(memory, [("I am allergic to peanuts", "I will remember.")], scope)
    chat(memory, small_talk(1000), scope)
    picked = memory.get_agent_conversation("peanuts", limit=6, filters=scope, strategy="both")
    assert [m.content for m in picked] == [
        "I am allergic to peanuts",
        "I will remember.",
        "And how about number 998?",
        "Number 998 is quite alright.",
        "And how about number 999?",
        "Number 999 is quite alright.",
    ]
    assert [m.metadata["timestamp"] for m in picked] == sorted(m.metadata["timestamp"] for m in picked)
