"""The gRPC part of the server, on the client's own stubs (weaviate.proto.v1).

Checked against `adapters/handlers/grpc/v1` of weaviate/weaviate (which fields are read and what is refused) and
against what the client reads of the answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

import grpc
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_pb2,
    base_search_pb2,
    batch_delete_pb2,
    batch_pb2,
    health_weaviate_pb2,
    properties_pb2,
    search_get_pb2,
    tenants_pb2,
    weaviate_pb2_grpc,
)

from tests.fakes.weaviate.database import Database
from tests.fakes.weaviate.names import RefusedError, require
from tests.fakes.weaviate.shard import Shard, fused

OPERATORS = {
    base_pb2.Filters.OPERATOR_EQUAL: "Equal",
    base_pb2.Filters.OPERATOR_NOT_EQUAL: "NotEqual",
    base_pb2.Filters.OPERATOR_GREATER_THAN: "GreaterThan",
    base_pb2.Filters.OPERATOR_GREATER_THAN_EQUAL: "GreaterThanEqual",
    base_pb2.Filters.OPERATOR_LESS_THAN: "LessThan",
    base_pb2.Filters.OPERATOR_LESS_THAN_EQUAL: "LessThanEqual",
    base_pb2.Filters.OPERATOR_AND: "And",
    base_pb2.Filters.OPERATOR_OR: "Or",
    base_pb2.Filters.OPERATOR_CONTAINS_ANY: "ContainsAny",
    base_pb2.Filters.OPERATOR_CONTAINS_ALL: "ContainsAll",
}
VALUES = {
    "value_text": "text",
    "value_int": "int",
    "value_number": "number",
    "value_boolean": "boolean",
    "value_text_array": "text[]",
    "value_int_array": "int[]",
    "value_number_array": "number[]",
    "value_boolean_array": "boolean[]",
}


def clause_of(request: base_pb2.Filters) -> dict[str, Any]:
    """Read a filter."""
    require(request.operator in OPERATORS, f"unknown filter operator {request.operator}")
    operator = OPERATORS[request.operator]
    if operator in ("And", "Or"):
        return {"operator": operator, "operands": [clause_of(each) for each in request.filters]}
    field = request.WhichOneof("test_value")
    require(field in VALUES, f"a filter without a value: {request}")
    value = getattr(request, str(field))
    if str(field).endswith("_array"):
        value = list(value.values)
        require(value, "empty arrays cannot be filtered by")
    return {"operator": operator, "on": request.target.property, "type": VALUES[str(field)], "value": value}


def floats(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))


class Weaviate(weaviate_pb2_grpc.WeaviateServicer):
    """The service."""

    def __init__(self, database: Database, api_key: str) -> None:
        self._database = database
        self._api_key = api_key

    def _serve(
        self, operation: str, context: grpc.ServicerContext, work: Callable[[dict[str, Any] | None], Any]
    ) -> Any:
        fault = self._database.fault(operation)
        metadata = dict(context.invocation_metadata())
        if self._api_key and metadata.get("authorization") != f"Bearer {self._api_key}":
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "anonymous access not enabled, please provide an auth scheme"
            )
        if fault is not None and "code" in fault and not fault.get("done"):
            context.abort(grpc.StatusCode[fault["code"]], fault["text"])
        try:
            with self._database.lock:
                reply = work(fault)
        except RefusedError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        if fault is not None and "code" in fault:
            context.abort(grpc.StatusCode[fault["code"]], fault["text"])
        return reply

    # --- searching -------------------------------------------------------------------------------------------

    def Search(self, request: search_get_pb2.SearchRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's
        return self._serve("Search", context, lambda _: self._search(request))

    def _search(self, request: search_get_pb2.SearchRequest) -> search_get_pb2.SearchReply:
        shard = self._database.shard(request.collection, request.tenant)
        limit = request.limit or 10  # QUERY_DEFAULTS_LIMIT
        require(request.offset + limit <= self._database.maximum_results, "query maximum results exceeded")
        filters = clause_of(request.filters) if request.HasField("filters") else None
        require(not request.after or (filters is None and not request.sort_by), "cursor api: invalid 'after' parameter")
        require(not request.after, "the cursor API is not served here")
        allowed = shard.matching(filters)
        ranking = self._ranking(shard, request, allowed, request.offset + limit)
        if ranking is None:
            ordered = [uuid for uuid in shard.objects if uuid in allowed]
            for sort in reversed(request.sort_by):
                (name,) = sort.path
                require(
                    name in shard.properties, f"no such prop with name '{name}' found in class '{request.collection}'"
                )
                ordered.sort(key=lambda uuid: _sortable(shard, uuid, name), reverse=not sort.ascending)
            ranking = [(uuid, {}) for uuid in ordered]
        else:
            require(not request.sort_by, "sorting cannot be combined with search")
        chosen = ranking[request.offset : request.offset + limit]
        results = [self._result(shard, request, uuid, extra) for uuid, extra in chosen]
        return search_get_pb2.SearchReply(took=0.001, results=results)

    def _ranking(
        self, shard: Shard, request: search_get_pb2.SearchRequest, allowed: set[str], limit: int
    ) -> list[tuple[str, dict[str, float]]] | None:
        if request.HasField("near_vector"):
            near = request.near_vector
            found = shard.nearest(_target(near.targets), _vector(near), allowed)
            return [(uuid, {"distance": distance}) for uuid, distance in found]
        if request.HasField("bm25_search"):
            search = request.bm25_search
            found = shard.bm25(search.query, list(search.properties), allowed, (request.offset, request.limit))
            return [(uuid, {"score": score}) for uuid, score in found]
        if request.HasField("hybrid_search"):
            hybrid = request.hybrid_search
            near = hybrid.near_vector if hybrid.HasField("near_vector") else hybrid
            keyword = shard.bm25(hybrid.query, list(hybrid.properties), allowed, (0, limit))[:limit]
            nearest = shard.nearest(_target(hybrid.targets), _vector(near), allowed)[:limit]
            relative = hybrid.fusion_type != base_search_pb2.Hybrid.FUSION_TYPE_RANKED
            alpha = hybrid.alpha_param if hybrid.use_alpha_param else hybrid.alpha
            return [(uuid, {"score": score}) for uuid, score in fused(keyword, nearest, alpha, relative=relative)]
        for other in ("near_object", "near_text", "near_image", "group_by", "generative", "rerank"):
            require(not request.HasField(other), f"{other} is not served here")
        return None

    def _result(
        self, shard: Shard, request: search_get_pb2.SearchRequest, uuid: str, extra: dict[str, float]
    ) -> search_get_pb2.SearchResult:
        stored = shard.objects[uuid]
        asked = request.properties
        names = shard.properties if asked.return_all_nonref_properties else list(asked.non_ref_properties)
        fields = {}
        for name in names:
            require(name in shard.properties, f"no such prop with name '{name}' found in class '{request.collection}'")
            if name in stored.properties:
                fields[name] = _value(shard.properties[name]["dataType"][0], stored.properties[name])
        metadata = search_get_pb2.MetadataResult(id=uuid, id_as_bytes=UUID(uuid).bytes)
        for name, number in extra.items():
            setattr(metadata, name, number)
            setattr(metadata, f"{name}_present", True)
        if request.metadata.vector or request.metadata.vectors:
            for name, vector in stored.vectors.items():
                data = struct.pack(f"<{len(vector)}f", *vector)
                metadata.vectors.append(
                    base_pb2.Vectors(name=name, vector_bytes=data, type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32)
                )
        properties = search_get_pb2.PropertiesResult(
            non_ref_props=properties_pb2.Properties(fields=fields), target_collection=request.collection
        )
        return search_get_pb2.SearchResult(properties=properties, metadata=metadata)

    def Aggregate(self, request: aggregate_pb2.AggregateRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's
        return self._serve("Aggregate", context, lambda _: self._aggregate(request))

    def _aggregate(self, request: aggregate_pb2.AggregateRequest) -> aggregate_pb2.AggregateReply:
        require(not request.HasField("group_by"), "group_by is not served here")
        shard = self._database.shard(request.collection, request.tenant)
        found = shard.matching(clause_of(request.filters) if request.HasField("filters") else None)
        reply = aggregate_pb2.AggregateReply()
        reply.single_result.objects_count = len(found)
        for each in request.aggregations:
            name = each.property
            require(name in shard.properties, f"no such prop with name '{name}' found in class '{request.collection}'")
            kind = each.WhichOneof("aggregation")
            require(kind in ("int", "number"), f"aggregating {kind} is not served here")
            require(shard.properties[name]["dataType"] == [kind], f"property {name} is not a {kind}")
            values = [shard.objects[uuid].properties[name] for uuid in found if name in shard.objects[uuid].properties]
            result = reply.single_result.aggregations.aggregations.add(property=name)
            cast = int if kind == "int" else float
            numbers = getattr(result, kind)
            numbers.count = len(values)
            if values:
                numbers.sum, numbers.minimum, numbers.maximum = cast(sum(values)), cast(min(values)), cast(max(values))
        return reply

    # --- writing ---------------------------------------------------------------------------------------------

    def BatchObjects(self, request: batch_pb2.BatchObjectsRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's
        return self._serve(
            "BatchObjects", context, lambda fault: self._batch(request, (fault or {}).get("objects", []))
        )

    def _batch(self, request: batch_pb2.BatchObjectsRequest, doomed: list[int]) -> batch_pb2.BatchObjectsReply:
        reply = batch_pb2.BatchObjectsReply(took=0.001)
        for number, given in enumerate(request.objects):
            try:
                require(number not in doomed, "injected")
                uuid = str(UUID(given.uuid))
                vectors = {each.name: floats(each.vector_bytes) for each in given.vectors}
                require(
                    not given.vector_bytes and not given.vector, "the collection has named vectors: name the vector"
                )
                shard = self._database.shard(given.collection, given.tenant, write=True)
                shard.put(uuid, _properties(given.properties), vectors)
            except (RefusedError, ValueError) as error:
                reply.errors.add(index=number, error=str(error))
        return reply

    def BatchDelete(self, request: batch_delete_pb2.BatchDeleteRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's
        return self._serve("BatchDelete", context, lambda _: self._delete(request))

    def _delete(self, request: batch_delete_pb2.BatchDeleteRequest) -> batch_delete_pb2.BatchDeleteReply:
        require(request.HasField("filters"), "deleting needs a filter")
        shard = self._database.shard(request.collection, request.tenant)
        found = shard.matching(clause_of(request.filters))
        doomed = [uuid for uuid in shard.objects if uuid in found][: self._database.maximum_results]
        reply = batch_delete_pb2.BatchDeleteReply(took=0.001, matches=len(doomed), successful=len(doomed))
        for uuid in doomed:
            if not request.dry_run:
                shard.remove(uuid)
            if request.verbose:
                reply.objects.add(uuid=UUID(uuid).bytes, successful=True)
        return reply

    def TenantsGet(self, request: tenants_pb2.TenantsGetRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's
        def work(_: Any) -> tenants_pb2.TenantsGetReply:
            names = list(self._database.tenants(request.collection))
            wanted = list(request.names.values) if request.HasField("names") else names
            active = tenants_pb2.TENANT_ACTIVITY_STATUS_ACTIVE
            tenants = [tenants_pb2.Tenant(name=name, activity_status=active) for name in names if name in wanted]
            return tenants_pb2.TenantsGetReply(took=0.001, tenants=tenants)

        return self._serve("TenantsGet", context, work)


def _target(targets: base_search_pb2.Targets) -> str:
    return targets.target_vectors[0] if targets.target_vectors else "default"


def _vector(near: Any) -> list[float]:
    if near.vectors:
        return floats(near.vectors[0].vector_bytes)
    for name in ("vector_for_targets", "vector_per_target"):
        given = getattr(near, name, None)
        if given:
            return floats(given[0].vector_bytes if name == "vector_for_targets" else next(iter(given.values())))
    require(near.vector_bytes, "a search by vector without one")
    return floats(near.vector_bytes)


def _sortable(shard: Shard, uuid: str, name: str) -> Any:
    value = shard.objects[uuid].properties.get(name)
    return (value is not None, value)


def _properties(given: batch_pb2.BatchObject.Properties) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, value in given.non_ref_properties.fields.items():
        kind = value.WhichOneof("kind")
        require(kind in ("string_value", "number_value", "bool_value"), f"property {name}: {kind} is not served here")
        properties[name] = getattr(value, str(kind))
    for array in given.text_array_properties:
        properties[array.prop_name] = list(array.values)
    for name in given.empty_list_props:
        properties[name] = []
    return properties


def _value(kind: str, value: Any) -> properties_pb2.Value:
    if kind == "text":
        return properties_pb2.Value(text_value=value)
    if kind == "int":
        return properties_pb2.Value(int_value=int(value))
    if kind == "number":
        return properties_pb2.Value(number_value=value)
    if kind == "boolean":
        return properties_pb2.Value(bool_value=value)
    texts = properties_pb2.TextValues(values=value)
    return properties_pb2.Value(list_value=properties_pb2.ListValue(text_values=texts))


def health(_: bytes, context: grpc.ServicerContext) -> bytes:
    """Report that the service is up."""
    serving = health_weaviate_pb2.WeaviateHealthCheckResponse.SERVING
    data: bytes = health_weaviate_pb2.WeaviateHealthCheckResponse(status=serving).SerializeToString()
    return data
