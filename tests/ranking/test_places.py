"""An excerpt begins where most of the query's terms are."""

from __future__ import annotations

import pytest

from dynamiq_memory.ranking import Tokenizer
from dynamiq_memory.ranking.places import place_of


@pytest.mark.parametrize(
    ("query", "text", "word"),
    [
        ("ferry", "a ship, the FERRIES and the ferry", "FERRIES"),
        ("the ferry", "the ship and the ferry", "ferry"),
        ("ferry tickets", "A ferry. " + "Something else. " * 9 + "This ferry has tickets.", "ferry has"),
        ("ferry tickets", "A ferry, and tickets. " + "Something else. " * 9 + "This ferry has tickets.", "ferry, and"),
        ("nine o'clock", "at O\u2019Clock", "O\u2019"),
        ("cafe", "Das Café", "Café"),
        ("東京", "京都" + "から" * 30 + "、東京まで", "東京"),
        ("ferry", "日本の\uff46erry", "\uff46erry"),
        ("plane", "a ferry", "a ferry"),
        ("", "a ferry", "a ferry"),
    ],
)
def test_the_first_place_with_most_terms(query, text, word):
    assert place_of(query, text, Tokenizer(), 40) == text.index(word)


def test_the_stores_language_decides():
    text = "Das Haus und die Häuser"
    assert place_of("Häusern", text, Tokenizer("german"), 40) == text.index("Haus")
    assert place_of("häuser", text, str.split, 40) == text.index("Häuser"), "English words, for any other function"
