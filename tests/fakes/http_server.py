"""A small HTTP server on the loopback interface, the base of the test servers."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    target: str = ""
    """The path and the query as they were sent."""

    @property
    def body(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.raw) if self.raw else None


@dataclass(frozen=True)
class Answer:
    """What the server answers: JSON, or text or bytes as they are."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Half(Answer):
    """An answer of which the second half does not arrive."""


class Broken:
    """Answered instead of an `Answer`, it ends the connection without a word."""


class Silent(Broken):
    """Answered instead of an `Answer`, it says nothing until the client has given up."""


class HTTPServer:
    """Serves a function from requests to answers, on a free port, until the end of a `with` block.

    Attributes:
        requests: The requests so far, in order; a test may clear the list.
        faults: Called first for each request; a result other than None is the answer.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: Callable[[Request], Answer | Broken | None] = lambda _: None
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def answer(self, request: Request) -> Answer:
        """Answer a request; to be overridden."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where it is."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                parsed = urlsplit(self.path)
                request = Request(
                    self.command,
                    unquote(parsed.path),
                    dict(parse_qsl(parsed.query, keep_blank_values=True)),
                    {name.lower(): value for name, value in self.headers.items()},
                    raw,
                    self.path,
                )
                outer.requests.append(request)
                answer = outer.faults(request) or outer.answer(request)
                if isinstance(answer, Broken):
                    self.close_connection = True
                    if isinstance(answer, Silent):
                        self.connection.settimeout(60)
                        with suppress(OSError):
                            self.connection.recv(1)  # the end
                    return
                body = answer.body if isinstance(answer.body, str | bytes) else json.dumps(answer.body)
                content = body.encode() if isinstance(body, str) else body
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if isinstance(answer, Half):
                    self.close_connection = True
                    content = content[: len(content) // 2]
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                """Write no log."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # Many clients connect at once; the default of 5 refuses some.
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exception(), ConnectionError):  # a client may go away
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
