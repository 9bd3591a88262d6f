"""Stores for the tests, each in a collection of its own."""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest

from dynamiq_memory.backends import Weaviate
from dynamiq_memory.connections import Weaviate as Connection
from tests.fakes.embedders import NGrams
from tests.fakes.weaviate.server import WeaviateServer, weaviate

NewStore = Callable[..., Weaviate]


class Cut(NGrams):
    """Reads the beginning of a text alone, as models do."""

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        return super().embed_documents([text[:10_000] for text in texts])


@pytest.fixture(scope="session")
def server() -> Iterator[WeaviateServer]:
    """The server of this process."""
    with weaviate() as running:
        yield running


@pytest.fixture
def connection(server: WeaviateServer) -> Connection:
    """How to connect to the server."""
    if server.own is not None:
        server.forget()
    return Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port, timeout_init=120)


@pytest.fixture
def collection_name(server: WeaviateServer) -> Iterator[str]:
    """The name of a collection that is dropped at the end."""
    name = f"Test_{uuid.uuid4().hex}"
    yield name
    if server.own is not None:
        server.forget()
    address = f"http://{server.host}:{server.http_port}/v1/schema/{name}"
    with urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=120):
        pass


@pytest.fixture
def new_store(connection: Connection, collection_name: str) -> Iterator[NewStore]:
    """Opens the test's collection, and closes what it opened."""
    made: list[Weaviate] = []

    def make(given: object = None, **options: object) -> Weaviate:
        settings = {"embedder": Cut(), "collection_name": collection_name} | options
        made.append(Weaviate(connection if given is None else given, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: NewStore) -> Weaviate:
    """An empty store."""
    return new_store()
