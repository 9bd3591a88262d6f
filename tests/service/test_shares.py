"""No client takes the service away from others: shares, time limits, idle connections, hostile requests."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn

from dynamiq_memory.backends import InMemory
from dynamiq_memory.backends.operations import Count, Operation
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.server import guard, run
from dynamiq_memory.server.access import MAX_FILTER_KEYS, MAX_FILTER_VALUES
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.keys import KeyStore
from dynamiq_memory.server.settings import Settings
from tests.service.serving import SECONDS, Service, running, serving

COUNT = "/v1/memories/m/items/count"
ITEMS = "/v1/memories/m/items"


class Waiting(InMemory):
    """Counts only when it is let; other operations are as quick as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0

    def _count(self, filter: Any) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.let.wait(SECONDS)
        with self.lock:
            self.now -= 1
        return super()._count(filter)


class Endless(InMemory):
    """Counts for ever, until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def _aperform(self, operation: Operation[Any]) -> Any:
        if not isinstance(operation, Count):
            return await super()._aperform(operation)
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def open_requests(api: httpx.Client) -> int:
    """How many requests the service has not answered yet, with the one that asks."""
    lines = api.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("dynamiq_memory_open_requests "))))


def connected(service_url: str) -> socket.socket:
    parts = urlsplit(service_url)
    return socket.create_connection((str(parts.hostname), parts.port or 0), timeout=SECONDS)


def test_one_key_has_its_share_and_others_theirs(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WAITING_REQUESTS", 6)
    greedy, other = (keys.create(["m"], user)[1] for user in ("greedy", "other"))
    with (
        Waiting() as store,
        serving(store, keys, max_concurrent=3) as service,
        ThreadPoolExecutor(20) as pool,
        service.client(greedy) as many,
        service.client(other) as one,
    ):
        answers = [pool.submit(many.post, COUNT, json={}) for _ in range(12)]
        until(lambda: store.now == 3 and sum(each.done() for each in answers) == 3)
        refused = [each.result() for each in answers if each.done()]
        assert [answer.status_code for answer in refused] == [429] * 3
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert one.post(f"{ITEMS}/query", json={}).status_code == 200
        assert one.get("/healthz").status_code == 200
        store.let.set()
        assert sorted(each.result().status_code for each in answers) == [200] * 9 + [429] * 3
        assert store.most == 3
        assert many.post(COUNT, json={}).status_code == 200


def test_a_request_that_takes_too_long_is_stopped() -> None:
    with Endless() as store, serving(store, request_timeout=1.0, max_concurrent=1) as service, service.client() as api:
        answer = api.post(COUNT, json={})
        assert (answer.status_code, answer.json()["type"]) == (503, "RequestTimeout")
        assert "--request-timeout" in answer.json()["detail"]
        assert store.cancelled.is_set() == store.started.is_set()  # a busy machine may take as long as that to start
        assert api.post(f"{ITEMS}/query", json={}).status_code == 200


def test_a_request_whose_client_is_gone_is_stopped() -> None:
    with Endless() as store, serving(store, max_concurrent=1) as service:
        with connected(service.url) as client:
            head = f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2"
            client.sendall(f"{head}\r\n\r\n{{}}".encode())
            assert store.started.wait(SECONDS)
        assert store.cancelled.wait(SECONDS)
        with service.client() as api:
            assert api.post(f"{ITEMS}/query", json={}).status_code == 200


def test_a_waiting_request_whose_client_is_gone_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WAITING_REQUESTS", 2)
    body = f'{{"filters": {{"k": "{"x" * 1000}"}}}}'.encode()
    head = f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = f"{head}\r\n\r\n".encode() + body

    with Waiting() as store, serving(store, max_concurrent=1) as service, service.client() as api:
        with ExitStack() as clients:
            for number in range(3):
                client = clients.enter_context(connected(service.url))
                client.sendall(request if number < 2 else request[:-500])
                until(lambda count=number + 2: open_requests(api) == count)  # type: ignore[misc]
            assert api.get(ITEMS).status_code == 429
        # One is handled; the two that waited are gone, one of them before all of its body came.
        until(lambda: open_requests(api) == 2)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(api.get, ITEMS)
            until(lambda: open_requests(api) == 3)
            store.let.set()
            assert waits.result().status_code == 200
        assert store.most == 1


@pytest.mark.parametrize(
    "filters",
    [{f"k{n}": 1 for n in range(MAX_FILTER_KEYS + 1)}, {"k": list(range(MAX_FILTER_VALUES + 1))}],
    ids=["keys", "values"],
)
def test_a_filter_has_a_size(open_service: Service, filters: dict[str, Any]) -> None:
    with open_service.client() as api:
        for path in (
            COUNT,
            f"{ITEMS}/query",
            f"{ITEMS}/take",
            "/v1/memories/m/search",
            "/v1/memories/m/sessions/query",
        ):
            answer = api.post(path, json={"filters": filters})
            assert (answer.status_code, answer.json()["type"]) == (422, "FilterError")
            assert (
                f"{max(len(filters), *(len(v) for v in filters.values() if isinstance(v, list)), 0):,}" in answer.text
            )
        fewer = dict(list(filters.items())[:MAX_FILTER_KEYS]) if len(filters) > 1 else {"k": filters["k"][1:]}
        assert api.post(COUNT, json={"filters": fewer}).json() == {"count": 0}


@pytest.mark.parametrize("path", [ITEMS, "/healthz"])
def test_a_body_with_two_lengths_ends_the_connection(open_service: Service, path: str) -> None:
    smuggled = f"GET {ITEMS} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    with connected(open_service.url) as client:
        client.sendall(f"{head}\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}".encode())
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_idle_connections_make_way_for_new_ones() -> None:
    with InMemory() as store, running(create_app(store, None, Settings(rate=None)), limit_concurrency=5) as url:
        idle = [connected(url) for _ in range(4)]
        for client in idle[:2]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        for _ in range(8):
            assert httpx.get(f"{url}/healthz", timeout=SECONDS, headers={"Connection": "keep-alive"}).status_code == 200
            idle.append(connected(url))
        for client in idle:
            client.close()


def test_only_named_proxies_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[uvicorn.Config] = []
    monkeypatch.setattr(run.Server, "run", lambda self: configs.append(self.config))
    with InMemory() as store:
        for proxies in (None, "10.0.0.0/8, 192.168.0.1"):
            run.serve(store, None, Settings(), "127.0.0.1", 0, 10, proxies)
    assert [config.proxy_headers for config in configs] == [False, True]
    assert configs[1].forwarded_allow_ips == "10.0.0.0/8, 192.168.0.1"
    run.check_proxies("10.0.0.0/8, ::1")
    for wrong in ("*", "", "10.0.0.1/8", "proxy.example"):
        with pytest.raises(ConfigurationError, match="--forwarded-allow-ips"):
            run.check_proxies(wrong)


_STUCK = """
import signal, sys, time
from dynamiq_memory.backends import InMemory
from dynamiq_memory.server import run
from dynamiq_memory.server.logs import configure
from dynamiq_memory.server.settings import Settings

class Stuck(InMemory):
    def _count(self, filter):
        print("counting", flush=True)
        time.sleep(1000)

run._GRACE_SECONDS, run._CANCEL_SECONDS = 0.2, 0.2
configure("info")
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
with Stuck() as store:
    run.serve(store, None, Settings(), "127.0.0.1", int(sys.argv[1]), 10)
"""


def test_a_query_without_end_does_not_hold_up_the_end() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _STUCK, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            while "running on" not in process.stderr.readline():
                assert process.poll() is None
            with connected(f"http://127.0.0.1:{port}") as client:
                head = f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                client.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
                assert process.stdout.readline() == "counting\n"
                process.send_signal(signal.SIGTERM)
                assert process.wait(SECONDS) == 1
            log = process.stderr.read()
        finally:
            process.kill()
    assert "Traceback" not in log
    assert "leaving them" in json.loads(log.splitlines()[-1])["event"]
