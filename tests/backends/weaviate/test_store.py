"""Behaviour of this store: requests, pages, faults, interrupted replacements."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import Weaviate
from dynamiq_memory.connections import Weaviate as Connection
from dynamiq_memory.exceptions import (
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    EmbedderError,
    MessageTooLargeError,
    PartialWriteError,
)
from tests.backends.weaviate.conftest import NewStore
from tests.fakes.embedders import NGrams, Scripted
from tests.fakes.weaviate.server import WeaviateServer
from tests.fakes.weaviate.server import weaviate as running


def say(text: str = "hello", **fields: Any) -> Message:
    given = {name: fields.pop(name) for name in ("id", "timestamp") if name in fields}
    return Message(role="user", content=text, metadata={"user_id": "u", "session_id": "s", **fields}, **given)


def contents(messages: list[Message]) -> list[Any]:
    return [message.content for message in messages]


# --- requests ------------------------------------------------------------------------------------------------


def test_common_operations_are_few_requests(store: Weaviate, server: WeaviateServer) -> None:
    stored = store.add_many([say(f"apple {number}") for number in range(30)])
    store.add(say())  # the first after the first asks how long the vectors are

    def cost(work: Any) -> dict[str, int]:
        server.forget()
        work()
        return {name.split()[0]: count for name, count in server.requests.items()}

    assert cost(lambda: store.get_all(20, {"session_id": "s"})) == {"Search": 1}
    assert cost(lambda: store.add(say())) == {"Search": 1, "BatchObjects": 1}
    assert cost(lambda: store.add_many([say() for _ in range(200)])) == {"Search": 1, "BatchObjects": 1}
    assert cost(lambda: store.count({"user_id": "u"})) == {"Aggregate": 1}
    assert cost(store.is_empty) == {"Search": 1}
    assert cost(lambda: store.search("apple", {"user_id": "u"}, 5)) == {"Search": 3, "Aggregate": 1}
    assert cost(lambda: store.around(stored[5:15], 1, 1)) == {"Search": 4}
    assert cost(lambda: store.delete(session_id="s")) == {"BatchDelete": 2}


def test_more_than_the_server_gives_at_once(new_store: NewStore) -> None:
    store = new_store(max_results=10)
    stored = store.add_many([say(f"apple {n}", timestamp=float(n // 7), even=n % 2 == 0) for n in range(64)])
    assert store.get_all() == stored
    assert store.get_all(25) == stored[-25:]
    assert store.get_all(25, {"even": True}) == stored[::2][-25:]
    assert store.get_all(before=stored[40], after=stored[3]) == stored[4:40]
    assert store.get_all(15, after=stored[3]) == stored[4:19]
    assert [s.messages for s in store.sessions()] == [64]
    # As many as the server ranks, by each way.
    assert 10 <= len(store.search("apple", limit=50)) <= 20
    assert store.delete(user_id="u") == 64


def test_many_at_one_time_are_paged(new_store: NewStore) -> None:
    store = new_store(embedder=None)
    stored = store.add_many([say(f"{number}", timestamp=1.0) for number in range(350)])
    assert contents(store.get_all()) == contents(stored)
    assert contents(store.get_all(120, before=stored[300])) == contents(stored[180:300])


def test_a_server_that_returns_less_at_once() -> None:
    with running("--maximum-results", "120") as server:
        connection = Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)
        with Weaviate(connection, max_results=120) as store:
            stored = store.add_many([say(f"apple {n}") for n in range(130)])
            assert contents(store.get_all()) == contents(stored)
            store.replace({"message_id": stored[0].id, "session_id": "s", "user_id": "u"}, [say("pear")])
            assert contents(store.search("pear", limit=1)) == ["pear"]
        with Weaviate(connection) as store:
            for call in (lambda: store.search("apple"), lambda: store.add_many(stored)):
                with pytest.raises(ConfigurationError, match="QUERY_MAXIMUM_RESULTS as max_results"):
                    call()


def test_large_answers_are_asked_for_in_parts(collection_name: str) -> None:
    with running("--grpc-bytes", str(1024 * 1024)) as server:
        connection = Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)
        with Weaviate(connection, collection_name=collection_name) as store:
            # Their terms are 1.3 MB, with equal scores: pages of a ranking would miss some.
            store.add_many([say("apple " + "abcdefghijklmnopqrstuvwxyz " * 2000) for _ in range(24)])
            assert len(store.search("apple")) == 24
            store.clear()
            stored = store.add_many([say(f"apple {n} " + "x" * 100_000) for n in range(30)])
            assert store.get_all() == stored
            assert len(store.search("apple")) == 30
            assert asyncio.run(store.aget_all()) == stored
            with pytest.raises(MessageTooLargeError):
                store.add(say("x" * 900_000))
            assert store.count() == 30


def test_users_rows_are_never_mixed_up_by_the_index(store: Weaviate) -> None:
    users = ["a", "A", "it", "user-1", "user 1", " user-1", "user-1 ", "null", "[]", '"', "x" * 300, "x" * 301, "\t"]
    store.add_many([say("hello", user_id=user) for user in users])
    for user in users:
        assert [m.user_id for m in store.get_all(filters={"user_id": user})] == [user]
        assert store.count({"user_id": user}) == 1
    assert {session.user_id for session in store.sessions()} == set(users)
    for user in users:
        assert store.delete(user_id=user) == 1


def test_more_metadata_than_is_indexed(store: Weaviate) -> None:
    store.add(say("many", **{f"key {number}": number for number in range(2000)}))
    store.add(say("few", **{"key 1999": 1999}))
    store.add(say("none"))
    assert contents(store.get_all(filters={"key 1999": 1999})) == ["many", "few"]
    assert store.count({"key 1999": 1999}) == 2
    assert store.count({"key 1999": None}) == 1
    assert sorted(contents(store.search("many few none", {"key 1999": {"gte": 1999}}))) == ["few", "many"]
    assert store.delete(user_id="u", filters={"key 1999": 1999}) == 2
    assert contents(store.get_all()) == ["none"]


# --- ranking -------------------------------------------------------------------------------------------------


def test_alpha_weighs_words_and_meaning(new_store: NewStore) -> None:
    new_store().add_many([say("the billing of invoices"), say("rebilled misbilling"), say("")])
    by_words, by_meaning = new_store(alpha=0), new_store(alpha=1)
    assert contents(by_words.search("billing")) == ["the billing of invoices"]
    assert len(by_meaning.search("billing")) == 2
    assert by_words.capabilities.vector is False
    assert by_meaning.capabilities.keyword is False
    assert new_store(embedder=None).alpha == 0


def test_empty_content_is_stored_without_a_vector(store: Weaviate, server: WeaviateServer) -> None:
    store.add_many([say("words"), say("")])
    vectors = [stored["vectors"] for stored in server.objects(store.collection_name)]
    assert vectors == [["default"], []]


def test_a_tokenizer_may_give_anything(new_store: NewStore) -> None:
    store = new_store(embedder=None, tokenizer=lambda text: [*text.split("|"), "\0", "", "x" * 500])
    store.add_many([say("two words|one"), say("two|words")])
    assert contents(store.search("two words", limit=1)) == ["two words|one"]


# --- embedders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda vectors: vectors[1:],
        lambda vectors: [[math.nan] * 64 for _ in vectors],
        lambda vectors: [*vectors[:-1], [1.0]],
        lambda vectors: 1 / 0,
    ],
    ids=["too few", "NaN", "another length", "raises"],
)
def test_a_bad_embedder_leaves_nothing(new_store: NewStore, change: Any) -> None:
    store = new_store(embedder=Scripted(change))
    for add in (store.add_many, lambda messages: asyncio.run(store.aadd_many(messages))):
        with pytest.raises((EmbedderError, ConfigurationError)):
            add([say("one"), say("two"), say("three")])
    assert store.is_empty()


def test_another_dimension_names_both_numbers(new_store: NewStore) -> None:
    new_store().add(say("512 numbers"))
    other = new_store(embedder=NGrams(64))
    for work in (lambda: other.add(say("64 numbers")), lambda: other.search("numbers")):
        with pytest.raises(ConfigurationError, match=r"64.*512|512.*64"):
            work()
    assert other.count() == 1


def test_another_dimension_that_the_server_finds(new_store: NewStore) -> None:
    one, other = new_store(), new_store(embedder=NGrams(64))
    assert other.search("nothing is there yet") == []
    assert other.is_empty()
    one.add(say("512 numbers"))
    assert other._embedder is not None
    other._embedder.dimension = 64  # as if both had begun at once
    with pytest.raises(ConfigurationError, match=r"64.*512|512.*64"):
        other.add(say("64 numbers"))
    assert one.count() == 1


# --- faults --------------------------------------------------------------------------------------------------


def test_a_batch_that_fails_halfway_names_what_is_stored(store: Weaviate, server: WeaviateServer) -> None:
    messages = [say(f"{number}") for number in range(4)]
    server.ask_for("BatchObjects", objects=[1, 3])
    with pytest.raises(PartialWriteError, match="injected") as caught:
        store.add_many(messages)
    assert list(caught.value.stored_ids) == [messages[0].id, messages[2].id]
    store.add_many(messages)
    assert contents(store.get_all()) == list("0123")


def test_a_batch_that_fails_leaves_nothing(store: Weaviate, server: WeaviateServer) -> None:
    server.ask_for("BatchObjects", code="INTERNAL", text="disk full")
    with pytest.raises(BackendError, match="disk full") as caught:
        store.add_many([say("1"), say("2")])
    assert caught.value.__cause__ is not None
    assert store.is_empty()


def test_a_lost_answer_can_be_repeated(store: Weaviate, server: WeaviateServer) -> None:
    message = say("once")
    server.ask_for("BatchObjects", code="INTERNAL", done=True)
    with pytest.raises(BackendError):
        store.add(message)
    store.add(message)
    assert contents(store.get_all()) == ["once"]


def test_a_server_that_goes_away_is_a_connection_error(store: Weaviate, server: WeaviateServer) -> None:
    for code in ("DEADLINE_EXCEEDED",):
        server.ask_for("Search", code=code, times=2)
        with pytest.raises(BackendConnectionError):
            store.get_all()
        with pytest.raises(BackendConnectionError):
            asyncio.run(store.aget_all())


def test_a_failed_replacement_is_taken_back(store: Weaviate, server: WeaviateServer) -> None:
    store.add_many([say("old 1"), say("old 2")])
    server.ask_for("BatchObjects", skip=1, objects=[1])
    with pytest.raises(BackendError, match="taken back"):
        store.replace({"user_id": "u", "session_id": "s"}, [say("new 1"), say("new 2")])
    assert contents(store.get_all()) == ["old 1", "old 2"]
    assert len(server.objects(store.collection_name)) == 2


@pytest.mark.parametrize("heals", ["read", "write", "replace"])
def test_an_interrupted_replacement_is_finished_by_the_next_caller(
    new_store: NewStore, server: WeaviateServer, heals: str
) -> None:
    scope = {"user_id": "u", "session_id": "s"}
    store, other = new_store(), new_store()
    old = store.add_many([say("old 1"), say("old 2")])
    server.ask_for("BatchDelete", code="INTERNAL")
    with pytest.raises(BackendError):
        store.replace(scope, [say("new 1"), say("new 2")])
    assert len(server.objects(store.collection_name)) == 5  # old, new, and the note
    assert store.count(scope) == 4
    assert store.search("old")  # nothing is lost in between
    if heals == "write":
        other.add(old[0])  # stored again on purpose: not for the note to delete
        assert sorted(contents(other.get_all())) == ["new 1", "new 2", "old 1"]
    elif heals == "replace":
        other.replace(scope, [say("newest")])
        assert contents(other.get_all()) == ["newest"]
    else:
        assert contents(other.get_all(1, scope)) == ["new 2"]
        assert contents(asyncio.run(other.aget_all())) == ["new 1", "new 2"]
    assert other.count() == len(server.objects(store.collection_name))


def test_new_versions_of_what_is_stored_count_when_they_are_there(
    new_store: NewStore, server: WeaviateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = {"user_id": "u", "session_id": "s"}
    store, other = new_store(), new_store()
    one, _, three = store.add_many([say("one"), say("two"), say("three")])
    summary = one.model_copy(update={"content": "all three"})
    server.ask_for("BatchObjects", skip=1, code="INTERNAL")  # the note is there, the summary is not
    server.ask_for("BatchDelete", code="INTERNAL")
    with pytest.raises(BackendError):
        store.replace(scope, [summary])
    assert contents(other.get_all()) == ["one", "two", "three"]  # meets the note
    other.replace(scope, [three, summary])
    assert contents(store.get_all()) == ["all three", "three"]
    # The writer of the first one has died.
    monkeypatch.setattr("dynamiq_memory.backends.weaviate.reader._SECONDS_TO_FINISH", -1.0)
    assert contents(store.get_all()) == ["all three", "three"]
    assert other.count() == len(server.objects(store.collection_name)) == 2


def test_a_failed_replacement_takes_new_versions_back(
    new_store: NewStore, server: WeaviateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamiq_memory.backends.weaviate.writer._OBJECTS_AT_ONCE", 1)
    store = new_store()
    old = store.add_many([say("one"), say("two"), say("three")])
    again = [each.model_copy(update={"content": f"new {each.content}"}) for each in reversed(old[:2])]
    server.ask_for("BatchObjects", skip=2, code="INTERNAL")
    with pytest.raises(BackendError, match=r"taken back.*(?<!is safe)$"):
        store.replace({"user_id": "u", "session_id": "s"}, again)
    assert store.get_all() == old
    assert len(server.objects(store.collection_name)) == 3


def test_a_replacement_that_others_are_at_is_left_to_them(new_store: NewStore, server: WeaviateServer) -> None:
    store = new_store()
    store.add(say("old"))
    server.ask_for("BatchObjects", skip=1, code="INTERNAL")
    server.ask_for("BatchDelete", code="INTERNAL")
    with pytest.raises(BackendError):
        store.replace({"user_id": "u", "session_id": "s"}, [say("new")])
    assert contents(store.get_all()) == ["old"]
    store.add(say("more"))
    assert contents(store.get_all()) == ["old", "more"]
    assert store.count() == 2


def test_cancelled_work_leaves_the_store_usable(store: Weaviate, server: WeaviateServer) -> None:
    async def cancel() -> None:
        server.ask_for("Search", delay=3)
        task = asyncio.create_task(store.aget_all())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.aadd(say("after"))
        assert contents(await store.aget_all()) == ["after"]

    asyncio.run(cancel())


def test_many_threads_search_at_once(store: Weaviate) -> None:
    store.add_many([say(f"apple {number}") for number in range(20)])
    with ThreadPoolExecutor(24) as pool:  # more than there are helpers
        found = list(pool.map(lambda _: len(store.search("apple", limit=5)), range(48)))
    assert found == [5] * 48


def test_many_event_loops_use_one_store(store: Weaviate) -> None:
    for number in range(5):
        asyncio.run(store.aadd(say(f"{number}")))
    assert contents(store.get_all()) == list("01234")
