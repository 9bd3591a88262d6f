"""A Qdrant server for the tests: the REST API over an engine in this process, or the server of QDRANT_URL.

There are two engines: the client's local mode, and `qdrant-edge-py`, which is Qdrant's own engine. The requests come
from the real client and are parsed by its own models (checked against qdrant-client 1.20 and 1.11 and Qdrant's REST reference,
https://api.qdrant.tech). Where an engine is more lenient than a server, this module rejects the same requests as a server:

- sorting by a field without a range index; filtering by a field without any index (a server does in strict mode);
- a vector of another dimension, or with an unknown name; sparse indices that repeat;
- ids that are neither UUIDs nor whole numbers; requests over 32 MB; a missing or wrong key.

Writes without `wait` stay invisible until a write with it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, Protocol
from uuid import UUID

import qdrant_edge as edge
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client import QdrantClient
from qdrant_client.http import models

from tests.fakes.http_server import Answer, HTTPServer, Request

LARGEST = 33_554_432
RANGES = ("integer", "float", "datetime")


class RefusedError(Exception):
    """A request that the server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine(Protocol):
    """Stores the points of a collection."""

    def index(self, field: str, schema: Any) -> None: ...
    def upsert(self, points: list[models.PointStruct]) -> None: ...
    def delete(self, chosen: Any) -> None: ...
    def set_payload(self, payload: dict[str, Any], chosen: Any) -> None: ...
    def update_vectors(self, points: list[models.PointVectors]) -> None: ...
    def delete_vectors(self, ids: list[Any], names: list[str]) -> None: ...
    def retrieve(self, request: models.PointRequest) -> list[Any]: ...
    def scroll(self, request: models.ScrollRequest) -> tuple[list[Any], Any]: ...
    def count(self, request: models.CountRequest) -> int: ...
    def query(self, request: models.QueryRequest) -> list[Any]: ...
    def close(self) -> None: ...


class LocalEngine:
    """The client's local mode."""

    def __init__(self, config: models.CreateCollection) -> None:
        self._client = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self._client.create_collection("c", vectors_config=config.vectors, sparse_vectors_config=config.sparse_vectors)

    def index(self, field: str, schema: Any) -> None:
        """Do nothing: local mode has no indexes."""

    def upsert(self, points: list[models.PointStruct]) -> None:
        self._client.upsert("c", points)

    def delete(self, chosen: Any) -> None:
        self._client.delete("c", chosen)

    def set_payload(self, payload: dict[str, Any], chosen: Any) -> None:
        self._client.set_payload("c", payload, chosen)

    def update_vectors(self, points: list[models.PointVectors]) -> None:
        self._client.update_vectors("c", points)

    def delete_vectors(self, ids: list[Any], names: list[str]) -> None:
        self._client.delete_vectors("c", names, ids)

    def retrieve(self, request: models.PointRequest) -> list[Any]:
        return self._client.retrieve("c", request.ids, _fields(request), request.with_vector or False)

    def scroll(self, request: models.ScrollRequest) -> tuple[list[Any], Any]:
        return self._client.scroll(
            "c",
            request.filter,
            request.limit or 10,
            request.order_by,
            request.offset,
            _fields(request),
        )

    def count(self, request: models.CountRequest) -> int:
        return self._client.count("c", request.filter).count

    def query(self, request: models.QueryRequest) -> list[Any]:
        return self._client.query_batch_points("c", [request])[0].points

    def close(self) -> None:
        self._client.close()


class EdgeEngine:
    """Qdrant's own engine, in this process."""

    def __init__(self, config: models.CreateCollection) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dm-qdrant-", ignore_cleanup_errors=True)
        vectors = {
            name: edge.EdgeVectorParams(size=each.size, distance=getattr(edge.Distance, each.distance.value))
            for name, each in (config.vectors or {}).items()  # type: ignore[union-attr]
        }
        sparse = {
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if each.modifier else None)
            for name, each in (config.sparse_vectors or {}).items()
        }
        settings = edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse)
        self._shard = edge.EdgeShard.create(self._folder.name, settings)

    def index(self, field: str, schema: Any) -> None:
        self._shard.update(edge.UpdateOperation.create_field_index(field, _edge_schema(schema)))

    def upsert(self, points: list[models.PointStruct]) -> None:
        made = [edge.Point(_edge_id(p.id), _edge_vectors(p.vector), p.payload or {}) for p in points]
        self._shard.update(edge.UpdateOperation.upsert_points(made))

    def delete(self, chosen: Any) -> None:
        if isinstance(chosen, models.FilterSelector):
            self._shard.update(edge.UpdateOperation.delete_points_by_filter(_edge_filter(chosen.filter)))
        else:
            self._shard.update(edge.UpdateOperation.delete_points([_edge_id(each) for each in chosen.points]))

    def set_payload(self, payload: dict[str, Any], chosen: Any) -> None:
        self._shard.update(edge.UpdateOperation.set_payload_by_filter(_edge_filter(chosen), payload))

    def update_vectors(self, points: list[models.PointVectors]) -> None:
        made = [edge.PointVectors(_edge_id(p.id), _edge_vectors(p.vector)) for p in points]
        self._shard.update(edge.UpdateOperation.update_vectors(made))

    def delete_vectors(self, ids: list[Any], names: list[str]) -> None:
        self._shard.update(edge.UpdateOperation.delete_vectors([_edge_id(each) for each in ids], names))

    def retrieve(self, request: models.PointRequest) -> list[Any]:
        return self._shard.retrieve([_edge_id(each) for each in request.ids], _fields(request), False)

    def scroll(self, request: models.ScrollRequest) -> tuple[list[Any], Any]:
        order: Any = request.order_by
        return self._shard.scroll(
            edge.ScrollRequest(
                offset=None if request.offset is None else _edge_id(request.offset),
                limit=request.limit,
                filter=_edge_filter(request.filter),
                with_payload=_fields(request),
                order_by=None if order is None else _edge_order(order),
            )
        )

    def count(self, request: models.CountRequest) -> int:
        return self._shard.count(edge.CountRequest(filter=_edge_filter(request.filter), exact=True))

    def query(self, request: models.QueryRequest) -> list[Any]:
        asked: Any = request.query
        if isinstance(asked, models.OrderByQuery):
            query: Any = _edge_order(asked.order_by)
        else:
            vector: Any = asked.nearest if isinstance(asked, models.NearestQuery) else asked
            sparse = isinstance(vector, models.SparseVector)
            query = edge.Query.Nearest(
                edge.SparseVector(vector.indices, vector.values) if sparse else vector, using=request.using
            )
        return self._shard.query(
            edge.QueryRequest(
                limit=request.limit or 10,
                query=query,
                filter=_edge_filter(request.filter),
                with_payload=_fields(request),
            )
        )

    def close(self) -> None:
        self._shard.close()
        self._folder.cleanup()


def _edge_id(given: Any) -> Any:
    return given if isinstance(given, int) else UUID(str(given))


def _edge_vectors(given: Any) -> Any:
    return {
        name: edge.SparseVector(each.indices, each.values) if isinstance(each, models.SparseVector) else each
        for name, each in given.items()
    }


def _edge_order(given: Any) -> Any:
    direction = edge.Direction.Desc if given.direction == models.Direction.DESC else edge.Direction.Asc
    return edge.OrderBy(given.key, direction, given.start_from)


def _edge_schema(schema: Any) -> Any:
    if isinstance(schema, models.KeywordIndexParams):
        return edge.KeywordIndexParams(is_tenant=schema.is_tenant)
    if isinstance(schema, models.IntegerIndexParams):
        return edge.IntegerIndexParams(lookup=schema.lookup, range=schema.range)
    return getattr(edge.PayloadSchemaType, schema.value.capitalize())


def _edge_filter(given: models.Filter | None) -> Any:
    if given is None:
        return None
    return edge.Filter(
        must=[_edge_condition(each) for each in _conditions(given.must)],
        should=[_edge_condition(each) for each in _conditions(given.should)] or None,
        must_not=[_edge_condition(each) for each in _conditions(given.must_not)],
    )


def _conditions(given: Any) -> list[Any]:
    return given or []


def _fields(request: Any) -> Any:
    return request.with_payload


def _edge_condition(given: Any) -> Any:
    if isinstance(given, models.Filter):
        return _edge_filter(given)
    if isinstance(given, models.IsEmptyCondition):
        return edge.IsEmptyCondition(given.is_empty.key)
    if isinstance(given, models.HasIdCondition):
        return edge.HasIdCondition({_edge_id(each) for each in given.has_id})
    if isinstance(given, models.NestedCondition):
        return edge.NestedCondition(given.nested.key, _edge_filter(given.nested.filter))
    if isinstance(given.match, models.MatchAny):
        return edge.FieldCondition(given.key, match=edge.MatchAny(given.match.any))
    if given.match is not None:
        return edge.FieldCondition(given.key, match=edge.MatchValue(given.match.value))
    bounds = given.range
    return edge.FieldCondition(given.key, range=edge.RangeFloat(bounds.gte, bounds.gt, bounds.lte, bounds.lt))


class Collection:
    """One collection: its engine, and the other state of a server."""

    def __init__(self, config: models.CreateCollection, engine: Engine) -> None:
        self.config = config
        self.engine = engine
        self.schema: dict[str, Any] = {}
        self.unseen: list[Callable[[], None]] = []

    @property
    def info(self) -> dict[str, Any]:
        """The description that a server returns."""
        parameters = self.config.model_dump(mode="json", exclude_none=True, include={"vectors", "sparse_vectors"})
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": self.engine.count(models.CountRequest()),
            "segments_count": 1,
            "config": {
                "params": parameters,
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
            },
            "payload_schema": {
                name: {"data_type": _type_of(schema), "params": _dumped(schema), "points": 0}
                for name, schema in self.schema.items()
            },
        }

    def check_filter(self, given: Any, inside: str = "") -> None:
        """Reject a filter by a field without an index."""
        for each in [*(given.must or []), *(given.must_not or []), *(given.should or [])] if given else []:
            if isinstance(each, models.NestedCondition):
                self.check_filter(each.nested.filter, f"{inside}{each.nested.key}[].")
            elif isinstance(each, models.Filter):
                self.check_filter(each, inside)
            elif not isinstance(each, models.HasIdCondition):
                key = inside + (each.is_empty.key if isinstance(each, models.IsEmptyCondition) else each.key)
                wanted = "keyword" if getattr(each, "match", None) else None
                if key not in self.schema or wanted not in (None, _type_of(self.schema[key])):
                    raise RefusedError(
                        400,
                        f'Bad request: Index required but not found for "{key}" of one of the following types: [keyword]. '
                        "Help: Create an index for this key or use a different filter.",
                    )

    def check_order(self, given: Any) -> None:
        """Reject sorting by a field without a range index."""
        key = given if isinstance(given, str) else given.key
        schema = self.schema.get(key)
        if _type_of(schema) not in RANGES or getattr(schema, "range", True) is False:
            raise RefusedError(
                400, f"Wrong input: No range index for `order_by` key: `{key}`. Please create one to use it."
            )

    def check_query(self, given: Any, using: str | None) -> None:
        """Reject a vector that does not fit the collection."""
        if isinstance(given, models.OrderByQuery):
            self.check_order(given.order_by)
            return
        self.check_vector(using or "", given.nearest if isinstance(given, models.NearestQuery) else given)

    def check_vector(self, name: str, vector: Any) -> None:
        """Reject a vector that does not fit the collection."""
        dense: Any = self.config.vectors or {}
        if isinstance(vector, models.SparseVector):
            if name not in (self.config.sparse_vectors or {}):
                raise RefusedError(400, f"Wrong input: Not existing vector name error: {name}")
            if len(set(vector.indices)) != len(vector.indices) or len(vector.indices) != len(vector.values):
                raise RefusedError(422, "Validation error in JSON body: [indices: must be unique]")
        elif name not in dense:
            raise RefusedError(400, f"Wrong input: Not existing vector name error: {name}")
        elif len(vector) != dense[name].size:
            said = f"expected dim: {dense[name].size}, got {len(vector)}"
            raise RefusedError(400, f"Wrong input: Vector dimension error: {said}")


class QdrantServer(HTTPServer):
    """The part of Qdrant's REST API that the backend uses.

    Attributes:
        api_key: The required key, or None.
        collections: Its collections by name.
    """

    def __init__(
        self, engine: Callable[[models.CreateCollection], Engine] = EdgeEngine, api_key: str | None = None
    ) -> None:
        super().__init__()
        self.api_key = api_key
        self.collections: dict[str, Collection] = {}
        self._engine = engine
        self._lock = threading.RLock()

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        for collection in self.collections.values():
            collection.engine.close()

    def answer(self, request: Request) -> Answer:
        with self._lock:
            try:
                return Answer({"result": self._result(request), "status": "ok", "time": 0.001})
            except RefusedError as refused:
                return Answer({"status": {"error": str(refused)}, "time": 0.0}, refused.status)
            except ValidationError as error:
                return Answer({"status": {"error": f"Format error in JSON body: {error}"}, "time": 0.0}, 400)

    def _result(self, request: Request) -> Any:
        if self.api_key is not None and request.headers.get("api-key") != self.api_key:
            missing = "api-key" not in request.headers
            raise RefusedError(
                401, "Must provide an API key or an Authorization bearer token" if missing else "Invalid API key"
            )
        if len(request.raw) > LARGEST:
            said = f"JSON payload ({len(request.raw)} bytes) is larger than allowed (limit: {LARGEST} bytes)."
            raise RefusedError(400, f"Payload error: {said}")
        top, name, *rest = request.path.strip("/").split("/")
        assert top == "collections", request.path
        action = f"{request.method} {'/'.join(rest)}".strip()
        if action == "GET exists":
            return {"exists": name in self.collections}
        if action == "PUT":
            if name in self.collections:
                raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
            config = _read(models.CreateCollection, request)
            self.collections[name] = Collection(config, self._engine(config))
            return True
        if name not in self.collections:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        collection = self.collections[name]
        if action == "GET":
            return collection.info
        if action == "DELETE":
            self.collections.pop(name).engine.close()
            return True
        handler = _HANDLERS.get(action)
        if handler is None:
            raise RefusedError(404, f"the test server does not know {action}")
        return handler(collection, request)


def _index(collection: Collection, request: Request) -> Any:
    body = _read(models.CreateFieldIndex, request)
    collection.schema[body.field_name] = body.field_schema
    collection.engine.index(body.field_name, body.field_schema)
    return _done()


def _upsert(collection: Collection, request: Request) -> Any:
    body = _read(models.PointsList, request)
    return _write(collection, request, [_upserting(collection, body)])


def _delete(collection: Collection, request: Request) -> Any:
    return _write(collection, request, [_deleting(collection, _read(models.PointsSelector, request))])


def _set_payload(collection: Collection, request: Request) -> Any:
    return _write(collection, request, [_setting(collection, _read(models.SetPayload, request))])


def _batch(collection: Collection, request: Request) -> Any:
    changes = []
    for operation in _read(models.UpdateOperations, request).operations:
        if isinstance(operation, models.UpsertOperation):
            assert isinstance(operation.upsert, models.PointsList)
            changes.append(_upserting(collection, operation.upsert))
        elif isinstance(operation, models.SetPayloadOperation):
            changes.append(_setting(collection, operation.set_payload))
        elif isinstance(operation, models.UpdateVectorsOperation):
            changes.append(_updating(collection, operation.update_vectors))
        elif isinstance(operation, models.DeleteVectorsOperation):
            body = operation.delete_vectors
            changes.append(partial(collection.engine.delete_vectors, body.points or [], body.vector))
        else:
            assert isinstance(operation, models.DeleteOperation)
            changes.append(_deleting(collection, operation.delete))
    return [_write(collection, request, changes)] * len(changes)


def _check_points(collection: Collection, points: Iterable[Any]) -> None:
    for point in points:
        _check_id(point.id)
        for name, vector in point.vector.items():
            collection.check_vector(name, vector)


def _upserting(collection: Collection, body: models.PointsList) -> Callable[[], None]:
    _check_points(collection, body.points)
    return lambda: collection.engine.upsert(body.points)


def _setting(collection: Collection, body: models.SetPayload) -> Callable[[], None]:
    assert body.filter is not None, "the test server sets payloads by filters only"
    chosen = body.filter
    collection.check_filter(chosen)
    return lambda: collection.engine.set_payload(body.payload, chosen)


def _updating(collection: Collection, body: models.UpdateVectors) -> Callable[[], None]:
    _check_points(collection, body.points)

    def update() -> None:
        stored = collection.engine.retrieve(models.PointRequest(ids=[each.id for each in body.points]))
        known = {str(each.id) for each in stored}
        for each in body.points:
            if str(each.id) not in known:
                raise RefusedError(404, f"Not found: No point with id {each.id} found")
        collection.engine.update_vectors(body.points)

    return update


def _deleting(collection: Collection, chosen: Any) -> Callable[[], None]:
    if isinstance(chosen, models.FilterSelector):
        collection.check_filter(chosen.filter)
    return lambda: collection.engine.delete(chosen)


def _write(collection: Collection, request: Request, changes: list[Callable[[], None]]) -> Any:
    collection.unseen += changes
    if request.query.get("wait") == "true":
        changes, collection.unseen = collection.unseen, []
        for change in changes:
            change()
    return _done()


def _retrieve(collection: Collection, request: Request) -> Any:
    body = _read(models.PointRequest, request)
    for each in body.ids:
        _check_id(each)
    return [_shown(point) for point in collection.engine.retrieve(body)]


def _scroll(collection: Collection, request: Request) -> Any:
    body = _read(models.ScrollRequest, request)
    collection.check_filter(body.filter)
    if body.order_by is not None:
        collection.check_order(body.order_by)
    if body.limit is not None and body.limit < 1:
        raise RefusedError(422, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
    found, offset = collection.engine.scroll(body)
    return {"points": [_shown(point) for point in found], "next_page_offset": None if offset is None else str(offset)}


def _count(collection: Collection, request: Request) -> Any:
    body = _read(models.CountRequest, request)
    collection.check_filter(body.filter)
    return {"count": collection.engine.count(body)}


def _query(collection: Collection, request: Request) -> Any:
    searches = _read(models.QueryRequestBatch, request).searches
    for search in searches:
        collection.check_filter(search.filter)
        collection.check_query(search.query, search.using)
    return [{"points": [_shown(point) for point in collection.engine.query(search)]} for search in searches]


_HANDLERS: dict[str, Callable[[Collection, Request], Any]] = {
    "PUT index": _index,
    "PUT points": _upsert,
    "POST points": _retrieve,
    "POST points/scroll": _scroll,
    "POST points/count": _count,
    "POST points/query/batch": _query,
    "POST points/delete": _delete,
    "POST points/payload": _set_payload,
    "POST points/batch": _batch,
}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # making one takes longer than a request


def _read(kind: Any, request: Request) -> Any:
    return _adapter(kind).validate_json(request.raw)


def _done() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}


def _shown(point: Any) -> dict[str, Any]:
    shown = {"id": point.id if isinstance(point.id, int) else str(point.id), "payload": point.payload}
    score = getattr(point, "score", None)
    return shown if score is None else shown | {"version": 0, "score": score}


def _check_id(given: Any) -> None:
    if isinstance(given, int):
        return
    try:
        UUID(str(given))
    except ValueError:
        raise RefusedError(400, f"Format error in JSON body: value {given} is not a valid point ID") from None


def _type_of(schema: Any) -> str:
    return str(getattr(getattr(schema, "type", schema), "value", schema))


def _dumped(schema: Any) -> Any:
    return schema.model_dump(mode="json", exclude_none=True) if isinstance(schema, BaseModel) else None


@contextmanager
def qdrant(
    engine: Callable[[models.CreateCollection], Engine] = EdgeEngine,
) -> Iterator[tuple[str, QdrantServer | None]]:
    """Yield the URL of a server: QDRANT_URL, or a test server, which is yielded, too."""
    given = os.environ.get("QDRANT_URL")
    with ExitStack() as stack:
        if given:
            yield given, None
        else:
            server = stack.enter_context(QdrantServer(engine))
            yield server.url, server
