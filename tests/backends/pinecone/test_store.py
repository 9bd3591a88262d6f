"""Lag, limits and faults of Pinecone, and opening an index."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pinecone
import pytest

import dynamiq_memory
from dynamiq_memory.backends import Pinecone, create_backend
from dynamiq_memory.backends.pinecone import (
    PineconeIndexType,
    PineconeSimilarityMetric,
    errors,
    installed,
    reader,
    recent_writes,
    schema,
    writer,
)
from dynamiq_memory.connections import Pinecone as PineconeConnection
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    EmbedderError,
    MessageTooLargeError,
    MissingDependencyError,
    PartialWriteError,
)
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message
from dynamiq_memory.testing import contents, say
from dynamiq_memory.testing.base import SCOPE
from tests.backends.pinecone.conftest import DIMENSION, NewStore
from tests.fakes.embedders import NGrams, Scripted
from tests.fakes.openai import KEY, OpenAIServer
from tests.fakes.pinecone.server import API_KEY, Fault, PineconeServer


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(writer, "_ROOM_WAITS", (0.0, 0.001))


# --- eventual consistency ------------------------------------------------------------------------------------


def test_this_process_sees_its_writes_at_once_and_others_later(server: PineconeServer, new_store: NewStore) -> None:
    own, other = new_store(), new_store()
    server.hold()
    own.add_many([say("one apple"), say("two pears")])
    assert contents(own.get_all(limit=1, filters=SCOPE)) == ["two pears"]
    assert contents(own.search("apple", SCOPE)) == ["one apple"]
    assert own.count(SCOPE) == 2
    assert other.get_all(filters=SCOPE) == []
    server.release()
    assert contents(other.get_all(filters=SCOPE)) == ["one apple", "two pears"]


def test_this_process_sees_its_deletions_at_once_and_others_later(server: PineconeServer, new_store: NewStore) -> None:
    own, other = new_store(), new_store()
    stored = own.add_many([say("one"), say("two"), say("three")])
    server.hold()
    assert own.clear({"message_id": stored[0].id}) == 1
    assert own.clear({"message_id": stored[0].id}) == 0
    own.update([stored[1].model_copy(update={"content": "second"})])
    assert contents(own.get_all()) == ["second", "three"]
    assert own.count() == 2
    assert contents(other.get_all()) == ["one", "two", "three"]
    server.release()
    assert contents(other.get_all()) == ["second", "three"]


def test_shown_writes_are_forgotten(server: PineconeServer, store: Pinecone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_writes, "SETTLED_SECONDS", 0.0)
    server.hold()
    store.add_many([say("one"), say("two")])
    store.get_all()
    assert len(store._reader.recent) == 2
    server.release()
    assert contents(store.get_all()) == ["one", "two"]
    assert len(store._reader.recent) == 0
    store.clear()
    store.get_all()
    assert store.count() == 0


def test_too_many_unshown_writes_are_refused_before_anything_is_written(
    server: PineconeServer, store: Pinecone
) -> None:
    store._reader.recent.most = 3
    server.hold()
    store.add_many([say(f"{n}") for n in range(3)])
    with pytest.raises(BackendError, match="write more slowly"):
        store.add(say("more"))
    server.release()
    assert contents(store.get_all()) == ["0", "1", "2"]
    store.add(say("more"))
    assert len(store._reader.recent) <= 3
    assert contents(store.get_all()) == ["0", "1", "2", "more"]


def test_another_process_writes_later(server: PineconeServer, new_store: NewStore) -> None:
    own, other = new_store(), new_store()
    stored = own.add(say("old"))
    other.add(stored.model_copy(update={"content": "new"}))
    assert contents(own.get_all()) == ["new"]


def test_a_message_that_moves_in_time_is_stored_once(server: PineconeServer, new_store: NewStore) -> None:
    own, other = new_store(), new_store()
    first, _ = own.add_many([say("first", timestamp=1.0), say("second", timestamp=2.0)])
    other.add(say("moved", id=first.id, timestamp=3.0))
    assert contents(new_store().get_all()) == ["second", "moved"]
    assert len(server.indexes["conversations"].namespaces["default"]) == 2


# --- requests ------------------------------------------------------------------------------------------------


def test_the_newest_messages_cost_two_requests_however_long_the_session(
    server: PineconeServer, store: Pinecone
) -> None:
    store.add_many([say(f"{n}") for n in range(700)])
    server.requests.clear()
    assert contents(store.get_all(limit=20, filters=SCOPE)) == [f"{n}" for n in range(680, 700)]
    assert server.requests == {"vectors/list": 1, "query": 1}
    server.requests.clear()
    anchor = store.get_all(limit=1, filters=SCOPE | {"message_id": store.get_all(limit=350, filters=SCOPE)[0].id})[0]
    server.requests.clear()
    assert contents(store.around([anchor], 2, 1)[0]) == ["348", "349", "350", "351"]
    assert server.requests["query"] == 2


def test_whether_there_is_a_message_is_found_out_in_one_page(server: PineconeServer, new_store: NewStore) -> None:
    writer_, reader_ = new_store(), new_store()
    writer_.add_many([say(f"{n}") for n in range(250)])
    writer_.delete(filters={"message_id": writer_.get_all(1)[0].id}, **SCOPE)
    server.requests.clear()
    assert not writer_.is_empty()
    assert server.requests == {}  # it knows what it has written
    for filters in ({}, SCOPE):
        server.requests.clear()
        assert not Memory(backend=reader_, filters=filters).is_empty()
        assert server.requests == {"vectors/list": 1}
    assert Memory(backend=reader_, filters={"user_id": "nobody"}).is_empty()
    assert not Memory(backend=reader_, filters={**SCOPE, "timestamp": {"gt": 0}}).is_empty()
    reader_.clear()
    assert reader_.is_empty()


def test_a_result_that_is_too_large_is_read_in_parts(server: PineconeServer, store: Pinecone) -> None:
    text = "word " * 5_000
    store.add_many([say(f"{n} {text}") for n in range(180)])  # 4.5 MB, of which a result holds 4
    assert [content.split()[0] for content in contents(store.get_all())] == [f"{n}" for n in range(180)]


def test_more_ids_than_a_result_holds(server: PineconeServer, store: Pinecone, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_many([say(f"{n}", session=f"s{n % 3}") for n in range(90)])
    monkeypatch.setattr(reader, "MOST_RESULTS", 10)
    assert store.count({"session_id": ["s0", "s1"]}) == 60


def test_large_messages_in_parts(server: PineconeServer, new_store: NewStore) -> None:
    text = 'quoted "text" with ünïcödé \\ ' * 10_000
    own = new_store()
    own.add_many([say("before"), say(text, id="large"), say("after")])
    held = server.indexes["conversations"].namespaces["default"]
    assert sum(each.startswith("p/") for each in held) > 10
    assert contents(new_store().get_all()) == ["before", text, "after"]
    own.add(own.get_all()[1].model_copy(update={"content": text + "more"}))
    assert contents(new_store().get_all())[1] == text + "more"
    parts = sum(each.startswith("p/") for each in held)
    assert new_store().delete(session_id=SCOPE["session_id"], user_id=SCOPE["user_id"]) == 3
    assert parts > 10
    assert held == {}


def test_a_message_with_missing_parts_is_an_error(
    server: PineconeServer, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_PART_WAITS", (0.001,))
    new_store().add(say("x" * 100_000))
    held = server.indexes["conversations"].namespaces["default"]
    held.pop(next(each for each in held if each.startswith("p/")))
    with pytest.raises(BackendError, match="1 of 3 parts"):
        new_store().get_all()


def test_a_message_that_is_too_large(store: Pinecone) -> None:
    with pytest.raises(MessageTooLargeError, match="8,388,608"):
        store.add_many([say("good"), say("x" * 9_000_000)])
    assert store.is_empty()


# --- search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", list(PineconeSimilarityMetric))
def test_ranking_by_words_and_meaning(new_store: NewStore, metric: str) -> None:
    store = new_store(metric=metric)
    texts = ["The invoice arrived.", "Invoicing is dull.", "A dog barks.", "", "?!"]
    store.add_many([say(text) for text in texts])
    for each in (store, new_store(metric=metric)):  # recent writes, and the index
        found = each.search("invoices")
        assert set(contents(found)) == {"The invoice arrived.", "Invoicing is dull."}
        assert all(0 < message.score <= 1 for message in found if message.score is not None)
        assert each.search("zzz") == []
        assert contents(each.search("who", limit=2)) == []


def test_a_hit_far_before_the_ranked_messages_is_found(new_store: NewStore) -> None:
    store = new_store(most_ranked=50)
    store.add_many([say("about the zebra"), *(say(f"{n}") for n in range(120))])
    for each in (store, new_store(most_ranked=50)):
        assert contents(each.search("zebra", SCOPE, limit=3)) == ["about the zebra"]


# --- faults --------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Pinecone], object]] = {
    "vectors/upsert": lambda store: store.add(say("new", id="new")),
    "query": lambda store: store.get_all(limit=1, filters=SCOPE),
    "vectors/list": lambda store: store.count(SCOPE),
    "vectors/delete": lambda store: store.clear(SCOPE),
}


@pytest.mark.parametrize("path", OPERATIONS)
@pytest.mark.parametrize(
    "fault", [{"status": 429}, {"status": 503}, {"status": 0}, {"status": 503, "late": True}], ids=str
)
def test_a_passing_fault_is_hidden(server: PineconeServer, store: Pinecone, path: str, fault: dict[str, Any]) -> None:
    store.add(say("one", id="one"))
    server.faults.append(Fault(path, **fault))
    OPERATIONS[path](store)
    assert server.faults[0].times == 0
    expected = {"vectors/upsert": ["one", "new"], "vectors/delete": []}.get(path, ["one"])
    assert contents(store.get_all()) == expected


@pytest.mark.parametrize("path", OPERATIONS)
@pytest.mark.parametrize(("status", "said"), [(429, "throttled"), (503, "not available")])
def test_a_lasting_fault_is_an_error_and_changes_nothing(
    server: PineconeServer, store: Pinecone, path: str, status: int, said: str
) -> None:
    store.add(say("one"))
    server.faults.append(Fault(path, times=100, status=status))
    with pytest.raises(BackendError, match=said) as caught:
        OPERATIONS[path](store)
    assert API_KEY not in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)
    server.faults.clear()
    assert contents(store.get_all()) == ["one"]


def test_faults_of_asynchronous_calls(server: PineconeServer, store: Pinecone) -> None:
    async def work() -> None:
        await store.aadd(say("one"))
        server.faults.append(Fault("vectors/upsert", status=429))
        await store.aadd(say("two"))
        server.faults.append(Fault("query", times=100, status=503))
        with pytest.raises(BackendConnectionError, match="not available"):
            await store.aget_all()
        server.faults.clear()
        assert contents(await store.aget_all()) == ["one", "two"]

    asyncio.run(work())


def test_a_batch_that_fails_midway_reports_the_stored_ids(server: PineconeServer, store: Pinecone) -> None:
    messages = [say(f"{n}") for n in range(1_500)]
    server.faults.append(Fault("vectors/upsert", times=100, status=503, skip=1))
    with pytest.raises(PartialWriteError, match="of 1500 messages are stored") as caught:
        store.add_many(messages)
    server.faults.clear()
    stored = {message.id for message in store.get_all()}
    assert set(caught.value.stored_ids) == stored == {message.id for message in messages[: len(stored)]}
    store.add_many(messages)
    assert contents(store.get_all()) == [f"{n}" for n in range(1_500)]


def test_a_wrong_key_and_an_unreachable_host(server: PineconeServer) -> None:
    with pytest.raises(BackendAuthenticationError, match="PINECONE_API_KEY") as caught:
        Pinecone(PineconeConnection(api_key="pcsk_wrong-key", host=server.url), NGrams())
    assert "pcsk_wrong-key" not in str(caught.value)
    with pytest.raises(BackendConnectionError, match="cannot be reached"):
        Pinecone(PineconeConnection(api_key=API_KEY, host="http://127.0.0.1:9"), NGrams())


@pytest.mark.parametrize("key", [None, "", "with\nbreak", "ä"])
def test_an_unusable_key(server: PineconeServer, key: str | None) -> None:
    with pytest.raises(ConfigurationError, match="API key"):
        Pinecone(PineconeConnection(api_key=key, host=server.url), NGrams())


# --- embedders -----------------------------------------------------------------------------------------------


def _raise(_: object) -> object:
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_raise, EmbedderError, "out of order"),
        (lambda vectors: vectors[:-1], EmbedderError, "1 vectors for 2"),
        (lambda vectors: [[float("nan")] * len(v) for v in vectors], EmbedderError, "NaN"),
        (lambda vectors: [v[:-1] for v in vectors], ConfigurationError, "63 numbers.*64"),
    ],
    ids=["raises", "too few", "nan", "dimension"],
)
def test_a_failing_embedder_writes_nothing(
    server: PineconeServer, new_store: NewStore, change: Callable[[Any], Any], error: type[Exception], said: str
) -> None:
    embedder = Scripted(dimension=64)
    store = new_store(embedder=embedder)
    embedder.change = change
    with pytest.raises(error, match=said):
        store.add_many([say("one"), say("two")])
    assert store.is_empty()
    assert server.indexes["conversations"].namespaces.get("default", {}) == {}


def test_vectors_of_zeros_and_empty_content_are_stored_and_not_searched(
    server: PineconeServer, new_store: NewStore
) -> None:
    store = new_store()
    store.add_many([say("?!"), say("", "assistant", tool_calls=[{"id": "c"}]), say("word")])
    assert contents(store.get_all()) == ["?!", "", "word"]
    assert contents(new_store().search("word")) == ["word"]
    held = server.indexes["conversations"].namespaces["default"].values()
    assert [each["metadata"]["embedded"] for each in held].count(False) == 2


# --- opening -------------------------------------------------------------------------------------------------


def test_an_index_is_created_with_its_settings(server: PineconeServer, new_store: NewStore) -> None:
    new_store(index_name="a", cloud="gcp", region="europe-west4", metric="dotproduct")
    new_store(
        index_name="b",
        index_type=PineconeIndexType.POD,
        environment="us-east1-gcp",
        pod_type="p1.x1",
        replicas=2,
        pods=2,
    )
    a, b = server.indexes["a"], server.indexes["b"]
    assert (a.dimension, a.metric, a.spec["serverless"]) == (
        DIMENSION,
        "dotproduct",
        {"cloud": "gcp", "region": "europe-west4"},
    )
    assert b.spec["pod"]["pod_type"] == "p1.x1"
    assert b.spec["pod"]["replicas"] == 2


def test_an_index_that_becomes_ready_later(
    server: PineconeServer, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_FIRST_WAIT", 0.001)
    server.ready_after = 3
    assert contents([new_store().add(say("one"))]) == ["one"]


def test_an_index_that_never_becomes_ready(
    server: PineconeServer, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store()
    index = server.indexes["conversations"]
    index.ready_after, index.state = 1_000_000, "InitializationFailed"
    with pytest.raises(BackendError, match="InitializationFailed: delete it"):
        new_store()
    index.state = "Initializing"
    monkeypatch.setattr(schema, "_READY_SECONDS", 0.0)
    with pytest.raises(BackendError, match="not ready after 0 seconds"):
        new_store()


def test_an_index_that_another_process_creates_first(
    server: PineconeServer, new_store: NewStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = client.create_index

    def twice(**arguments: Any) -> None:
        create(**arguments)
        create(**arguments)

    monkeypatch.setattr(client, "create_index", twice)
    assert new_store().is_empty()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"index_name": "Upper"}, ConfigurationError, "index_name"),
        ({"index_name": "x" * 46}, ConfigurationError, "index_name"),
        ({"namespace": "ä"}, ConfigurationError, "namespace"),
        ({"metric": "manhattan"}, ConfigurationError, "cosine, euclidean, dotproduct"),
        ({"index_type": "cloud"}, ConfigurationError, "serverless, pod"),
        ({"index_type": "pod"}, ConfigurationError, "environment"),
        ({"region": None}, ConfigurationError, "region"),
        ({"pods": 0}, ConfigurationError, "pods"),
        ({"dimension": 20_001}, ConfigurationError, "dimension"),
        ({"dimension": 7}, ConfigurationError, "dimension=7"),
        ({"most_ranked": 0}, ConfigurationError, "most_ranked"),
        ({"embedder": object()}, ConfigurationError, "embed_documents"),
        ({"given": object()}, ConfigurationError, "connection must be"),
        ({"create_if_not_exist": False}, BackendError, "create_if_not_exist=True"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_wrong_settings(
    server: PineconeServer, new_store: NewStore, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        new_store(**options)
    assert server.indexes == {}


def test_no_embedder(server: PineconeServer, client: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs an embedder"):
        Pinecone(client)


def test_an_index_of_another_kind(server: PineconeServer, new_store: NewStore) -> None:
    new_store().add(say("one"))
    with pytest.raises(ConfigurationError, match="compares by 'cosine'"):
        new_store(metric="dotproduct")
    with pytest.raises(ConfigurationError, match=f"{DIMENSION} numbers, not of dimension=5"):
        new_store(dimension=5)
    other = new_store(embedder=NGrams(32))
    with pytest.raises(ConfigurationError, match=f"32 numbers.*{DIMENSION}"):
        other.add(say("two"))
    assert contents(new_store().get_all()) == ["one"]


def test_connections_of_others(server: PineconeServer, client: Any, new_store: NewStore) -> None:
    index = new_store()._clients.index.get()
    for given in (client, index, SimpleNamespace(api_key=API_KEY, host=server.url)):
        with Pinecone(given, NGrams(DIMENSION), namespace="others") as store:
            store.add(say(type(given).__name__))
            asyncio.run(store.aadd(say("asynchronously")))
            assert contents(store.get_all(limit=2)) == [type(given).__name__, "asynchronously"]
            assert API_KEY not in repr(store) + json.dumps(store.to_dict())
    assert index.describe_index_stats().total_vector_count == 6  # still open


@pytest.mark.skipif(not hasattr(pinecone, "AsyncPinecone"), reason="the client has no such class")
def test_an_asynchronous_client_is_refused(server: PineconeServer) -> None:
    with pytest.raises(ConfigurationError, match="asynchronous methods only"):
        Pinecone(pinecone.AsyncPinecone(api_key=API_KEY, host=server.url), NGrams())


def test_namespaces_are_separate(new_store: NewStore) -> None:
    one, two = new_store(namespace="one"), new_store(namespace="")
    one.add(say("in one"))
    two.add(say("in the other"))
    assert contents(one.get_all()) == ["in one"]
    assert contents(two.get_all()) == ["in the other"]
    assert two.clear() == 1
    assert one.count() == 1


def test_deleting_in_a_namespace_that_something_else_deleted(server: PineconeServer, store: Pinecone) -> None:
    store.add(say("one"))
    server.indexes["conversations"].namespaces.clear()
    assert store.clear() == 1
    assert asyncio.run(store.aclear()) == 0
    store.add(say("two"))
    assert contents(store.get_all()) == ["two"]


def test_create_backend(server: PineconeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", API_KEY)
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", server.url)
    with OpenAIServer() as openai:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_URL", openai.url)
        with create_backend("pinecone://chats?namespace=n&metric=dotproduct&region=us-west-2&reindex=true") as backend:
            backend.add(say("hello"))
            assert backend.to_dict()["namespace"] == "n"
    assert server.indexes["chats"].metric == "dotproduct"
    assert list(server.indexes["chats"].namespaces) == ["n"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("pinecone://", "use pinecone://"),
        ("pinecone://key@index", "with the API key in PINECONE_API_KEY"),
        ("pinecone://index?api_key=x", "api_key"),
        ("pinecone://index?create_if_not_exist=1", "true or false"),
    ],
)
def test_wrong_urls(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        create_backend(url)


def test_a_mixed_installation_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_version", {"pinecone": "10.2.0", "pinecone-client": "3.2.2"}.get)
    with pytest.raises(ConfigurationError, match=r"both installed.*pip uninstall -y pinecone pinecone-client"):
        installed.check_installation()
    monkeypatch.setattr(installed, "_version", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"dynamiq-memory\[pinecone\]"):
        installed.check_installation()
    monkeypatch.setattr(installed, "_version", {"pinecone-client": "3.2.2"}.get)
    installed.check_installation()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_an_index_owned_by_the_caller_is_not_shared_with_a_child(
    server: PineconeServer, client: Any, tmp_path: Path
) -> None:
    with Pinecone(client, NGrams(DIMENSION)) as made:
        made.add(say("before"))
    code = """
import os, sys
from pinecone import Pinecone as Client
from dynamiq_memory.backends import Pinecone
from dynamiq_memory.exceptions import BackendError
from tests.backends.pinecone.conftest import DIMENSION
from tests.fakes.embedders import NGrams
key, url = sys.argv[1:]
client = Client(api_key=key, host=url)
store = Pinecone(client.Index("conversations"), NGrams(DIMENSION))
broken = []
for options in ({"metric": "x"}, {"dimension": 5}):
    try:
        Pinecone(client, NGrams(DIMENSION), **options)
    except ValueError as error:
        broken.append(error)  # keeps the backend that could not be opened
assert store.count() == 1
child = os.fork()
if child == 0:
    status = 1
    try:
        store.count()
    except BackendError as error:
        status = 0 if "forked" in str(error) else 2
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert store.count() == 1
"""
    root = Path(dynamiq_memory.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, API_KEY, server.url],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_closing_within_a_loop_and_from_another_thread(new_store: NewStore) -> None:
    async def work() -> None:
        first, second = new_store(), new_store()
        await first.aadd(say("one"))
        await second.aadd(say("two"))
        first.close()
        await second.aclose()
        with pytest.raises(BackendError, match="closed"):
            await first.aget_all()

    asyncio.run(work())


# --- the server of the tests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ({"id": "ä"}, "ASCII"),
        ({"id": "x" * 513}, "512"),
        ({"values": [0.0] * 4}, "non-zero"),
        ({"values": [1.0] * 5}, "dimension"),
        ({"metadata": {"k": "x" * 40_960}}, "40960"),
        ({"metadata": {"k": ["x", 1]}}, "list of strings"),
        ({"metadata": {"k": {"a": 1}}}, "string, number"),
        ({"metadata": {"$k": 1}}, "not allowed"),
    ],
    ids=str,
)
def test_the_server_refuses_what_the_service_refuses(
    server: PineconeServer, client: Any, vector: dict[str, Any], said: str
) -> None:
    spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
    client.create_index(name="raw", dimension=4, metric="cosine", spec=spec, timeout=-1)
    index = client.Index(host=client.describe_index("raw").host)
    with index, pytest.raises(Exception, match=said):
        index.upsert(vectors=[{"id": "a", "values": [1.0, 0.0, 0.0, 0.0], **vector}])
    assert server.indexes["raw"].namespaces == {}


# --- a real index --------------------------------------------------------------------------------------------


def test_a_real_index(real_store: Pinecone) -> None:
    stored = real_store.add_many([say("I moved to Lisbon."), say("Nice!", "assistant"), say("", "assistant")])
    assert real_store.get_all(filters=SCOPE) == stored
    assert contents(real_store.search("Lisbon", SCOPE))[0] == "I moved to Lisbon."
    assert isinstance(stored[0], Message)
    assert real_store.delete(SCOPE["session_id"], SCOPE["user_id"]) == 3
    assert real_store.get_all(filters=SCOPE) == []
