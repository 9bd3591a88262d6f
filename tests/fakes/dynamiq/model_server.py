"""A model with the part of the OpenAI API that agents need: it plays a script and remembers its requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | dict[str, Any] | int
"""A text, a message with tool calls, or the status of a failure."""
Script = Sequence[Answer] | Callable[[list[dict[str, Any]]], Answer]


class ModelServer(ThreadingHTTPServer):
    """Answers `POST /v1/chat/completions`, at once or as a stream of events."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self._script = script
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def prompts(self) -> list[list[dict[str, Any]]]:
        return [request["messages"] for request in self.requests]

    def play(self, script: Script) -> None:
        """Go on with another script."""
        with self._lock:
            self._script = script
            self.requests.clear()

    def answer(self, body: dict[str, Any]) -> Answer:
        with self._lock:
            self.requests.append(body)
            if not callable(self._script):
                return self._script[len(self.requests) - 1]
        return self._script(body["messages"])


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answer(body)
        if isinstance(answer, int):
            self._reply(answer, {"error": {"message": "scripted failure", "type": "server_error", "code": None}})
            return
        message = {"role": "assistant", **({"content": answer} if isinstance(answer, str) else answer)}
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        if body.get("stream"):
            self._stream(message, reason)
            return
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._reply(200, {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _stream(self, message: dict[str, Any], reason: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        text, calls = message.get("content") or "", message.get("tool_calls") or []
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text[at : at + 7]} for at in range(0, len(text), 7)]
        deltas += [{"tool_calls": [{"index": number, **call}]} for number, call in enumerate(calls)]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        for choice in choices:
            event = json.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]})
            self.wfile.write(f"data: {event}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _reply(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


_HEAD = {"id": "completion", "created": 0, "model": "test-model"}


@contextmanager
def serving(script: Script = ()) -> Iterator[ModelServer]:
    """Serve a script on a port of this machine."""
    with ModelServer(script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
