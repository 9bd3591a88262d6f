"""Exact comparison of vectors in this process, for stores that keep each message's vector next to the message.

A search compares the vectors of its own scope only, so it needs no index of vectors and gives exact results. One
product of a matrix and the query's vector compares 1,000 vectors of 384 numbers in less than a millisecond.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from dynamiq_memory.exceptions import MissingDependencyError

try:
    import numpy as np
except ImportError as error:
    raise MissingDependencyError(
        "ranking by meaning in this process needs numpy: pip install 'dynamiq-memory[vectors]', or leave the embedder "
        "out"
    ) from error

Document = TypeVar("Document", bound=Hashable)

# The same bytes on every machine.
_TYPE = np.dtype("<f4")


def pack(vector: Sequence[float]) -> bytes:
    """Pack a vector, scaled to length 1: each number becomes 4 bytes."""
    exact = np.asarray(vector, np.float64)
    return (exact / np.linalg.norm(exact)).astype(_TYPE).tobytes()


def similarities(query: Sequence[float], packed: Mapping[Document, bytes]) -> dict[Document, float]:
    """Compare vectors to that of a query.

    Args:
        query: The query's vector.
        packed: Vectors of the same dimension, as packed by `pack`.

    Returns:
        The cosine similarity of each vector, from -1 to 1.
    """
    matrix = np.frombuffer(b"".join(packed.values()), _TYPE).reshape(len(packed), len(query))
    return dict(zip(packed, (matrix @ np.frombuffer(pack(query), _TYPE)).tolist(), strict=True))
