"""The REST part of the server: /v1 for the client, and /test for tests.

Checked against the service's OpenAPI description (openapi-specs/schema.json of weaviate/weaviate).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.weaviate.database import Database, MissingError
from tests.fakes.weaviate.names import RefusedError, require


class Server(ThreadingHTTPServer):
    daemon_threads = True
    database: Database
    api_key: str
    grpc_bytes: int
    version: str


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A response is sent as a whole, at once.
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        parsed = urlsplit(self.path)
        parts = [unquote(part) for part in parsed.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(parsed.query).items()}
        database = self.server.database
        if parts[0] == "test":
            self._answer(200, self._control(parts[1], body))
            return
        fault = database.fault(f"{self.command} {parsed.path}")
        if fault is not None and "code" in fault:
            self._answer(int(fault["code"]), {"error": [{"message": fault["text"]}]})
            return
        key = self.server.api_key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self._answer(401, {"code": 401, "message": "anonymous access not enabled, please provide an auth scheme"})
            return
        try:
            with database.lock:
                self._answer(*self._route(parts[1:], query, body))
        except MissingError as error:
            self._answer(404, {"error": [{"message": str(error)}]})
        except RefusedError as error:
            self._answer(422, {"error": [{"message": str(error)}]})

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

    def _route(self, parts: list[str], query: dict[str, str], body: Any) -> tuple[int, Any]:  # noqa: C901 - a line for each route
        database = self.server.database
        match self.command, *parts:
            case "GET", "meta":
                return 200, {
                    "version": self.server.version,
                    "grpcMaxMessageSize": self.server.grpc_bytes,
                    "modules": {},
                }
            case "GET", ".well-known", "ready" | "live":
                return 200, None
            case "GET", ".well-known", "openid-configuration":
                return 404, None
            case "POST", "schema":
                return 200, database.create(body)
            case "GET", "schema", name:
                return 200, database.definition(name)
            case "DELETE", "schema", name:
                database.drop(name)
                return 200, None
            case "POST", "schema", name, "properties":
                database.add_property(name, body)
                return 200, body
            case "HEAD" | "GET", "schema", name, "tenants", tenant:
                found = tenant in database.tenants(name)
                return (200, {"name": tenant, "activityStatus": "ACTIVE"}) if found else (404, None)
            case "POST", "schema", name, "tenants":
                database.add_tenants(name, [each["name"] for each in body])
                return 200, body
            case "PATCH", "objects", name, uuid:
                found = database.shard(name, body.get("tenant", "")).merge(
                    uuid, body["properties"], body.get("vectors", {})
                )
                return (204, None) if found else (404, None)
            case "DELETE", "objects", name, uuid:
                found = database.shard(name, query.get("tenant", "")).remove(uuid)
                return (204, None) if found else (404, None)
        require(False, f"{self.command} /v1/{'/'.join(parts)} is not served here")
        return 501, None

    def _control(self, what: str, body: Any) -> Any:
        database = self.server.database
        actions: dict[str, Callable[[], Any]] = {
            "fault": lambda: database.ask_for(body),
            "forget": database.forget,
            "requests": lambda: dict(database.requests),
            "objects": lambda: self._objects(**body),
        }
        return actions[what]()

    def _objects(self, name: str, tenant: str = "") -> list[dict[str, Any]]:
        with self.server.database.lock:
            stored = self.server.database.shard(name, tenant).objects.values()
            return [
                {"uuid": each.uuid, "properties": each.properties, "vectors": sorted(each.vectors)} for each in stored
            ]

    def _answer(self, status: int, content: Any) -> None:
        text = b"" if content is None else json.dumps(content, default=_plain).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(text)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
