"""The requests of Pinecone's plans: calls of the client or of its index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from dynamiq_memory._batches import limited
from dynamiq_memory.backends._embedding import Vector
from dynamiq_memory.backends.pinecone.errors import NotFoundError
from dynamiq_memory.backends.plans import Plan, Step

T_co = TypeVar("T_co", covariant=True)

# https://docs.pinecone.io/reference/api/database-limits
MOST_DELETED = 1_000
MOST_RESULTS = 10_000
PAGE = 100
_MOST_VECTORS = 1_000
_MOST_REQUEST_BYTES = 2_000_000
_MOST_FETCHED = 1_000
# Ids are part of the URL of a fetch, and servers and proxies accept some 8 KB.
_MOST_FETCH_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class IndexRequest(Step[T_co]):
    """A call of the index. Sending it twice has the effect of sending it once.

    Attributes:
        send: Calls the index with the namespace. The asynchronous index has the same methods.
    """

    send: Callable[[Any, str], T_co]


@dataclass(frozen=True, slots=True)
class ClientRequest(Step[T_co]):
    """A call of the client, which manages indexes; only synchronous callers make it.

    Attributes:
        send: Calls the client.
    """

    send: Callable[[Any], T_co]


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read from the index.

    Attributes:
        id: Its id.
        metadata: Its metadata.
        score: Its score as a result of a query.
    """

    id: str
    metadata: Mapping[str, Any]
    score: float = 0.0


def upsert(records: Sequence[dict[str, Any]]) -> IndexRequest[object]:
    """Store records, each a dict of id, values and metadata; see `batches`."""
    return IndexRequest(lambda index, namespace: index.upsert(vectors=list(records), namespace=namespace))


def update(record_id: str, values: Vector, metadata: dict[str, Any]) -> IndexRequest[object]:
    """Change the vector and some metadata of a record; there is no error if it is not stored."""
    return IndexRequest(
        lambda index, namespace: index.update(id=record_id, values=values, set_metadata=metadata, namespace=namespace)
    )


def batches(records: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut records into batches that the service accepts in one request."""
    # Older clients send JSON in ASCII; newer ones send less.
    sized = ((record, len(json.dumps(record)) + 2) for record in records)
    return limited(sized, _MOST_VECTORS, _MOST_REQUEST_BYTES)


def delete(ids: Sequence[str]) -> Plan[None]:
    """Delete up to `MOST_DELETED` records."""
    with suppress(NotFoundError):  # without such a namespace, there is nothing to delete
        yield from IndexRequest(lambda index, namespace: index.delete(ids=list(ids), namespace=namespace))


def fetch(ids: Sequence[str]) -> Plan[dict[str, Record]]:
    """Read records by their ids; missing records are left out."""
    found: dict[str, Record] = {}
    # The URL encodes slashes, and percent signs once more.
    sized = ((each, len(each) + 2 * each.count("%") + 2 * each.count("/") + 6) for each in ids)
    for some in limited(sized, _MOST_FETCHED, _MOST_FETCH_CHARACTERS):
        response = yield from _fetch(some)
        found |= {each: Record(each, _metadata(record)) for each, record in (response.vectors or {}).items()}
    return found


def _fetch(ids: list[str]) -> IndexRequest[Any]:
    return IndexRequest(lambda index, namespace: index.fetch(ids=ids, namespace=namespace))


def query(vector: Vector, top_k: int, filter: dict[str, Any], *, metadata: bool = False) -> Plan[list[Record]]:
    """Read the records nearest to a vector."""
    response: Any = yield from IndexRequest(
        lambda index, namespace: index.query(
            vector=vector,
            top_k=top_k,
            filter=filter,
            namespace=namespace,
            include_metadata=metadata,
            include_values=False,
        )
    )
    return [Record(match.id, _metadata(match), float(match.score or 0.0)) for match in response.matches or ()]


def page(prefix: str, token: str | None = None, limit: int = PAGE) -> Plan[tuple[list[str], str | None]]:
    """List a page of ids; the result has them and the token of the next page, None after the last."""
    more = {} if token is None else {"pagination_token": token}
    response: Any = yield from IndexRequest(
        lambda index, namespace: index.list_paginated(prefix=prefix, limit=limit, namespace=namespace, **more)
    )
    ids = [each.id for each in getattr(response, "vectors", None) or ()]
    return ids, getattr(getattr(response, "pagination", None), "next", None) or None


def pages(prefix: str) -> Plan[set[str]]:
    """List all ids with a prefix."""
    ids, token = yield from page(prefix)
    found = set(ids)
    while token is not None:
        ids, token = yield from page(prefix, token)
        found.update(ids)
    return found


def _metadata(record: Any) -> Mapping[str, Any]:
    return getattr(record, "metadata", None) or {}
