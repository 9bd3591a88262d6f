"""Messages are embedded again by another embedder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from qdrant_client import QdrantClient

from tests.backends.qdrant.conftest import NewStore
from tests.backends.vectors import LabelsVectors, Named, Open, say, texts
from tests.fakes.qdrant.server import qdrant


@pytest.fixture(params=["server", "engine", "memory"])
def open_store(new_store: NewStore, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens one collection, where the engine is local mode behind a server, Qdrant's own, or in this process."""
    if request.param == "engine":
        with qdrant() as (url, _):
            yield partial(new_store, url)
    else:
        yield new_store if request.param == "server" else partial(new_store, QdrantClient(":memory:"))


class TestVectors(LabelsVectors):
    """Each way to reach Qdrant."""


def test_points_that_name_no_embedder_are_of_the_first(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    with monkeypatch.context() as before:
        before.setattr("dynamiq_memory.backends.qdrant.records.EMBEDDER", "other")
        new_store(client, embedder=Named(None)).add(say("gardening"))
    assert texts(new_store(client, embedder=Named("first")).search("gardenia")) == ["gardening"]
    with pytest.raises(Exception, match="'first', not of 'second'"):
        new_store(client, embedder=Named("second"))
