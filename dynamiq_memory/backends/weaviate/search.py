"""Ranking by words and by meaning.

The server ranks by BM25 too, but with statistics of all stored objects, so that other users' messages would change a
user's results. Its hybrid search treats the nearest objects as matches, however far they are. So the server returns the
candidates of both rankings and the statistics of the words in the scope of the search, all at once, and the scores are
computed here (see docs/decisions/0015-weaviate.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from dynamiq_memory.backends._embedding import EmbedQuery, Vector
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.filters import Translation, translate
from dynamiq_memory.backends.weaviate.objects import WHOLE, Objects
from dynamiq_memory.backends.weaviate.records import Position, Row, words_of
from dynamiq_memory.backends.weaviate.requests import three_at_once
from dynamiq_memory.backends.weaviate.schema import LENGTH, TERMS
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.fusion import Ranking, min_max

T = TypeVar("T")

# Minimum number of neighbours to ask for when only the best results are wanted: those beyond them hardly change the
# score of any match by words.
_NEIGHBOURS = 1000
_PAGE = 2000
# Vectors with nothing in common have a similarity of 0, apart from rounding to 32 bits.
_UNLIKE = 1e-4


@dataclass(slots=True)
class _Found:
    """The result of one ranking: scores and positions by the ids of objects, and whether there may be more."""

    scores: dict[str, float] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    cut: bool = False


class Searcher:
    """Makes the plans that search.

    Args:
        objects: Reads objects.
        tokenizer: Splits texts into the terms of keyword ranking.
        bm25: The parameters of keyword ranking.
        alpha: The weight of meaning against words, from 0 to 1.
    """

    def __init__(self, objects: Objects, tokenizer: Tokenize, bm25: BM25, alpha: float) -> None:
        """Keep the settings."""
        self._objects = objects
        self._most = objects.max_results
        self._tokenizer = tokenizer
        self._bm25 = bm25
        self._alpha = alpha

    def search(self, filter: Filter, query: str, limit: int | None) -> Plan[list[Message]]:
        """Rank messages as `MemoryBackend.search` promises."""
        wanted = translate(filter)
        if wanted.never:
            return []
        words = list(dict.fromkeys(words_of(self._tokenizer, query))) if self._alpha < 1 else []
        vector = (yield from EmbedQuery(query)) if self._alpha > 0 else None
        by_meaning = self._by_meaning(wanted, vector, limit)
        if (yield from self._objects.match_exactly(wanted)):
            rows, (documents, terms), near = yield from three_at_once(
                self._candidates(wanted, words), requests.count_terms(wanted.clause()), by_meaning
            )
            return (yield from self._best(self._by_words(words, rows, documents, terms), near, limit))
        rows = yield from self._objects.matching(wanted)
        near = _among((yield from by_meaning), {row.uuid for row in rows})
        return (yield from self._best(self._by_words_of(rows, words), near, limit))

    def _best(self, by_words: _Found, by_meaning: _Found, limit: int | None) -> Plan[list[Message]]:
        rankings = [Ranking(found.scores, cut=found.cut, zero=0.0) for found in (by_words, by_meaning)]
        scores = min_max(rankings, [1 - self._alpha, self._alpha])
        positions = by_words.positions | by_meaning.positions
        ordered = sorted(scores, key=lambda uuid: (scores[uuid], positions[uuid]), reverse=True)[:limit]
        rows = {row.uuid: row for row in (yield from self._objects.by_ids(ordered, WHOLE))}
        found = [rows[uuid] for uuid in ordered if uuid in rows]  # others have been deleted since
        for row in found:
            row.message.score = scores[row.uuid]
        return views(row.message for row in found)

    def _by_meaning(self, wanted: Translation, vector: Vector | None, limit: int | None) -> Plan[_Found]:
        if vector is None:
            return _Found()
        most = self._most if limit is None else min(self._most, max(_NEIGHBOURS, 2 * limit))
        request = partial(requests.rank_by_vector, wanted.clause(), vector)
        near = yield from _pages(request, most, most)
        scores = {row.uuid: similarity for row, similarity in near if similarity > _UNLIKE}
        return _Found(scores, {row.uuid: row.position for row, _ in near}, cut=len(near) >= most)

    def _candidates(self, wanted: Translation, words: Sequence[str]) -> Plan[list[Row]]:
        request = partial(requests.rank_by_words, wanted.clause(), words)
        return _pages(request, self._most if words else 0, min(_PAGE, self._most))

    def _by_words(self, words: Sequence[str], rows: Sequence[Row], documents: int, terms: int) -> _Found:
        asked = frozenset(words)
        postings: dict[str, list[int]] = {word: [] for word in words}
        for number, row in enumerate(rows):
            counts = Counter(word for word in row.properties[TERMS].split() if word in asked)
            for word, count in counts.items():
                postings[word].append(number << COUNT_BITS | min(count, MAX_COUNT))
        lengths = [row.properties[LENGTH] for row in rows]
        # A message that was added between the two requests is counted too.
        documents = max(documents, len(rows))
        scores = self._bm25.scores(([(each, lengths)] for each in postings.values()), documents, terms)
        return _found(rows, scores, cut=len(rows) >= self._most)

    def _by_words_of(self, rows: Sequence[Row], words: Sequence[str]) -> _Found:
        """Rank objects of which the whole messages have been read."""
        index = InvertedIndex()
        for number, row in enumerate(rows):
            index.add(number, words_of(self._tokenizer, row.message.text))
        return _found(rows, index.scores(self._bm25, words) if words else {})


def _found(rows: Sequence[Row], scores: dict[int, float], *, cut: bool = False) -> _Found:
    by_id = {rows[number].uuid: score for number, score in scores.items()}
    return _Found(by_id, {row.uuid: row.position for row in rows}, cut=cut)


def _among(found: _Found, allowed: Iterable[str]) -> _Found:
    scores = {uuid: found.scores[uuid] for uuid in allowed if uuid in found.scores}
    return _Found(scores, found.positions, cut=found.cut)


def _pages(request: Callable[[int, int], Plan[list[T]]], most: int, size: int) -> Plan[list[T]]:
    """Read a ranking, as far as the server returns it.

    Args:
        request: Makes the request for a page, from its offset and its size.
        most: Maximum number of results.
        size: The size of a page to begin with.
    """
    found: list[T] = []
    while len(found) < most:
        page, size = yield from requests.read_page(partial(request, len(found)), min(size, most - len(found)))
        found += page
        if len(page) < size:
            break
    return found
