"""What scores are made of."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import Memory, Message
from dynamiq_memory.ranking import Score
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.pooling import NEIGHBOURS, SESSION, pooled
from dynamiq_memory.ranking.scores import parts_of

SCORES = st.dictionaries(st.integers(0, 12), st.floats(0.001, 50), max_size=12)


def test_a_match_alone_has_words_only() -> None:
    assert pooled({3: 2.5}, [[1, 3]]).of(3).parts == {"words": 2.5}


def test_a_match_has_parts_of_its_neighbours_and_of_its_session() -> None:
    scores = pooled({1: 2.0, 2: 3.0, 9: 1.0}, [[1, 2, 4], [9]])
    assert scores.of(1).parts == pytest.approx({"words": 2.0, "neighbours": NEIGHBOURS * 3, "session": SESSION * 3})
    assert scores.of(9).parts == pytest.approx({"words": 1.0, "neighbours": 0.0, "session": SESSION})


@given(SCORES, SCORES, st.booleans(), st.sampled_from([None, [0.3, 0.7]]))
def test_parts_add_up(
    by_words: dict[int, float], by_meaning: dict[int, float], cut: bool, weights: list[float]
) -> None:
    sessions = [list(range(6)), list(range(6, 13))]
    words = Ranking(pooled(by_words, sessions), cut=cut, zero=0.0, name="words")
    scores = min_max([words, Ranking(by_meaning, cut=cut)], weights)
    for document, score in scores.items():
        parts = scores.parts(document)
        assert sum(parts.values()) == pytest.approx(score)
        assert parts.keys() <= {"words", "neighbours", "session", "meaning"}
        assert all(part >= 0 for part in parts.values())


def test_a_score_is_a_number_that_can_be_copied_and_written() -> None:
    score = Score(1.5, {"words": 1.0, "date": 0.5})
    assert score == 1.5
    assert json.dumps({"score": score}) == '{"score": 1.5}'
    for again in (copy.copy(score), copy.deepcopy(score), pickle.loads(pickle.dumps(score))):
        assert (again, parts_of(again)) == (1.5, {"words": 1.0, "date": 0.5})
    message = Message(role="user", content="x")
    message.score = score
    assert message.model_dump()["score"] == 1.5
    assert parts_of(1.5) == parts_of(None) == {}


def test_what_an_agent_is_given_says_which_part_came_from_what() -> None:
    memory = Memory()
    for number, text in enumerate(["My birthday is soon", "When is it?", "The birthday party was in March"]):
        memory.add("user" if number != 1 else "assistant", text, {"timestamp": 1_710_244_800.0 + number})
    picks = memory.explain_agent_conversation("What birthday party was in March?", strategy="relevant")
    last = picks[-1]
    assert last.score_parts.keys() == {"words", "neighbours", "session", "date"}
    assert sum(last.score_parts.values()) == pytest.approx(last.message.score)
    assert picks[1].score_parts == {}
    again = Memory(memory.backend, reranker=lambda _, messages: [1.0] * len(messages))
    assert again.explain_agent_conversation("birthday", strategy="relevant")[0].score_parts == {"reranker": 1.0}
