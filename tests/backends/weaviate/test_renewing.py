"""A collection of the version before says what made its terms when it is opened; terms of another tokenizer are renewed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import weaviate

from dynamiq_memory import Message
from dynamiq_memory.backends import Weaviate
from dynamiq_memory.backends.weaviate import records, renewing, schema
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.ranking import Tokenizer
from dynamiq_memory.testing import say
from tests.backends.vectors import Named, Turned
from tests.backends.weaviate.conftest import NewStore
from tests.fakes.embedders import NGrams
from tests.fakes.weaviate.server import WeaviateServer

DATA = Path(__file__).parents[1] / "data"
MESSAGES = [Message.from_json(text) for text in json.loads((DATA / "messages.json").read_text())["messages"]]
PATCH = "PATCH /v1/objects"

Written = Callable[[str | None], None]


class Small(NGrams):
    """The embedder of the version before; it had this dimension, and no name was stored."""

    def __init__(self, name: str) -> None:
        super().__init__(64)
        self.name = name


@pytest.fixture
def written(server: WeaviateServer, collection_name: str, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Makes a collection, or a tenant of it, as the version before wrote it."""
    where: dict[str, Any] = {
        "http_host": server.host,
        "http_port": server.http_port,
        "http_secure": False,
        "grpc_host": server.host,
        "grpc_port": server.grpc_port,
        "grpc_secure": False,
    }

    def write(tenant: str | None) -> None:
        properties = [each for each in schema._properties() if each.name != schema.MADE_BY]
        with monkeypatch.context() as before, weaviate.connect_to_custom(**where) as client:
            before.setattr(schema, "_properties", lambda: properties)
            before.setattr(schema, "_add_made_by", lambda _: None)
            before.setattr(Weaviate, "_renew", lambda _, **__: (_ for _ in ()))
            Weaviate(client, Small("any"), collection_name, tenant_name=tenant)
            collection = client.collections.use(collection_name)
            if tenant is not None:
                collection = collection.with_tenant(tenant)
            with collection.batch.fixed_size() as batch:
                for record in json.loads((DATA / "weaviate.json").read_text()):
                    batch.add_object(**record)
            assert not batch.number_errors

    return write


def check(server: WeaviateServer, name: str, tenant: str | None, embedder: str | None) -> None:
    """Check that all objects say what made them, and have the present terms."""
    objects = server.objects(name, tenant or "")
    assert len(objects) == len(MESSAGES)
    for each in objects:
        properties = each["properties"]
        message = Message.from_json(properties["body"])
        assert properties["length"] == len(Tokenizer()(message.text))
        assert properties["made_by"][0] == f'tokenizer:"{Tokenizer().signature}"'
        named = properties["dimension"] > 0 or embedder is not None
        assert properties["made_by"][1:] == ([f'embedder:"{embedder or ""}"'] if named else [])


@pytest.mark.parametrize("tenant", [None, "tenant"])
def test_a_collection_of_the_version_before(
    written: Written, server: WeaviateServer, new_store: NewStore, collection_name: str, tenant: str | None
) -> None:
    written(tenant)
    store = new_store(embedder=Small("first"), tenant_name=tenant)
    check(server, collection_name, tenant, "first")
    assert store.get_all() == MESSAGES
    server.forget()
    new_store(embedder=Small("first"), tenant_name=tenant)
    assert not any(operation.startswith(PATCH) for operation in server.requests)
    with pytest.raises(ConfigurationError, match="'first', not of 'second'"):
        new_store(embedder=Turned("second", 64), tenant_name=tenant)
    new_store(embedder=Turned("second", 64), tenant_name=tenant, reindex=True)
    check(server, collection_name, tenant, "second")
    assert store.get_all() == MESSAGES


def test_vectors_of_the_version_before_that_a_store_by_words_finds(
    written: Written, server: WeaviateServer, new_store: NewStore, collection_name: str
) -> None:
    written(None)
    new_store(embedder=None)
    check(server, collection_name, None, None)
    store = new_store(embedder=Small("first"), alpha=1.0)
    assert store.search(MESSAGES[0].text, limit=1)[0].id == MESSAGES[0].id


def test_an_interrupted_call_is_continued(
    written: Written, server: WeaviateServer, new_store: NewStore, collection_name: str
) -> None:
    written(None)
    server.ask_for(PATCH, skip=4, times=1, code=500)
    with pytest.raises(BackendError, match="injected"):
        new_store(embedder=Small("first"))
    server.forget()
    new_store(embedder=Small("first"))
    assert sum(count for each, count in server.requests.items() if each.startswith(PATCH)) <= len(MESSAGES) - 4
    check(server, collection_name, None, "first")


def test_what_changes_meanwhile_stays_as_it_is(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = new_store(tokenizer=str.split)
    gone, changed, _ = old.add_many([say("I bought a canoe"), say("I bought a tent"), say("I bought maps")])
    terms_in = records.terms_in
    read: list[str] = []

    def with_changes(message: Message, tokenize: Any) -> dict[str, Any]:
        read.append(message.text)
        if len(read) == 1:
            old.take({"message_id": gone.id})
            old.add(changed.model_copy(update={"content": "I bought camelCase"}))
            new_store(reindex=True)  # another process does the same
        return terms_in(message, tokenize)

    monkeypatch.setattr(renewing, "terms_in", with_changes)
    store = new_store(reindex=True, alpha=0.0)
    assert sorted(message.text for message in store.get_all()) == ["I bought camelCase", "I bought maps"]
    assert store.search("canoe") == store.search("tent") == []
    assert [message.text for message in store.search("case")] == ["I bought camelCase"]


def test_another_tokenizer_is_refused_and_used_on_demand(new_store: NewStore, caplog: pytest.LogCaptureFixture) -> None:
    new_store(tokenizer=str.split).add(say("I bought canoes"))
    with pytest.raises(ConfigurationError, match=r"'builtins.str.split', not 'words-2/english/.*reindex=True"):
        new_store()
    with caplog.at_level(logging.INFO, "dynamiq_memory"):
        assert len(new_store(reindex=True, alpha=0.0).search("canoe")) == 1
    assert "re-indexed 1 messages" in caplog.text


def test_another_dimension_names_the_copy(new_store: NewStore) -> None:
    new_store(embedder=Named("first")).add(say("kept"))
    with pytest.raises(ConfigurationError, match=r"64.*512.*dynamiq-memory copy"):
        new_store(embedder=Turned("second", 64), reindex=True)
