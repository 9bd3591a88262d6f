"""A plan that ranks: by meaning in the index, by words here, and both together."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from operator import mul

from dynamiq_memory.backends._embedding import EmbedQuery
from dynamiq_memory.backends.pinecone import filters, records
from dynamiq_memory.backends.pinecone.reader import Reader, scopes_of
from dynamiq_memory.backends.pinecone.records import Stored
from dynamiq_memory.backends.pinecone.requests import MOST_RESULTS, Query, Record, Vector
from dynamiq_memory.backends.plans import Compute, Plan
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.tokenizer import terms_of

_LEAST_LOOKED_AT = 200
# The service keeps the numbers of vectors in 32 bits.
_UNRELATED = 1e-6


@dataclass(frozen=True, slots=True)
class Nearest:
    """The messages nearest to a query.

    Attributes:
        scores: Their similarities, by the ids of their records, none of them unrelated.
        cut: Whether there are more.
        unrelated: Whether there are messages with no similarity.
    """

    scores: Mapping[str, float]
    cut: bool = False
    unrelated: bool = False


class Ranker:
    """Ranks messages.

    Args:
        reader: Reads the index.
        metric: How the index compares vectors.
        formula: The formula of keyword ranking.
        most_ranked: How many messages, the most recent that match, are ranked by their words.
    """

    def __init__(self, reader: Reader, metric: str, formula: BM25, most_ranked: int) -> None:
        """Keep these."""
        self.reader = reader
        self.metric = metric
        self.formula = formula
        self.most_ranked = most_ranked

    def search(self, tokenizer: Tokenize, query: str, where: Filter, limit: int | None) -> Plan[list[Message]]:
        """Rank as a backend's `search` promises."""
        vector: Vector | None = yield EmbedQuery(query)
        found = yield from self.reader.read(where, self.most_ranked, None, None)
        documents = {stored.id: stored for stored in found}
        nearest = Nearest({})
        if vector is not None:
            nearest = yield from self._nearest(vector, where)
            if len(found) >= self.most_ranked:
                # There are older messages, of which the index may know better ones: their words count too.
                best = sorted(nearest.scores, key=nearest.scores.__getitem__, reverse=True)
                others = [each for each in best if each not in documents]
                most = self.most_ranked if limit is None else max(limit, _LEAST_LOOKED_AT)
                for stored in (yield from self.reader.load(others[:most])):
                    if stored.message is not None and where.matches(stored.message):
                        documents[stored.id] = stored
        ranked: list[Message] = yield Compute(lambda: self._fused(tokenizer, query, documents, nearest, limit))
        return ranked

    def _nearest(self, vector: Vector, where: Filter) -> Plan[Nearest]:
        """The messages nearest to a vector."""
        probe = vector if self.metric != "euclidean" else _unit(vector)
        condition = filters.all_of(
            {records.KIND: {"$eq": records.MESSAGE}},
            {records.EMBEDDED: {"$eq": True}},
            *filters.scope(where),
            *filters.beyond(where),
        )
        top_k = min(self.most_ranked, MOST_RESULTS)
        found: list[Record] = yield Query(probe, top_k, condition)
        scores = {record.id: self._similarity(record.score) for record in found}
        for entry in self.reader.recent.within(scopes_of(where)):
            scores.pop(entry.id, None)
            if entry.vector is not None:
                scores[entry.id] = self._compared(probe, entry.vector)
        near = {each: score for each, score in scores.items() if score > _UNRELATED}
        return Nearest(near, cut=len(found) >= top_k, unrelated=len(near) < len(scores))

    def _similarity(self, score: float) -> float:
        """The service's score as one that is higher for nearer vectors, and 0 for unrelated ones."""
        # For euclidean, the service gives the square of the distance, here of vectors whose length is 1.
        return 1 - score / 2 if self.metric == "euclidean" else score

    def _compared(self, probe: Vector, held: array[float]) -> float:
        product: float = sum(map(mul, probe, held))
        if self.metric != "cosine":
            return product
        length: float = math.hypot(*probe) * math.hypot(*held)
        return product / length

    def _fused(
        self,
        tokenizer: Tokenize,
        query: str,
        documents: Mapping[str, Stored],
        nearest: Nearest,
        limit: int | None,
    ) -> list[Message]:
        messages = {each: stored.message for each, stored in documents.items() if stored.message is not None}
        index = InvertedIndex()
        ids = list(messages)
        for number, each in enumerate(ids):
            index.add(number, terms_of(tokenizer, messages[each].text))
        scores = index.scores(self.formula, terms_of(tokenizer, query))
        words = Ranking({ids[number]: score for number, score in scores.items()}, zero=0.0)
        near = {each: score for each, score in nearest.scores.items() if each in messages}
        meaning = Ranking(near, cut=nearest.cut, zero=0.0 if nearest.unrelated else None)
        fused = min_max([words, meaning])
        best = sorted(fused, key=lambda each: (fused[each], documents[each].place), reverse=True)[:limit]
        ranked = views(messages[each] for each in best)
        for message, each in zip(ranked, best, strict=True):
            message.score = fused[each]
        return ranked


def _unit(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [number / length for number in vector]
