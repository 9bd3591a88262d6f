"""Servers, clients and stores for the tests of Pinecone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pinecone
import pytest
from pinecone.exceptions import NotFoundException

from dynamiq_memory.backends import Pinecone
from dynamiq_memory.connections import Pinecone as PineconeConnection
from tests.fakes.embedders import NGrams
from tests.fakes.pinecone.server import API_KEY, PineconeServer, running

REAL_INDEX = os.environ.get("PINECONE_INDEX") if os.environ.get("PINECONE_API_KEY") else None
NewStore = Callable[..., Pinecone]
DIMENSION = 256


@pytest.fixture(scope="module")
def module_server() -> Iterator[PineconeServer]:
    """A server for the tests of a module."""
    with running() as server:
        yield server


@pytest.fixture
def server(module_server: PineconeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PineconeServer]:
    """An empty server without lag or faults."""
    for name in ("PINECONE_API_KEY", "PINECONE_CONTROLLER_HOST", "PINECONE_ADDITIONAL_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    module_server.reset()
    yield module_server
    module_server.reset()


@pytest.fixture
def connection(server: PineconeServer) -> PineconeConnection:
    """The connection to the server."""
    return PineconeConnection(api_key=API_KEY, host=server.url)


@contextmanager
def made_client(**options: Any) -> Iterator[Any]:
    """A client, closed at the end if it can be."""
    client = pinecone.Pinecone(**options)
    try:
        yield client
    finally:
        if hasattr(client, "close"):  # old ones cannot
            client.close()


@pytest.fixture(scope="module")
def client(module_server: PineconeServer) -> Iterator[Any]:
    """A client that reads no certificates, which would take longer than most tests."""
    # Before version 9, this option prevents asynchronous indexes.
    options: Any = {"ssl_verify": False} if hasattr(pinecone, "RetryConfig") else {}
    with made_client(api_key=API_KEY, host=module_server.url, **options) as client:
        yield client


@pytest.fixture
def new_store(server: PineconeServer, client: Any) -> Iterator[NewStore]:
    """Opens an index, and closes what it opened."""
    made: list[Pinecone] = []

    def make(given: object = None, embedder: object = None, **options: object) -> Pinecone:
        given = client if given is None else given
        made.append(Pinecone(given, NGrams(DIMENSION) if embedder is None else embedder, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: NewStore) -> Pinecone:
    """An empty store."""
    return new_store()


@pytest.fixture
def real_store() -> Iterator[Pinecone]:
    """A separate namespace of the real index PINECONE_INDEX, with vectors of 256 numbers."""
    if not REAL_INDEX:
        pytest.skip("PINECONE_API_KEY and PINECONE_INDEX name no index")
    namespace = f"test-{uuid.uuid4()}"
    with Pinecone(None, NGrams(DIMENSION), REAL_INDEX, namespace=namespace) as store:
        try:
            yield store
        finally:
            # Also writes that the index does not show yet.
            with made_client() as client, client.Index(name=REAL_INDEX) as index, suppress(NotFoundException):
                index.delete(delete_all=True, namespace=namespace)
