"""How well everyday conversations in several languages are searched; it must not become worse.

`python benchmarks/retrieval.py tests/ranking/data/*.json` shows more. Whoever improves a value writes it down here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.conversations import read
from dynamiq_memory import Memory

# The share of questions with an answering message among the first five, and the mean reciprocal rank of the first one.
EXPECTED = {
    "arabic": (1.0, 0.856),
    "chinese": (1.0, 0.967),
    "english": (1.0, 1.0),
    "french": (0.933, 0.880),
    "german": (1.0, 0.922),
    "hindi": (1.0, 0.950),
    "japanese": (1.0, 0.967),
    "spanish": (1.0, 0.922),
}


@pytest.mark.parametrize("language", EXPECTED)
def test_answers_are_found(language: str) -> None:
    (conversation,) = read(Path(__file__).parent / "data" / f"{language}.json")
    ranks = []
    with Memory() as memory:
        memory.add_many(conversation.messages)
        for question in conversation.questions:
            found = [message.id in question.gold for message in memory.search(question.text, limit=None)]
            ranks.append(found.index(True) + 1 if True in found else None)
    found_early = sum(rank is not None and rank <= 5 for rank in ranks) / len(ranks)
    reciprocal = sum(1 / rank for rank in ranks if rank) / len(ranks)
    expected_early, expected_reciprocal = EXPECTED[language]
    assert found_early >= expected_early - 0.001, ranks
    assert reciprocal >= expected_reciprocal - 0.001, ranks
