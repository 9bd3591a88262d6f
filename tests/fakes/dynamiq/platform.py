"""A fake of the Dynamiq platform, with the three endpoints for the items of a memory."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "platform-key"
_KNOWN = {"user_id", "session_id", "type", "data", "metadata"}


@dataclass
class Platform:
    """Its items, the requests that it received, and its behaviour.

    Attributes:
        pages: Whether it supports the parameter `page`, and says how many pages there are.
        largest_page: Maximum number of items in a page.
        failures: The next responses: each a status (0 for no failure) and headers, or None to hang up.
        hang_up_after: The number of requests to carry out and then to hang up on, without a response.
    """

    url: str = ""
    pages: bool = True
    largest_page: int = 500
    failures: list[tuple[int, dict[str, str]] | None] = field(default_factory=list)
    hang_up_after: int = 0
    items: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_memory(self) -> str:
        """The id of an unused memory."""
        return f"memory-{next(self.numbers)}"

    def post(self, memory_id: str, body: Any) -> tuple[int, Any]:
        if not isinstance(body, dict) or not body.keys() <= _KNOWN or not body.get("user_id"):
            return 422, {"detail": "user_id, type and data are required"}
        with self.lock:
            number = next(self.numbers)
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.items.append(
                {"id": f"item-{number}", "memory_id": memory_id, **body, "created_at": now, "updated_at": now}
            )
        return 201, {"data": {"id": f"item-{number}"}}

    def get(self, memory_id: str, params: dict[str, list[str]]) -> tuple[int, Any]:
        size, number = (int(params.get(name, [default])[0]) for name, default in (("page_size", "25"), ("page", "1")))
        if not params.get("user_id") or not 1 <= size <= self.largest_page:
            return 422, {"detail": f"user_id is required, and page_size is at most {self.largest_page}"}
        scope = {"memory_id": memory_id, "user_id": params["user_id"][0]}
        everything = params.get("include_scope") == ["user", "session"]
        sessions = params.get("session_id", [None])
        found = [
            item
            for item in self.items
            if item.items() >= scope.items() and (everything or item.get("session_id") in sessions)
        ]
        if params.get("sort") == ["-created_at"]:
            found.reverse()
        start = (number - 1) * size if self.pages else 0
        answer: dict[str, Any] = {"data": json.loads(json.dumps(found[start : start + size]))}
        if self.pages:
            answer["pagination"] = {"page_count": -(-len(found) // size), "total_count": len(found)}
        return 200, answer

    def delete(self, memory_id: str, params: dict[str, list[str]]) -> tuple[int, Any]:
        if not params.get("user_id"):
            return 422, {"detail": "user_id is required"}
        scope = {"memory_id": memory_id, "user_id": params["user_id"][0]}
        (session_id,) = params.get("session_id", [None])
        with self.lock:
            self.items = [
                item for item in self.items if not item.items() >= scope.items() or item.get("session_id") != session_id
            ]
        return 204, None


@contextmanager
def platform() -> Iterator[Platform]:
    """Run a fake platform."""
    state = Platform()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # sends a response in one piece; a second one would wait for the client's acknowledgement

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            state.requests.append((self.command, self.path, body))
            segments = parts.path.split("/")
            failure = state.failures.pop(0) if state.failures else (0, {})
            if failure is None:
                self.close_connection = True
                return
            status, headers = failure
            answer: Any = {"detail": "not now"}
            if status:
                pass
            elif self.headers.get("Authorization") != f"Bearer {KEY}":
                status, answer = 401, {"detail": f"wrong key: {self.headers.get('Authorization')}"}
            elif len(segments) != 5 or segments[1:3] != ["v1", "memories"] or segments[4] != "items":
                status, answer = 404, {"detail": "not found"}
            elif self.command == "POST":
                status, answer = state.post(segments[3], body)
            else:
                params = parse_qs(parts.query)
                status, answer = (state.get if self.command == "GET" else state.delete)(segments[3], params)
            if state.hang_up_after:
                state.hang_up_after -= 1
                self.close_connection = True
                return
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names of the standard library

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
