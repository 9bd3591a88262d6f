"""A server with Pinecone's HTTP API that rejects the same requests as the service.

Written from the service's public reference (https://docs.pinecone.io/reference/api, the versions up to 2026-07, and
its pages on database limits, data freshness and metadata filters), and checked against the requests and the response
models of the clients `pinecone` 7.3, 8.0 and 10.2 and `pinecone-client` 3.2. It was not compared with the service
itself. It enforces or imitates:

- ids of 1 to 512 ASCII characters; vectors of the index's dimension, finite, and not all zero;
- metadata up to 40 KB, of strings, numbers, booleans and lists of strings, without null and keys with a `$`;
- up to 1,000 vectors and 2 MB in an upsert, 1,000 ids in a fetch or a deletion, 8 KB in a URL;
- up to 10,000 results of a query, and 4 MB; filters of the documented operators only;
- listing by prefix in the order of bytes, up to 100 per page, on serverless indexes only;
- eventual consistency: writes are acknowledged at once and shown after `lag` seconds, or after `release()`;
- namespaces that begin with their first upsert, and errors for deletions in a missing one;
- wrong API keys, and faults that a test asks for.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import mul
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API_KEY = "pcsk_test-key"
KB = 1024
MOST_IDS = 1_000
MOST_RESULTS = 10_000
MOST_IN_LIST = 100
MOST_URL = 8 * KB
MOST_UPSERT = 2 * KB * KB
MOST_RESULT = 4 * KB * KB
MOST_METADATA = 40 * KB
LONGEST_ID = 512

Json = dict[str, Any]


class RefusedError(Exception):
    """The service would refuse this request."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def require(holds: bool, text: str) -> None:
    if not holds:
        raise RefusedError(text)


# --- valid records -----------------------------------------------------------------------------------------------


def check_id(value: Any) -> None:
    require(isinstance(value, str) and value.isascii() and "\0" not in value, f"Vector ID must be ASCII, got {value!r}")
    require(1 <= len(value) <= LONGEST_ID, f"Vector ID must have 1 to {LONGEST_ID} characters, got {len(value)}")


def check_values(values: Any, dimension: int) -> None:
    require(isinstance(values, list), "Vector values are missing")
    require(
        len(values) == dimension,
        f"Vector dimension {len(values)} does not match the dimension of the index {dimension}",
    )
    numbers = set(map(type, values)) <= {int, float} and all(map(math.isfinite, values))
    require(numbers, "Vector values must be finite numbers")
    require(any(values), "Dense vectors must contain at least one non-zero value")


def check_metadata(metadata: Any) -> None:
    require(isinstance(metadata, dict), "Metadata must be an object")
    for key, value in metadata.items():
        require(key != "" and not key.startswith("$"), f"Metadata key {key!r} is not allowed")
        strings = isinstance(value, list) and all(isinstance(each, str) for each in value)
        number = isinstance(value, int | float) and math.isfinite(value)
        require(
            isinstance(value, str) or number or strings,
            f"Metadata value must be a string, number, boolean or list of strings, got {value!r:.50} for field {key!r:.50}",
        )
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "strict"))
    require(
        size <= MOST_METADATA,
        f"Metadata size is {size} bytes, which exceeds the limit of {MOST_METADATA} bytes per vector",
    )


# --- filters -----------------------------------------------------------------------------------------------------


Predicate = Callable[[Json], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _normal(value: Any) -> Any:
    """Return a value as the service compares it: numbers are floats, and booleans are not numbers."""
    return float(value) if _number(value) else (type(value), value)


def _values(actual: Any) -> list[Any]:
    return [_normal(each) for each in actual] if isinstance(actual, list) else [_normal(actual)]


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


def compiled(condition: Any) -> Predicate:
    """Compile a filter."""
    require(isinstance(condition, dict), "A filter must be an object")
    parts = [_part(key, wanted) for key, wanted in condition.items()]
    return parts[0] if len(parts) == 1 else lambda metadata: all(part(metadata) for part in parts)


def _part(key: str, wanted: Any) -> Predicate:
    if key in ("$and", "$or"):
        require(isinstance(wanted, list) and wanted != [], f"{key} needs a list")
        parts, combine = [compiled(part) for part in wanted], all if key == "$and" else any
        return lambda metadata: combine(part(metadata) for part in parts)
    require(not key.startswith("$"), f"{key} is not a valid operator")
    operators = wanted if isinstance(wanted, dict) else {"$eq": wanted}
    require(operators != {}, f"no operator for {key!r}")
    tests = [_test(operator, value) for operator, value in operators.items()]
    return lambda metadata: all(test(key in metadata, metadata.get(key)) for test in tests)


def _test(operator: str, value: Any) -> Callable[[bool, Any], bool]:
    if operator == "$exists":
        require(isinstance(value, bool), "$exists needs a boolean")
        return lambda present, _: present is value
    if operator in _COMPARE:
        require(_number(value), f"{operator} needs a number")
        compare = _COMPARE[operator]
        return lambda _, actual: _number(actual) and compare(float(actual), float(value))
    if operator in ("$in", "$nin"):
        require(isinstance(value, list) and len(value) <= 10_000, f"{operator} needs a list of at most 10,000 values")
        texts, numbers = (all(map(is_kind, value)) for is_kind in (_text, _number))
        require(texts or numbers, f"{operator} needs strings, or numbers")
        options = set(map(_normal, value))
    else:
        require(operator in ("$eq", "$ne"), f"{operator} is not a valid operator")
        require(isinstance(value, str | int | float | bool), f"{operator} needs a string, number or boolean")
        options = {_normal(value)}
    wanted = operator in ("$in", "$eq")
    return lambda present, actual: (present and any(each in options for each in _values(actual))) is wanted


# --- indexes -----------------------------------------------------------------------------------------------------


@dataclass
class Index:
    """An index with its settings and namespaces."""

    name: str
    dimension: int
    metric: str
    spec: Json
    ready_after: int = 0
    state: str = "Initializing"
    namespaces: dict[str, dict[str, Json]] = field(default_factory=dict)

    @property
    def is_pod(self) -> bool:
        return "pod" in self.spec

    def described(self, url: str, version: str) -> Json:
        """Describe the index as this version of the API does."""
        self.ready_after -= 1
        ready = self.ready_after < 0
        common = {
            "name": self.name,
            "host": f"{url}/host/{self.name}",
            "status": {"ready": ready, "state": "Ready" if ready else self.state},
            "deletion_protection": "disabled",
        }
        if version >= "2026-07":
            (kind, settings), *_ = self.spec.items()
            deployment = {"deployment_type": "pod" if kind == "pod" else "managed", **settings}
            deployment.pop("pods", None)
            vector = {"type": "dense_vector", "dimension": self.dimension, "metric": self.metric}
            return {**common, "schema": {"fields": {"_values": vector}}, "deployment": deployment}
        spec = self.spec
        if version >= "2025-10" and not self.is_pod:
            spec = {
                "serverless": {
                    **spec["serverless"],
                    "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
                }
            }
        return {**common, "dimension": self.dimension, "metric": self.metric, "spec": spec, "vector_type": "dense"}

    def score(self, query: list[float], values: list[float]) -> float:
        if self.metric == "euclidean":
            return sum((a - b) ** 2 for a, b in zip(query, values, strict=True))
        product: float = sum(map(mul, query, values))
        if self.metric == "dotproduct":
            return product
        length: float = math.hypot(*query) * math.hypot(*values)
        return product / length


def index_of(body: Json) -> Index:
    """Make the index of a request to create one, in the form of any version of the API."""
    name = body.get("name", "")
    valid = isinstance(name, str) and 1 <= len(name) <= 45 and name.isascii()
    require(
        valid and all(c.islower() or c.isdigit() or c == "-" for c in name),
        f"Name {name!r} must consist of lower case alphanumeric characters or '-'",
    )
    require(name[0] != "-" and name[-1] != "-", "Name must start and end with an alphanumeric character")
    if "schema" in body:
        fields = body["schema"]["fields"]
        require(list(fields) == ["_values"], "the vectors API serves indexes with the field _values alone")
        vector, deployment = fields["_values"], dict(body["deployment"])
        kind = "pod" if deployment.pop("deployment_type") == "pod" else "serverless"
        dimension, metric, spec = vector["dimension"], vector.get("metric", "cosine"), {kind: deployment}
    else:
        dimension, metric, spec = body.get("dimension"), body.get("metric", "cosine"), body["spec"]
    require(isinstance(dimension, int) and 1 <= dimension <= 20_000, f"Dimension {dimension} must be from 1 to 20,000")
    require(metric in ("cosine", "euclidean", "dotproduct"), f"Metric {metric!r} is unknown")
    (kind, settings), *_ = spec.items()
    needed = ("environment", "pod_type") if kind == "pod" else ("cloud", "region")
    for each in needed:
        require(isinstance(settings.get(each), str) and settings[each] != "", f"{each} is missing in the spec")
    return Index(name, dimension, metric, spec)


@dataclass
class Fault:
    """A fault of the next requests.

    Attributes:
        path: The end of their path.
        times: The number of requests.
        status: The status of the response; 0 breaks the connection.
        retry_after: The header with the seconds to wait.
        late: Whether to carry out the request nevertheless.
        skip: The number of requests to serve before.
    """

    path: str
    times: int = 1
    status: int = 503
    retry_after: str | None = "0"
    late: bool = False
    skip: int = 0


class PineconeServer(ThreadingHTTPServer):
    """The service, on a port of this machine.

    Attributes:
        lag: Seconds until writes are shown.
        faults: The faults of the next requests.
        requests: The number of requests by path.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, lag: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lag = lag
        self.indexes: dict[str, Index] = {}
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.ready_after = 0
        self.lock = threading.RLock()
        self._pending: list[tuple[float, Callable[[], None]]] = []
        self._held = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may go away
            super().handle_error(request, client_address)

    def reset(self) -> None:
        """Forget all indexes and settings of a test."""
        with self.lock:
            self.indexes.clear()
            self.faults.clear()
            self.requests.clear()
            self._pending.clear()
            self.lag, self.ready_after, self._held = 0.0, 0, False

    def hold(self) -> None:
        """Show no writes from now on, until `release`."""
        self._held = True

    def release(self) -> None:
        """Show all writes."""
        with self.lock:
            self._held = False
            for _, change in self._pending:
                change()
            self._pending.clear()

    def write(self, change: Callable[[], None]) -> None:
        """Accept a change, to show it later."""
        with self.lock:
            self._pending.append((time.monotonic() + self.lag, change))
            self.catch_up()

    def catch_up(self) -> None:
        """Show the writes that are old enough, in their order."""
        while self._pending and not self._held and self._pending[0][0] <= time.monotonic():
            self._pending.pop(0)[1]()

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if path.endswith(fault.path) and fault.times > 0:
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: PineconeServer

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests[parts.path.rpartition("/host/")[2].partition("/")[2] or parts.path] += 1
        fault = self.server.fault(parts.path)
        if fault is not None and not fault.late:
            self._fail(fault)
            return
        answer: Json | str
        try:
            status, answer = 200, self._answer(parts.path, parse_qs(parts.query, keep_blank_values=True), raw)
            if self.command == "POST" and parts.path == "/indexes":
                status = 201
        except RefusedError as refused:
            status, answer = refused.status, self._refusal(parts.path, refused)
        if fault is not None:
            self._fail(fault)
            return
        self._reply(status, answer)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

    def _refusal(self, path: str, refused: RefusedError) -> Json | str:
        if refused.status == 401:
            return "Invalid API Key"
        if path.startswith("/indexes"):
            codes = {404: "NOT_FOUND", 409: "ALREADY_EXISTS"}
            return {
                "error": {"code": codes.get(refused.status, "INVALID_ARGUMENT"), "message": str(refused)},
                "status": refused.status,
            }
        return {"code": 3, "message": str(refused), "details": []}

    def _fail(self, fault: Fault) -> None:
        if fault.status == 0:
            self.close_connection = True
            return
        headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
        self._reply(fault.status, {"code": 8, "message": "a fault of the test's", "details": []}, headers)

    def _reply(self, status: int, answer: Json | str, headers: dict[str, str] | None = None) -> None:
        plain = isinstance(answer, str)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if plain else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, path: str, query: dict[str, list[str]], raw: bytes) -> Json:
        if self.headers.get("Api-Key") != API_KEY:
            raise RefusedError("Invalid API Key", 401)
        if len(self.path) > MOST_UPSERT or (self.command == "GET" and len(self.path) > MOST_URL):
            raise RefusedError("URI too long", 414)
        if len(raw) > MOST_UPSERT:
            raise RefusedError(f"Request size {len(raw)} exceeds the limit of 2 MB", 413)
        body = json.loads(raw) if raw else {}
        with self.server.lock:
            self.server.catch_up()
            if path.startswith("/indexes"):
                return self._control(unquote(path.removeprefix("/indexes").strip("/")), body)
            _, _, name, *rest = path.split("/")
            operation = "/".join(rest)
            if not path.startswith("/host/") or name not in self.server.indexes:
                raise RefusedError("no such host", 404)
            index = self.server.indexes[name]
            known = {
                "vectors/upsert": lambda: self._upsert(index, body),
                "vectors/update": lambda: self._update(index, body),
                "vectors/fetch": lambda: self._fetch(index, query),
                "vectors/list": lambda: self._list(index, query),
                "vectors/delete": lambda: self._delete(index, body),
                "query": lambda: self._query(index, body),
                "describe_index_stats": lambda: self._stats(index),
            }
            if operation not in known:
                raise RefusedError(f"no such operation: {operation}", 404)
            return known[operation]()

    # --- the control plane -----------------------------------------------------------------------------------

    def _control(self, name: str, body: Json) -> Json:
        server, version = self.server, self.headers.get("X-Pinecone-Api-Version") or ""
        if not name and self.command == "POST":
            made = index_of(body)
            if made.name in server.indexes:
                raise RefusedError("Resource already exists", 409)
            made.ready_after = server.ready_after
            server.indexes[made.name] = made
            return made.described(server.url, version)
        if not name:
            return {"indexes": [index.described(server.url, version) for index in server.indexes.values()]}
        if name not in server.indexes:
            raise RefusedError(f"Resource {name} not found", 404)
        if self.command == "DELETE":
            del server.indexes[name]
            return {}
        return server.indexes[name].described(server.url, version)

    # --- the data plane --------------------------------------------------------------------------------------

    def _upsert(self, index: Index, body: Json) -> Json:
        vectors = body.get("vectors") or []
        require(1 <= len(vectors) <= MOST_IDS, f"an upsert takes 1 to {MOST_IDS} vectors, got {len(vectors)}")
        for vector in vectors:
            check_id(vector.get("id"))
            check_values(vector.get("values"), index.dimension)
            check_metadata(vector.get("metadata") or {})
        ids = {vector["id"] for vector in vectors}
        require(len(ids) == len(vectors), "one id twice in an upsert")
        held = index.namespaces.setdefault(body.get("namespace") or "", {})
        new = {v["id"]: {"id": v["id"], "values": v["values"], "metadata": v.get("metadata") or {}} for v in vectors}
        self.server.write(lambda: held.update(new))
        return {"upsertedCount": len(vectors)}

    def _update(self, index: Index, body: Json) -> Json:
        check_id(body.get("id"))
        check_values(body.get("values"), index.dimension)
        check_metadata(body.get("setMetadata") or {})
        held = index.namespaces.get(body.get("namespace") or "", {})

        def update() -> None:
            if (stored := held.get(body["id"])) is not None:
                metadata = stored["metadata"] | (body.get("setMetadata") or {})
                held[body["id"]] = stored | {"values": body["values"], "metadata": metadata}

        self.server.write(update)
        return {}

    def _fetch(self, index: Index, query: dict[str, list[str]]) -> Json:
        ids = query.get("ids", [])
        require(1 <= len(ids) <= MOST_IDS, f"a fetch takes 1 to {MOST_IDS} ids, got {len(ids)}")
        namespace = query.get("namespace", [""])[0]
        held = index.namespaces.get(namespace, {})
        return {
            "vectors": {each: held[each] for each in ids if each in held},
            "namespace": namespace,
            "usage": {"readUnits": 1},
        }

    def _list(self, index: Index, query: dict[str, list[str]]) -> Json:
        require(not index.is_pod, "This operation is only supported for serverless indexes")
        namespace, prefix = query.get("namespace", [""])[0], query.get("prefix", [""])[0]
        limit = int(query.get("limit", [str(MOST_IN_LIST)])[0])
        require(1 <= limit <= MOST_IN_LIST, f"limit must be from 1 to {MOST_IN_LIST}")
        token = query.get("paginationToken", [""])[0]
        behind = base64.b64decode(token).decode() if token else ""
        found = sorted(
            each for each in index.namespaces.get(namespace, {}) if each.startswith(prefix) and each > behind
        )
        answer: Json = {
            "vectors": [{"id": each} for each in found[:limit]],
            "namespace": namespace,
            "usage": {"readUnits": 1},
        }
        if len(found) > limit:
            answer["pagination"] = {"next": base64.b64encode(found[limit - 1].encode()).decode()}
        return answer

    def _delete(self, index: Index, body: Json) -> Json:
        ids = body.get("ids")
        everything = body.get("deleteAll") is True
        some = isinstance(ids, list) and 1 <= len(ids) <= MOST_IDS
        require(some is not everything, f"a deletion takes 1 to {MOST_IDS} ids, or deleteAll")
        held = index.namespaces.get(body.get("namespace") or "")
        if held is None:
            raise RefusedError("Namespace not found", 404)

        def delete() -> None:
            for each in list(held) if everything else ids or ():
                held.pop(each, None)

        self.server.write(delete)
        return {}

    def _query(self, index: Index, body: Json) -> Json:
        top_k, vector, condition = body.get("topK"), body.get("vector"), body.get("filter") or {}
        require(isinstance(top_k, int) and 1 <= top_k <= MOST_RESULTS, f"topK must be from 1 to {MOST_RESULTS}")
        check_values(vector, index.dimension)
        fits = compiled(condition)
        namespace = body.get("namespace") or ""
        held = [each for each in index.namespaces.get(namespace, {}).values() if fits(each["metadata"])]
        scored = [(index.score(vector or [], each["values"]), each) for each in held]
        scored.sort(key=lambda pair: (pair[0] if index.metric == "euclidean" else -pair[0], pair[1]["id"]))
        found = []
        for score, each in scored[: top_k or 0]:
            found.append({"id": each["id"], "score": score})
            if body.get("includeValues"):
                found[-1]["values"] = each["values"]
            if body.get("includeMetadata"):
                found[-1]["metadata"] = each["metadata"]
        size = len(json.dumps(found, ensure_ascii=False))
        require(size <= MOST_RESULT, f"the result of {size} bytes exceeds the limit of 4 MB")
        return {"matches": found, "namespace": namespace, "usage": {"readUnits": 5}}

    def _stats(self, index: Index) -> Json:
        counts = {name: {"vectorCount": len(held)} for name, held in index.namespaces.items()}
        total = sum(each["vectorCount"] for each in counts.values())
        return {"namespaces": counts, "dimension": index.dimension, "indexFullness": 0, "totalVectorCount": total}


@contextmanager
def running(lag: float = 0.0) -> Iterator[PineconeServer]:
    """Run a server until the end of the block."""
    with PineconeServer(lag) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
