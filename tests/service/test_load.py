"""Many clients at once, and a service that is killed while they write.

`DYNAMIQ_MEMORY_LOAD_CLIENTS` and `DYNAMIQ_MEMORY_LOAD_SECONDS` make the load heavier: 200 and 30 before a release.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from dynamiq_memory import BackendError, Message
from dynamiq_memory.backends import Dynamiq, SQLite
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from tests.service.conftest import item
from tests.service.serving import ServiceProcess, serving

CLIENTS = int(os.environ.get("DYNAMIQ_MEMORY_LOAD_CLIENTS", "20"))
SECONDS = float(os.environ.get("DYNAMIQ_MEMORY_LOAD_SECONDS", "1.5"))
ITEMS = "/v1/memories/m/items"


def test_of_what_many_clients_store_nothing_is_lost(tmp_path: Path) -> None:
    acknowledged: list[list[str]] = [[] for _ in range(CLIENTS)]

    async def write(api: httpx.AsyncClient, number: int, until: float) -> None:
        own, session = acknowledged[number], f"s{number % 7}"
        while time.monotonic() < until:
            message_id = f"{number}-{len(own)}"
            posted = item(f"text {message_id}", f"u{number % 3}", session, id=message_id)
            answer = await api.post(ITEMS, json=posted, headers={"Prefer": "return=minimal"})
            assert answer.status_code == 204
            own.append(message_id)
            if len(own) % 10 == 0:
                found = await api.get(
                    ITEMS, params={"user_id": f"u{number % 3}", "session_id": session, "page_size": 5}
                )
                assert len(found.json()["data"]) == 5

    async def write_all(url: str) -> None:
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as api:
            until = time.monotonic() + SECONDS
            await asyncio.gather(*(write(api, number, until) for number in range(CLIENTS)))

    service = ServiceProcess(tmp_path)
    service.start()
    try:
        asyncio.run(write_all(service.url))
        with Dynamiq(DynamiqConnection(url=service.url, api_key=None), "m") as memory:
            stored = [message.id for message in memory.get_all()]
    finally:
        service.kill()
    assert sorted(stored) == sorted(message_id for own in acknowledged for message_id in own)
    for number, own in enumerate(acknowledged):
        assert [message_id for message_id in stored if message_id.startswith(f"{number}-")] == own
        assert own


def test_a_client_goes_on_when_the_service_comes_back(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path)
    service.start()
    try:
        with Dynamiq(DynamiqConnection(url=service.url, api_key=None), "m", retries=8) as memory:
            memory.add(Message(role="user", content="before"))
            service.kill()
            starting = threading.Timer(0.3, service.start)
            starting.start()
            memory.add(Message(role="user", content="while it was away"))
            starting.join()
            assert [message.text for message in memory.get_all()] == ["before", "while it was away"]
    finally:
        service.kill()


def test_two_services_can_share_a_file(tmp_path: Path) -> None:
    with SQLite(tmp_path / "m.db") as one, SQLite(tmp_path / "m.db") as two, serving(one) as a, serving(two) as b:
        first, second = (Dynamiq(DynamiqConnection(url=each.url, api_key=None), "m") for each in (a, b))
        first.add(Message(role="user", content="by one"))
        second.add(Message(role="user", content="by the other"))
        assert [message.text for message in first.get_all()] == ["by one", "by the other"]
        first.close()
        with pytest.raises(BackendError, match="closed"):
            first.get_all()
        second.close()
