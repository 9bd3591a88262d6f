"""BM25 over the messages of a scope, with the scope's own statistics.

The formula comes from Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
Lucene's idf, ln(1 + (N - df + 0.5) / (df + 0.5)). This idf is positive for every term, so that even a conversation of
two messages can be searched.
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

# Counts above 255 hardly change a score, since BM25 saturates; a count up to 255 fits in one byte of a stored index.
COUNT_BITS = 8
MAX_COUNT = (1 << COUNT_BITS) - 1

Postings = tuple[Sequence[int], Mapping[int, int] | Sequence[int]]
"""The documents that contain a term, each as `document << COUNT_BITS | count`, and the lengths of all documents."""


@dataclass(frozen=True, slots=True)
class BM25:
    """The two parameters of the formula.

    The defaults are the best of the values tried on the development conversations of benchmarks/retrieval.py, of short
    messages and of long ones.

    Attributes:
        k1: How much repeated occurrences of a term add to the score, 0 (nothing) or more.
        b: How much long messages are discounted, from 0 (not at all) to 1.
    """

    k1: float = 0.9
    b: float = 0.75

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ConfigurationError: A parameter is out of range.
        """
        if not 0 <= self.k1 < math.inf:
            raise ConfigurationError(f"k1 must be 0 or more, not {self.k1!r}")
        if not 0 <= self.b <= 1:
            raise ConfigurationError(f"b must be from 0 to 1, not {self.b!r}")

    def scores(self, terms: Iterable[Sequence[Postings]], documents: int, total_length: int) -> dict[int, float]:
        """Score all documents that contain at least one of the query's terms.

        Args:
            terms: For each distinct term of the query, its postings in each index searched.
            documents: Number of documents in the scope.
            total_length: Number of terms in all of them.

        Returns:
            Positive scores by document number.
        """
        scores: dict[int, float] = {}
        if not documents:
            return scores
        so_far = scores.get
        base = self.k1 * (1 - self.b)
        per_term = self.k1 * self.b * documents / max(total_length, 1)
        for postings in terms:
            frequency = sum(len(packed) for packed, _ in postings)
            weight = math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)) * (self.k1 + 1)
            for packed, lengths in postings:
                for posting in packed:
                    document = posting >> COUNT_BITS
                    count = posting & MAX_COUNT
                    score = weight * count / (count + base + per_term * lengths[document])
                    scores[document] = so_far(document, 0.0) + score
        return scores


def best(scores: Mapping[int, float], recency: Callable[[int], Any], limit: int | None) -> list[int]:
    """Return the `limit` best documents, best first; among equal scores, the most recent comes first.

    Args:
        scores: Scores by document.
        recency: Sort key of a document, larger for later ones.
        limit: Maximum number of documents, or None for all.
    """
    candidates: Iterable[int] = scores
    if limit is not None and limit < len(scores):
        # Select by plain floats first: comparing all documents by recency too costs more than the ranking itself.
        minimum = heapq.nlargest(limit, scores.values())[-1]
        candidates = [document for document, score in scores.items() if score >= minimum]
    return sorted(candidates, key=lambda document: (scores[document], recency(document)), reverse=True)[:limit]


class InvertedIndex:
    """Maps each term to the documents that contain it.

    A document is a small non-negative integer chosen by the caller. Adding or removing a document takes time
    proportional to its own length and to the logarithm of the number of documents.

    Attributes:
        lengths: Number of terms in each document.
        total_length: Sum of the lengths.
    """

    __slots__ = ("_postings", "lengths", "total_length")

    def __init__(self) -> None:
        """Create an empty index."""
        self.lengths: dict[int, int] = {}
        self.total_length = 0
        # Most terms of a session occur in a single message. Their only posting is stored in the dict directly, which
        # takes a third of the memory of a one-element array.
        self._postings: dict[str, int | array[int]] = {}

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.lengths)

    def add(self, document: int, terms: Sequence[str]) -> None:
        """Add a document that is not yet in the index.

        Args:
            document: Its number, larger than those of all documents added before.
            terms: Its terms, including repetitions.
        """
        self.lengths[document] = len(terms)
        self.total_length += len(terms)
        postings = self._postings
        for term, count in Counter(terms).items():
            packed = document << COUNT_BITS | (count if count < MAX_COUNT else MAX_COUNT)  # noqa: FURB136 - twice as fast as min
            existing = postings.get(term)
            if existing is None:
                postings[term] = packed
            elif isinstance(existing, array):  # so with most terms of a message
                existing.append(packed)
            else:
                postings[term] = array("Q", (existing, packed))

    def remove(self, document: int, terms: Iterable[str]) -> None:
        """Remove a document.

        Args:
            document: Its number.
            terms: The terms that it was added with; repetitions do not matter.
        """
        self.total_length -= self.lengths.pop(document)
        for term in set(terms):
            postings = self._postings[term]
            if isinstance(postings, int):
                del self._postings[term]
                continue
            del postings[bisect_left(postings, document << COUNT_BITS)]
            if len(postings) == 1:
                self._postings[term] = postings[0]

    def postings(self, term: str) -> Postings:
        """Return the documents that contain a term."""
        postings = self._postings.get(term, ())
        return ((postings,) if isinstance(postings, int) else postings, self.lengths)

    def scores(self, formula: BM25, query: Iterable[str]) -> dict[int, float]:
        """Score the documents that contain at least one term of a query."""
        terms = ([self.postings(term)] for term in dict.fromkeys(query))
        return formula.scores(terms, len(self), self.total_length)
