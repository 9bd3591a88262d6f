"""Keyword ranking for stores: each message carries its own terms in a few bytes, next to it in the store.

A posting list costs a random write for each of a message's terms; this costs one row. A search reads the rows
of its scope and of nobody else (see docs/decisions/0003-ranking-in-sql.md for the measurements).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from dynamiq_memory.ranking.bm25 import BM25, COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.cache import Cache

# 40 bits of hash: in a scope of 20,000 distinct terms, a query of ten terms meets a false one with a
# probability of 2 in 10 million.
_HASH_BYTES = 5
_ENTRY_BYTES = _HASH_BYTES + 1


def _hash(term: str) -> bytes:
    return hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


_hashes = Cache(_hash)
_counts = [bytes([count]) for count in range(MAX_COUNT + 1)]


def encode(terms: Sequence[str]) -> bytes:
    """Pack the terms of a message: for each distinct one 5 bytes of hash and 1 of its count (255 at most)."""
    counts = Counter(terms)
    return b"".join([_hashes[term] + _counts[min(count, MAX_COUNT)] for term, count in counts.items()])


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
    terms = ([(_matches(_hashes[term], packed), lengths)] for term in dict.fromkeys(query))
    return formula.scores(terms, len(lengths), sum(lengths))


def _matches(hashed: bytes, packed: Iterable[bytes]) -> list[int]:
    found = []
    for number, entries in enumerate(packed):
        if hashed in entries:  # rules out nearly all messages at the speed of C
            at = entries.find(hashed)
            while at != -1 and at % _ENTRY_BYTES:  # found across two entries: that is none
                at = entries.find(hashed, at + 1)
            if at != -1:
                found.append(number << COUNT_BITS | entries[at + _HASH_BYTES])
    return found
