"""Messages are embedded again by another embedder."""

from __future__ import annotations

import pytest

from dynamiq_memory.exceptions import ConfigurationError
from tests.backends.pinecone.conftest import NewStore
from tests.backends.vectors import ANN, LabelsVectors, Named, Open, Turned, say, texts
from tests.fakes.pinecone.server import PineconeServer


@pytest.fixture
def open_store(new_store: NewStore) -> Open:
    """Opens the index of the test."""
    return new_store


class TestVectors(LabelsVectors):
    """The service."""


def test_records_that_name_no_embedder_are_of_the_first(
    server: PineconeServer, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("dynamiq_memory.backends.pinecone.records.EMBEDDER", "other")
        new_store(embedder=Named("any")).add_many([say("gardening"), say("rain")])
    server.hold()
    first = new_store(embedder=Named("first"))
    again = new_store(embedder=Named("first"))  # to which the index does not show the note yet
    server.release()
    for store in (first, again):
        assert texts(store.search("gardenia", ANN)) == ["gardening"]
    assert [session.messages for session in first.sessions()] == [2]
    assert first.count() == len(first.get_all()) == 2
    with pytest.raises(ConfigurationError, match="'first', not of 'second'"):
        new_store(embedder=Turned("second"))
    assert texts(new_store(embedder=Turned("second"), reindex=True).search("gardenia", ANN)) == ["gardening"]
    first.clear()
    assert first.is_empty()
