"""The service's answers: the platform's wire format, pages, and errors of requests."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from dynamiq_memory import BackendConnectionError, BackendError, PartialWriteError
from dynamiq_memory.backends import InMemory
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.server import run
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.keys import KeyStore
from dynamiq_memory.server.logs import JSONFormatter
from dynamiq_memory.server.settings import Settings
from tests.service.conftest import item
from tests.service.serving import Service, serving

ITEMS = "/v1/memories/m/items"


@pytest.fixture
def api(open_service: Service) -> Iterator[httpx.Client]:
    with open_service.client() as client:
        yield client


def texts(answer: httpx.Response) -> list[str]:
    return [each["data"]["content"][0]["text"] for each in answer.json()["data"]]


def test_an_item_comes_back_as_the_platform_gives_it(api: httpx.Client) -> None:
    posted = item("hello", metadata={"topic": "greeting", "timestamp": 1000.25})
    posted["data"] |= {"role": "assistant", "tool_calls": [{"id": "c"}], "name": "bot"}  # type: ignore[operator]
    answer = api.post(ITEMS, json=posted)
    assert answer.status_code == 201
    (found,) = api.get(ITEMS, params={"user_id": "u", "session_id": "s", "page_size": 10}).json()["data"]
    assert found == answer.json()["data"]
    assert found["data"] == posted["data"]
    assert (found["user_id"], found["session_id"], found["type"]) == ("u", "s", "message")
    assert found["created_at"] == "1970-01-01T00:16:40.250000Z"
    assert found["metadata"] == {"topic": "greeting", "timestamp": 1000.25, "message_id": found["id"]}


def test_one_several_or_a_list_can_be_stored(api: httpx.Client) -> None:
    assert isinstance(api.post(ITEMS, json=item("1")).json()["data"], dict)
    assert len(api.post(ITEMS, json={"items": [item("2"), item("3")]}).json()["data"]) == 2
    assert len(api.post(ITEMS, json=[item("4")]).json()["data"]) == 1
    minimal = api.post(ITEMS, json=[item("5")], headers={"Prefer": "return=minimal"})
    assert (minimal.status_code, minimal.content) == (204, b"")
    assert texts(api.get(ITEMS)) == ["5", "4", "3", "2", "1"]


def test_pages_by_cursor_and_by_number(api: httpx.Client) -> None:
    api.post(ITEMS, json=[item(f"{n}", created_at=float(n // 2)) for n in range(7)])
    for sort, order in (("-created_at", list("6543210")), ("created_at", list("0123456"))):
        found, cursor, pages = [], None, 0
        while pages == 0 or cursor:
            page = api.get(ITEMS, params={"page_size": 3, "sort": sort, **({"cursor": cursor} if cursor else {})})
            found += texts(page)
            cursor, pages = page.json()["next_cursor"], pages + 1
            assert page.json()["has_more"] == (cursor is not None)
        assert (found, pages) == (order, 3)
        by_number = [texts(api.get(ITEMS, params={"page_size": 3, "sort": sort, "page": n})) for n in (1, 2, 3, 4)]
        assert by_number == [order[:3], order[3:6], order[6:], []]


def test_other_parameters_are_filters_on_metadata(api: httpx.Client) -> None:
    values: list[Any] = ["7", 7, 7.5, True, "true", None, "x"]
    api.post(ITEMS, json=[item(repr(value), metadata={"k": value, "page_sizes": 1}) for value in values])
    assert sorted(texts(api.get(ITEMS, params={"k": "7"}))) == ["'7'", "7"]
    assert sorted(texts(api.get(ITEMS, params={"k": "True"}))) == ["True"]
    assert sorted(texts(api.get(ITEMS, params={"k": "true"}))) == ["'true'", "True"]
    assert sorted(texts(api.get(ITEMS, params={"k": ["7.5", "x"]}))) == ["'x'", "7.5"]
    assert len(texts(api.get(ITEMS, params={"page_sizes": "1"}))) == 7
    assert texts(api.get(ITEMS, params={"k": "%"})) == []
    assert texts(api.get(ITEMS, params={"filters": json.dumps({"k": {"gt": 7}})})) == ["7.5"]


def test_search_ranks_and_gives_reasons(api: httpx.Client) -> None:
    said = ["my dog is called Rex", "I bake bread", "it rains", "what is my dog called?"]
    api.post(ITEMS, json=[item(text) for text in said])
    found = api.post("/v1/memories/m/search", json={"query": "dog", "user_id": "u"})
    assert sorted(texts(found)) == [said[0], said[3]]
    scores = [each["score"] for each in found.json()["data"]]
    assert scores == sorted(scores, reverse=True)
    picked = api.post("/v1/memories/m/search", json={"query": "dog", "strategy": "both", "limit": 2}).json()["data"]
    assert [each["reason"] for each in picked] == ["match", "recent"]
    recent = api.post("/v1/memories/m/search", json={"strategy": "all", "limit": 2})
    assert texts(recent) == said[2:]
    for setting in ({"max_tokens": 5}, {"window": "stable"}, {"placement": "chronological"}, {"compare": True}):
        refused = api.post("/v1/memories/m/search", json={"query": "x", **setting})
        assert refused.status_code == 422
        assert f"{next(iter(setting))} requires a strategy" in refused.text


def test_search_gives_a_block_and_compares(api: httpx.Client) -> None:
    said = ["my dog is called Rex", *(f"it rains on day {n}" for n in range(20)), "what is my dog called?"]
    api.post(ITEMS, json=[item(text) for text in said])
    body = {"query": "dog", "strategy": "both", "limit": 4, "placement": "before_question", "compare": True}
    picked = api.post("/v1/memories/m/search", json=body).json()
    assert [each["reason"] for each in picked["data"]] == ["match", "recent", "recent"]
    assert ">my dog is called Rex</message>" in picked["recalled_block"]
    assert picked["unchanged"] == 0
    steady = {"strategy": "all", "limit": 1000, "window": "stable", "compare": True}
    whole = api.post("/v1/memories/m/search", json=steady).json()
    assert whole["recalled_block"] is None
    assert 0.9 < whole["unchanged"] < 1
    assert api.post("/v1/memories/m/search", json={**steady, "compare": False}).json()["unchanged"] is None


def test_export_can_be_stored_again(api: httpx.Client) -> None:
    api.post(ITEMS, json=[item(f"{n}", user=f"u{n % 2}", session=None) for n in range(1203)])
    lines = api.get("/v1/memories/m/export").text.splitlines()
    assert len(lines) == 1203
    exported = [json.loads(line) for line in lines]
    for each in exported:
        del each["updated_at"]
    assert api.post("/v1/memories/copy/items", json={"items": exported}).status_code == 201
    assert api.get("/v1/memories/copy/export").text.splitlines() == lines
    assert len(api.get("/v1/memories/m/export", params={"user_id": "u1"}).text.splitlines()) == 601
    assert api.get("/v1/memories/empty/export").text == ""


def test_sessions(api: httpx.Client) -> None:
    api.post(ITEMS, json=[item("1", created_at=1.0), item("2", session="t", created_at=2.0), item("3", "v")])
    found = api.get("/v1/memories/m/sessions", params={"user_id": "u"}).json()["data"]
    assert [(each["session_id"], each["messages"], each["last"]) for each in found] == [("t", 1, 2.0), ("s", 1, 1.0)]


WRONG_BODIES: dict[str, tuple[bytes, int]] = {
    "no JSON": (b"{", 400),
    "half a string": (b'{"user_id": "u', 400),
    "not UTF-8": (b'{"user_id": "\xff"}', 400),
    "empty": (b"", 422),
    "null": (b"null", 422),
    "a number": (b"7", 422),
    "a string": (b'"items"', 422),
    "deep": (b"[" * 100_000, 400),
    "deep data": (json.dumps(item(metadata={"k": json.loads("[" * 500 + "]" * 500)})).encode(), 422),
    "no data": (json.dumps({"user_id": "u", "session_id": "s"}).encode(), 422),
    "data is text": (json.dumps({**item(), "data": "hello"}).encode(), 422),
    "another type": (json.dumps(item(type="memory")).encode(), 422),
    "unknown role": (json.dumps({**item(), "data": {"role": "robot", "content": "x"}}).encode(), 422),
    "unknown field": (json.dumps(item(extra=1)).encode(), 422),
    "content is a number": (json.dumps({**item(), "data": {"role": "user", "content": 7}}).encode(), 422),
    "parts are text": (json.dumps({**item(), "data": {"role": "user", "content": ["x"]}}).encode(), 422),
    "user is a number": (json.dumps(item(user=7)).encode(), 422),  # type: ignore[arg-type]
    "user is empty": (json.dumps(item(user="")).encode(), 422),
    "user has NUL": (json.dumps(item(user="a\0")).encode(), 422),
    "id has a surrogate": (json.dumps(item(id="\ud800")).encode(), 422),
    "metadata is a list": (json.dumps(item(metadata=[1])).encode(), 422),
    "huge number": (
        b'{"items": [' + json.dumps(item()).encode()[:-1] + b', "metadata": {"k": ' + b"9" * 30 + b"}}]}",
        422,
    ),
    "endless number": (b'{"k": ' + b"9" * 10_000 + b"}", 400),
    "infinity": (json.dumps(item(metadata={"k": float("inf")})).encode(), 422),
    "bad time": (json.dumps(item(created_at="yesterday")).encode(), 422),
    "far time": (json.dumps(item(created_at=1e300)).encode(), 422),
    "bad extension": (json.dumps(item(dynamiq_memory={"id": "x"})).encode(), 422),
    "bad exact": (json.dumps(item(dynamiq_memory={"id": "x", "timestamp": 1.0, "exact": "{"})).encode(), 422),
    "bad exact value": (
        json.dumps(
            item(
                dynamiq_memory={
                    "id": "x",
                    "timestamp": 1.0,
                    "exact": '{"metadata": {"$type": "decimal", "value": "x"}}',
                }
            )
        ).encode(),
        422,
    ),
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_a_wrong_body_is_refused_and_stores_nothing(api: httpx.Client, name: str) -> None:
    body, status = WRONG_BODIES[name]
    answer = api.post(ITEMS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json().keys() == {"type", "detail"}
    assert api.get(ITEMS).json()["data"] == []


@pytest.mark.parametrize(
    "query",
    ["page_size=0", "page_size=1001", "page_size=x", "page=0", "page=11&page_size=1000", "cursor=x", "cursor=e30=",
     "sort=role", "filters=[]", "filters={", 'filters={"k":{"$gt":1}}', "user_id=", "filters={}&k=a%00"],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(api: httpx.Client, query: str) -> None:
    answer = api.get(f"{ITEMS}?{query}")
    assert answer.status_code == 422
    assert answer.json().keys() == {"type", "detail"}


def test_unknown_paths_and_methods(api: httpx.Client) -> None:
    assert api.get("/v1/nothing").status_code == 404
    assert api.put(ITEMS, json={}).status_code == 405
    assert api.delete(ITEMS).status_code == 422
    for memory_id in ("-m", "a b", "m" * 101, "%2e%2e", "a%2fb"):
        assert api.get(f"/v1/memories/{memory_id}/items").status_code in (404, 422)


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    with InMemory() as store, serving(store, max_body_bytes=100_000) as service:
        large = json.dumps(item("x" * 100_000)).encode()
        headers = {"Content-Type": "application/json"}
        with service.client() as api:
            assert api.post(ITEMS, content=large, headers=headers).status_code == 413

            def chunks() -> Iterator[bytes]:
                for _ in range(1000):
                    yield b" " * 1000

            assert api.post(ITEMS, content=chunks(), headers=headers).status_code == 413
            assert api.post(ITEMS, json=item("x" * 50_000)).status_code == 201
        host, port = urlsplit(service.url).netloc.split(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(f"POST {ITEMS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_slow_clients_are_sent_away_and_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamiq_memory.server.run.TimeoutProtocol.header_seconds", 0.3)
    with InMemory() as store, serving(store, body_timeout=0.3) as service:
        host, port = urlsplit(service.url).netloc.split(":")
        slow = [socket.create_connection((host, int(port)), timeout=120) for _ in range(40)]
        for number, connection in enumerate(slow):
            head = f"POST {ITEMS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall((head if number % 2 else f"{head}Content-Length: 100\r\n\r\n{{").encode())
        with service.client() as api:
            assert api.post(ITEMS, json=item()).status_code == 201
        for number, connection in enumerate(slow):
            answer = connection.recv(100)
            assert answer == b"" if number % 2 else answer.startswith(b"HTTP/1.1 408")
            connection.close()


def test_only_json_is_taken_so_that_no_page_in_a_browser_can_write(api: httpx.Client) -> None:
    body = json.dumps(item())
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert api.post(ITEMS, content=body, headers={"Content-Type": kind}).status_code == 415
    answer = api.options(ITEMS, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in answer.headers
    assert api.get(ITEMS).json()["data"] == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "10.0.0.1:80"])
def test_without_keys_only_local_names_are_answered(api: httpx.Client, host: str) -> None:
    assert api.get(ITEMS, headers={"Host": host}).status_code == 421
    for local in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert api.get(ITEMS, headers={"Host": local}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_it_refuses_to_be_reached_from_elsewhere_without_keys(host: str, keys: KeyStore) -> None:
    with pytest.raises(ConfigurationError, match="without keys"):
        run.check_open(host, None)
    run.check_open(host, keys)
    for local in ("127.0.0.1", "localhost", "::1"):
        run.check_open(local, None)


def test_a_key_has_a_rate(keys: KeyStore) -> None:
    with InMemory() as store, serving(store, keys, rate="3/hour") as service:
        for _ in range(2):
            _, text = keys.create(["m"])
            with service.client(text) as api:
                assert [api.get(ITEMS).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
                assert 1 <= int(api.get(ITEMS).headers["Retry-After"]) <= 3601
        with service.client() as stranger:
            assert [stranger.get(ITEMS).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
            assert stranger.get("/healthz").status_code == 200
    with pytest.raises(ConfigurationError, match="rate"):
        httpx.ASGITransport(create_app(InMemory(), None, Settings(rate="often"))).app.build_middleware_stack()  # type: ignore[attr-defined]


def test_a_whole_store_can_be_one_memory() -> None:
    with (
        InMemory() as store,
        serving(store, memory_id="main") as service,
        service.client() as api,
    ):
        api.post("/v1/memories/main/items", json=item("from afar"))
        assert [(m.text, m.user_id) for m in store.get_all()] == [("from afar", "u")]
        assert api.get(ITEMS).status_code == 404


class Failing(InMemory):
    """Fails with the error that a test sets."""

    failure: Exception = BackendError("the password of the store is hunter2")

    def _read(self, *_: Any) -> Any:
        raise self.failure

    def _write(self, *_: Any) -> Any:
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (BackendError("hunter2"), 500, "BackendError"),
        (BackendConnectionError("hunter2"), 503, "BackendError"),
        (PartialWriteError("hunter2", ["a"]), 500, "PartialWriteError"),
        (RuntimeError("hunter2"), 500, "InternalError"),
    ],
)
def test_what_the_store_says_stays_inside(
    failure: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dynamiq_memory")
    with Failing() as store, serving(store) as service, service.client() as api:
        store.failure = failure
        for answer in (api.get(ITEMS), api.post(ITEMS, json=item())):
            assert (answer.status_code, answer.json()["type"]) == (status, kind)
            assert "hunter2" not in answer.text
            assert answer.headers["X-Request-Id"]
        assert api.get("/healthz").status_code == 503 or isinstance(failure, RuntimeError)
    lines = [JSONFormatter().format(record) for record in caplog.records]
    assert any(type(failure).__name__ in line and "test_requests.py" in line for line in lines)
    assert not any("hunter2" in line for line in lines)


def test_logs_and_metrics_name_nobody(keys: KeyStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dynamiq_memory")
    key, text = keys.create(["memory-name"])
    path = "/v1/memories/memory-name/items"
    with InMemory() as store, serving(store, keys) as service, service.client(text) as api:
        api.post(path, json=item("the content", user="user-name", session="session-name"))
        api.get(path, params={"user_id": "user-name", "content": "the content"})
        api.get("/v1/memories/other-name/items")
        api.get(f"/nothing/{'user-name'}")
        metrics = httpx.get(f"{service.url}/metrics", timeout=60).text
    lines = [JSONFormatter().format(record) for record in caplog.records]
    assert [json.loads(line)["status"] for line in lines if "/items" in line] == [201, 200, 403]
    assert json.loads(lines[0])["key"] == key.id
    secret = text.split("_", 2)[2]
    for name in ("the content", "user-name", "session-name", "memory-name", "other-name", secret):
        assert not any(name in line for line in lines)
        assert name not in metrics
    assert (
        'dynamiq_memory_requests_total{method="POST",route="/v1/memories/{memory_id}/items",status="201"} 1.0'
        in metrics
    )
    assert "dynamiq_memory_messages_written_total 1.0" in metrics


def test_an_abandoned_export_ends(api: httpx.Client) -> None:
    api.post(ITEMS, json=[item("x" * 2000) for _ in range(1500)])
    for _ in range(5):
        with api.stream("GET", "/v1/memories/m/export") as answer:
            next(answer.iter_bytes())
    deadline = time.monotonic() + 120
    while "dynamiq_memory_open_requests 1.0" not in api.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_embedder_that_fails_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise OSError("secret text")

        embed_query = embed_documents

    with InMemory(embedder=Failing()) as store, serving(store) as service, service.client() as client:
        answer = client.post(ITEMS, json=item("hello"))
    assert (answer.status_code, answer.json()["type"]) == (500, "BackendError")
    assert answer.json()["detail"].startswith("the store's embedder failed: ")
    assert "the store's embedder failed" in caplog.text
    assert "secret" not in answer.text + caplog.text
