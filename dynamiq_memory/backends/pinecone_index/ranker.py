"""A plan that ranks: by meaning in the index, by words here, and both together."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from operator import mul

from dynamiq_memory.backends.pinecone_index import filters, records
from dynamiq_memory.backends.pinecone_index.reader import Reader, scopes_of
from dynamiq_memory.backends.pinecone_index.records import Stored
from dynamiq_memory.backends.pinecone_index.requests import MOST_RESULTS, Compute, EmbedQuery, Plan, Query, Record, Vector
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.tokenizer import terms_of


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
        nearest: dict[str, float] = {}
        cut = False
        if vector is not None:
            nearest, cut = yield from self._nearest(vector, where)
            if len(found) >= self.most_ranked:
                # There are older messages, of which the index may know better ones.
                others = [each for each in sorted(nearest, key=nearest.__getitem__, reverse=True) if each not in documents]
                for stored in (yield from self.reader.load(others[: limit or self.most_ranked])):
                    if stored.message is not None and where.matches(stored.message):
                        documents[stored.id] = stored
        near = {each: score for each, score in nearest.items() if each in documents}
        ranked: list[Message] = yield Compute(
            lambda: self._fused(tokenizer, query, list(documents.values()), near, limit, cut=cut)
        )
        return ranked

    def _nearest(self, vector: Vector, where: Filter) -> Plan[tuple[dict[str, float], bool]]:
        """The similarities of the messages nearest to a vector, and whether there are more."""
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
        return {each: score for each, score in scores.items() if score > 0}, len(found) >= top_k

    def _similarity(self, score: float) -> float:
        """The service's score as one that is higher for nearer vectors, and 0 for unrelated ones."""
        # For euclidean, the service gives the square of the distance, here of vectors whose length is 1.
        return 1 - score / 2 if self.metric == "euclidean" else score

    def _compared(self, probe: Vector, held: array[float]) -> float:
        product = sum(map(mul, probe, held))
        if self.metric != "cosine":
            return product
        return product / (math.hypot(*probe) * math.hypot(*held))

    def _fused(
        self,
        tokenizer: Tokenize,
        query: str,
        documents: Sequence[Stored],
        near: Mapping[str, float],
        limit: int | None,
        *,
        cut: bool,
    ) -> list[Message]:
        messages = {stored.id: stored.message for stored in documents if stored.message is not None}
        index = InvertedIndex()
        ids = list(messages)
        for number, each in enumerate(ids):
            index.add(number, terms_of(tokenizer, messages[each].text))
        scores = index.scores(self.formula, terms_of(tokenizer, query))
        words = Ranking({ids[number]: score for number, score in scores.items()}, zero=0.0)
        fused = min_max([words, Ranking(near, cut=cut)])
        places = {stored.id: stored.place for stored in documents}
        best = sorted(fused, key=lambda each: (fused[each], places[each]), reverse=True)[:limit]
        ranked = views(messages[each] for each in best)
        for message, each in zip(ranked, best, strict=True):
            message.score = fused[each]
        return ranked


def _unit(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [number / length for number in vector]
