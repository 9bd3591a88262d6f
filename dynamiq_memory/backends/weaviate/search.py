"""Ranking by words and by meaning.

The server ranks by BM25 too, but with statistics of all stored objects, so that other users' messages would change a
user's results. Its hybrid search treats the nearest objects as matches, however far they are. So the server returns the
candidates of both rankings and the statistics of the words in the scope of the search, all at once, and the scores are
computed here (see docs/decisions/0015-weaviate.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from dynamiq_memory.backends._embedding import EmbedQuery, Vector
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.errors import is_too_large
from dynamiq_memory.backends.weaviate.filters import Translation, translate
from dynamiq_memory.backends.weaviate.reader import WHOLE, Reader
from dynamiq_memory.backends.weaviate.records import Position, Row, words_of
from dynamiq_memory.backends.weaviate.renewing import Vectors
from dynamiq_memory.backends.weaviate.schema import LENGTH, TERMS, WORDS
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, Scope, scope_of, views
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.fusion import Ranking, min_max
from dynamiq_memory.ranking.pooling import in_sessions, pooled
from dynamiq_memory.ranking.scores import WORDS as WORDS_PART

T = TypeVar("T")

# Minimum number of neighbours to ask for when only the best results are wanted: those beyond them hardly change the
# score of any match by words.
_NEIGHBOURS = 1000
# Vectors with nothing in common have a similarity of 0, apart from rounding to 32 bits.
_UNLIKE = 1e-4


@dataclass(frozen=True, slots=True)
class Searcher:
    """Makes the plans that search.

    Attributes:
        reader: Reads objects.
        tokenizer: Splits texts into the terms of keyword ranking.
        bm25: The parameters of keyword ranking.
        alpha: The weight of meaning against words, from 0 to 1.
        vectors: The vectors to compare; None without an embedder.
    """

    reader: Reader
    tokenizer: Tokenize
    bm25: BM25
    alpha: float
    vectors: Vectors | None

    def search(self, filter: Filter, query: str, limit: int | None) -> Plan[list[Message]]:
        """Rank messages as `MemoryBackend.search` promises."""
        wanted = translate(filter)
        words = list(dict.fromkeys(words_of(self.tokenizer, query))) if self.alpha < 1 else []
        vector = (yield from EmbedQuery(query)) if self.alpha > 0 else None
        by_meaning = self._by_meaning(wanted, vector, limit)
        if (yield from self.reader.match_exactly(wanted)):
            plans: list[Plan[Any]] = [
                self._with_words(wanted, words),
                requests.count_terms(wanted.clause()),
                by_meaning,
            ]
            (rows, cut), (documents, terms), (near, around) = yield from requests.AtOnce(plans)
            by_words = self._by_words(words, rows, documents, terms, around, cut=cut)
        else:
            rows = yield from self.reader.matching(wanted)
            near, _ = yield from by_meaning
            scores = {row.position: near.scores[row.position] for row in rows if row.position in near.scores}
            near = replace(near, scores=scores)
            by_words = self._by_words_of(words, rows)
        fused = min_max([by_words, near], [1 - self.alpha, self.alpha])
        best = sorted(fused, key=lambda position: (fused[position], position), reverse=True)[:limit]
        rows = yield from self.reader.by_ids((uuid for *_, uuid in best), WHOLE)
        found = {row.uuid: row.message for row in rows}  # others have been deleted since
        present = [position for position in best if position[2] in found]
        ranked = views(found[uuid] for *_, uuid in present)
        for message, position in zip(ranked, present, strict=True):
            message.score = fused.of(position)
        return ranked

    def _with_words(self, wanted: Translation, words: Sequence[str]) -> Plan[tuple[list[Row], bool]]:
        """Read objects that have one of the words, and whether there may be more of them.

        They are one page: the server orders equal scores differently for each page, so that pages would miss some. If
        they are more than it sends at once, all objects are read in order, and those without a word left out.
        """
        if not words:
            return [], False
        most = self.reader.max_results
        try:
            rows = yield from requests.rank_by_words(wanted.clause(), words, most)
        except BackendError as error:
            if not is_too_large(error):
                raise
        else:
            return rows, len(rows) >= most
        rows = yield from self.reader.matching(wanted, properties=WORDS)
        return [row for row in rows if not frozenset(words).isdisjoint(row.properties[TERMS].split())], False

    def _by_meaning(
        self, wanted: Translation, vector: Vector | None, limit: int | None
    ) -> Plan[tuple[Ranking[Position], list[Row]]]:
        """Rank by similarity; also return all rows that were read."""
        if vector is None or self.vectors is None:
            return Ranking({}), []
        most = self.reader.max_results
        if limit is not None:
            most = min(most, max(_NEIGHBOURS, 2 * limit))
        near = yield from _pages(
            partial(requests.rank_by_vector, wanted.clause(self.vectors.comparable), vector), most, most
        )
        scores = {row.position: similarity for row, similarity in near if similarity > _UNLIKE}
        return Ranking(scores, cut=len(near) >= most, zero=0.0), [row for row, _ in near]

    def _by_words(
        self, words: Sequence[str], rows: Sequence[Row], documents: int, terms: int, around: Sequence[Row], *, cut: bool
    ) -> Ranking[Position]:
        """Rank objects that have a word; those around them may be any that were read."""
        asked = frozenset(words)
        postings: dict[str, list[int]] = {word: [] for word in words}
        for number, row in enumerate(rows):
            counts = Counter(word for word in row.properties[TERMS].split() if word in asked)
            for word, count in counts.items():
                postings[word].append(number << COUNT_BITS | min(count, MAX_COUNT))
        lengths = [row.properties[LENGTH] for row in rows]
        # A message that was added between the two requests is counted too.
        documents = max(documents, len(rows))
        scores = self.bm25.scores(([(each, lengths)] for each in postings.values()), documents, terms)
        scopes = {row.position: row.scope for row in (*around, *rows)}
        return _ranking(rows, scopes, scores, cut=cut)

    def _by_words_of(self, words: Sequence[str], rows: Sequence[Row]) -> Ranking[Position]:
        """Rank objects of which the whole messages have been read."""
        index = InvertedIndex()
        for number, row in enumerate(rows):
            index.add(number, words_of(self.tokenizer, row.message.text))
        scopes = {row.position: scope_of(row.message) for row in rows}
        return _ranking(rows, scopes, index.scores(self.bm25, words) if words else {})


def _ranking(
    rows: Sequence[Row], scopes: Mapping[Position, Scope], scores: Mapping[int, float], *, cut: bool = False
) -> Ranking[Position]:
    sessions = in_sessions(scopes, scopes.__getitem__, lambda position: position)
    by_position = pooled({rows[n].position: score for n, score in scores.items()}, sessions)
    return Ranking(by_position, cut=cut, zero=0.0, name=WORDS_PART)


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
