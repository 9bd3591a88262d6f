"""Messages are embedded again by another embedder, or for the first time."""

from __future__ import annotations

from functools import partial

import pytest

from tests.backends.vectors import ANN, LabelsVectors, Named, Open, say, texts
from tests.backends.weaviate.conftest import NewStore


@pytest.fixture(params=[None, "tenant"])
def open_store(new_store: NewStore, request: pytest.FixtureRequest) -> Open:
    """Opens the collection of the test, or a tenant of it."""
    return partial(new_store, tenant_name=request.param)


class TestVectors(LabelsVectors):
    """The server."""


def test_what_was_stored_without_an_embedder_is_embedded_on_demand(
    new_store: NewStore, caplog: pytest.LogCaptureFixture
) -> None:
    new_store(embedder=None).add_many([say("gardening"), say("")])
    assert texts(new_store(embedder=Named("first")).search("gardenia", ANN)) == []
    assert "reindex=True" in caplog.text
    caplog.clear()
    new_store(embedder=Named("first"), reindex=True)
    assert texts(new_store(embedder=Named("first")).search("gardenia", ANN)) == ["gardening"]
    assert caplog.text == ""
