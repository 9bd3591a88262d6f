"""Ranking by words and by meaning.

The service ranks by BM25 too, but with statistics of all that is stored, so that other users' messages would move a
user's results; and its hybrid search takes whatever is nearest for a match. So it is asked for the candidates of both
ways at once, and what the scope of the search says of its words; the scores are computed here (see
docs/decisions/0015-weaviate.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from weaviate.classes.aggregate import Metrics
from weaviate.classes.query import MetadataQuery

from dynamiq_memory.backends._embedding import EmbedQuery
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate.errors import DRIVER_ERRORS
from dynamiq_memory.backends.weaviate.filters import Translation, translate
from dynamiq_memory.backends.weaviate.reader import PLACE, Reader, smaller
from dynamiq_memory.backends.weaviate.records import BODY, LENGTH, TERMS, VECTOR, Place, Row, row_of, words_of
from dynamiq_memory.backends.weaviate.steps import AtOnce, ask
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.fusion import Ranking, min_max

# How many neighbours are asked for where only the best are wanted: beyond them hardly any word's match is lifted.
_NEIGHBOURS = 1000
_PAGE = 2000
# Vectors that share nothing have a similarity of 0, but for the rounding of 32 bits.
_UNLIKE = 1e-4


@dataclass(slots=True)
class _Found:
    """What one way of ranking found: scores, and where the messages stand."""

    scores: dict[str, float] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    cut: bool = False


class Searcher:
    """Makes the plans that search.

    Args:
        reader: Reads.
        tokenizer: Makes the terms of keyword ranking.
        bm25: The parameters of keyword ranking.
        alpha: How much meaning counts against words, from 0 to 1.
        most_results: How many results the server gives at once.
    """

    def __init__(self, reader: Reader, tokenizer: Tokenize, bm25: BM25, alpha: float, most_results: int) -> None:
        """Keep them."""
        self._reader = reader
        self._tokenizer = tokenizer
        self._bm25 = bm25
        self._alpha = alpha
        self._most = most_results

    def search(self, query: str, where: Filter, limit: int | None) -> Plan[list[Message]]:
        """The messages that `search` promises, with their scores."""
        wanted = translate(where)
        if wanted.never:
            return []
        words = list(dict.fromkeys(words_of(self._tokenizer, query))) if self._alpha < 1 else []
        vector = (yield EmbedQuery(query)) if self._alpha > 0 else None
        near = self._near(wanted, vector, limit)
        if (yield from self._reader.exactly(wanted)):
            asked = partial(_matching, filters=wanted.native(), query=" ".join(words))
            pages, statistics, by_meaning = yield AtOnce(
                [
                    _all_pages(asked, self._most if words else 0, min(_PAGE, self._most)),
                    ask(partial(_statistics, filters=wanted.native())),
                    near,
                ]
            )
            by_words = self._by_words(words, [row_of(each) for page in pages for each in page], statistics)
        else:
            rows = yield from self._reader.rows(wanted, None)
            by_words = self._by_words_of(rows, query if words else "")
            by_meaning = _among((yield from near), {row.uuid for row, _ in rows})
        return (yield from self._best(by_words, by_meaning, limit))

    def _best(self, by_words: _Found, by_meaning: _Found, limit: int | None) -> Plan[list[Message]]:
        rankings = [
            Ranking(by_words.scores, cut=by_words.cut, zero=0.0),
            Ranking(by_meaning.scores, cut=by_meaning.cut, zero=0.0),
        ]
        scores = min_max(rankings, [1 - self._alpha, self._alpha])
        places = by_words.places | by_meaning.places
        ordered = sorted(scores, key=lambda uuid: (scores[uuid], places[uuid]), reverse=True)[:limit]
        rows = {row.uuid: row for row in (yield from self._reader.by_ids(ordered, (*PLACE, BODY)))}
        found = []
        for uuid in ordered:
            if uuid in rows:  # else it was deleted meanwhile
                message = rows[uuid].message
                message.score = scores[uuid]
                found.append(message)
        return found

    # --- by meaning ------------------------------------------------------------------------------------------

    def _near(self, wanted: Translation, vector: Sequence[float] | None, limit: int | None) -> Plan[_Found]:
        if vector is None:
            return _Found()
        most = self._most if limit is None else min(self._most, max(_NEIGHBOURS, 2 * limit))
        rows: list[Row] = []
        distances: dict[str, float] = {}
        request = partial(_nearest, filters=wanted.native(), vector=list(vector))
        for reply in (yield from _all_pages(request, most, most)):
            rows += map(row_of, reply)
            distances.update((str(each.uuid), each.metadata.distance) for each in reply)
        similar = {row.uuid: 1 - distances[row.uuid] for row in rows}
        scores = {uuid: score for uuid, score in similar.items() if score > _UNLIKE}
        return _Found(scores, {row.uuid: row.place for row in rows}, cut=len(rows) >= most)

    # --- by words --------------------------------------------------------------------------------------------

    def _by_words(self, words: Sequence[str], rows: Sequence[Row], statistics: Any) -> _Found:
        total = statistics.properties[LENGTH].sum_ or 0
        scores = self._scores(rows, words, statistics.total_count or 0, total)
        return _Found(scores, {row.uuid: row.place for row in rows}, cut=len(rows) >= self._most)

    def _scores(self, rows: Sequence[Row], words: Sequence[str], documents: int, total: int) -> dict[str, float]:
        asked = frozenset(words)
        postings: dict[str, list[int]] = {word: [] for word in words}
        for number, row in enumerate(rows):
            counts = Counter(word for word in row.properties[TERMS].split() if word in asked)
            for word, count in counts.items():
                postings[word].append(number << COUNT_BITS | min(count, MAX_COUNT))
        lengths = [row.properties[LENGTH] for row in rows]
        # A message that was added between the two requests is counted too.
        scores = self._bm25.scores(([(each, lengths)] for each in postings.values()), max(documents, len(rows)), total)
        return {rows[number].uuid: score for number, score in scores.items()}

    def _by_words_of(self, rows: Sequence[tuple[Row, Message]], query: str) -> _Found:
        index = InvertedIndex()
        for number, (_, message) in enumerate(rows):
            index.add(number, words_of(self._tokenizer, message.text))
        scores = index.scores(self._bm25, words_of(self._tokenizer, query)) if query else {}
        places = {row.uuid: row.place for row, _ in rows}
        return _Found({rows[number][0].uuid: score for number, score in scores.items()}, places)


def _among(found: _Found, allowed: Iterable[str]) -> _Found:
    scores = {uuid: found.scores[uuid] for uuid in allowed if uuid in found.scores}
    return _Found(scores, found.places, cut=found.cut)


def _all_pages(request: Callable[..., Any], most: int, size: int) -> Plan[list[Any]]:
    """The pages of a ranking, as far as the server gives it."""
    pages: list[Any] = []
    offset = 0
    while offset < most:
        limit = min(size, most - offset)
        try:
            reply = yield partial(request, limit=limit, offset=offset)
        except DRIVER_ERRORS as error:
            size = smaller(error, limit)
            continue
        pages.append(reply.objects)
        offset += len(reply.objects)
        if len(reply.objects) < limit:
            break
    return pages


def _nearest(collection: Any, *, filters: Any, vector: list[float], limit: int, offset: int) -> Any:
    return collection.query.near_vector(
        vector,
        target_vector=VECTOR,
        filters=filters,
        limit=limit,
        offset=offset,
        return_properties=list(PLACE),
        return_metadata=MetadataQuery(distance=True),
    )


def _matching(collection: Any, *, filters: Any, query: str, limit: int, offset: int) -> Any:
    return collection.query.bm25(
        query,
        query_properties=[TERMS],
        filters=filters,
        limit=limit,
        offset=offset,
        return_properties=[*PLACE, TERMS, LENGTH],
        return_metadata=[],
    )


def _statistics(collection: Any, *, filters: Any) -> Any:
    metrics = Metrics(LENGTH).integer(
        count=False, maximum=False, mean=False, median=False, minimum=False, mode=False, sum_=True
    )
    return collection.aggregate.over_all(filters=filters, total_count=True, return_metrics=metrics)
