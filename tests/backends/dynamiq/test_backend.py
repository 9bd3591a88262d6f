"""The Dynamiq backend beyond the contract: its requests, retries and errors."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from dynamiq_memory import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    InvalidArgumentError,
    Memory,
    Message,
    MessageTooLargeError,
    PartialWriteError,
)
from dynamiq_memory._wire import from_item, to_item
from dynamiq_memory.backends import Dynamiq, InMemory, create_backend
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import prepare
from dynamiq_memory.server.keys import KeyStore
from dynamiq_memory.testing import contents, say
from tests.fakes.dynamiq.platform import KEY, Platform, platform
from tests.fakes.http_server import Answer, HTTPServer, Request
from tests.service.serving import Service, serving

SCOPE = {"user_id": "user-1", "session_id": "session-1"}
IDS = ("user-1", "session-1")


@pytest.fixture
def server() -> Iterator[Platform]:
    with platform() as state:
        yield state


@pytest.fixture
def memory(server: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dynamiq]:
    monkeypatch.setattr("dynamiq_memory.backends.dynamiq.client._FIRST_WAIT", 0.001)
    with Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", *IDS) as backend:
        yield backend


def sent(server: Platform, method: str) -> list[tuple[str, Any]]:
    return [(path, body) for each, path, body in server.requests if each == method and "/items" in path]


def test_the_platform_gets_its_own_wire_format(server: Platform, memory: Dynamiq) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:x"}},
    ]
    memory.add_many(
        [say("hi", topic="x"), say("", "assistant", tool_calls=[call]), say("42", "tool", tool_call_id="c", name="f")]
    )
    memory.add(say(content=parts))
    first, second, third, fourth = (body for _, body in sent(server, "POST"))
    extension = first["metadata"].pop("dynamiq_memory")
    assert first == {
        **SCOPE,
        "type": "message",
        "data": {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        "metadata": {"topic": "x"},
    }
    assert extension.keys() == {"id", "timestamp", "text", "of"}
    assert second["data"]["tool_calls"] == [call]
    assert (third["data"]["tool_call_id"], third["data"]["name"]) == ("c", "f")
    assert fourth["data"]["content"] == parts
    assert not memory.is_service


def test_filters_never_become_parameters_of_the_api(server: Platform, memory: Dynamiq) -> None:
    memory.add_many([say("1", page_size=1, sort="role"), say("2", page_size=2)])
    assert contents(memory.get_all(filters={"page_size": 1, "sort": "role"})) == ["1"]
    for path, _ in sent(server, "GET"):
        assert path.partition("?")[2] == "user_id=user-1&session_id=session-1&page_size=100&page=1&sort=-created_at"


@pytest.mark.parametrize("pages", [True, False])
def test_long_sessions_are_read_whole_or_not_at_all(server: Platform, memory: Dynamiq, pages: bool) -> None:
    server.pages = pages
    for count in (0, 1, 99, 100, 101, 200, 250):
        server.items.clear()
        for number in range(count):
            server.post("m", {**SCOPE, "type": "message", "data": {"role": "user", "content": str(number)}})
        if pages or count < 100:
            assert contents(memory.get_all()) == [str(number) for number in range(count)]
            assert contents(memory.get_all(limit=3)) == [str(n) for n in range(max(0, count - 3), count)]
        else:
            with pytest.raises(BackendError, match="the same 100"):
                memory.get_all()
    with Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", *IDS, limit=100_000) as other:
        assert other.is_empty() is False or not pages


def test_what_others_wrote_is_read(server: Platform, memory: Dynamiq) -> None:
    for data in (
        {"role": "user", "content": [{"type": "text", "text": "parts"}]},
        {"role": "assistant", "content": "a string"},
        {"role": "narrator", "content": None},
    ):
        server.post("m", {**SCOPE, "type": "message", "data": data, "metadata": {"k": 1}})
    server.post("m", {**SCOPE, "type": "summary", "data": {"text": "no message"}})
    found = memory.get_all()
    assert [(m.role.value, m.content) for m in found] == [("user", "parts"), ("assistant", "a string"), ("user", "")]
    assert [message.id for message in found] == ["item-0", "item-1", "item-2"]
    assert contents(memory.search("string", {"k": 1})) == ["a string"]


def test_what_others_wrote_has_its_own_time(server: Platform, memory: Dynamiq) -> None:
    data = {"role": "user", "content": "theirs"}
    times: list[dict[str, Any]] = [
        {"metadata": {"timestamp": 5.0}},
        {"created_at": "1970-01-01T00:00:07Z"},
        {"created_at": "not a time"},
        {"created_at": None},
    ]
    for each in times:
        server.post("m", {**SCOPE, "type": "message", "data": data})
        server.items[-1] |= each
    memory.add_many([say("ours", timestamp=6.0), say("ours", timestamp=8.0)])
    found = memory.get_all()
    assert [message.timestamp for message in found[:4]] == [5.0, 6.0, 7.0, 8.0]
    assert [message.id for message in found[4:]] == ["item-2", "item-3"]
    with Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", *IDS, limit=2) as by_pages:
        assert contents(by_pages.get_all()) == ["theirs", "ours", "theirs", "ours", "theirs", "theirs"]


def test_copied_metadata_does_not_make_another_message_the_same(server: Platform, memory: Dynamiq) -> None:
    memory.add(say("ours"))
    stolen = server.items[0]["metadata"]
    data = {"role": "user", "content": [{"type": "text", "text": "another's"}]}
    server.post("m", {**SCOPE, "type": "message", "data": data, "metadata": stolen})
    found = memory.get_all()
    assert sorted(contents(found)) == ["another's", "ours"]
    assert len({message.id for message in found}) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_refused_request_is_sent_again(server: Platform, memory: Dynamiq, status: int) -> None:
    server.failures = [(status, {}), (status, {"Retry-After": "0"})]
    memory.add(say("hello"))
    server.failures = [(status, {}), None]
    assert contents(memory.get_all()) == ["hello"]
    assert asyncio.run(memory.acount()) == 1


def test_retry_after_is_waited_for(server: Platform, memory: Dynamiq, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("httpx_retries.retry.time.sleep", waits.append)
    server.failures = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "2"})]
    memory.add(say("hello"))
    assert waits == [7.0, 2.0]


def test_a_write_with_a_lost_answer_is_not_stored_twice(server: Platform, memory: Dynamiq) -> None:
    server.hang_up_after = 2
    memory.add(say("hello"))
    assert len(server.items) == 3
    server.hang_up_after = 1
    asyncio.run(memory.aadd(say("there")))
    assert len(server.items) == 5
    assert contents(memory.get_all()) == ["hello", "there"]


def test_a_batch_that_breaks_off_names_what_is_in(server: Platform, memory: Dynamiq) -> None:
    batch = [say(f"{number}") for number in range(4)]
    server.failures = [(0, {}), (0, {}), (500, {})]
    with pytest.raises(PartialWriteError) as caught:
        memory.add_many(batch)
    assert caught.value.stored_ids == (batch[0].id, batch[1].id)
    memory.add_many(batch)
    assert contents(memory.get_all()) == list("0123")


def test_errors_name_status_and_message_and_never_the_key(server: Platform) -> None:
    with (
        Dynamiq(DynamiqConnection(url=server.url, api_key="secret-key"), "m", *IDS, detect=False) as memory,
        pytest.raises(BackendAuthenticationError, match=r"401.*wrong key") as caught,
    ):
        memory.get_all()
    assert "secret-key" not in str(caught.value)
    with Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", *IDS, retries=0) as memory:
        server.failures = [(503, {})]
        with pytest.raises(BackendError, match=r"503.*not now"):
            memory.get_all()
        server.failures = [None]
        with pytest.raises(BackendConnectionError, match="cannot be reached"):
            memory.get_all()
    for text in (repr(memory), json.dumps(memory.to_dict()), repr(DynamiqConnection(url="x", api_key="secret-key"))):
        assert KEY not in text
        assert "secret-key" not in text


def test_a_server_that_is_not_there_or_silent() -> None:
    with pytest.raises(BackendConnectionError, match="cannot be reached"):
        Dynamiq(DynamiqConnection(url="http://127.0.0.1:1", api_key="k"), "m", retries=0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BackendConnectionError, match=r"did not answer within 0\.1 s"):
            Dynamiq(DynamiqConnection(url=url, api_key="k"), "m", retries=0, timeout=0.1)


class Other(HTTPServer):
    """Something that answers with JSON of its own."""

    body: Any = None

    def answer(self, request: Request) -> Answer:
        return Answer(self.described if request.path.endswith("/m") else self.body)

    described: Any = None


@pytest.mark.parametrize("served", [False, True])
def test_an_answer_of_another_api_is_an_error_of_the_backend(served: bool, open_service: Service) -> None:
    with Other() as other:
        if served:
            other.described = httpx.get(f"{open_service.url}/v1/memories/m", timeout=60).json()
        with Dynamiq(DynamiqConnection(url=other.url, api_key=KEY), "m", *IDS) as memory:
            assert memory.is_service is served
            calls: list[Any] = [memory.get_all, lambda: asyncio.run(memory.aget_all())]
            if served:
                calls += [lambda: memory.search("x"), memory.count, memory.sessions, memory.clear]
            bodies: list[Any] = [{"ok": True}, [], 7, None, "", {"data": 5}, {"data": [{"data": {"content": 5}}]}]
            for other.body in [*bodies, {"data": [7], "has_more": False}] if served else bodies:
                for call in calls:
                    with pytest.raises(BackendError, match=f"{other.url} answered .* is this the address of its API"):
                        call()


def test_an_error_of_the_users_own_code_is_not_the_servers(server: Platform) -> None:
    def broken(text: str) -> list[str]:
        raise TypeError(text)

    with Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", *IDS, tokenizer=broken) as memory:
        memory.add(say("hello"))
        for search in (memory.search, lambda query: asyncio.run(memory.asearch(query))):
            with pytest.raises(TypeError, match="hello"):
                search("hello")


def test_a_service_ranks_by_stop_words_itself(open_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with Dynamiq(DynamiqConnection(url=open_service.url, api_key=None), "m") as memory:
        stored = memory.add(say("to be or not to be"))
        send, sent_requests = memory._client.send, []

        def record(request: Any) -> Any:
            sent_requests.append(request.path)
            return send(request)

        monkeypatch.setattr(memory._client, "send", record)
        assert [message.id for message in memory.search("to be")] == [stored.id]
        assert sent_requests == ["/search"]


def test_an_order_that_the_platform_cannot_store_is_refused(server: Platform, memory: Dynamiq) -> None:
    one, two = memory.add_many([say("1", timestamp=1.0), say("2", timestamp=1.0)])
    memory.replace(SCOPE, [one, two, say("3", timestamp=1.0)])
    with pytest.raises(BackendError, match="cannot change the order"):
        memory.replace(SCOPE, [two, one, *memory.get_all()[2:]])
    with pytest.raises(BackendError, match="cannot change the order"):
        memory.replace(SCOPE, [say("0", timestamp=1.0), *memory.get_all()])
    assert contents(memory.get_all()) == ["1", "2", "3"]
    # What is stored and does not match keeps its place, too.
    tagged = memory.add(say("4", timestamp=1.0, tag=True))
    memory.replace({**SCOPE, "tag": True}, [one, tagged])
    with pytest.raises(BackendError, match="cannot change the order"):
        memory.replace({**SCOPE, "tag": True}, [tagged, one])
    assert contents(memory.get_all()) == ["1", "2", "3", "4"]


def test_what_could_lose_messages_is_refused(server: Platform, memory: Dynamiq) -> None:
    stored = memory.add_many([say("1", n=1), say("2", n=2)])
    calls = [
        lambda: memory.clear({"n": 1}),
        lambda: memory.take(SCOPE),
        lambda: memory.replace(SCOPE, stored[:1]),
        lambda: memory.delete(user_id="user-1", filters={"n": 1}),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="cannot"):
            call()
    memory.replace(SCOPE, [*stored, say("3")])
    assert contents(memory.get_all()) == ["1", "2", "3"]
    assert len(server.items) == 3
    assert memory.replace(SCOPE, []) == []
    assert memory.is_empty()
    with (
        pytest.raises(InvalidArgumentError, match="user_id"),
        Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m") as bare,
    ):
        bare.get_all()


@pytest.fixture
def shared(server: Platform) -> Iterator[Dynamiq]:
    """Messages of two users in several sessions, and some that are in no session."""
    with Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", limit=2) as backend:
        ours = [*[("a", "s")] * 3, ("a", "t"), ("b", "s")]
        backend.add_many([say(f"word {n}", user=user, session=session) for n, (user, session) in enumerate(ours)])
        data = {"role": "user", "content": "word 5"}
        server.post("m", {"user_id": "a", "type": "message", "data": data})
        server.post("m", {"user_id": "a", "session_id": "notes", "type": "summary", "data": {}})
        server.post("m", {"user_id": "b", "type": "message", "data": data})
        yield backend


def test_all_that_a_user_has_is_read_and_counted(shared: Dynamiq) -> None:
    of_a = {"user_id": "a"}
    assert contents(shared.get_all(filters=of_a)) == ["word 0", "word 1", "word 2", "word 3", "word 5"]
    assert contents(shared.get_all(2, of_a)) == ["word 3", "word 5"]
    assert contents(shared.get_all(filters={**of_a, "session_id": None})) == ["word 5"]
    assert contents(shared.search("3 5", of_a)) == ["word 5", "word 3"]
    assert (shared.count(of_a), shared.count({"user_id": ["a", "b"]}), shared.count({"user_id": "c"})) == (5, 7, 0)
    found = {(session.session_id, session.messages) for session in shared.sessions(of_a)}
    assert found == {("s", 3), ("t", 1), (None, 1)}
    alone = shared.get_all(filters={**of_a, "session_id": None})
    assert [contents(window) for window in shared.around(alone, 1, 1)] == [["word 5"]]


def test_a_user_or_a_session_can_be_deleted_whole(server: Platform, shared: Dynamiq) -> None:
    assert shared.delete(user_id="a", session_id="t") == 1
    assert shared.delete(user_id="a") == 4
    assert shared.delete(user_id="a") == 0
    assert [item["user_id"] for item in server.items] == ["b", "b"]
    assert shared.clear({"user_id": ["b", "c"], "session_id": None}) == 1
    assert [item.get("session_id") for item in server.items] == ["s"]
    for call in (shared.clear, lambda: shared.delete(session_id="s")):
        with pytest.raises(BackendError, match="name"):
            call()
    assert asyncio.run(shared.adelete(user_id="b")) == 1
    assert server.items == []


def test_a_deletion_that_broke_off_can_be_done_again(server: Platform, shared: Dynamiq) -> None:
    server.failures = [(status, {}) for status in (0, 0, 0, 0, 0, 500)]  # after three pages and two sessions
    with pytest.raises(BackendError, match="500"):
        shared.delete(user_id="a")
    assert contents(shared.get_all(filters={"user_id": "a"})) == ["word 3", "word 5"]
    assert shared.delete(user_id="a") == 2
    assert {item["user_id"] for item in server.items} == {"b"}


def test_connections_of_the_dynamiq_package_are_taken(server: Platform) -> None:
    theirs = SimpleNamespace(
        url=f"{server.url}/", api_key=KEY, headers={"Authorization": f"Bearer {KEY}", "X-Org": "o"}
    )
    with Dynamiq(theirs, "m", *IDS) as memory:
        memory.add(say("hello"))
        assert memory.to_url() is None
    for wrong in (
        object(),
        SimpleNamespace(url="ftp://x", api_key="k", headers={}),
        SimpleNamespace(url="", api_key="", headers={}),
    ):
        with pytest.raises(ConfigurationError):
            Dynamiq(wrong, "m")


@pytest.mark.parametrize(
    "arguments",
    [{"memory_id": ""}, {"memory_id": None}, {"timeout": 0}, {"limit": 0}, {"retries": -1}, {"user_id": ""}],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Dynamiq(DynamiqConnection(url="http://127.0.0.1:1", api_key="k"), **{"memory_id": "m", **arguments})


def test_it_opens_by_url_with_the_key_of_the_environment(
    service: Service, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = keys.create(["m"])
    monkeypatch.setenv("DYNAMIQ_API_KEY", text)
    with create_backend(f"dynamiq+{service.url}/m?user_id=u&timeout=5") as one:
        one.add(say("hello", user=None))
        url = one.to_url()
        assert url is not None
        assert text not in url
        with create_backend(url) as two:
            assert [message.user_id for message in two.get_all()] == ["u"]
    monkeypatch.delenv("DYNAMIQ_API_KEY")
    with pytest.raises(BackendAuthenticationError):
        create_backend(url)
    for wrong in (
        "dynamiq+http://",
        "dynamiq+http://host/",
        "dynamiq+http://host/m?x=1",
        "dynamiq+http://k@host/m",
        "dynamiq+http://host/m?limit=x",
    ):
        with pytest.raises(ConfigurationError):
            create_backend(wrong)


def test_a_key_of_one_user_works_without_naming_the_user(service: Service, keys: KeyStore) -> None:
    _, text = keys.create(["m"], "alice")
    with Dynamiq(DynamiqConnection(url=service.url, api_key=text), "m") as backend:
        memory = Memory(backend=backend, filters={"session_id": "s"})
        stored = memory.add("user", "hello")
        assert stored.user_id == "alice"
        assert memory.get_all() == [stored]
        assert memory.replace_messages({"session_id": "s"}, [say("new", user=None, session="s")])[0].user_id == "alice"
        with pytest.raises(BackendAuthenticationError, match="403"):
            backend.add(say("hello", user="bob"))


def test_what_the_service_cannot_take_at_once_is_refused_before() -> None:
    with (
        InMemory() as store,
        serving(store, max_body_bytes=50_000, max_results=20, max_page_size=7) as service,
        Dynamiq(DynamiqConnection(url=service.url, api_key=None), "m") as memory,
    ):
        with pytest.raises(MessageTooLargeError, match="at once"):
            memory.add_many([say("x" * 20_000) for _ in range(4)])
        with pytest.raises(MessageTooLargeError):
            memory.add(say("x" * 60_000))
        assert memory.is_empty()
        memory.add_many([say(f"word {number}") for number in range(30)])
        assert contents(memory.get_all()) == [f"word {number}" for number in range(30)]
        assert contents(memory.get_all(limit=15)) == [f"word {number}" for number in range(15, 30)]
        assert len(memory.search("word", limit=20)) == 20
        with pytest.raises(BackendError, match="more than 20"):
            memory.search("word")
        stored = memory.get_all()
        assert [contents(window) for window in memory.around(stored[10:13], 1, 1)] == [
            [f"word {n - 1}", f"word {n}", f"word {n + 1}"] for n in (10, 11, 12)
        ]


def test_one_object_serves_many_threads_and_loops(open_service: Service) -> None:
    with Dynamiq(DynamiqConnection(url=open_service.url, api_key=None), "m") as memory:

        async def write(number: int) -> None:
            await asyncio.gather(*(memory.aadd(say(f"{number}-{each}")) for each in range(5)))

        threads = [threading.Thread(target=lambda n=number: asyncio.run(write(n))) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert memory.count() == 25
    gc.collect()  # an unclosed connection would warn, and a warning is an error


def test_an_open_loop_may_outlive_the_backend(open_service: Service) -> None:
    async def use() -> None:
        memory = Dynamiq(DynamiqConnection(url=open_service.url, api_key=None), "m")
        await memory.aadd(say("hello"))
        await memory.aclose()
        with pytest.raises(BackendError, match="closed"):
            await memory.aget_all()
        again = Dynamiq(DynamiqConnection(url=open_service.url, api_key=None), "m")
        await again.aget_all()
        await asyncio.to_thread(again.close)
        await asyncio.sleep(0.05)

    asyncio.run(use())
    gc.collect()


def test_a_cancelled_call_leaves_the_backend_usable(open_service: Service) -> None:
    async def use() -> None:
        async with Dynamiq(DynamiqConnection(url=open_service.url, api_key=None), "m") as memory:
            task = asyncio.create_task(memory.aget_all())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await memory.aadd(say("hello"))
            assert contents(await memory.aget_all()) == ["hello"]

    asyncio.run(use())


@pytest.mark.parametrize("in_metadata", [False, True])
def test_the_wire_is_json_that_anybody_can_read(in_metadata: bool) -> None:
    (message,) = prepare(
        [
            say(
                "NUL \0 and \ud800",
                k="\udfff",
                when=dt.date(2026, 11, 23),
                tag={"$type": "date", "value": "x"},
                native={"a": b"\0"},
                tiny=5e-324,
                big=2**60,
            )
        ]
    )
    item = to_item(message, in_metadata=in_metadata)
    text = json.dumps(item, ensure_ascii=False, allow_nan=False)
    text.encode()
    assert "\0" not in str(json.loads(text)["data"]) + str(json.loads(text)["metadata"].get("k"))
    assert item["data"]["content"] == [{"type": "text", "text": "NUL \ufffd and \ufffd"}]
    assert item["metadata"]["when"] == "2026-11-23"
    back = from_item(json.loads(text))
    assert (back.id, back.timestamp, back.content, back.native) == (
        message.id,
        message.timestamp,
        message.content,
        message.native,
    )
    assert back.metadata == message.metadata
    assert repr(back.metadata["tag"]) == repr(message.metadata["tag"])


def test_messages_are_our_own(open_service: Service) -> None:
    with Dynamiq(DynamiqConnection(url=open_service.url, api_key=None), "m") as memory:
        assert memory.is_service
        assert memory.capabilities.transactions
        assert isinstance(memory.add(Message(role="user", content="x")), Message)
