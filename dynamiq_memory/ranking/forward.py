"""Keyword ranking for stores: each message carries its own terms in a few bytes, next to it in the store.

A posting list costs a random write for each of a message's terms; this costs one row. A search reads the rows
of its scope and of nobody else (see docs/decisions/0003-ranking-in-sql.md for the measurements).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from dynamiq_memory.ranking.bm25 import BM25, COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.cache import Cache

# 40 bits of hash: in a scope of 20,000 distinct terms, a query of ten terms meets a false one with a
# probability of 2 in 10 million.
_HASH_BYTES = 5
_ENTRY_BYTES = _HASH_BYTES + 1


def _hash(term: str) -> bytes:
    return hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


_hashes = Cache(_hash)
_counts = {count: bytes([count]) for count in range(MAX_COUNT + 1)}
_MOST = _counts[MAX_COUNT]
_once = Cache(lambda term: _hashes[term] + _counts[1])


def encode(terms: Sequence[str]) -> bytes:
    """Pack the terms of a message: for each distinct one 5 bytes of hash and 1 of its count (255 at most)."""
    counts = Counter(terms)
    return b"".join(
        [_once[term] if count == 1 else _hashes[term] + _counts.get(count, _MOST) for term, count in counts.items()]
    )


def scores(formula: BM25, query: Iterable[str], lengths: Sequence[int], packed: Sequence[bytes]) -> dict[int, float]:
    """Score the messages of a scope.

    Args:
        formula: The ranking formula.
        query: The query's terms; repetitions count once.
        lengths: The length of each message of the scope, in terms.
        packed: The terms of each, as `encode` packs them.

    Returns:
        The score of each message that holds at least one term, by its place in the two sequences.
    """
    # One search over all of them is twice as fast as one in each.
    joined = b"".join(packed)
    ends = list(accumulate(map(len, packed)))
    terms = ([(_matches(_hashes[term], joined, ends), lengths)] for term in dict.fromkeys(query))
    return formula.scores(terms, len(lengths), sum(lengths))


def _matches(hashed: bytes, joined: bytes, ends: Sequence[int]) -> list[int]:
    found = []
    at = joined.find(hashed)
    while at != -1:
        if at % _ENTRY_BYTES:  # found across two entries: that is none
            at = joined.find(hashed, at + 1)
            continue
        number = bisect_right(ends, at)
        found.append(number << COUNT_BITS | joined[at + _HASH_BYTES])
        at = joined.find(hashed, ends[number])  # a message holds a term once
    return found
