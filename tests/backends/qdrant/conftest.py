"""Servers and stores for the tests of Qdrant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dynamiq_memory.backends import Qdrant
from dynamiq_memory.connections import Qdrant as QdrantConnection
from tests.fakes.embedders import NGrams
from tests.fakes.qdrant.server import LocalEngine, QdrantServer

NewStore = Callable[..., Qdrant]
BY_NGRAMS = NGrams(64)


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    """A server over local mode, where a test can look and break things."""
    with QdrantServer(LocalEngine) as server:
        yield server


@pytest.fixture
def new_store(server: QdrantServer) -> Iterator[NewStore]:
    """Opens the collection "c" of the server, and closes what it opened."""
    made: list[Qdrant] = []

    def make(connection: Any = None, embedder: Any = BY_NGRAMS, **options: Any) -> Qdrant:
        given = QdrantConnection(url=server.url) if connection is None else connection
        made.append(Qdrant(given, embedder, **{"index_name": "c", **options}))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: NewStore) -> Qdrant:
    """An empty store."""
    return new_store()
