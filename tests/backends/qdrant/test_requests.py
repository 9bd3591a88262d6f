"""The requests to the server, and its failures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from dynamiq_memory.backends import Qdrant
from dynamiq_memory.backends.qdrant import reader, writer
from dynamiq_memory.exceptions import (
    BackendConnectionError,
    BackendError,
    EmbedderError,
    MessageTooLargeError,
    PartialWriteError,
)
from dynamiq_memory.testing import Twin, contents, say
from tests.backends.qdrant.conftest import NewStore
from tests.fakes.embedders import NGrams, Scripted
from tests.fakes.http_server import Answer, Broken, Request
from tests.fakes.qdrant.server import QdrantServer

SCOPE = {"user_id": "user-1", "session_id": "session-1"}


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> Iterator[Callable[[Qdrant], Twin]]:
    """Calls a store synchronously, then asynchronously."""
    with asyncio.Runner() as runner:
        yield lambda store: Twin(store, runner if request.param == "async" else None)


def asked(server: QdrantServer) -> list[str]:
    return [f"{request.method} {request.path.rpartition('/c/')[2]}" for request in server.requests]


def test_the_cost_of_each_operation(server: QdrantServer, store: Qdrant, twin: Callable[[Qdrant], Twin]) -> None:
    own = twin(store)
    own.add_many([say(f"apple {number}") for number in range(30)])
    anchors = own.get_all()[5:15]
    costs: list[tuple[Callable[[], Any], list[str]]] = [
        (lambda: own.add(say("pear")), ["POST points", "PUT points"]),
        (lambda: own.get_all(10, SCOPE), ["POST points/scroll"]),
        (lambda: own.search("apple", SCOPE, 10), ["POST points/query/batch"]),
        (lambda: own.around(anchors, 2, 2), ["POST points", "POST points/query/batch"]),
        (lambda: own.count(SCOPE), ["POST points/count"]),
        (lambda: own.replace(SCOPE, [say("plum")]), ["POST points", "POST points/batch"]),
        (
            lambda: own.delete(user_id="user-1"),
            ["POST points/payload", "POST points/count", "POST points/delete", "POST points/delete"],
        ),
    ]
    for operation, expected in costs:
        server.requests.clear()
        operation()
        assert asked(server) == expected


def test_a_search_ranks_by_words_and_meaning_in_one_request(server: QdrantServer, new_store: NewStore) -> None:
    store = new_store(embedder=NGrams())
    store.add_many([say("a red apple"), say("applesauce"), say("a pear")])
    server.requests.clear()
    found = store.search("apple", limit=2)
    assert contents(found) == ["a red apple", "applesauce"]  # the second has no word of the query
    (request,) = server.requests
    assert [search["using"] for search in request.body["searches"]] == ["words", "dense"]


def test_without_an_embedder_words_alone_rank(server: QdrantServer, new_store: NewStore) -> None:
    store = new_store(embedder=None)
    store.add_many([say("a red apple"), say("applesauce"), say("")])
    server.requests.clear()
    assert contents(store.search("apples")) == ["a red apple"]
    assert [search["using"] for search in server.requests[-1].body["searches"]] == ["words"]


def test_a_weight_of_meaning(new_store: NewStore) -> None:
    new_store().add_many([say("pineapples and grapples"), say("an apple")])
    by_words = new_store(vector_weight=0.0).search("apple")
    assert contents(by_words)[0] == "an apple"
    by_meaning = new_store(vector_weight=1.0).search("grapples and pineapples")
    assert contents(by_meaning)[0] == "pineapples and grapples"


@pytest.mark.parametrize("metric", ["cosine", "dot_product", "l2"])
def test_metrics(new_store: NewStore, metric: str) -> None:
    store = new_store(metric=metric)
    store.add_many([say("plum"), say("applesauce"), say("pear")])
    assert contents(store.search("apples", limit=1)) == ["applesauce"]


def test_long_texts_are_fetched_only_for_what_is_returned(server: QdrantServer, store: Qdrant) -> None:
    store.add_many([say(f"apple {number} " + "and more " * 1000) for number in range(10)])
    server.requests.clear()
    found = store.search("apple", limit=2)
    assert all(len(message.content) > 9000 for message in found)
    assert asked(server) == ["POST points/query/batch", "POST points"]
    assert len(server.requests[1].body["ids"]) == 2


@pytest.mark.parametrize("limit", [1, 7, None])
def test_more_messages_of_one_time_than_a_page(
    store: Qdrant, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(reader, "PAGE", 10)
    texts = [f"{number}" for number in range(45)]
    store.add_many([say(text, timestamp=5.0 + (int(text) // 25) * 1e-7) for text in texts])
    assert contents(store.get_all(limit)) == texts[-(limit or 0) :]
    stored = store.get_all()
    assert contents(store.get_all(limit, before=stored[30])) == texts[:30][-(limit or 0) :]
    assert contents(store.get_all(limit, after=stored[3])) == texts[4:][:limit]
    assert [contents(window) for window in store.around([stored[20]], 2, 3)] == [texts[18:24]]


@pytest.mark.parametrize(
    "fault",
    [
        Broken(),
        Answer({"status": {"error": "busy"}}, 503),
        Answer({"status": {"error": "slow"}}, 429, {"retry-after": "0"}),
    ],
    ids=["broken", "unavailable", "throttled"],
)
def test_a_passing_failure_is_retried(
    server: QdrantServer, store: Qdrant, twin: Callable[[Qdrant], Twin], fault: Answer | Broken
) -> None:
    failed: list[str] = []

    def once_each(request: Request) -> Answer | Broken | None:
        if request.path in failed:
            return None
        failed.append(request.path)
        return fault

    own = twin(store)
    server.faults = once_each
    own.add_many([say("1"), say("2"), say("3")])
    assert contents(own.get_all()) == ["1", "2", "3"]
    assert contents(own.search("2")) == ["2"]
    assert own.delete(user_id="user-1") == 3
    assert len(failed) >= 6


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (Broken(), BackendConnectionError, "cannot be reached"),
        (Answer({"status": {"error": "busy"}}, 503), BackendConnectionError, "too busy"),
        (Answer({"status": {"error": "disk full"}}, 500), BackendError, "500: disk full"),
        (Answer("<html>a proxy</html>", 418), BackendError, "a proxy"),
        (Answer({"result": "unknown"}), BackendError, "update qdrant-client"),
    ],
    ids=["broken", "unavailable", "failed", "proxy", "unknown"],
)
def test_a_lasting_failure_becomes_our_error(
    server: QdrantServer, store: Qdrant, twin: Callable[[Qdrant], Twin], fault: Any, error: type[Exception], says: str
) -> None:
    own = twin(store)
    own.add(say("before"))
    server.faults = lambda _: fault
    for call in (own.get_all, own.count, lambda: own.add(say("x")), lambda: own.search("x"), own.clear):
        with pytest.raises(error, match=says) as caught:
            call()
        assert caught.value.__cause__ is not None
    server.faults = lambda _: None
    assert contents(own.get_all()) == ["before"]


def test_a_collection_that_is_deleted_later(server: QdrantServer, store: Qdrant) -> None:
    server.collections.pop("c").engine.close()
    with pytest.raises(BackendError, match="does not exist"):
        store.get_all()


def test_a_batch_that_fails_midway_reports_the_stored_ids(
    server: QdrantServer, store: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_MOST_POINTS", 10)
    writes: list[Request] = []

    def fails_at_the_third(request: Request) -> Answer | None:
        if request.method != "PUT":
            return None
        writes.append(request)
        return Answer({"status": {"error": "disk full"}}, 500) if len(writes) == 3 else None

    server.faults = fails_at_the_third
    messages = [say(f"{number}") for number in range(35)]
    with pytest.raises(PartialWriteError, match=r"20 of 35.*safe") as caught:
        store.add_many(messages)
    assert caught.value.stored_ids == tuple(message.id for message in messages[:20])
    assert [message.id for message in store.get_all()] == [message.id for message in messages[:20]]
    store.add_many(messages)
    assert [message.id for message in store.get_all()] == [message.id for message in messages]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda vectors: vectors[:-1], "vectors for"),
        (lambda vectors: [*vectors[:-1], [math.nan] * 64], "NaN"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["too few", "NaN", "raises"],
)
def test_an_embedder_that_fails_changes_nothing(
    new_store: NewStore, twin: Callable[[Qdrant], Twin], change: Callable[[Any], Any], says: str
) -> None:
    embedder = Scripted()
    own = twin(new_store(embedder=embedder))
    own.add_many([say("apple"), say("pear")])
    embedder.change = change
    for call in (
        lambda: own.add_many([say("plum"), say("cherry")]),
        lambda: own.replace(SCOPE, [say("plum"), say("cherry")]),
        lambda: own.update([m.model_copy(update={"content": "plum"}) for m in own.get_all()]),
    ):
        with pytest.raises(EmbedderError, match=says):
            call()
    embedder.change = lambda vectors: vectors
    assert contents(own.get_all()) == ["apple", "pear"]
    assert contents(own.search("apple")) == ["apple"]


def test_a_message_larger_than_a_request_is_refused(server: QdrantServer, new_store: NewStore) -> None:
    store = new_store(max_message_bytes=100_000_000)
    with pytest.raises(MessageTooLargeError, match="max_request_size_mb"):
        store.add(say("\0" * 6_000_000))  # six bytes each as JSON
    with pytest.raises(MessageTooLargeError, match="1,000"):
        new_store(max_message_bytes=1000).add(say("x" * 2000))
    assert store.is_empty()


def test_two_stores_that_delete_at_once_count_each_message_once(new_store: NewStore) -> None:
    stores = [new_store() for _ in range(4)]
    stores[0].add_many([say(f"{number}") for number in range(20)])
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda store: store.delete(user_id="user-1"), stores))
    assert sum(counts) == 20
    assert stores[0].is_empty()


def test_messages_that_are_being_deleted_are_not_read(server: QdrantServer, store: Qdrant) -> None:
    first, _ = store.add_many([say("apple"), say("apple pie")])

    def no_deletion(request: Request) -> Answer | None:
        return Answer({"status": {"error": "down"}}, 500) if request.path.endswith("/delete") else None

    server.faults = no_deletion
    with pytest.raises(BackendError, match="down"):
        store.delete(user_id="user-1")
    assert store.get_all() == store.search("apple") == []
    assert store.sessions() == []
    assert store.count() == 0
    store.add(first)
    assert contents(store.get_all()) == ["apple"]


def test_messages_that_could_not_be_erased_are_erased_later(
    server: QdrantServer, store: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_many([say("apple"), say("apple pie")])

    def points() -> int:
        with closing(QdrantClient(url=server.url, check_compatibility=False)) as client:
            return client.count(store.index_name).count

    before = points()
    server.faults = lambda request: Broken() if request.path.endswith("/delete") else None
    with pytest.raises(BackendError, match="not yet erased: delete the same again after 20 minutes"):
        store.delete(user_id="user-1")
    server.faults = lambda _: None
    assert store.delete(user_id="user-1") == 0
    assert points() == before  # another caller might be taking them
    monkeypatch.setattr(writer, "_period", lambda since: f"period {10**9 + since}")
    store.delete(user_id="user-2")
    assert points() == before
    assert store.delete(user_id="user-1") == 0
    assert points() == before - 2


def test_a_replacement_that_fails_loses_nothing(server: QdrantServer, store: Qdrant) -> None:
    store.add_many([say("old 1"), say("old 2")])
    server.faults = lambda request: (
        Answer({"status": {"error": "down"}}, 500)
        if request.path.endswith("/batch") and "operations" in request.body
        else None
    )
    with pytest.raises(BackendError, match="down"):
        store.replace(SCOPE, [say("new")])
    server.faults = lambda _: None
    assert contents(store.get_all()) == ["old 1", "old 2"]
    store.replace(SCOPE, [say("new")])
    operations = server.requests[-1].body["operations"]
    assert [next(iter(operation)) for operation in operations] == ["upsert", "delete"]
    assert contents(store.get_all()) == ["new"]


def test_texts_are_cut_for_the_embedder_alone(new_store: NewStore) -> None:
    store = new_store()
    text = "apple " * 10_000
    store.add(say(text))
    assert store.get_all()[0].content == text
    assert contents(store.search("apple")) == [text]


def test_local_mode_loses_nothing_to_threads(tmp_path: Path) -> None:
    with Qdrant(path=tmp_path, embedder=NGrams(16)) as store:

        def write(writer: int) -> None:
            for number in range(10):
                store.add(say(f"{number}", session=f"s{writer}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        assert store.count() == 80
    with Qdrant(path=tmp_path, embedder=NGrams(16)) as again:
        assert again.count() == 80
        assert [session.messages for session in again.sessions()] == [10] * 8


def test_many_event_loops_one_after_the_other(store: Qdrant) -> None:
    async def use(number: int) -> int:
        await store.aadd(say(f"{number}"))
        return len(await store.aget_all())

    assert [asyncio.run(use(number)) for number in range(4)] == [1, 2, 3, 4]


def test_closing_in_an_event_loop(server: QdrantServer, new_store: NewStore) -> None:
    async def use() -> None:
        async with new_store() as store:
            await store.aadd(say("x"))

    asyncio.run(use())


def test_two_thousand_metadata_keys(store: Qdrant) -> None:
    metadata = {f"key {number}": number for number in range(2000)}
    store.add(say(metadata=metadata))
    assert store.count({"key 1999": 1999, "key 0": {"lt": 1}}) == 1
    assert store.count({"key 1999": 1998}) == 0
