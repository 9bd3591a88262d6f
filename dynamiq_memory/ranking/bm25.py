"""BM25 over the messages of a scope, with the scope's own statistics.

The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
with Lucene's idf, ln(1 + (N - df + 0.5) / (df + 0.5)). It is above zero for every term, so that a conversation
of two messages is searchable too.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

# A count weighs hardly more past this (BM25 saturates), and one byte holds it in a stored index.
MAX_COUNT = 255


@dataclass(frozen=True, slots=True)
class BM25:
    """The two parameters of the formula.

    The defaults are those that Anserini uses for passages (https://github.com/castorini/anserini); on the
    development conversations of benchmarks/retrieval.py they also did best of those tried.

    Attributes:
        k1: How fast repeated occurrences of a term stop counting, 0 or more.
        b: How much long messages are discounted, from 0 (not at all) to 1.
    """

    k1: float = 0.9
    b: float = 0.4

    def scores(
        self,
        postings: Iterable[Sequence[tuple[Key, int, int]]],
        documents: int,
        total_length: int,
    ) -> dict[Key, float]:
        """Score every message that holds at least one of the query's terms.

        Args:
            postings: For each distinct term of the query, the messages that hold it: key, count of the term,
                length of the message in terms.
            documents: How many messages the scope has.
            total_length: How many terms they have together.

        Returns:
            The score of each message by its key, all above zero.
        """
        scores: dict[Key, float] = {}
        if not documents:
            return scores
        base = self.k1 * (1 - self.b)
        per_term = self.k1 * self.b * documents / max(total_length, 1)
        for matches in postings:
            found = len(matches)
            weight = math.log(1 + (documents - found + 0.5) / (found + 0.5)) * (self.k1 + 1)
            for key, count, length in matches:
                scores[key] = scores.get(key, 0.0) + weight * count / (count + base + per_term * length)
        return scores


class InvertedIndex:
    """Which documents hold a term, kept up to date as documents come and go.

    A document is a small non-negative integer chosen by the caller. Adding and removing cost time in proportion
    to that document alone; the exception is a removal of a term that very many documents hold.
    """

    __slots__ = ("_lengths", "_postings", "total_length")

    def __init__(self) -> None:
        """Start empty."""
        # Most terms of a session occur in one message only: then the packed posting itself stands in the dict,
        # which takes a third of the memory of an array of one.
        self._postings: dict[str, int | array[int]] = {}
        self._lengths: dict[int, int] = {}
        self.total_length = 0

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self._lengths)

    def length(self, document: int) -> int:
        """How many terms a document has."""
        return self._lengths[document]

    def add(self, document: int, terms: Sequence[str]) -> None:
        """Add a document that is not in the index.

        Args:
            document: Its number, larger than that of every document added before.
            terms: Its terms, repeated as often as they occur.
        """
        self._lengths[document] = len(terms)
        self.total_length += len(terms)
        postings = self._postings
        for term, count in Counter(terms).items():
            packed = document << 8 | min(count, MAX_COUNT)
            held = postings.get(term)
            if held is None:
                postings[term] = packed
            elif isinstance(held, int):
                postings[term] = array("Q", (held, packed))
            else:
                held.append(packed)

    def remove(self, document: int, terms: Sequence[str]) -> None:
        """Take a document out.

        Args:
            document: Its number.
            terms: The terms that it was added with.
        """
        self.total_length -= self._lengths.pop(document)
        for term, count in Counter(terms).items():
            held = self._postings[term]
            if isinstance(held, int):
                del self._postings[term]
                continue
            held.remove(document << 8 | min(count, MAX_COUNT))
            if len(held) == 1:
                self._postings[term] = held[0]

    def postings(self, term: str) -> list[tuple[int, int, int]]:
        """The documents that hold a term: number, count, length in terms."""
        held = self._postings.get(term)
        if held is None:
            return []
        lengths = self._lengths
        packed = (held,) if isinstance(held, int) else held
        return [(p >> 8, p & 0xFF, lengths[p >> 8]) for p in packed]
