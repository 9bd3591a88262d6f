"""Ranking by words and meaning: one request for both, fused here.

The server selects the candidates of each kind. It weights words by all users' messages, so the words of the candidates
are scored again here, by the statistics of the scope alone: other users' messages do not change the scores.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._embedding import EmbedQuery
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records, requests
from dynamiq_memory.backends.qdrant.filters import Translation, translate
from dynamiq_memory.backends.qdrant.renewing import Vectors
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message, views
from dynamiq_memory.ranking import BM25, Tokenize, packed_terms
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.pooling import in_sessions, pooled
from dynamiq_memory.ranking.scores import WORDS, Scores
from dynamiq_memory.ranking.tokenizer import terms_of

_FIELDS = [records.MESSAGE, TIMESTAMP_KEY, records.ARRIVAL, USER_KEY, SESSION_KEY]
_LARGE_AT_ONCE = 200

_Points = dict[str, models.ScoredPoint]
"""Points by their ids, best first."""


@dataclass(frozen=True, slots=True)
class Ranker:
    """Ranks messages.

    Attributes:
        tokenizer: Splits a text into terms.
        bm25: The parameters of keyword ranking.
        vectors: The vectors to compare; None to rank by words only.
        vector_weight: Weight of meaning, from 0 to 1; the rest is that of words.
        candidates: Minimum number of candidates of each kind.
        most_ranked: Maximum number of candidates of each kind.
        is_similarity: Whether the server's score is a similarity, 0 for unrelated texts, rather than a distance.
    """

    tokenizer: Tokenize
    bm25: BM25
    vectors: Vectors | None
    vector_weight: float
    candidates: int
    most_ranked: int
    is_similarity: bool

    def search(self, query: str, filter: Filter, limit: int | None) -> Plan[list[Message]]:
        """Rank matching messages."""
        translation = translate(filter)
        terms = list(dict.fromkeys(terms_of(self.tokenizer, query)))
        vector = yield from EmbedQuery(query)
        size = yield from self._size(translation, limit)
        queries = []
        if terms:
            fields = [*_FIELDS, records.TERMS, records.LENGTH]
            queries.append(_query(translation, records.searched_words(terms), records.WORDS, fields, size))
        if vector and self.vectors is not None:
            embedded = translation.narrowed(self.vectors.comparable)
            queries.append(_query(embedded, vector, records.DENSE, _FIELDS, size))
        results = [{str(point.id): point for point in each} for each in (yield from requests.query(queries))]
        by_words, by_meaning = results[0] if terms else {}, results[-1] if vector else {}
        messages: dict[str, Message] = {}
        if not translation.exact:
            messages = yield from _messages(by_words | by_meaning)
            messages = {name: message for name, message in messages.items() if filter.matches(message)}
            by_words, by_meaning = (
                {name: point for name, point in points.items() if name in messages} for points in (by_words, by_meaning)
            )
        scores = self._scores(terms, by_words, by_meaning, size)
        found = by_words | by_meaning
        best = sorted(scores, key=lambda name: (scores[name], records.position_of(found[name])), reverse=True)[:limit]
        if translation.exact:
            messages = yield from _messages({name: found[name] for name in best})
        present = [name for name in best if name in messages]  # others have been deleted since
        ranked = views(messages[name] for name in present)
        for message, name in zip(ranked, present, strict=True):
            message.score = scores.of(name)
        return ranked

    def _size(self, translation: Translation, limit: int | None) -> Plan[int]:
        """Return how many candidates of each kind to ask for."""
        if limit is None or not translation.exact:
            return max(1, min((yield from requests.count(translation.filter)), self.most_ranked))
        return min(max(self.candidates, 2 * limit), self.most_ranked)

    def _scores(self, terms: Sequence[str], by_words: _Points, by_meaning: _Points, size: int) -> Scores[str]:
        word_scores = self._word_scores(terms, by_words, by_words | by_meaning)
        if self.vectors is None:
            return word_scores
        words = Ranking(word_scores, cut=bool(terms) and len(by_words) >= size, zero=0.0, name=WORDS)
        meaning = Ranking(self._similarities(by_meaning), cut=len(by_meaning) >= size)
        return min_max([words, meaning], [1 - self.vector_weight, self.vector_weight])

    def _word_scores(self, terms: Sequence[str], matching: _Points, candidates: _Points) -> Scores[str]:
        """Score the candidates that have a term; those around them may be any candidates."""
        names = list(matching)
        payloads = [records.payload_of(point) for point in matching.values()]
        lengths = [payload[records.LENGTH] for payload in payloads]
        packed = [base64.b64decode(payload[records.TERMS]) for payload in payloads]
        scores = packed_terms.scores(self.bm25, terms, lengths, packed)
        scopes = {name: records.payload_of(point) for name, point in candidates.items()}
        sessions = in_sessions(
            candidates,
            lambda name: (scopes[name].get(USER_KEY), scopes[name].get(SESSION_KEY)),
            lambda name: records.position_of(candidates[name]),
        )
        return pooled({names[number]: score for number, score in scores.items()}, sessions)

    def _similarities(self, candidates: _Points) -> dict[str, float]:
        if not self.is_similarity:
            return {name: -point.score for name, point in candidates.items()}
        return {name: point.score for name, point in candidates.items() if point.score > 0}


def _query(translation: Translation, query: Any, using: str, fields: list[str], size: int) -> models.QueryRequest:
    return models.QueryRequest(query=query, using=using, filter=translation.filter, limit=size, with_payload=fields)


def _messages(points: _Points) -> Plan[dict[str, Message]]:
    """Return the messages of points, and read the long texts among them."""
    texts = {name: records.payload_of(point).get(records.MESSAGE) for name, point in points.items()}
    messages = {name: Message.from_json(text) for name, text in texts.items() if text is not None}
    missing = [name for name in points if name not in messages]
    for point in (yield from requests.retrieve(missing, records.WHOLE, _LARGE_AT_ONCE)):
        stored = records.stored_of(point)
        messages[stored.id] = stored.message
    return messages
