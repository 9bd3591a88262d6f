"""Keyword ranking for stores that keep each message's terms, packed into a few bytes, next to the message.

Posting lists need a random write for each term of a message; packed terms need one row. A search reads only the rows of
its own scope (docs/decisions/0003-ranking-in-sql.md has the measurements).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from dynamiq_memory.ranking.bm25 import BM25, COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.cache import Cache

# With hashes of 40 bits and 20,000 distinct terms in the scope, a query of ten terms has a false match with a
# probability of 2 in 10 million.
_HASH_BYTES = 5
_ENTRY_BYTES = _HASH_BYTES + 1


def _hash(term: str) -> bytes:
    return hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


_hashes = Cache(_hash)
_counts = {count: bytes([count]) for count in range(MAX_COUNT + 1)}
_capped = _counts[MAX_COUNT]
_once = Cache(lambda term: _hashes[term] + _counts[1])


def encode(terms: Sequence[str]) -> bytes:
    """Pack a message's terms: each distinct term becomes 5 bytes of hash and 1 byte of count (up to 255)."""
    counts = Counter(terms)
    return b"".join(
        [_once[term] if count == 1 else _hashes[term] + _counts.get(count, _capped) for term, count in counts.items()]
    )


def scores(formula: BM25, query: Iterable[str], lengths: Sequence[int], packed: Sequence[bytes]) -> dict[int, float]:
    """Score the messages of a scope.

    Args:
        formula: The ranking formula.
        query: The query's terms; repetitions count once.
        lengths: Number of terms of each message in the scope.
        packed: The terms of each message, as packed by `encode`.

    Returns:
        Scores of the messages that contain at least one term, by their index in the two sequences.
    """
    # One search in the joined bytes is twice as fast as a search in each message.
    joined = b"".join(packed)
    ends = list(accumulate(map(len, packed)))
    terms = ([(_matches(_hashes[term], joined, ends), lengths)] for term in dict.fromkeys(query))
    return formula.scores(terms, len(lengths), sum(lengths))


def _matches(hashed: bytes, joined: bytes, ends: Sequence[int]) -> list[int]:
    matches = []
    offset = joined.find(hashed)
    while offset != -1:
        if offset % _ENTRY_BYTES:  # a false match, across two entries
            offset = joined.find(hashed, offset + 1)
            continue
        number = bisect_right(ends, offset)
        matches.append(number << COUNT_BITS | joined[offset + _HASH_BYTES])
        offset = joined.find(hashed, ends[number])  # each message has at most one entry per term
    return matches
