"""Scores that say what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, Self, TypeVar

Document = TypeVar("Document", bound=Hashable)
Parts = Mapping[str, float]

WORDS, MEANING, NEIGHBOURS, SESSION, DATE, RERANKER = "words", "meaning", "neighbours", "session", "date", "reranker"


class Score(float):
    """The score of a message, a number that knows its parts.

    Attributes:
        parts: Numbers that add up to the score, apart from rounding: "words" and "meaning" of the message itself,
            "neighbours" and "session" for matches around it, "date" for a time that the query names; or only
            "reranker".
    """

    __slots__ = ("parts",)

    parts: Parts

    def __new__(cls, value: float, parts: Parts) -> Self:
        """Make a number with parts."""
        score = super().__new__(cls, value)
        score.parts = MappingProxyType(dict(parts))
        return score

    def __reduce__(self) -> tuple[Any, ...]:
        """Describe the score for copies and pickles."""
        return (type(self), (float(self), dict(self.parts)))


def parts_of(score: float | None) -> dict[str, float]:
    """Return the parts of a score; empty where they are not known."""
    return dict(score.parts) if isinstance(score, Score) else {}


class Scores(dict[Document, float]):
    """The scores of documents.

    Args:
        scores: The scores.
        parts: Returns the parts of a document's score. It is called only for the documents that are returned.

    Attributes:
        parts: Returns the parts of a document's score.
    """

    def __init__(self, scores: Mapping[Document, float], parts: Callable[[Document], Parts]) -> None:
        """Keep the arguments."""
        super().__init__(scores)
        self.parts = parts

    def of(self, document: Document) -> Score:
        """Return the score of a document, with its parts."""
        return Score(self[document], self.parts(document))
