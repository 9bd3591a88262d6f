"""One ranking out of several: by words and by meaning.

Recall on the development conversations of benchmarks/retrieval.py, where BM25 alone has .576 / .650 / .705 at 5, 10 and
20, and all-MiniLM-L6-v2 .344 / .452 / .552:

    | of each ranking               | the best 100       | all                |
    |-------------------------------|--------------------|--------------------|
    | min-max scores, half and half | .591 / .698 / .769 | .599 / .692 / .768 |
    | reciprocal ranks, k=5         | .560 / .680 / .774 | .561 / .679 / .774 |
    | reciprocal ranks, k=60        | .471 / .572 / .657 | .471 / .574 / .695 |

On long turns embeddings are ahead of words, and the same mean does well: neither alone is safe.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

# What matches in one ranking only, and there last, still matches.
_LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class Ranking(Generic[Key]):
    """Scores of documents by one way of ranking: higher is better.

    Attributes:
        scores: The score of each document that matches; at least of the best of them.
        cut: Whether only the best are there.
        zero: The score at which nothing matches, where there is one (0 for BM25).
    """

    scores: Mapping[Key, float]
    cut: bool = False
    zero: float | None = None


def min_max(rankings: Sequence[Ranking[Key]], weights: Sequence[float] | None = None) -> dict[Key, float]:
    """Fuse rankings by the weighted mean of their scores, each stretched to the range from 0 to 1.

    Of a ranking that was cut, what is missing is taken to have the last score that is there, for it has that at most;
    and that last score is not the end of the range but, where no zero is known, its middle.

    Args:
        rankings: The rankings.
        weights: How much each counts; the same by default.

    Returns:
        The score of every document that is in at least one of them: above 0, 1 at most.
    """
    shares = [1.0] * len(rankings) if weights is None else list(weights)
    total = sum(shares)
    fused = dict.fromkeys((key for ranking in rankings for key in ranking.scores), 0.0)
    for ranking, share in zip(rankings, shares, strict=True):
        if not ranking.scores:
            continue
        best, last = max(ranking.scores.values()), min(ranking.scores.values())
        zero = ranking.zero if ranking.zero is not None else last - (best - last) * ranking.cut
        span = best - zero
        missing = last if ranking.cut else zero
        for key in fused:
            reached = (ranking.scores.get(key, missing) - zero) / span if span else float(key in ranking.scores)
            fused[key] += share / total * reached
    return {key: _LEAST + (1 - _LEAST) * score for key, score in fused.items()}


def reciprocal_ranks(rankings: Sequence[Sequence[Key]], k: float = 5) -> dict[Key, float]:
    """Fuse rankings by the sum of 1 / (k + rank): for stores that give an order and no scores that compare.

    Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods"
    (2009), use k=60, which on conversations is far too flat (see above).

    Args:
        rankings: The documents of each ranking, best first.
        k: How little the first ranks stand out.
    """
    fused: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            fused[key] = fused.get(key, 0.0) + 1 / (k + rank)
    return fused
