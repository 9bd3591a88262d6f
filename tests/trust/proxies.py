"""Proxies that break what passes through them: a connection at any byte, or the answer to a request."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from tests.fakes.http_server import Answer, Broken, Half, HTTPServer, Request

# Headers that belong to a connection, or that the proxy writes itself.
_OF_A_CONNECTION = {"connection", "content-length", "transfer-encoding", "keep-alive", "host", "server", "date"}


class Wire:
    """Forwards connections, on a free port, until the end of a `with` block.

    Attributes:
        left: Number of bytes, in both directions together, after which every connection breaks. None for no limit.
        broken: Number of connections that it broke.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.left: int | None = None
        self.broken = 0
        self._connect = connect
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._break_all()

    def _serve(self) -> None:
        with suppress(OSError):  # the end
            while True:
                client, _ = self._listener.accept()
                if self.left == 0:
                    self._break(client)
                    continue
                with self._lock:
                    server = self._connect()
                    self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one side is gone
            while data := source.recv(65536):
                with self._lock:
                    passes = len(data) if self.left is None else min(self.left, len(data))
                    self.left = None if self.left is None else self.left - passes
                target.sendall(data[:passes])
                if passes < len(data) or self.left == 0:
                    self.broken += 1
                    self._break_all()
        for end in (source, target):
            self._break(end)

    def _break_all(self) -> None:
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            self._break(end)

    def _break(self, end: socket.socket) -> None:
        with suppress(OSError):  # it is closed already
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Gateway(HTTPServer):
    """Forwards requests to a server; `faults` decides which of them to answer otherwise."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = urlsplit(upstream).netloc

    def answer(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self._upstream, timeout=120)
        headers = {name: value for name, value in request.headers.items() if name not in _OF_A_CONNECTION}
        # Bodies pass as they are: no compression to undo.
        headers |= {"accept-encoding": "identity", "host": self._upstream}
        try:
            connection.request(request.method, request.target, request.raw or None, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_A_CONNECTION}
            # A server that names its own address means the proxy's.
            body = answer.read().replace(self._upstream.encode(), urlsplit(self.url).netloc.encode())
            return Answer(body, answer.status, {name.lower(): value for name, value in kept.items()})
        finally:
            connection.close()

    def break_at(self, number: int, fault: Answer | Broken | None, *, carried_out: bool, lasting: bool) -> None:
        """Answer one of the next requests, or it and all after it, otherwise.

        Args:
            number: How many requests pass before it.
            fault: The answer; None for half of the server's answer.
            carried_out: Whether the server gets the request all the same.
            lasting: Whether all later requests fail, too.
        """
        first = len(self.requests) + 1 + number

        def faults(request: Request) -> Answer | Broken | None:
            seen = len(self.requests)
            if seen < first or (seen > first and not lasting):
                return None
            own = self.answer(request) if carried_out or fault is None else None
            return fault if own is None or fault is not None else Half(own.body, own.status, own.headers)

        self.faults = faults
