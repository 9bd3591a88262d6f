"""The requests of Qdrant's plans: calls of the client on the collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models

from dynamiq_memory._batches import batched
from dynamiq_memory.backends.plans import Plan, Step

T_co = TypeVar("T_co", covariant=True)

IDS_AT_ONCE = 1000
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Request(Step[T_co]):
    """A call of the client. Sending it twice has the effect of sending it once.

    Attributes:
        send: Calls the client with the collection's name. The asynchronous client has the same methods.
    """

    send: Callable[[QdrantClient, str], T_co]


def retrieve(ids: Sequence[str], fields: list[str], at_once: int = IDS_AT_ONCE) -> Plan[list[models.Record]]:
    """Read fields of points by their ids; missing points are left out."""
    found: list[models.Record] = []
    for some in batched(ids, at_once):
        found += yield from _retrieve(list(some), fields)
    return found


def _retrieve(ids: list[Any], fields: list[str]) -> Request[list[models.Record]]:
    return Request(lambda client, name: client.retrieve(name, ids, with_payload=fields, with_vectors=False))


def page(
    filter: models.Filter, fields: list[str], size: int, *, offset: Any = None, order_by: models.OrderBy | None = None
) -> Request[tuple[list[models.Record], Any]]:
    """Read a page of matching points; the result has them and the offset of the next page, None after the last."""
    return Request(lambda client, name: client.scroll(name, filter, size, order_by, offset, with_payload=fields))


def pages(filter: models.Filter, fields: list[str], size: int) -> Plan[list[models.Record]]:
    """Read all matching points, in no particular order."""
    found, offset = yield from page(filter, fields, size)
    while offset is not None:
        more, offset = yield from page(filter, fields, size, offset=offset)
        found += more
    return found


def count(filter: models.Filter) -> Plan[int]:
    """Count matching points."""
    counted = yield from Request(lambda client, name: client.count(name, count_filter=filter, exact=True))
    return counted.count


def query(queries: Sequence[models.QueryRequest]) -> Plan[list[list[models.ScoredPoint]]]:
    """Send queries, many in one request; the result has the points of each."""
    found: list[list[models.ScoredPoint]] = []
    for some in batched(queries, _QUERIES_AT_ONCE):
        found += [response.points for response in (yield from _query(list(some)))]
    return found


def _query(queries: list[models.QueryRequest]) -> Request[list[models.QueryResponse]]:
    return Request(lambda client, name: client.query_batch_points(name, queries))


def upsert(points: list[models.PointStruct]) -> Request[Any]:
    """Store points; each replaces the point with its id."""
    return Request(lambda client, name: client.upsert(name, points, wait=True))


def change(operations: list[Any]) -> Request[Any]:
    """Carry out several changes one after the other."""
    return Request(lambda client, name: client.batch_update_points(name, operations, wait=True))


def set_payload(payload: dict[str, Any], filter: models.Filter) -> Request[Any]:
    """Set fields of matching points, in one order with other such requests."""
    strong = models.WriteOrdering.STRONG
    return Request(lambda client, name: client.set_payload(name, payload, filter, wait=True, ordering=strong))


def delete(filter: models.Filter) -> Request[Any]:
    """Delete matching points."""
    selector = models.FilterSelector(filter=filter)
    return Request(lambda client, name: client.delete(name, selector, wait=True))
