"""Ranking by words and meaning together, with vectors in items of their own."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from dynamiq_memory.backends import DynamoDB
from dynamiq_memory.exceptions import ConfigurationError
from tests.backends.dynamodb.conftest import NewStore
from tests.backends.vectors import ANN, Count, KeepsVectors, Named, say, texts
from tests.fakes.dynamodb.limits import Watched
from tests.fakes.embedders import NGrams


@pytest.fixture
def count_vectors(endpoint: str, watched: Watched, table_name: str) -> Count:
    def count() -> int:
        client = watched.session.client("dynamodb", endpoint_url=endpoint)
        try:
            pages = client.get_paginator("scan").paginate(TableName=table_name)
            return sum(item["pk"]["S"].startswith("vectors/") for page in pages for item in page["Items"])
        finally:
            client.close()

    return count


class TestVectors(KeepsVectors):
    at_once = pytest.fixture(lambda self: "dynamiq_memory.backends.dynamodb.vectors._EMBEDDED_AT_ONCE")

    @pytest.fixture
    def open_store(self, new_store: NewStore) -> NewStore:
        return new_store


def test_a_large_replacement_leaves_no_old_vector(new_store: NewStore, count_vectors: Count) -> None:
    store = new_store(embedder=NGrams())
    store.add_many([say(f"gardening {n}") for n in range(60)])
    store.replace(ANN, [say(f"invoice {n}") for n in range(70)])
    assert count_vectors() == 70
    assert len(store.search("invoices", ANN)) == 70
    assert store.search("gardens", ANN) == []


def test_a_crash_at_any_request_leaves_each_message_with_the_vector_of_its_text(
    new_store: NewStore, watched: Watched, count_vectors: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    store, other = new_store(embedder=NGrams()), new_store(embedder=NGrams())
    store.add(say("gardening", session_id="first"))
    for crash_at in itertools.count(1):
        scope = ANN | {"session_id": f"s-{crash_at}"}
        [message] = store.add_many([say("gardening", **scope)])
        requests = itertools.count(1)

        def before(*_: object, requests: Any = requests, crash_at: int = crash_at) -> None:
            if next(requests) == crash_at:
                raise Crash

        monkeypatch.setattr(watched, "before", before)
        try:
            store.replace(scope, [message.model_copy(update={"content": "invoicing"})])
        except Crash:
            monkeypatch.setattr(watched, "before", lambda *_: None)
        else:
            break
        stored = texts(other.get_all(filters=scope))
        assert stored in (["gardening"], ["invoicing"])
        assert texts(other.search("gardens", scope)) == [text for text in stored if text == "gardening"]
        assert texts(other.search("invoices", scope)) == [text for text in stored if text == "invoicing"]
    assert crash_at > 3
    monkeypatch.setattr(watched, "before", lambda *_: None)
    later = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    store.clear()
    assert count_vectors() == 0


def test_a_message_that_changes_while_it_is_embedded_gets_no_vector_of_its_old_text(
    new_store: NewStore, count_vectors: Count
) -> None:
    plain = new_store()
    message = plain.add(say("gardening"))
    embedder = Named("first")

    def change(vectors: list[list[float]]) -> list[list[float]]:
        if embedder.documents:
            plain.add(message.model_copy(update={"content": "invoicing"}))
        return vectors

    embedder.change = change
    store = new_store(embedder=embedder, reindex=True)
    assert count_vectors() == 0
    assert texts(store.search("gardens", ANN)) == []


def test_an_open_store_notices_that_another_embedder_has_embedded_all_again(new_store: NewStore) -> None:
    store = new_store(embedder=Named("first"))
    store.add(say("gardening"))
    new_store(embedder=Named("second"), reindex=True)
    with pytest.raises(ConfigurationError, match="'second', not of 'first'"):
        store.search("gardens", ANN)


@pytest.mark.parametrize(
    ("filters", "requests"), [(ANN, {"Query": 2}), (ANN | {"topic": "b"}, {"Query": 1, "BatchGetItem": 1})]
)
def test_a_search_reads_the_messages_and_then_their_vectors(
    new_store: NewStore, watched: Watched, filters: dict[str, str], requests: dict[str, int]
) -> None:
    store = new_store(embedder=NGrams())
    store.add_many([say("gardening", topic="b"), say("gardens", session_id="s2")])
    watched.reset()
    assert texts(store.search("gardenia", filters)) == ["gardening"]
    assert watched.requests == requests


def test_reading_costs_the_same_as_without_an_embedder(new_store: NewStore, watched: Watched) -> None:
    store = new_store(embedder=NGrams())
    store.add(say("gardening"))
    watched.reset()
    store.get_all(filters=ANN)
    assert watched.requests == {"Query": 1}


def test_a_url_names_the_embedder(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    store = new_store(embedder=NGrams())
    assert store.to_url() is None
    # The client of a test is its own: only what a URL says of the embedder is of interest.
    named: DynamoDB = new_store(embedder="text-embedding-3-small")
    monkeypatch.setattr(named, "_owns_client", True)
    assert "embedder=text-embedding-3-small" in str(named.to_url())
