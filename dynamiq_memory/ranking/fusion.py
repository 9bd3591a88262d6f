"""Fusion of several rankings into one, such as by words and by meaning.

Recall at 5, 10 and 20 with all-MiniLM-L6-v2 on the development conversations of benchmarks/retrieval.py. Words include
the scores around a message (`pooling.py`), meaning does not; dates raise scores in all rows:

    |                                    | LoCoMo, short turns | BEAM, long answers |
    |------------------------------------|---------------------|--------------------|
    | words                              | .647 / .749 / .796  | .372 / .473 / .557 |
    | meaning                            | .367 / .470 / .567  | .462 / .537 / .632 |
    | min-max scores, half and half, all | .663 / .766 / .829  | .415 / .550 / .658 |
    | … of the best 100 of each          | .654 / .764 / .827  | .420 / .533 / .664 |
    | reciprocal ranks, k=5, all         | .608 / .732 / .814  | .422 / .547 / .654 |
    | reciprocal ranks, k=60, all        | .558 / .680 / .789  | .423 / .505 / .647 |

The equal mean does well on both, while neither ranking alone does. With a weight of .7 for meaning, recall@10 is .702
and .586; with .4, .765 and .542.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dynamiq_memory.ranking.scores import MEANING, WORDS, Scores

Document = TypeVar("Document", bound=Hashable)

# Keeps the score of the last document of a ranking above zero, since it still matches.
_MIN_SCORE = 1e-3
# Fewer texts than this are rarely as different as the best and the worst of many: scaling their scores to the whole
# range would let chance decide.
_FEW = 8


@dataclass(frozen=True, slots=True)
class Ranking(Generic[Document]):
    """The scores of documents in one ranking; higher is better.

    Attributes:
        scores: Scores of all matching documents, or of the best of them.
        cut: Whether only the best are included.
        zero: The score of a document that does not match at all, if there is one (0 for BM25).
        name: The name of its part of a fused score, if its scores have no parts of their own.
    """

    scores: Mapping[Document, float]
    cut: bool = False
    zero: float | None = None
    name: str = MEANING


def min_max(rankings: Sequence[Ranking[Document]], weights: Sequence[float] | None = None) -> Scores[Document]:
    """Fuse rankings by the weighted mean of their scores, after scaling each ranking to the range from 0 to 1.

    If a ranking was cut, a document missing from it gets the lowest score in it, which is an upper bound. If its zero
    is unknown too, that lowest score is scaled to the middle of the range instead of to 0. Of a few
    scores without a zero, the lowest stays above 0.

    Args:
        rankings: The rankings.
        weights: The weight of each ranking. All are equal by default.

    Returns:
        Scores of all documents that are in at least one ranking, above 0 and up to 1.
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    total = sum(weights)
    fused = dict.fromkeys((document for ranking in rankings for document in ranking.scores), 0.0)
    scaled: list[tuple[Ranking[Document], dict[Document, float]]] = []
    for ranking, weight in zip(rankings, weights, strict=True):
        if not ranking.scores:
            continue
        best, last = max(ranking.scores.values()), min(ranking.scores.values())
        zero = ranking.zero if ranking.zero is not None else last - (best - last) * ranking.cut
        span = best - zero
        if ranking.zero is None and not ranking.cut:
            span *= max(1.0, _FEW / len(ranking.scores))
        shares: dict[Document, float] = {}
        for document in fused:
            score = ranking.scores.get(document, last if ranking.cut else None)
            if score is not None:
                shares[document] = weight / total * (1 - (best - score) / span if span else 1.0)
                fused[document] += shares[document]
        scaled.append((ranking, shares))
    scores = {document: _MIN_SCORE + (1 - _MIN_SCORE) * score for document, score in fused.items()}

    def parts_of(document: Document) -> dict[str, float]:
        if not fused[document]:
            return {next(ranking.name for ranking, _ in scaled if document in ranking.scores): scores[document]}
        parts: defaultdict[str, float] = defaultdict(float)
        for ranking, shares in scaled:
            for name, part in _split(ranking, document, shares.get(document, 0.0)):
                parts[name] += part
        return {name: part * scores[document] / fused[document] for name, part in parts.items() if part}

    return Scores(scores, parts_of)


def _split(ranking: Ranking[Document], document: Document, share: float) -> Iterator[tuple[str, float]]:
    """Split a ranking's share of a score like its own score of the document."""
    scores = ranking.scores
    score = scores.get(document)
    if not isinstance(scores, Scores) or not score:
        yield ranking.name, share
        return
    for name, part in scores.parts(document).items():
        yield name, share * part / score


def hybrid(by_words: Mapping[Document, float], by_meaning: Mapping[Document, float]) -> Scores[Document]:
    """Fuse the rankings by words and by meaning, half and half. Stores that rank exactly share it.

    Args:
        by_words: BM25 scores of the messages that have a word of the query.
        by_meaning: The cosine similarity of each message that has a vector.

    Returns:
        Scores above 0 and up to 1, of the messages that have a word of the query or a similar meaning.
    """
    # A vector that points away from the query's has nothing to do with it.
    similar = {document: similarity for document, similarity in by_meaning.items() if similarity > 0}
    return min_max([Ranking(by_words, zero=0.0, name=WORDS), Ranking(similar)])
