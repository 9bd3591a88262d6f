"""Keyword ranking for stores: each message carries its own terms in a few bytes, next to it in the store.

A posting list costs a random write for each of a message's terms; this costs one row. A search reads the rows
of its scope and of nobody else (see docs/decisions/0003-ranking-in-sql.md for the measurements).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from dynamiq_memory.ranking.bm25 import BM25, MAX_COUNT

Key = TypeVar("Key", bound=Hashable)

# 40 bits of hash: in a scope of 20,000 distinct terms, a query of ten terms meets a false one with a
# probability of 2 in 10 million.
_HASH_BYTES = 5
_ENTRY_BYTES = _HASH_BYTES + 1


@lru_cache(65_536)
def _hash(term: str) -> bytes:
    return hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


def encode(terms: Sequence[str]) -> bytes:
    """Pack the terms of a message: for each distinct one 5 bytes of hash and 1 of its count (255 at most)."""
    return b"".join(
        _hash(term) + min(count, MAX_COUNT).to_bytes(1, "little") for term, count in Counter(terms).items()
    )


def scores(
    formula: BM25, query: Sequence[str], rows: Sequence[tuple[Key, int, bytes]]
) -> dict[Key, float]:
    """Score the messages of a scope.

    Args:
        formula: The ranking formula.
        query: The query's terms; repetitions count once.
        rows: All messages of the scope: key, length in terms, terms as `encode` packs them.

    Returns:
        The score of each message that holds at least one term, all above zero.
    """
    return formula.scores(
        (_matches(_hash(term), rows) for term in dict.fromkeys(query)),
        documents=len(rows),
        total_length=sum(length for _, length, _ in rows),
    )


def _matches(hashed: bytes, rows: Iterable[tuple[Key, int, bytes]]) -> list[tuple[Key, int, int]]:
    found = []
    for key, length, packed in rows:
        if hashed in packed:  # rules out nearly all rows at the speed of C
            at = packed.find(hashed)
            while at % _ENTRY_BYTES and at != -1:  # a match across two entries is none
                at = packed.find(hashed, at + 1)
            if at != -1:
                found.append((key, packed[at + _HASH_BYTES], length))
    return found
