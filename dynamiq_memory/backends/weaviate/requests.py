"""The requests of Weaviate's plans: calls of the client on the collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from weaviate.classes.aggregate import Metrics
from weaviate.classes.data import DataObject
from weaviate.classes.query import FilterReturn, MetadataQuery, Sort
from weaviate.collections import Collection
from weaviate.outputs.aggregate import AggregateInteger
from weaviate.outputs.data import DeleteManyReturn

from dynamiq_memory.backends.plans import Plan, Step
from dynamiq_memory.backends.weaviate.errors import is_too_large
from dynamiq_memory.backends.weaviate.records import Row, row_of
from dynamiq_memory.backends.weaviate.schema import ARRIVAL, IN_SESSION, LENGTH, TERMS, TIMESTAMP, VECTOR, WORDS
from dynamiq_memory.exceptions import BackendError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_TOO_LARGE_ALONE = "one message alone exceeds what the server sends in a reply: raise its GRPC_MAX_MESSAGE_SIZE"


@dataclass(frozen=True, slots=True)
class Request(Step[T_co]):
    """A call of the client.

    Attributes:
        send: Calls a method of the collection. An asynchronous collection has the same methods.
    """

    send: Callable[[Collection[dict[str, Any], None]], T_co]


@dataclass(frozen=True, slots=True)
class AtOnce(Step[list[T_co]]):
    """Carry out plans at the same time; the result is the list of their results.

    None of them may yield AtOnce itself: it would wait for a thread while it occupies one.
    """

    plans: Sequence[Plan[T_co]]


def read_page(request: Callable[[int], Plan[list[T]]], size: int) -> Plan[tuple[list[T], int]]:
    """Read a page; while the reply is too large to be sent, ask for half as much.

    Args:
        request: Makes the request for a page of a given size.
        size: The size to begin with.

    Returns:
        The page, and the size that was asked for.
    """
    while True:
        try:
            return (yield from request(size)), size
        except BackendError as error:
            if not is_too_large(error):
                raise
            if size <= 1:
                raise BackendError(_TOO_LARGE_ALONE) from error
            size //= 2


def fetch(
    filters: FilterReturn, properties: Sequence[str], limit: int, *, ascending: bool | None = None
) -> Plan[list[Row]]:
    """Read objects that match; sorted by position if `ascending` is given."""
    sort = None
    if ascending is not None:
        sort = Sort.by_property(TIMESTAMP, ascending).by_property(ARRIVAL, ascending)
    reply = yield from Request(
        lambda collection: collection.query.fetch_objects(
            filters=filters, limit=limit, sort=sort, return_properties=list(properties), return_metadata=[]
        )
    )
    return [row_of(found) for found in reply.objects]


def rank_by_words(filters: FilterReturn, words: Sequence[str], limit: int) -> Plan[list[Row]]:
    """Read the positions and terms of objects that match and contain one of some words, best first."""
    reply = yield from Request(
        lambda collection: collection.query.bm25(
            " ".join(words),
            query_properties=[TERMS],
            filters=filters,
            limit=limit,
            return_properties=list(WORDS),
            return_metadata=[],
        )
    )
    return [row_of(found) for found in reply.objects]


def rank_by_vector(
    filters: FilterReturn, vector: Sequence[float], offset: int, limit: int
) -> Plan[list[tuple[Row, float]]]:
    """Read the scopes of objects that match and their cosine similarities to a vector, nearest first."""
    reply = yield from Request(
        lambda collection: collection.query.near_vector(
            list(vector),
            target_vector=VECTOR,
            filters=filters,
            limit=limit,
            offset=offset,
            return_properties=list(IN_SESSION),
            return_metadata=MetadataQuery(distance=True),
        )
    )
    return [(row_of(found), 1 - (found.metadata.distance or 0.0)) for found in reply.objects]


def count(filters: FilterReturn) -> Plan[int]:
    """Count objects that match."""
    reply = yield from Request(lambda collection: collection.aggregate.over_all(filters=filters, total_count=True))
    return reply.total_count or 0


def count_terms(filters: FilterReturn) -> Plan[tuple[int, int]]:
    """Count objects that match, and all of their terms."""
    metrics = Metrics(LENGTH).integer(
        count=False, maximum=False, mean=False, median=False, minimum=False, mode=False, sum_=True
    )
    reply = yield from Request(
        lambda collection: collection.aggregate.over_all(filters=filters, total_count=True, return_metrics=metrics)
    )
    length = reply.properties[LENGTH]
    return reply.total_count or 0, (length.sum_ or 0) if isinstance(length, AggregateInteger) else 0


def insert(objects: Sequence[DataObject[dict[str, Any], None]]) -> Plan[dict[int, str]]:
    """Store objects; the result is the server's reason for each that it refused, by its index."""
    reply = yield from Request(lambda collection: collection.data.insert_many(list(objects)))
    return {number: error.message for number, error in reply.errors.items()}


def update(uuid: str, properties: Mapping[str, Any], vector: Sequence[float] | None = None) -> Request[None]:
    """Change properties of an object, and its vector if one is given; an object that is not stored is an error."""
    vectors = None if vector is None else {VECTOR: list(vector)}
    return Request(lambda collection: collection.data.update(uuid, properties=dict(properties), vector=vectors))


def delete(filters: FilterReturn) -> Request[DeleteManyReturn[None]]:
    """Delete objects that match, at most as many as the server's QUERY_MAXIMUM_RESULTS."""
    return Request(lambda collection: collection.data.delete_many(where=filters))


def delete_one(uuid: str) -> Plan[bool]:
    """Delete an object; the result is whether it was stored."""
    return (yield from Request(lambda collection: collection.data.delete_by_id(uuid)))
