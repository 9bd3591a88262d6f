"""Connecting, the collection's definition, tenants, URLs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import weaviate
from weaviate.classes.config import Configure, DataType, Property, Tokenization

from dynamiq_memory import Message
from dynamiq_memory.backends import Weaviate, create_backend
from dynamiq_memory.backends.weaviate.client import Server, server_of
from dynamiq_memory.connections import Weaviate as Connection
from dynamiq_memory.connections import WeaviateDeploymentType
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
)
from tests.backends.weaviate.conftest import NewStore
from tests.fakes.weaviate.server import WeaviateServer
from tests.fakes.weaviate.server import weaviate as running

KEY = "very-secret-key"
VARIABLES = ("API_KEY", "URL", "HTTP_HOST", "HTTP_PORT", "GRPC_HOST", "GRPC_PORT")


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WEAVIATE_{name}", raising=False)


@pytest.fixture
def client(server: WeaviateServer) -> Iterator[weaviate.WeaviateClient]:
    with weaviate.connect_to_custom(
        server.host, server.http_port, False, server.host, server.grpc_port, False, skip_init_checks=True
    ) as made:
        yield made


def say(text: str = "hello", **metadata: object) -> Message:
    return Message(role="user", content=text, metadata={"user_id": "u", "session_id": "s", **metadata})


# --- where the server is -------------------------------------------------------------------------------------


def grpc_of(server: Server) -> tuple[str, int, bool]:
    grpc = server.params.grpc
    return grpc.host, grpc.port, grpc.secure


def test_the_cloud_is_found_by_its_url(no_environment: None) -> None:
    for url in ("https://name.weaviate.cloud", "name.weaviate.cloud"):
        found = server_of(Connection(url=url, api_key=KEY))
        assert (found.address, found.api_key) == ("https://name.weaviate.cloud:443", KEY)
        assert grpc_of(found) == ("grpc-name.weaviate.cloud", 443, True)
    assert grpc_of(server_of("https://name.weaviate.network")) == ("name.grpc.weaviate.network", 443, True)


def test_a_server_of_ones_own_is_found_by_url_or_hosts(no_environment: None) -> None:
    by_url = server_of("http://localhost:8080")
    assert (by_url.address, grpc_of(by_url)) == ("http://localhost:8080", ("localhost", 50051, False))
    by_hosts = server_of(Connection(deployment_type="custom", http_host="a", http_port=8443, grpc_host="b", url="x"))
    assert (by_hosts.address, grpc_of(by_hosts)) == ("https://a:8443", ("b", 50051, True))
    plain = server_of(Connection(http_host="a", http_port=80, http_secure=False))
    assert (plain.address, grpc_of(plain)) == ("http://a:80", ("a", 50051, False))


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, no_environment: None) -> None:
    for name, value in zip(VARIABLES, (KEY, "", "h", "8080", "g", "1234"), strict=True):
        monkeypatch.setenv(f"WEAVIATE_{name}", value)
    found = server_of(None)
    assert (found.address, grpc_of(found), found.api_key) == ("https://h:8080", ("g", 1234, True), KEY)
    assert KEY not in repr(found) + repr(Connection())


def test_a_connection_of_dynamiq_is_taken(no_environment: None) -> None:
    theirs = SimpleNamespace(
        deployment_type=WeaviateDeploymentType.CUSTOM, api_key=KEY, url=None, http_host="a", http_port=443,
        grpc_host="b", grpc_port=50051, timeout_init=1, timeout_query=2, timeout_insert=3,
    )  # fmt: skip
    found = server_of(theirs)
    assert (found.address, grpc_of(found), found.timeout.insert) == ("https://a:443", ("b", 50051, True), 3)


@pytest.mark.parametrize("wrong", [7, Connection, "ftp://host", "http://user:pw@host", "http://host:port"])
def test_a_wrong_connection_is_refused(wrong: object, no_environment: None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        server_of(wrong)
    assert "pw" not in str(caught.value)


def test_no_server_given_says_what_to_set(no_environment: None) -> None:
    with pytest.raises(ConfigurationError, match="WEAVIATE_URL"):
        Weaviate(embedder=None)


# --- opening -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"collection_name": "1st"},
        {"collection_name": "a b"},
        {"collection_name": ""},
        {"collection_name": None},
        {"tenant_name": "a b"},
        {"tenant_name": ""},
        {"alpha": 1.5},
        {"alpha": True},
        {"consistency_level": "SOME"},
        {"max_results": 0},
        {"max_message_bytes": 1.5},
        {"embedder": object()},
    ],
    ids=lambda options: " ".join(f"{key}={type(value).__name__}" for key, value in options.items()),
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Weaviate("http://127.0.0.1:1", **options)  # type: ignore[arg-type]


def test_the_definition_suits_ids_and_filters(store: Weaviate, client: weaviate.WeaviateClient) -> None:
    config = client.collections.use(store.collection_name).config.get()
    held = {each.name: each for each in config.properties}
    assert held["facts"].tokenization is Tokenization.FIELD
    assert held["terms"].tokenization is Tokenization.WHITESPACE
    assert held["timestamp"].index_range_filters
    assert not held["body"].index_filterable
    assert config.inverted_index_config.stopwords.preset.value == "none"


def test_a_collection_must_be_there_unless_it_may_be_created(new_store: NewStore) -> None:
    with pytest.raises(BackendError, match="create_if_not_exist=True"):
        new_store(create_if_not_exist=False)
    new_store().add(say())
    assert new_store(create_if_not_exist=False).count() == 1


def test_two_may_create_it_at_once(new_store: NewStore, server: WeaviateServer) -> None:
    new_store()
    if server.own is not None:  # as if the other had been faster
        server.ask_for("GET /v1/schema/", code=404)
    assert new_store().is_empty()


def test_another_kind_of_collection_is_refused_and_left_alone(
    new_store: NewStore, collection_name: str, client: weaviate.WeaviateClient
) -> None:
    theirs = [
        Property(name="message_content", data_type=DataType.TEXT),
        Property(name="user_id", data_type=DataType.TEXT),
    ]
    client.collections.create(collection_name, properties=theirs, vector_config=Configure.Vectors.self_provided())
    with pytest.raises(ConfigurationError, match=r"not created by this package.*weaviate\.md"):
        new_store()
    config = client.collections.use(collection_name).config.get()
    assert [each.name for each in config.properties] == ["message_content", "user_id"]


def test_tenants_share_nothing(new_store: NewStore) -> None:
    one, two = new_store(tenant_name="one"), new_store(tenant_name="two")
    one.add(say("zebra"))
    assert two.is_empty()
    assert two.search("zebra") == []
    two.add_many([say("zebra"), say("zebra")])
    assert (one.count(), two.count(), one.clear(), two.count()) == (1, 2, 1, 2)
    with pytest.raises(ConfigurationError, match="give tenant_name"):
        new_store()
    with pytest.raises(BackendError, match="tenant"):
        new_store(tenant_name="three", create_if_not_exist=False)


def test_a_collection_without_tenants_gets_none(new_store: NewStore) -> None:
    new_store()
    with pytest.raises(ConfigurationError, match="without tenants"):
        new_store(tenant_name="one")


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BackendConnectionError, match=f"127.0.0.1:{port}"):
        Weaviate(f"http://127.0.0.1:{port}")


def test_nobody_at_the_port_of_grpc(server: WeaviateServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=port, timeout_init=0.3)
    with pytest.raises(BackendConnectionError, match="ports of HTTP and gRPC"):
        Weaviate(where)


def test_a_key_is_asked_for_and_never_shown() -> None:
    with running("--api-key", KEY) as server:
        address = f"http://{server.host}:{server.http_port}"
        with pytest.raises(BackendAuthenticationError, match="WEAVIATE_API_KEY") as caught:
            Weaviate(Connection(url=address, grpc_port=server.grpc_port, api_key="wrong-secret"))
        assert "wrong-secret" not in str(caught.value)
        with Weaviate(Connection(url=address, grpc_port=server.grpc_port, api_key=KEY)) as store:
            store.add(say())
            assert store.count() == 1
            assert KEY not in repr(store) + json.dumps(store.to_dict()) + str(store.to_url())


def test_an_old_server_is_refused() -> None:
    with running("--version", "1.28.4") as server:
        where = Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)
        with pytest.raises(ConfigurationError, match=r"1\.29 or newer"):
            Weaviate(where)


# --- clients and URLs ----------------------------------------------------------------------------------------


def test_a_client_stays_the_callers(new_store: NewStore, client: weaviate.WeaviateClient, collection_name: str) -> None:
    import asyncio  # noqa: PLC0415

    with new_store(client) as store:
        store.add(say("one"))
        asyncio.run(store.aadd(say("two")))
        assert asyncio.run(store.acount()) == 2
        assert store.to_url() is None
    assert client.is_connected()
    assert client.collections.exists(collection_name)
    client.close()
    with pytest.raises(ConfigurationError, match="connect"):
        new_store(client)


def test_an_asynchronous_client_is_refused(server: WeaviateServer) -> None:
    theirs = weaviate.use_async_with_custom(
        server.host, server.http_port, False, server.host, server.grpc_port, False, skip_init_checks=True
    )
    with pytest.raises(ConfigurationError, match="asynchronous"):
        Weaviate(theirs)


def test_a_url_opens_it(server: WeaviateServer, new_store: NewStore, collection_name: str) -> None:
    new_store(embedder=None, tenant_name="t").add(say("kept"))
    url = f"weaviate://{server.host}:{server.http_port}/{collection_name}?grpc_port={server.grpc_port}&tenant_name=t"
    url += "&reindex=true"
    with create_backend(url) as backend:
        assert isinstance(backend, Weaviate)
        assert [message.content for message in backend.search("kept")] == ["kept"]
        again = backend.to_url()
    assert again is not None
    with create_backend(again) as backend:
        assert backend.count() == 1


def test_a_url_names_an_embedder(
    server: WeaviateServer, new_store: NewStore, collection_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(embedder=None)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    url = f"weaviate://{server.host}:{server.http_port}/{collection_name}?grpc_port={server.grpc_port}"
    with create_backend(f"{url}&embedder=text-embedding-3-large&alpha=0.25") as backend:
        assert backend.capabilities.hybrid
        again = backend.to_url()
    assert again is not None
    assert "embedder=text-embedding-3-large&alpha=0.25" in again
    assert KEY not in again


@pytest.mark.parametrize(
    "url",
    [
        "weaviate://",
        "weaviate://key@host/C",
        "weaviate://host/C/D",
        "weaviate://host:x/C",
        "weaviate://host:80/C?grpc_port=x",
        "weaviate://host:80/C?secure=maybe",
        "weaviate://host:80/C?api_key=secret",
    ],
)
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_backend(url)
    assert "secret" not in str(caught.value)
