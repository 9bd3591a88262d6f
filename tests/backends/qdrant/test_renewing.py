"""A collection whose words version 1 of the default tokenizer made gets those of the present version when it is opened."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from dynamiq_memory.backends import Qdrant
from dynamiq_memory.backends.qdrant import records, renewing, requests
from dynamiq_memory.ranking import Tokenizer
from dynamiq_memory.testing import say
from tests.backends.qdrant.conftest import NewStore
from tests.fakes.embedders import NGrams
from tests.fakes.qdrant.server import QdrantServer, qdrant

DATA = Path(__file__).parents[1] / "data"


class Earlier:
    """Stands for version 1."""

    signature = "words-1/english/7a2a7537"

    def __call__(self, text: str) -> list[str]:
        return text.lower().split()


def note(client: QdrantClient, name: str) -> Any:
    (found,) = client.retrieve(name, [renewing.NOTE], with_payload=True)
    return found.payload


def check(store: Qdrant) -> None:
    assert len(store.search("camel case", limit=None)) == 25
    assert store.search("camelcase7", limit=1)[0].text == "I bought camelCase7"
    assert note_of(store) == (Tokenizer().signature, None)


def note_of(store: Qdrant) -> tuple[str, Any]:
    (found,) = store._run(requests.retrieve([renewing.NOTE], ["tokenizer", renewing.RENEWED]))
    payload = records.payload_of(found)
    return payload["tokenizer"], payload.get(renewing.RENEWED)


@pytest.fixture
def _pages_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewing, "_AT_ONCE", 10)


@pytest.mark.usefixtures("_pages_of_ten")
def test_words_are_made_again(new_store: NewStore, caplog: pytest.LogCaptureFixture) -> None:
    new_store(tokenizer=Earlier()).add_many([say(f"I bought camelCase{n}") for n in range(25)])
    with caplog.at_level(logging.INFO, "dynamiq_memory"):
        store = new_store()
    check(store)
    assert [record.args[0] for record in caplog.records if record.args] == [10, 20, 25]  # type: ignore[index]


@pytest.mark.usefixtures("_pages_of_ten")
def test_qdrants_own_engine() -> None:
    with qdrant() as (url, _), Qdrant(url, NGrams(64), "renewed", tokenizer=Earlier()) as old:
        old.add_many([say(f"I bought camelCase{n}") for n in range(25)])
        before = old.get_all()
        with Qdrant(url, NGrams(64), "renewed") as store:
            check(store)
            assert store.get_all() == before


@pytest.mark.usefixtures("_pages_of_ten")
def test_an_interrupted_call_is_continued(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    new_store(tokenizer=Earlier()).add_many([say(f"I bought camelCase{n}") for n in range(25)])
    made: list[str] = []
    changes = renewing._changes

    def interrupted(point: Any, tokenize: Any) -> list[Any]:
        made.append(str(point.id))
        if len(made) == 15:
            raise KeyboardInterrupt
        return changes(point, tokenize)

    monkeypatch.setattr(renewing, "_changes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new_store()
    check(new_store())
    assert len(made) == 15 + 15  # the second page again, and the third
    assert len(set(made)) == 25


def test_what_changes_meanwhile_stays_as_it_is(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = new_store(embedder=None, tokenizer=Earlier())
    gone, changed, _ = old.add_many([say("I bought a canoe"), say("I bought a tent"), say("I bought maps")])
    changes = renewing._changes
    read: list[str] = []

    def with_changes(point: Any, tokenize: Any) -> list[Any]:
        read.append(point.message.text)
        if len(read) == 1:
            old.take({"message_id": gone.id})
            old.add(changed.model_copy(update={"content": "I bought camelCase"}))
        return changes(point, tokenize)

    monkeypatch.setattr(renewing, "_changes", with_changes)
    store = new_store(embedder=None)
    assert sorted(message.text for message in store.get_all()) == ["I bought camelCase", "I bought maps"]
    assert store.search("canoe") == store.search("tent") == []
    assert [message.text for message in store.search("case")] == ["I bought camelCase"]
    assert read.count("I bought a canoe") == 1


def test_another_tokenizer_on_demand(new_store: NewStore) -> None:
    new_store(tokenizer=str.split).add(say("I bought canoes"))
    store = new_store(reindex=True)
    assert len(store.search("canoe")) == 1
    assert note_of(store) == (Tokenizer().signature, None)


def test_points_of_the_version_before() -> None:
    client = QdrantClient(":memory:")
    points = [models.PointStruct(**record) for record in json.loads((DATA / "qdrant.json").read_text())]
    with Qdrant(client, NGrams(64)) as store:
        client.upsert(store.index_name, points)
        assert note(client, store.index_name)["tokenizer"] == Earlier.signature
    with Qdrant(client, NGrams(64)) as store:
        messages = store.get_all()
        assert note(client, store.index_name)["tokenizer"] == Tokenizer().signature
        found, _ = client.scroll(store.index_name, limit=100, with_payload=True)
        lengths = sorted(
            payload[records.LENGTH] for point in found if records.LENGTH in (payload := point.payload or {})
        )
    assert lengths == sorted(len(Tokenizer()(message.text)) for message in messages)


def test_opening_again_writes_nothing(server: QdrantServer, new_store: NewStore) -> None:
    new_store(tokenizer=Earlier()).add(say("kept"))
    new_store()
    server.requests.clear()
    new_store()
    assert not [request.path for request in server.requests if request.path.endswith(("/payload", "/batch"))]
