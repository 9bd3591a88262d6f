"""The contract, kept by the Dynamiq backend: whole against our service, as far as its wire goes on the platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx_retries")

from dynamiq_memory.backends import Dynamiq, MemoryBackend, SQLite
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.testing import MemoryBackendConformance
from tests.service.serving import Service, serving


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def _backend(service: Service) -> Iterator[MemoryBackend]:
    with Dynamiq(DynamiqConnection(url=service.url, api_key=None), service.new_memory()) as backend:
        yield backend
    service.store.clear()


@pytest.fixture(scope="module")
def sqlite_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("served") / "memory.db"
    with SQLite(file, synchronous="NORMAL") as store, serving(store) as service:
        yield service


class TestServedSQLite(MemoryBackendConformance):
    stateful_examples = 12
    messages_per_writer = 10

    @pytest.fixture
    def backend(self, sqlite_service: Service) -> Iterator[MemoryBackend]:
        yield from _backend(sqlite_service)
