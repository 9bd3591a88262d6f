"""BM25 over the messages of a scope, with the scope's own statistics.

The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
with Lucene's idf, ln(1 + (N - df + 0.5) / (df + 0.5)). It is above zero for every term, so that a conversation
of two messages is searchable too.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamiq_memory.exceptions import ConfigurationError

# A count weighs hardly more past this (BM25 saturates), and one byte holds it in a stored index.
COUNT_BITS = 8
MAX_COUNT = (1 << COUNT_BITS) - 1

Postings = tuple[Sequence[int], Mapping[int, int] | Sequence[int]]
"""Which documents hold a term, `document << COUNT_BITS | count` each, and where to look up their lengths."""


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

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ConfigurationError: One is out of its range.
        """
        if not 0 <= self.k1 < math.inf:
            raise ConfigurationError(f"k1 must be 0 or more, not {self.k1!r}")
        if not 0 <= self.b <= 1:
            raise ConfigurationError(f"b must be from 0 to 1, not {self.b!r}")

    def scores(self, terms: Iterable[Sequence[Postings]], documents: int, total_length: int) -> dict[int, float]:
        """Score every document that holds at least one of the query's terms.

        Args:
            terms: For each distinct term of the query, the postings of each index that is searched.
            documents: How many documents there are in the scope.
            total_length: How many terms they have together.

        Returns:
            The score of each document by its number, all above zero.
        """
        scores: dict[int, float] = {}
        if not documents:
            return scores
        base = self.k1 * (1 - self.b)
        per_term = self.k1 * self.b * documents / max(total_length, 1)
        for held in terms:
            found = sum(len(packed) for packed, _ in held)
            weight = math.log(1 + (documents - found + 0.5) / (found + 0.5)) * (self.k1 + 1)
            for packed, lengths in held:
                for posting in packed:
                    document = posting >> COUNT_BITS
                    count = posting & MAX_COUNT
                    score = weight * count / (count + base + per_term * lengths[document])
                    scores[document] = scores.get(document, 0.0) + score
        return scores


def best(scores: Mapping[int, float], recency: Callable[[int], Any], limit: int | None) -> list[int]:
    """Order documents by score, best first, of equals the most recent first, and keep the first `limit`.

    Args:
        scores: The score of each document.
        recency: Gives what is larger for a later document.
        limit: How many to keep, or None for all.
    """
    candidates: Iterable[int] = scores
    if limit is not None and limit < len(scores):
        # Plain floats first: comparing recency as well for all documents costs more than ranking them.
        least = heapq.nlargest(limit, scores.values())[-1]
        candidates = [document for document, score in scores.items() if score >= least]
    return sorted(candidates, key=lambda document: (scores[document], recency(document)), reverse=True)[:limit]


class InvertedIndex:
    """Which documents hold a term, kept up to date as documents come and go.

    A document is a small non-negative integer chosen by the caller. Adding and removing cost time in proportion
    to that document alone (and to the logarithm of all).

    Attributes:
        lengths: The length of each document in terms.
        total_length: Their sum.
    """

    __slots__ = ("_postings", "lengths", "total_length")

    def __init__(self) -> None:
        """Start empty."""
        self.lengths: dict[int, int] = {}
        self.total_length = 0
        # Most terms of a session occur in one message only: then the packed posting itself stands in the dict,
        # which takes a third of the memory of an array of one.
        self._postings: dict[str, int | array[int]] = {}

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.lengths)

    def add(self, document: int, terms: Sequence[str]) -> None:
        """Add a document that is not in the index.

        Args:
            document: Its number, larger than that of every document added before.
            terms: Its terms, repeated as often as they occur.
        """
        self.lengths[document] = len(terms)
        self.total_length += len(terms)
        postings = self._postings
        for term, count in Counter(terms).items():
            packed = document << COUNT_BITS | (count if count < MAX_COUNT else MAX_COUNT)  # noqa: FURB136 - twice as fast as min
            held = postings.get(term)
            if held is None:
                postings[term] = packed
            elif isinstance(held, int):
                postings[term] = array("Q", (held, packed))
            else:
                held.append(packed)

    def remove(self, document: int, terms: Iterable[str]) -> None:
        """Take a document out.

        Args:
            document: Its number.
            terms: The terms that it was added with; repetitions do not matter.
        """
        self.total_length -= self.lengths.pop(document)
        for term in set(terms):
            held = self._postings[term]
            if isinstance(held, int):
                del self._postings[term]
                continue
            del held[bisect_left(held, document << COUNT_BITS)]
            if len(held) == 1:
                self._postings[term] = held[0]

    def postings(self, term: str) -> Postings:
        """The documents that hold a term."""
        held = self._postings.get(term, ())
        return ((held,) if isinstance(held, int) else held, self.lengths)

    def scores(self, formula: BM25, query: Iterable[str]) -> dict[int, float]:
        """Score the documents that hold at least one term of a query."""
        terms = ([self.postings(term)] for term in dict.fromkeys(query))
        return formula.scores(terms, len(self), self.total_length)
