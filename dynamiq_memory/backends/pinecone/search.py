"""Ranking: by meaning in the index, by words in this process, and by both together."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import mul

from dynamiq_memory.backends._embedding import EmbedQuery, Vector
from dynamiq_memory.backends.pinecone import filters, keys, records, requests
from dynamiq_memory.backends.pinecone.filters import PineconeFilter
from dynamiq_memory.backends.pinecone.reader import Reader, messages_of
from dynamiq_memory.backends.pinecone.records import Stored
from dynamiq_memory.backends.pinecone.requests import MOST_RESULTS
from dynamiq_memory.backends.pinecone.schema import PineconeSimilarityMetric
from dynamiq_memory.backends.plans import Compute, Plan
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.pooling import in_sessions, pooled
from dynamiq_memory.ranking.scores import WORDS
from dynamiq_memory.ranking.tokenizer import terms_of

_MIN_OTHERS = 200
# The service stores vectors as 32-bit numbers.
_UNRELATED = 1e-6


class Ranker:
    """Ranks messages.

    Args:
        reader: Reads the index.
        metric: How the index compares vectors.
        bm25: The parameters of keyword ranking.
        most_ranked: Maximum number of messages to rank by their words, the most recent matching ones.
        comparable: Returns the filter for vectors of the same embedder.
    """

    def __init__(
        self,
        reader: Reader,
        metric: PineconeSimilarityMetric,
        bm25: BM25,
        most_ranked: int,
        comparable: Callable[[], PineconeFilter],
    ) -> None:
        """Keep the arguments."""
        self._comparable = comparable
        self._reader = reader
        self._metric = metric
        self._bm25 = bm25
        self._most_ranked = most_ranked

    def search(self, tokenizer: Tokenize, query: str, filter: Filter, limit: int | None) -> Plan[list[Message]]:
        """Rank matching messages."""
        vector = yield from EmbedQuery(query)
        found = yield from self._reader.read(filter, self._most_ranked)
        nearest = Ranking({}) if vector is None else (yield from self._nearest(vector, filter))
        if len(found) >= self._most_ranked:
            # Among older messages there may be better ones, which the index ranks by meaning: their words count, too.
            known = {stored.id for stored in found}
            best = sorted(nearest.scores, key=nearest.scores.__getitem__, reverse=True)
            most = self._most_ranked if limit is None else max(limit, _MIN_OTHERS)
            others = yield from self._reader.load([each for each in best if each not in known][:most])
            found += [each for each in others if each.message is not None and filter.matches(each.message)]
        return (yield from Compute(partial(self._fused, tokenizer, query, found, nearest, limit)))

    def _nearest(self, vector: Vector, filter: Filter) -> Plan[Ranking[str]]:
        """Return the similarities of the nearest messages by the ids of their records, without unrelated messages."""
        vector = vector if self._metric != PineconeSimilarityMetric.EUCLIDEAN else normalized(vector)
        condition = filters.all_of(
            filters.of_kind(records.MESSAGE),
            self._comparable(),
            *filters.of_scope(filter),
            *filters.beyond_scope(filter),
        )
        top_k = min(self._most_ranked, MOST_RESULTS)
        found = yield from requests.query(vector, top_k, condition)
        scores = {record.id: self._similarity(record.score) for record in found}
        for entry in self._reader.recent.within(keys.in_scope_of(filter)):
            scores.pop(entry.id, None)
            if entry.vector is not None:
                scores[entry.id] = self._compared(vector, entry.vector)
        related = {each: score for each, score in scores.items() if score > _UNRELATED}
        return Ranking(related, cut=len(found) >= top_k, zero=0.0 if len(related) < len(scores) else None)

    def _similarity(self, score: float) -> float:
        """Convert the service's score to a similarity: higher for nearer vectors, 0 for unrelated ones."""
        # With the Euclidean metric, the service returns the square of the distance, here of vectors of length 1.
        return 1 - score / 2 if self._metric == PineconeSimilarityMetric.EUCLIDEAN else score

    def _compared(self, vector: Vector, other: array[float]) -> float:
        product: float = sum(map(mul, vector, other))
        if self._metric != PineconeSimilarityMetric.COSINE:
            return product
        return product / (math.hypot(*vector) * math.hypot(*other))

    def _fused(
        self, tokenizer: Tokenize, query: str, found: Sequence[Stored], nearest: Ranking[str], limit: int | None
    ) -> list[Message]:
        documents = {stored.id: stored for stored in found if stored.message is not None}
        names = list(documents)
        index = InvertedIndex()
        for number, stored in enumerate(documents.values()):
            index.add(number, terms_of(tokenizer, stored.message.text if stored.message is not None else ""))
        sessions = in_sessions(names, lambda name: keys.parse(name).scope, lambda name: documents[name].position)
        own = index.scores(self._bm25, terms_of(tokenizer, query))
        words = Ranking(pooled({names[n]: score for n, score in own.items()}, sessions), zero=0.0, name=WORDS)
        related = {name: score for name, score in nearest.scores.items() if name in documents}
        scores = min_max([words, replace(nearest, scores=related)])
        best = sorted(scores, key=lambda name: (scores[name], documents[name].position), reverse=True)[:limit]
        ranked = messages_of(documents[name] for name in best)
        for message, name in zip(ranked, best, strict=True):
            message.score = scores.of(name)
        return ranked


def normalized(vector: Vector) -> Vector:
    """Scale a vector to the length 1."""
    length = math.hypot(*vector)
    return [number / length for number in vector]
