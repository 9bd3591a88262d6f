"""Qdrant's other protocol, gRPC: the key, errors, large messages."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from dynamiq_memory.backends import Qdrant, create_backend
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
)
from dynamiq_memory.testing import contents, say
from tests.fakes.embedders import NGrams
from tests.fakes.http_server import Answer
from tests.fakes.qdrant.grpc_server import QdrantGRPC
from tests.fakes.qdrant.server import QdrantServer

KEY = "the-right-key"
pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


@pytest.fixture
def server() -> Iterator[QdrantGRPC]:
    with QdrantServer(api_key=KEY) as rest, QdrantGRPC(rest) as server:
        yield server


def opened(server: QdrantGRPC, key: str = KEY, **options: Any) -> Qdrant:
    connection = QdrantConnection(url=server.rest.url, api_key=key)
    return Qdrant(connection, NGrams(), **{"prefer_grpc": True, "grpc_port": server.port} | options)


def refusing(times: int, status: int) -> Any:
    """Reject the first `times` requests."""
    left = iter(range(times))
    return lambda _: None if next(left, None) is None else Answer({"status": {"error": "not now"}}, status)


@pytest.mark.parametrize("key", ["wrong-key", ""])
def test_a_wrong_key_is_reported_and_not_shown(server: QdrantGRPC, key: str) -> None:
    with pytest.raises(BackendAuthenticationError, match="QDRANT_API_KEY") as caught:
        opened(server, key)
    assert "wrong-key" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 503])
def test_a_passing_failure_is_retried(server: QdrantGRPC, status: int) -> None:
    with opened(server) as store:
        server.rest.faults = refusing(1, status)
        store.add(say("kept"))
        server.rest.faults = refusing(100, status)
        with pytest.raises(BackendConnectionError):
            store.add(say("never"))
        server.rest.faults = refusing(0, status)
        assert contents(store.get_all()) == ["kept"]


def test_no_server_at_the_port(server: QdrantGRPC) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(BackendConnectionError, match="cannot be reached"):
        opened(server, grpc_port=port)


def test_another_dimension_and_a_deleted_collection_are_reported(server: QdrantGRPC) -> None:
    with opened(server) as store:
        with pytest.raises(ConfigurationError, match=r"64.*numbers"):
            Qdrant(
                QdrantConnection(url=server.rest.url, api_key=KEY),
                NGrams(64),
                prefer_grpc=True,
                grpc_port=server.port,
                dimension=64,
            )
        server.rest.collections.pop(store.index_name).engine.close()
        with pytest.raises(BackendError, match="does not exist"):
            store.get_all()


def test_large_messages_come_back_whole(server: QdrantGRPC) -> None:
    text = "ä" * 3_000_000
    with opened(server) as store:
        store.add(say(text))
        assert contents(store.get_all()) == [text]


def test_a_url_names_the_protocol(server: QdrantGRPC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    url = f"qdrant://{server.rest.url.removeprefix('http://')}/talks?prefer_grpc=true&grpc_port={server.port}"
    with create_backend(url) as store:
        store.add(say("kept"))
        again = store.to_url()
    assert again is not None
    server.rest.requests.clear()
    with create_backend(again) as store:
        assert contents(store.get_all()) == ["kept"]
    assert all(
        "user-agent" not in each.headers or "grpc" in each.headers["user-agent"] for each in server.rest.requests
    )
