"""Fusing rankings."""

from __future__ import annotations

import pytest

from dynamiq_memory.ranking.fusion import Ranking, min_max


def order(scores: dict[str, float]) -> str:
    return "".join(sorted(scores, key=lambda key: scores[key], reverse=True))[:3]


def test_min_max_is_the_mean_of_stretched_scores() -> None:
    words = Ranking({"a": 8.0, "b": 4.0}, zero=0.0)
    meaning = Ranking({"b": 0.5, "c": 0.4, "a": 0.1} | dict.fromkeys("defgh", 0.1))
    scores = min_max([words, meaning])
    assert {key: scores[key] for key in "abc"} == pytest.approx({"a": 0.5, "b": 0.75, "c": 0.375}, abs=2e-3)
    assert order(min_max([words, meaning], [1.0, 0.1])) == "abc"
    assert order(min_max([words, meaning], [0.1, 1.0])) == "bca"


def test_scores_do_not_depend_on_the_scale() -> None:
    words = Ranking({"a": 8.0, "b": 4.0}, zero=0.0)
    meaning = {"b": 0.5, "c": 0.4, "a": 0.1}
    for cut in (True, False):
        near = min_max([words, Ranking(meaning, cut=cut)])
        far = min_max([words, Ranking({key: 0.7 + score / 10 for key, score in meaning.items()}, cut=cut)])
        assert near == pytest.approx(far)


def test_what_a_cut_ranking_does_not_show_counts_as_its_last() -> None:
    words = Ranking({"a": 4.0, "b": 4.0}, zero=0.0)
    assert min_max([words, Ranking({"b": 0.9, "c": 0.5}, cut=True)]) == pytest.approx(
        {"a": 0.75, "b": 1.0, "c": 0.25}, abs=2e-3
    )
    assert min_max([Ranking({"a": 4.0, "b": 1.0}, cut=True, zero=0.0), Ranking({"c": 0.5})]) == pytest.approx(
        {"a": 0.5, "b": 0.125, "c": 0.625}, abs=2e-3
    )


def test_what_matches_has_a_score_above_zero() -> None:
    scores = min_max([Ranking({"a": 0.9, "b": 0.1}), Ranking({"a": 3.0}, zero=0.0)])
    assert scores["b"] > 0
    assert scores["a"] == pytest.approx(1.0)
    assert min_max([Ranking({"a": 0.5})]) == pytest.approx({"a": 1.0})
    assert min_max([Ranking({"a": 0.0, "b": 0.0}, zero=0.0), Ranking({"c": 1.0})])["a"] > 0


def test_empty_rankings_change_no_order() -> None:
    assert min_max([Ranking({}), Ranking({})]) == {}
    assert order(min_max([Ranking({}, zero=0.0), Ranking({"a": 0.2, "b": 0.3, "c": 0.1})])) == "bac"


def test_what_differs_by_chance_does_not_decide() -> None:
    """Of two texts, a poor embedder finds the wrong one a little nearer; the words know better."""
    words = Ranking({"dog": 1.2}, zero=0.0)
    fused = min_max([words, Ranking({"weather": 0.81, "dog": 0.8})])
    assert fused["dog"] > fused["weather"]
    # Without words of the query, meaning decides.
    fused = min_max([Ranking({}, zero=0.0), Ranking({"weather": 0.3, "dog": 0.8})])
    assert fused["dog"] > fused["weather"]
