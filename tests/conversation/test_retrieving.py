"""The messages that an agent is given: whole turns within a limit or a budget, by each strategy."""

from __future__ import annotations

import pytest

from dynamiq_memory import Memory, MemoryBackend, Message
from dynamiq_memory.testing import contents, say
from dynamiq_memory.testing.base import SCOPE


def _tool_round(number: int, result: str = "result") -> list[Message]:
    call = {"id": f"call-{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [say("", "assistant", tool_calls=[call]), say(result, "tool", tool_call_id=f"call-{number}")]


def _turn(number: int, text: str = "") -> list[Message]:
    return [say(f"question {number} {text}".strip()), *_tool_round(number), say(f"answer {number}", "assistant")]


def test_a_turn_longer_than_the_limit_is_cut(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    rounds = [message for number in range(60) for message in _tool_round(number, f"result {number}")]
    memory.add_many([*_turn(1000), say("long question"), *rounds])
    picked = memory.get_agent_conversation(limit=20)
    assert contents(picked)[0] == "long question"
    assert len(picked) == 19
    assert contents(picked)[-1] == "result 59"
    assert contents(picked)[2] == "result 51"
    assert contents(memory.get_agent_conversation(limit=1)) == ["long question"]
    assert contents(memory.get_agent_conversation("result", limit=1, strategy="both")) == ["long question"]


def test_calls_and_results_stand_together_or_not_at_all(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    two = [{"id": "a", "type": "function"}, {"id": "b", "type": "function"}]
    memory.add_many(
        [
            say("one"),
            say("orphan", "tool", tool_call_id="none"),
            say("asks for two", "assistant", tool_calls=two),
            say("only one came", "tool", tool_call_id="a"),
            say("two"),
            say("both", "assistant", tool_calls=[{"id": "c"}, {"id": "d"}]),
            say("d first", "tool", tool_call_id="d"),
            say("then c", "tool", tool_call_id="c"),
            say("never answered", "assistant", tool_calls=[{"id": "e"}]),
        ]
    )
    # What is said beside calls without results stays.
    expected = ["one", "asks for two", "two", "both", "d first", "then c", "never answered"]
    assert contents(memory.get_agent_conversation()) == expected
    assert contents(memory.get_agent_conversation("orphan", strategy="relevant")) == expected


def test_a_conversation_begins_with_the_user(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    memory.add_many([say("rules", "system"), say("welcome", "assistant"), say("hi"), say("hello", "assistant")])
    assert contents(memory.get_agent_conversation()) == ["rules", "hi", "hello"]
    assert contents(memory.get_agent_conversation(limit=2)) == ["hi", "hello"]


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
def test_a_turn_that_could_be_given_whole_is_not_cut(store: MemoryBackend, strategy: str) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    for number in range(6):
        memory.add_many(_turn(number, "zebra"))
    for limit in range(8, 24, 3):
        picked = contents(memory.get_agent_conversation("zebra question", limit=limit, strategy=strategy))
        whole = [f"answer {number}" in picked for number in range(6) if f"question {number} zebra" in picked]
        assert all(whole)
        assert len(picked) == (limit // 4) * 4 or (strategy == "both" and limit // 4 * 4 - 4 <= len(picked))


def test_a_match_on_an_answer_or_a_result_counts(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    memory.add_many([say("first"), say("the zebra sleeps", "assistant")])
    memory.add_many([say("second"), *_tool_round(1, "a giraffe"), say("done", "assistant")])
    memory.add_many([say("third"), say("nothing", "assistant")])
    assert contents(memory.get_agent_conversation("zebra", strategy="relevant")) == ["first", "the zebra sleeps"]
    picked = memory.get_agent_conversation("giraffe", limit=4, strategy="relevant")
    assert contents(picked) == ["second", "", "a giraffe", "done"]
    assert [message.score is not None for message in picked] == [False, False, True, False]
    # Without its answer, the turn would seem to be unfinished.
    picked = memory.get_agent_conversation("giraffe", limit=3, strategy="relevant")
    assert contents(picked) == ["third", "nothing"]


def test_without_a_match_or_a_query_the_recent_ones_are_given(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    for number in range(5):
        memory.add_many(_turn(number))
    recent = memory.get_agent_conversation(limit=8)
    for strategy in ("relevant", "both"):
        for query in ("cherries", None, ""):
            assert memory.get_agent_conversation(query, limit=8, strategy=strategy) == recent


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
def test_tokens_are_a_limit_too(store: MemoryBackend, strategy: str) -> None:
    memory = Memory(backend=store, filters=SCOPE, token_counter=lambda message: len(message.text))
    memory.add_many([each for n in range(40) for each in (say(f"apple {n:04}"), say("1234567890", "assistant"))])
    picked = memory.get_agent_conversation("apple", limit=200, strategy=strategy, max_tokens=105)
    assert len(picked) == 10
    assert len(memory.get_agent_conversation("apple", strategy=strategy, max_tokens=20)) == 2
    # An answered question without its answer would seem to be asked again.
    assert memory.get_agent_conversation("apple", strategy=strategy, max_tokens=19) == []
    everything = memory.get_agent_conversation("apple", limit=200, max_tokens=10**6, strategy=strategy)
    assert len(everything) == 80


def test_a_message_too_long_for_the_tokens_hides_nothing_else(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE, token_counter=lambda message: len(message.text))
    memory.add_many([say("small"), say("answer", "assistant"), say("large " * 100), say("answer", "assistant")])
    assert contents(memory.get_agent_conversation(max_tokens=50)) == ["small", "answer"]


def test_interleaved_runs_give_a_valid_conversation(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    a, b = _tool_round(1, "result 1"), _tool_round(2, "result 2")
    memory.add_many([say("one"), say("two"), a[0], b[0], a[1], b[1], say("end", "assistant")])
    assert contents(memory.get_agent_conversation()) == ["one", "two", "", "result 1", "", "result 2", "end"]


def test_two_sessions_at_once_keep_their_turns(store: MemoryBackend) -> None:
    memory = Memory(backend=store)
    memory.add_many([say("one", session="a"), say("two", session="b")])
    memory.add_many([say("two answered", "assistant", session="b"), say("one answered", "assistant", session="a")])
    picked = contents(memory.get_agent_conversation("answered", limit=2, strategy="relevant"))
    assert picked == ["one", "one answered"]
    assert len(memory.get_agent_conversation(limit=4)) == 4


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("full", ["ask", "", "result", "thinking", "answer", "again"]), ("input_output", ["ask", "answer", "again"])],
)
def test_save_modes(store: MemoryBackend, mode: str, kept: list[str]) -> None:
    memory = Memory(backend=store, filters=SCOPE, save_mode=mode)
    call, result = _tool_round(1)
    thinking = say("thinking", "assistant", tool_calls=[{"id": "never"}])
    memory.add_turn(
        [say("rules", "system"), say("ask"), call, result, thinking, say("answer", "assistant"), say("again")]
    )
    assert contents(memory.get_all()) == kept


def test_default_filters_hold_everywhere(store: MemoryBackend) -> None:
    Memory(backend=store).add_many([say("other", user="u2"), say("own, other topic", topic="b")])
    memory = Memory(backend=store, filters={**SCOPE, "topic": "a"})
    memory.add("user", "own", {"topic": "a"})
    assert contents(memory.get_all()) == contents(memory.search("own other")) == ["own"]
    assert contents(memory.get_agent_conversation("other", strategy="both")) == ["own"]
    assert memory.count() == 1
    assert memory.delete(session_id=SCOPE["session_id"]) == 1
    memory.add("user", "own", {"topic": "a"})
    assert memory.clear() == 1
    assert memory.is_empty()
    assert store.count() == 2


def test_all_gives_the_most_recent_whole_turns(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    for number in range(6):
        memory.add_many(_turn(number))
    picked = memory.get_agent_conversation(limit=10)
    assert contents(picked) == ["question 4", "", "result", "answer 4", "question 5", "", "result", "answer 5"]
    assert len(memory.get_agent_conversation(limit=100)) == 24
    assert contents(memory.get_agent_conversation(limit=4))[0] == "question 5"


def test_relevant_gives_the_best_with_their_turns_in_order_of_time(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    for number in range(30):
        memory.add_many(_turn(number, {7: "zebra", 3: "zebra zebra", 20: "zebra crossing street"}.get(number, "")))
    picked = memory.get_agent_conversation("zebra", limit=8, strategy="relevant")
    assert [content for content in contents(picked) if "question" in content] == [
        "question 3 zebra zebra",
        "question 7 zebra",
    ]
    assert len(picked) == 8
    assert len(memory.get_agent_conversation("zebra", limit=50, strategy="relevant")) == 12


def test_of_a_long_opening_the_match_is_given_with_what_else_fits(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters=SCOPE)
    memory.add_many([say(text, "assistant") for text in ["Our zebras are well.", "Fed.", "Washed.", "Asleep."]])
    picked = [memory.get_agent_conversation("zebras", limit=limit, strategy="relevant") for limit in (1, 2, 3, 5)]
    assert [contents(messages)[1:] for messages in picked] == [
        [],
        ["Our zebras are well."],
        ["Our zebras are well.", "Asleep."],
        ["Our zebras are well.", "Fed.", "Washed.", "Asleep."],
    ]


@pytest.mark.parametrize("reranker", [None, lambda _, messages: [-float(place) for place, _ in enumerate(messages)]])
def test_relevant_stops_where_matches_are_much_weaker_than_the_best(store: MemoryBackend, reranker: object) -> None:
    memory = Memory(backend=store, filters={"user_id": "u"}, score_cutoff=0.6, reranker=reranker)
    for number, text in enumerate(["apple pear plum fig", "apple pear", "fig", "nothing"]):
        memory.add("user", text, {"session_id": f"s{number}"})
    texts = contents(memory.get_agent_conversation("apple pear plum fig", strategy="relevant"))
    assert texts == (["apple pear plum fig"] if reranker is None else ["apple pear plum fig", "apple pear", "fig"])
    assert len(memory.search("apple pear plum fig")) == 3
    # What is left of the limit goes to recent turns.
    both = Memory(backend=store, filters={"user_id": "u"}, score_cutoff=0.6, recent_share=0)
    assert contents(both.get_agent_conversation("apple pear plum fig", limit=2, strategy="both"))[-1] == "nothing"
