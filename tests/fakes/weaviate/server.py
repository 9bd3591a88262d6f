"""A stand-in for a Weaviate server (1.33), since no package ships the real one: REST and gRPC on loopback.

It keeps objects in memory, serves what the backend asks for, and refuses what the service refuses: names, types,
unknown properties, properties without an index, vectors of another length, more than 10,000 results, a missing tenant,
messages beyond the limit of gRPC. The modules name the parts of the service's source that they were checked against.
Requests that it does not serve are refused too. It runs in a process of its own, so that tests may fork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes import REQUIRED


@dataclass
class WeaviateServer:
    """The address of a server; `own` is the process that was started here, or None for the server of the environment."""

    host: str
    http_port: int
    grpc_port: int
    own: subprocess.Popen[str] | None = None

    def ask_for(self, operation: str, **fault: Any) -> None:
        """Let an operation fail; see `Database.ask_for`."""
        self._control("fault", {"operation": operation, **fault})

    def forget(self) -> None:
        """Remove all faults, and count requests from here."""
        self._control("forget", {})

    @property
    def requests(self) -> dict[str, int]:
        """How often each operation was requested."""
        counts: dict[str, int] = self._control("requests", {})
        return counts

    def objects(self, collection: str, tenant: str = "") -> list[dict[str, Any]]:
        """The stored objects."""
        found: list[dict[str, Any]] = self._control("objects", {"name": collection, "tenant": tenant})
        return found

    def stop(self) -> None:
        """End the process."""
        if self.own is None:
            return
        with self.own as process:  # which closes its pipes, and waits
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()

    def _control(self, what: str, body: Any) -> Any:
        if self.own is None:
            pytest.skip("the server of WEAVIATE_URL has no faults to order")
        request = urllib.request.Request(
            f"http://{self.host}:{self.http_port}/test/{what}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def start(*arguments: str) -> WeaviateServer:
    """Start a test server."""
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.weaviate", *arguments],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stdout is not None
    ports = process.stdout.readline().split()
    if len(ports) != 2:
        with process:
            process.kill()
        raise RuntimeError("the server did not start")
    return WeaviateServer("127.0.0.1", int(ports[0]), int(ports[1]), process)


@contextmanager
def weaviate(*arguments: str) -> Iterator[WeaviateServer]:
    """A server: that of `WEAVIATE_URL` (and `WEAVIATE_GRPC_PORT`), or a test server."""
    given = os.environ.get("WEAVIATE_URL")
    if given and not arguments:
        parsed = urlsplit(given)
        grpc_port = int(os.environ.get("WEAVIATE_GRPC_PORT") or 50051)
        yield WeaviateServer(parsed.hostname or "localhost", parsed.port or 80, grpc_port)
        return
    try:
        server = start(*arguments)
    except (ImportError, RuntimeError) as error:
        if REQUIRED:
            raise
        pytest.skip(f"no Weaviate server can be started: {error!r}")
    try:
        yield server
    finally:
        server.stop()
