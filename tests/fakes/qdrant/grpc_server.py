"""Qdrant's gRPC API for the tests, in front of the server of the REST API.

Each call of the real client's own stubs becomes the equivalent request of the REST API, by the client's own
conversions, so that the same engine and the same checks serve both (checked against qdrant-client 1.20 and
https://api.qdrant.tech). This module checks the differences between the two APIs: the key in the metadata, and the status codes.
"""

# ruff: noqa: N802 - the calls have the service's names

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from pydantic import BaseModel
from qdrant_client import grpc as api
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_field_type_to_payload_schema
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.http import models

from tests.fakes.http_server import Request
from tests.fakes.qdrant.server import QdrantServer

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Ask = Callable[..., Any]


class QdrantGRPC:
    """Serves both APIs of one server until the end of a `with` block.

    Attributes:
        rest: The server of the REST API; its faults apply to gRPC, too.
        port: The port for gRPC.
    """

    def __init__(self, rest: QdrantServer) -> None:
        self.rest = rest
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=_ANY_SIZE)
        add_PointsServicer_to_server(Points(self.ask), self._server)
        add_CollectionsServicer_to_server(Collections(self.ask), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def ask(self, context: Any, called: Any, method: str, action: str = "", body: BaseModel | None = None) -> Any:
        """Send a request for the called collection to the REST API; an error ends the call."""
        request = Request(
            method,
            f"/collections/{called.collection_name}" + (f"/{action}" if action else ""),
            {"wait": "true"} if getattr(called, "wait", False) else {},
            {str(name): str(value) for name, value in context.invocation_metadata()},
            b"" if body is None else body.model_dump_json(exclude_none=True).encode(),
        )
        self.rest.requests.append(request)
        answer: Any = self.rest.faults(request) or self.rest.answer(request)
        if answer.status != 200:
            context.abort(_CODES[answer.status], answer.body["status"]["error"])
        return answer.body["result"]


class Points(PointsServicer):
    """The calls for points."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def Upsert(self, called: Any, context: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(point) for point in called.points]
        self._ask(context, called, "PUT", "points", models.PointsList(points=points))
        return _done()

    def Delete(self, called: Any, context: Any) -> Any:
        self._ask(context, called, "POST", "points/delete", GrpcToRest.convert_points_selector(called.points))
        return _done()

    def SetPayload(self, called: Any, context: Any) -> Any:
        payload = GrpcToRest.convert_payload(called.payload)
        chosen = GrpcToRest.convert_filter(called.points_selector.filter)
        self._ask(context, called, "POST", "points/payload", models.SetPayload(payload=payload, filter=chosen))
        return _done()

    def UpdateBatch(self, called: Any, context: Any) -> Any:
        operations = [GrpcToRest.convert_points_update_operation(each) for each in called.operations]
        body = models.UpdateOperations(operations=operations)
        done = self._ask(context, called, "POST", "points/batch", body)
        return api.UpdateBatchResponse(result=[_completed()] * len(done))

    def CreateFieldIndex(self, called: Any, context: Any) -> Any:
        if called.HasField("field_index_params"):
            schema: Any = GrpcToRest.convert_payload_schema_params(called.field_index_params)
        else:
            schema = GrpcToRest.convert_payload_schema_type(grpc_field_type_to_payload_schema(called.field_type))
        body = models.CreateFieldIndex(field_name=called.field_name, field_schema=schema)
        self._ask(context, called, "PUT", "index", body)
        return _done()

    def Get(self, called: Any, context: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(each) for each in called.ids]
        body = models.PointRequest(ids=ids, with_payload=_fields(called))
        found = self._ask(context, called, "POST", "points", body)
        return api.GetResponse(result=[_record(point) for point in found])

    def Scroll(self, called: Any, context: Any) -> Any:
        body = models.ScrollRequest(
            filter=_filter(called),
            limit=called.limit if called.HasField("limit") else None,
            order_by=GrpcToRest.convert_order_by(called.order_by) if called.HasField("order_by") else None,
            offset=GrpcToRest.convert_point_id(called.offset) if called.HasField("offset") else None,
            with_payload=_fields(called),
        )
        page = self._ask(context, called, "POST", "points/scroll", body)
        following = page["next_page_offset"]
        offset = None if following is None else RestToGrpc.convert_extended_point_id(following)
        return api.ScrollResponse(result=[_record(point) for point in page["points"]], next_page_offset=offset)

    def Count(self, called: Any, context: Any) -> Any:
        body = models.CountRequest(filter=_filter(called), exact=called.exact)
        found = self._ask(context, called, "POST", "points/count", body)
        return api.CountResponse(result=api.CountResult(count=found["count"]))

    def QueryBatch(self, called: Any, context: Any) -> Any:
        searches = [GrpcToRest.convert_query_points(each) for each in called.query_points]
        answers = self._ask(context, called, "POST", "points/query/batch", models.QueryRequestBatch(searches=searches))
        results = [[models.ScoredPoint(**point) for point in answer["points"]] for answer in answers]
        return api.QueryBatchResponse(
            result=[api.BatchResult(result=map(RestToGrpc.convert_scored_point, points)) for points in results]
        )


class Collections(CollectionsServicer):
    """The calls for collections."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def CollectionExists(self, called: Any, context: Any) -> Any:
        exists = self._ask(context, called, "GET", "exists")["exists"]
        return api.CollectionExistsResponse(result=api.CollectionExists(exists=exists))

    def Create(self, called: Any, context: Any) -> Any:
        body = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(called.vectors_config),
            sparse_vectors=GrpcToRest.convert_sparse_vector_config(called.sparse_vectors_config),
            on_disk_payload=called.on_disk_payload if called.HasField("on_disk_payload") else None,
        )
        return api.CollectionOperationResponse(result=self._ask(context, called, "PUT", body=body))

    def Get(self, called: Any, context: Any) -> Any:
        info = models.CollectionInfo(**self._ask(context, called, "GET"))
        return api.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def Delete(self, called: Any, context: Any) -> Any:
        return api.CollectionOperationResponse(result=self._ask(context, called, "DELETE"))


def _filter(called: Any) -> models.Filter | None:
    return GrpcToRest.convert_filter(called.filter) if called.HasField("filter") else None


def _fields(called: Any) -> Any:
    return GrpcToRest.convert_with_payload_selector(called.with_payload)


def _record(point: dict[str, Any]) -> Any:
    return RestToGrpc.convert_record(models.Record(**point))


def _completed() -> Any:
    return api.UpdateResult(operation_id=0, status=api.UpdateStatus.Completed)


def _done() -> Any:
    return api.PointsOperationResponse(result=_completed())
