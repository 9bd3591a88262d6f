"""Opening a collection: arguments, existing collections, and mismatches."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from dynamiq_memory.backends import Qdrant, create_backend
from dynamiq_memory.backends.qdrant.client import Address
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    MissingDependencyError,
)
from dynamiq_memory.ranking import BM25, Tokenizer
from dynamiq_memory.testing import contents, say
from tests.backends.qdrant.conftest import NewStore
from tests.fakes.embedders import NGrams, Scripted
from tests.fakes.qdrant.server import QdrantServer

KEY = "very-secret"


def named(name: str) -> NGrams:
    embedder = Scripted()
    embedder.name = name  # type: ignore[attr-defined]
    return embedder


INSECURE = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")


def test_a_collection_is_created_with_its_indexes(server: QdrantServer, store: Qdrant) -> None:
    schema = server.collections["c"].schema
    assert schema["user_id"] == models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    assert schema["order"].range is True
    assert set(schema) >= {"session_id", "message_id", "labels", "numbers[].key", "numbers[].value", "gone"}
    assert store.is_empty()


def test_opening_again_creates_nothing(server: QdrantServer, new_store: NewStore) -> None:
    new_store().add(say("kept"))
    server.requests.clear()
    assert contents(new_store().get_all()) == ["kept"]
    assert {request.method for request in server.requests} == {"GET", "POST"}


def test_two_processes_can_create_at_the_same_time(server: QdrantServer, new_store: NewStore) -> None:
    # The other process creates it after we have asked whether it exists.
    def first_asked(request: Any) -> None:
        if request.method == "PUT" and "other" not in seen:
            seen.append("other")
            new_store().add(say("of the other"))

    seen: list[str] = []
    server.faults = first_asked
    assert contents(new_store().get_all()) == ["of the other"]


def test_the_embedder_is_asked_for_the_dimension_of_a_new_collection(server: QdrantServer, new_store: NewStore) -> None:
    new_store(embedder=NGrams(48))
    assert server.collections["c"].config.vectors["dense"].size == 48  # type: ignore[index]
    embedder = Scripted()
    new_store(embedder=embedder, dimension=64, index_name="other")
    assert embedder.queries == []


def test_an_embedder_without_a_name_is_not_compared(new_store: NewStore) -> None:
    new_store(embedder=named("first")).add(say("kept"))
    assert contents(new_store(embedder=NGrams(64)).get_all()) == ["kept"]
    new_store(embedder=NGrams(64), index_name="unnamed").add(say("kept"))
    assert contents(new_store(embedder=named("first"), index_name="unnamed").get_all()) == ["kept"]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (
            {"embedder": NGrams(48)},
            {"embedder": NGrams(64), "dimension": 64},
            "dimension=64.*48 numbers.*dynamiq-memory copy",
        ),
        ({}, {"metric": "dot_product"}, "metric='dot_product'.*Cosine"),
        ({}, {"embedder": None}, "64 numbers: pass the embedder"),
        ({"embedder": None}, {}, "without an embedder.*dynamiq-memory copy"),
        ({}, {"tokenizer": Tokenizer("german")}, "tokenizer words-2/english.*german"),
        ({}, {"tokenizer": str.split}, "builtins.str.split"),
        ({"embedder": named("first")}, {"embedder": named("second")}, "'first', not of 'second'.*reindex=True"),
    ],
    ids=["dimension", "metric", "no embedder", "an embedder", "language", "tokenizer", "embedder's name"],
)
def test_a_collection_of_other_settings_is_refused(
    new_store: NewStore, first: dict[str, Any], second: dict[str, Any], says: str
) -> None:
    stored = new_store(**first)
    stored.add(say("kept"))
    with pytest.raises(ConfigurationError, match=says):
        new_store(**second)
    assert contents(stored.get_all()) == ["kept"]


def test_another_dimension_is_reported_on_first_use(new_store: NewStore) -> None:
    new_store(embedder=NGrams(48)).add(say("kept"))
    store = new_store(embedder=NGrams(64))
    for call in (lambda: store.add(say("apple")), lambda: store.search("apple")):
        with pytest.raises(ConfigurationError, match=r"have 64 numbers, those of .* have 48"):
            call()
    assert store.count() == 1


def test_a_collection_of_the_dynamiq_package_is_left_alone(server: QdrantServer, new_store: NewStore) -> None:
    client = Address(url=server.url).connect()
    client.create_collection("c", vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE))
    with pytest.raises(ConfigurationError, match=r"not made by this package.*index_name.*add_many"):
        new_store()
    assert server.collections["c"].schema == {}
    client.close()


def test_a_later_version_is_refused(server: QdrantServer, new_store: NewStore) -> None:
    with_note = new_store()
    client = Address(url=server.url).connect()
    client.set_payload("c", {"version": 2}, models.Filter(must_not=[models.IsEmptyCondition(is_empty={"key": "gone"})]))
    with pytest.raises(BackendError, match="update dynamiq-memory"):
        new_store()
    assert with_note.is_empty()
    client.close()


def test_a_missing_collection_can_be_an_error(server: QdrantServer, new_store: NewStore) -> None:
    with pytest.raises(BackendError, match="does not exist: correct index_name"):
        new_store(create_if_not_exist=False)
    assert server.collections == {}


@INSECURE
def test_a_key_is_sent_and_never_shown(
    server: QdrantServer, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.api_key = KEY
    connection = QdrantConnection(url=server.url, api_key=KEY)
    store = new_store(connection)
    store.add(say("kept"))
    shown = [repr(connection), str(connection), repr(store), json.dumps(store.to_dict()), str(store.to_url())]
    assert KEY not in "".join(shown)
    monkeypatch.setenv("QDRANT_URL", server.url)
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    with Qdrant(embedder=NGrams(64), index_name="c") as by_environment:
        assert contents(by_environment.get_all()) == ["kept"]
    assert new_store(SimpleNamespace(url=server.url, api_key=KEY)).count() == 1  # dynamiq's connection


@INSECURE
@pytest.mark.parametrize("key", [None, "wrong-key"])
def test_a_wrong_key_is_reported(server: QdrantServer, new_store: NewStore, key: str | None) -> None:
    server.api_key = KEY
    with pytest.raises(BackendAuthenticationError, match="QDRANT_API_KEY") as caught:
        new_store(QdrantConnection(url=server.url, api_key=key))
    assert caught.value.__cause__ is not None
    assert "wrong-key" not in str(caught.value)


def test_an_unreachable_server_is_reported() -> None:
    with pytest.raises(BackendConnectionError, match="QDRANT_URL"):
        Qdrant("http://127.0.0.1:9", NGrams())


def test_a_client_owned_by_the_caller_stays_open(server: QdrantServer) -> None:
    for client in (QdrantClient(":memory:"), Address(url=server.url).connect()):
        with Qdrant(client, NGrams(), "given") as store:
            store.add(say("kept"))
            assert store.to_url() is None
        assert client.count("given").count == 2  # and the note about the collection
        with Qdrant(client, NGrams(), "given") as again:
            assert contents(again.get_all()) == ["kept"]
        client.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"connection": 7}, "connection must be"),
        ({"connection": "localhost:6333"}, "http://"),
        ({"connection": QdrantConnection(url="http://x"), "path": "folder"}, "either connection or path"),
        ({"connection": AsyncQdrantClient(":memory:")}, "async"),
        ({"index_name": ""}, "index_name"),
        ({"index_name": "a/b"}, "index_name"),
        ({"metric": "manhattan"}, "metric"),
        ({"vector_weight": 1.5}, "vector_weight"),
        ({"dimension": 0}, "dimension"),
        ({"candidates": True}, "candidates"),
        ({"timeout": -1}, "timeout"),
        ({"connection": "http://host:99999"}, "QDRANT_URL"),
        ({"connection": None, "path": __file__}, "is a file"),
        ({"embedder": object()}, "embedder must"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Qdrant(**{"connection": ":memory:", **arguments})


def test_urls_of_servers(server: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    host = server.url.removeprefix("http://")
    with create_backend(f"qdrant://{host}/talks") as store:
        assert isinstance(store, Qdrant)
        store.add(say("kept"))
        assert store.capabilities.keyword
        assert not store.capabilities.vector
        url = store.to_url()
    assert url == f"qdrant://{host}/talks?create_if_not_exist=false"
    with create_backend(url) as again:
        assert contents(again.search("kept")) == ["kept"]


def test_a_url_can_name_an_embedder(server: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakes.openai import KEY as OPENAI_KEY  # noqa: PLC0415
    from tests.fakes.openai import OpenAIServer  # noqa: PLC0415

    with OpenAIServer() as openai:
        monkeypatch.setenv("OPENAI_URL", openai.url)
        monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
        host = server.url.removeprefix("http://")
        with create_backend(f"qdrant://{host}/talks?embedder=text-embedding-3-small&reindex=true") as store:
            store.add(say("a red apple"))
            url = store.to_url()
            assert store.capabilities.hybrid
        assert url is not None
        with create_backend(url) as again:
            assert contents(again.search("apples")) == ["a red apple"]


@pytest.mark.parametrize(
    "url",
    [
        "qdrant://",
        "qdrant://localhost:6333",
        "qdrant://key@localhost:6333/c",
        "qdrant://localhost:6333/c?api_key=x",
        "qdrant://localhost:6333/c?https=perhaps",
        "qdrant://localhost:6333/c?grpc_port=x",
        "qdrant://localhost:6333/c?collection=d",
    ],
)
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL"):
        create_backend(url)


def test_a_folder_keeps_messages(tmp_path: Path) -> None:
    with Qdrant(path=tmp_path / "store", embedder=NGrams(64)) as store:
        store.add_many([say("a red apple", topic="fruit"), say("")])
        assert store.to_url() is None  # the caller owns the embedder
    with Qdrant(path=tmp_path / "store", embedder=NGrams(64)) as store:
        assert contents(store.get_all()) == ["a red apple", ""]
        assert contents(store.search("apples", {"topic": "fruit"})) == ["a red apple"]


def test_urls_of_folders(tmp_path: Path) -> None:
    with create_backend(f"qdrant:///{tmp_path / 'store'}?collection=talks") as store:
        store.add(say("kept"))
        url = store.to_url()
    assert url is not None
    with create_backend(url) as again:
        assert contents(again.get_all()) == ["kept"]


# The client does not close its lock file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_that_is_open_is_reported(tmp_path: Path) -> None:
    with Qdrant(path=tmp_path), pytest.raises(BackendConnectionError, match="open elsewhere"):
        Qdrant(path=tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_folder_cannot_be_shared_with_a_forked_child(tmp_path: Path, run_script: Any) -> None:
    run_script(
        """
import os, sys, warnings
from dynamiq_memory import BackendError, Message
from dynamiq_memory.backends import Qdrant
warnings.simplefilter("ignore", DeprecationWarning)
store = Qdrant(path=sys.argv[1])
store.add(Message(role="user", content="before"))
child = os.fork()
if child == 0:
    try:
        store.get_all()
    except BackendError as error:
        os._exit(0 if "forked" in str(error) else 2)
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.add(Message(role="user", content="after"))
assert [m.content for m in store.get_all()] == ["before", "after"]
store.close()
""",
        tmp_path,
    )


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    for name in [name for name in sys.modules if name.startswith("dynamiq_memory.backends.qdrant")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"dynamiq-memory\[qdrant\]"):
        import dynamiq_memory.backends.qdrant  # noqa: F401, PLC0415 - importing is the test


def test_other_parameters_of_ranking_are_not_in_a_url(new_store: NewStore) -> None:
    assert new_store(embedder=None, bm25=BM25(k1=2.0)).to_url() is None
