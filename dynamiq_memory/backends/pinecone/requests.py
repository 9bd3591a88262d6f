"""What the backend asks the service and the embedder for, and plans of such requests.

A plan is a generator that yields requests and is sent their answers. It is written once and carried out with the
synchronous client or the asynchronous one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamiq_memory.backends.plans import Step

Vector = list[float]

# https://docs.pinecone.io/reference/api/database-limits
MOST_VECTORS = 1_000
MOST_DELETED = 1_000
MOST_RESULTS = 10_000
MOST_IN_LIST = 100
MOST_REQUEST_BYTES = 2_000_000
# Ids travel in the URL of a fetch, and servers and proxies take some 8 KB.
MOST_FETCH_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the index.

    Attributes:
        id: Its id.
        metadata: Its metadata.
        score: Its score, as an answer of a query.
    """

    id: str
    metadata: Mapping[str, Any]
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Upsert(Step[None]):
    """Store records, each a dict of id, values and metadata."""

    vectors: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Delete(Step[None]):
    """Delete records."""

    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Fetch(Step[list[Record]]):
    """Read records by their ids; the answer is a list of `Record`."""

    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Query(Step[list[Record]]):
    """Read the records nearest to a vector; the answer is a list of `Record`."""

    vector: Vector
    top_k: int
    condition: Mapping[str, Any]
    metadata: bool = False


@dataclass(frozen=True, slots=True)
class Listing(Step[tuple[list[str], str | None]]):
    """Read a page of ids; the answer is a list of them and the token of the next page, or None."""

    prefix: str
    token: str | None = None
    limit: int = MOST_IN_LIST
