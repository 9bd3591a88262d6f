"""Exact comparison of packed vectors, and fusion with words."""

from __future__ import annotations

import math

import pytest

from dynamiq_memory.ranking.fusion import hybrid

pytest.importorskip("numpy")

from dynamiq_memory.ranking.vectors import pack, similarities


def test_similarities_are_cosines_whatever_the_lengths() -> None:
    packed = {"same": pack([3.0, 4.0]), "far": pack([-4e10, 3e10]), "opposite": pack([-3e-10, -4e-10])}
    found = similarities([30.0, 40.0], packed)
    assert found == pytest.approx({"same": 1.0, "far": 0.0, "opposite": -1.0}, abs=1e-6)


def test_a_vector_takes_four_bytes_for_each_number() -> None:
    assert len(pack([1.0] * 384)) == 4 * 384
    assert pack([0.0, -5.0]) == b"\x00\x00\x00\x00\x00\x00\x80\xbf"  # little-endian, of length 1


def test_nothing_is_similar_to_nothing() -> None:
    assert similarities([1.0, 0.0], {}) == {}


def test_words_and_meaning_count_half_each() -> None:
    scores = hybrid({"both": 2.0, "words": 1.0}, {"both": 0.8, "meaning": 0.4, "away": -0.2, "across": 0.0})
    assert scores.keys() == {"both", "words", "meaning"}
    assert max(scores.values()) == scores["both"] == pytest.approx(1.0)
    assert scores["words"] == pytest.approx(0.25, abs=0.001)
    assert all(0 < score <= 1 and math.isfinite(score) for score in scores.values())


def test_without_vectors_the_order_is_that_of_the_words() -> None:
    scores = hybrid({"a": 1.0, "b": 3.0, "c": 2.0}, {})
    assert sorted(scores, key=scores.__getitem__) == ["a", "c", "b"]
