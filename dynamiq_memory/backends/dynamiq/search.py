"""Ranking by words and meaning in this process, over the platform, which stores no vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

from dynamiq_memory.backends._embedding import Embed, EmbedQuery
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.operations import Read, Search, rank
from dynamiq_memory.backends.plans import Compute, Plan
from dynamiq_memory.messages import Message

# 30 MB of vectors of 384 numbers.
_MOST_KEPT = 20_000


class HybridSearch:
    """Ranks the messages of a scope by words and meaning, and keeps their vectors for the next search."""

    def __init__(self) -> None:
        """Keep no vector yet."""
        self._kept: dict[bytes, bytes | None] = {}

    def plan(self, search: Search, backend: MemoryBackend) -> Plan[list[Message]]:
        """Return the plan of a search of a backend."""
        query = yield from EmbedQuery(search.query)
        if query is None:
            return (yield from search.default_plan(backend))
        found = yield from Read(search.filter, backend.most_ranked)
        digests = [
            hashlib.blake2b(message.text.encode(errors="surrogatepass"), digest_size=16).digest() for message in found
        ]
        kept = self._kept
        new = {digest: message for digest, message in zip(digests, found, strict=True) if digest not in kept}
        vectors = {digest: kept[digest] for digest in digests if digest in kept}
        if new:
            embedded = yield from Embed(list(new.values()))
            vectors |= yield from Compute(partial(_packed, list(new), embedded))
            # Others may be reading the kept vectors, so they are replaced, not emptied.
            self._kept = {**kept, **vectors} if len(kept) + len(new) <= _MOST_KEPT else vectors
        present = {number: vector for number, digest in enumerate(digests) if (vector := vectors[digest]) is not None}
        by_meaning = yield from Compute(partial(_similarities, query, present))
        ranked = partial(rank, found, search.query, backend.tokenizer, backend.bm25, search.limit, by_meaning)
        return (yield from Compute(ranked))


def _similarities(query: Sequence[float], vectors: Mapping[int, bytes]) -> dict[int, float]:
    from dynamiq_memory.ranking.vectors import similarities  # noqa: PLC0415 - numpy is optional

    return similarities(query, vectors)


def _packed(digests: Sequence[bytes], vectors: Sequence[Sequence[float] | None]) -> dict[bytes, bytes | None]:
    from dynamiq_memory.ranking.vectors import pack  # noqa: PLC0415 - numpy is optional

    return {d: None if vector is None else pack(vector) for d, vector in zip(digests, vectors, strict=True)}
