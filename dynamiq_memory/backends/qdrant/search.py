"""Ranking by words and meaning: both in one request, fused here.

The server chooses the candidates of each kind. Its weights of words are those of all users' messages, so the words of
the candidates are scored again, by the statistics of the scope alone: nobody's messages change another's scores.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._embedding import EmbedQuery
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records as points
from dynamiq_memory.backends.qdrant.filters import Native, native
from dynamiq_memory.backends.qdrant.steps import Ask
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25, Tokenize, packed_terms
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.tokenizer import terms_of

_PLACE = [points.MESSAGE, points.TIMESTAMP, points.ARRIVAL]
_IDS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """How to rank.

    Attributes:
        tokenizer: Turns a text into its terms.
        bm25: The formula for words.
        embeds: Whether to rank by meaning, too.
        vector_weight: How much meaning counts, from 0 to 1; words count the rest.
        candidates: How many of each kind the server chooses, at least.
        most_ranked: How many at most.
        similarity: Whether the server's score is a similarity, with 0 for no likeness, or else a distance.
    """

    tokenizer: Tokenize
    bm25: BM25
    embeds: bool
    vector_weight: float
    candidates: int
    most_ranked: int
    similarity: bool


def search(settings: Settings, query: str, where: Filter, limit: int | None) -> Plan[list[Message]]:
    """Rank what matches a filter."""
    translated = native(where)
    terms = list(dict.fromkeys(terms_of(settings.tokenizer, query)))
    vector = (yield EmbedQuery(query)) if settings.embeds else None
    if translated is None or not (terms or vector):
        return []
    if limit is None or not translated.exact:
        size = (yield Ask("count", {"count_filter": translated.filter, "exact": True})).count
        size = max(1, min(size, settings.most_ranked))
    else:
        size = min(max(settings.candidates, 2 * limit), settings.most_ranked)
    answers = yield Ask("query_batch_points", {"requests": _requests(translated, terms, vector, size)})
    by_words = answers[0].points if terms else []
    by_meaning = answers[-1].points if vector else []
    found = {str(point.id): point for point in (*by_words, *by_meaning)}
    messages: dict[str, Message] = {}
    if not translated.exact:
        messages = yield from _messages(found)
        messages = {name: message for name, message in messages.items() if where.matches(message)}
        by_words = [point for point in by_words if str(point.id) in messages]
        by_meaning = [point for point in by_meaning if str(point.id) in messages]
    words = Ranking(_word_scores(settings, terms, by_words), cut=bool(terms) and len(by_words) >= size, zero=0.0)
    scores: dict[str, float] = dict(words.scores)
    if settings.embeds:
        meaning = Ranking(_similarities(settings, by_meaning), cut=len(by_meaning) >= size)
        weights = [1 - settings.vector_weight, settings.vector_weight]
        scores = min_max([words, meaning], weights)
    places = {name: points.position_of(found[name].payload) for name in scores}
    ranked = sorted(scores, key=lambda name: (scores[name], places[name]), reverse=True)[:limit]
    if translated.exact:
        messages = yield from _messages({name: found[name] for name in ranked})
    for name in ranked:
        if name in messages:
            messages[name].score = scores[name]
    # One that was deleted since the first request is not there.
    return [messages[name] for name in ranked if name in messages]


def _requests(translated: Native, terms: Sequence[str], vector: Any, size: int) -> list[models.QueryRequest]:
    requests = []
    if terms:
        requests.append(
            models.QueryRequest(
                query=points.words_searched(terms),
                using=points.WORDS,
                filter=translated.filter,
                limit=size,
                with_payload=[*_PLACE, points.TERMS, points.LENGTH],
            )
        )
    if vector:
        requests.append(
            models.QueryRequest(
                query=vector, using=points.DENSE, filter=translated.filter, limit=size, with_payload=_PLACE
            )
        )
    return requests


def _word_scores(settings: Settings, terms: Sequence[str], candidates: Sequence[Any]) -> dict[str, float]:
    lengths = [point.payload[points.LENGTH] for point in candidates]
    packed = [base64.b64decode(point.payload[points.TERMS]) for point in candidates]
    scores = packed_terms.scores(settings.bm25, terms, lengths, packed)
    return {str(candidates[number].id): score for number, score in scores.items()}


def _similarities(settings: Settings, candidates: Sequence[Any]) -> dict[str, float]:
    if not settings.similarity:
        return {str(point.id): -point.score for point in candidates}
    return {str(point.id): point.score for point in candidates if point.score > 0}


def _messages(found: dict[str, Any]) -> Plan[dict[str, Message]]:
    """The messages of points, of which those with long texts are asked for."""
    messages = {
        name: Message.from_json(point.payload[points.MESSAGE])
        for name, point in found.items()
        if points.MESSAGE in point.payload
    }
    missing = [name for name in found if name not in messages]
    for start in range(0, len(missing), _IDS_AT_ONCE):
        some = missing[start : start + _IDS_AT_ONCE]
        for point in (yield Ask("retrieve", {"ids": some, "with_payload": points.WHOLE, "with_vectors": False})):
            stored = points.stored_of(point)
            messages[stored.id] = stored.message
    return messages
