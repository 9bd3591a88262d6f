"""Keyword ranking for stores that keep each message's terms, packed into a few bytes, next to the message.

Posting lists need a random write for each term of a message; packed terms need one row. A search reads only the rows of
its own scope (docs/decisions/0003-ranking-in-sql.md has the measurements).
"""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import accumulate
from struct import Struct
from typing import Any

from dynamiq_memory.ranking.bm25 import BM25, COUNT_BITS, MAX_COUNT
from dynamiq_memory.ranking.cache import Cache

# With hashes of 40 bits and 20,000 distinct terms in the scope, a query of ten terms has a false match with a
# probability of 2 in 10 million.
_HASH_BYTES = 5
_ENTRY_BYTES = _HASH_BYTES + 1
# Returns the hash of each entry.
_unpack = Struct(f"{_HASH_BYTES}sx").iter_unpack
# Bytes in which a search takes milliseconds.
_WORTH_AN_IMPORT = 2_000_000
# For more terms, a pass over all entries takes less time than a search for each term.
_FEW = 20


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
    hashes = list(dict.fromkeys([_hashes[term] for term in query]))
    matching = _matches(hashes, packed) if len(hashes) <= _FEW else _matches_of_many(hashes, packed)
    terms = ([(postings, lengths)] for postings in matching)
    return formula.scores(terms, len(lengths), sum(lengths))


def _matches(hashes: Iterable[bytes], packed: Sequence[bytes]) -> Iterator[list[int]]:
    """Return the postings of each of a few terms, by a search for each of them."""
    # One search in the joined bytes is twice as fast as a search in each message.
    joined = b"".join(packed)
    ends = list(accumulate(map(len, packed)))
    places = _search(joined)
    for hashed in hashes:
        yield [bisect_right(ends, offset) << COUNT_BITS | joined[offset + _HASH_BYTES] for offset in places(hashed)]


def _search(joined: bytes) -> Callable[[bytes], Iterable[int]]:
    """Return a function that returns where the entries of a term begin."""
    np = _numpy(len(joined))
    if np is None:
        return partial(_places, joined)
    # The first bytes of each entry as a number: to compare these is several times as fast as a search.
    beginnings = np.ndarray(len(joined) // _ENTRY_BYTES, "<u4", joined, strides=_ENTRY_BYTES)

    def places(hashed: bytes) -> Iterator[int]:
        for number in np.flatnonzero(beginnings == int.from_bytes(hashed[:4], "little")).tolist():
            if joined.startswith(hashed, offset := number * _ENTRY_BYTES):
                yield offset

    return places


def _numpy(size: int) -> Any:
    """Return numpy if it is worth it for so many bytes and installed, else None."""
    if not size or ("numpy" not in sys.modules and size < _WORTH_AN_IMPORT):
        return None
    try:
        return import_module("numpy")  # optional, and takes longer to import than it saves in a small scope
    except ImportError:
        return None


def _places(joined: bytes, hashed: bytes) -> Iterator[int]:
    offset = _place(hashed, joined)
    while offset != -1:
        yield offset
        offset = _place(hashed, joined, offset + _ENTRY_BYTES)


def _matches_of_many(hashes: Sequence[bytes], packed: Sequence[bytes]) -> Iterable[list[int]]:
    """Return the postings of each of many terms, by one pass over the messages."""
    np = _numpy(sum(map(len, packed)) if hashes else 0)
    if np is not None:
        return _matches_by_numbers(np, hashes, packed)
    matching: dict[tuple[bytes], list[int]] = {(hashed,): [] for hashed in hashes}
    asked = frozenset(matching)
    for number, entries in enumerate(packed):
        for each in asked.intersection(_unpack(entries)):
            matching[each].append(number << COUNT_BITS | entries[_place(each[0], entries) + _HASH_BYTES])
    return matching.values()


def _matches_by_numbers(np: Any, hashes: Sequence[bytes], packed: Sequence[bytes]) -> Iterator[list[int]]:
    """Return the postings of each of many terms, by comparing the hashes of all entries as numbers."""
    entries = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, _ENTRY_BYTES)
    beginnings = np.ndarray(len(entries), "<u4", entries, strides=entries.strides[:1])
    asked = np.array([int.from_bytes(hashed, "little") for hashed in hashes], np.uint64)
    # The first bytes leave few entries, of which the whole hash is compared.
    found = np.flatnonzero(_among(np, beginnings, np.unique(asked.astype("<u4"))))
    hashed = beginnings[found].astype(np.uint64) | entries[found, _HASH_BYTES - 1].astype(np.uint64) << np.uint64(32)
    ends = np.cumsum([len(each) // _ENTRY_BYTES for each in packed])
    postings = np.searchsorted(ends, found, "right") << COUNT_BITS | entries[found, _HASH_BYTES]
    order = np.argsort(hashed, kind="stable")
    hashed, postings = hashed[order], postings[order]
    for start, stop in zip(np.searchsorted(hashed, asked), np.searchsorted(hashed, asked, "right"), strict=True):
        yield postings[start:stop].tolist()


def _among(np: Any, values: Any, known: Any) -> Any:
    """Whether each value is among known ones, which are sorted; faster than `np.isin` for few known ones."""
    places = np.searchsorted(known, values)
    places[places == len(known)] = 0
    return known[places] == values


def _place(hashed: bytes, entries: bytes, start: int = 0) -> int:
    """Return where the entry of a term begins, from a place between two entries; -1 if there is none."""
    offset = entries.find(hashed, start)
    while offset % _ENTRY_BYTES and offset != -1:  # a false match, across two entries
        offset = entries.find(hashed, offset + 1)
    return offset
