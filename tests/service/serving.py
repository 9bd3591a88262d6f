"""A service in a thread of the tests, and one in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.keys import KeyStore
from dynamiq_memory.server.run import TimeoutProtocol
from dynamiq_memory.server.settings import Settings

SECONDS = 120
_numbers = itertools.count()


@dataclass
class Service:
    """A running service and its store."""

    url: str
    store: MemoryBackend

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """A client of it, maybe with a key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # Reading certificates takes longer than most tests.
        settings: dict[str, Any] = {"timeout": 60, "base_url": self.url, "headers": headers, "verify": False}
        return httpx.Client(**settings | options)

    def new_memory(self) -> str:
        """The id of a memory that nobody has used."""
        return f"memory-{next(_numbers)}"


class PromptServer(uvicorn.Server):
    """Ends as soon as it should; uvicorn's server checks ten times a second."""

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            await asyncio.sleep(0.01)


@contextmanager
def running(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port of this machine; gives its URL."""
    # With its protocol named, asyncio sends small answers at once.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=TimeoutProtocol, ws="none", lifespan="off", log_config=None, access_log=False, **options
    )
    server = PromptServer(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + SECONDS
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        # A client that reads no further must not hold up the end.
        server.force_exit = True
        thread.join(SECONDS)
        listener.close()
    assert not thread.is_alive()


@contextmanager
def serving(store: MemoryBackend, keys: KeyStore | None = None, **settings: Any) -> Iterator[Service]:
    """Serve a store."""
    settings.setdefault("rate", None)
    with running(create_app(store, keys, Settings(**settings))) as url:
        yield Service(url, store)


class ServiceProcess:
    """`dynamiq-memory serve` as a process of its own, on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, *options: str, backend: str | None = None) -> None:
        self.folder = folder
        self.options = options
        self.backend = backend or f"sqlite:///{folder / 'served.db'}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-W", "error", "-m", "dynamiq_memory.cli", "serve", "--backend", self.backend]
        command += ["--port", str(self.port), "--rate", "none", *self.options]
        keys = self.folder / "keys.db"
        command += ["--keys", str(keys)] if keys.exists() else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stderr=log,
                stdout=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        deadline = time.monotonic() + SECONDS
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the service did not start in time"
            try:
                if httpx.get(f"{self.url}/healthz", trust_env=False, timeout=60).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
