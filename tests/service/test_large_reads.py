"""What a request takes of the memory and of the event loop is bounded, however much is stored or sent."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import SQLite
from dynamiq_memory.server import items as server_items
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.partition import Partition
from dynamiq_memory.server.settings import Settings

MEBIBYTE = 1 << 20
MESSAGES = 40
MEMORY = "/v1/memories/m"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with SQLite(tmp_path_factory.mktemp("large") / "m.db", synchronous="NORMAL") as store:
        memory = Partition(store, "m")
        for number in range(MESSAGES):
            role = "assistant" if number % 2 else "user"
            text = f"number {number} " + "x" * MEBIBYTE
            memory.add(Message(role=role, content=text, metadata={"user_id": "u", "session_id": f"s{number // 20}"}))
        yield create_app(store, None, Settings(rate=None))


class Answer:
    """What was answered: the status, the size of each part, and the first part; and the most memory that it took."""

    def __init__(self) -> None:
        self.status = 0
        self.sizes: list[int] = []
        self.body = b""
        self.peak = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif body := message["body"]:
            self.body = self.body or body
            self.sizes.append(len(body))


def ask(app: Any, method: str, path: str, body: Any = None, memory: str = MEMORY, *, measure: bool = True) -> Answer:
    """Send a request without a client, and measure the memory that it takes."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = [(b"host", b"localhost")]
    if body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": memory + path,
        "query_string": query.encode(),
        "headers": headers,
    }
    answer, unread = Answer(), [content]

    async def receive() -> Any:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await asyncio.Event().wait()

    if not measure:
        asyncio.run(app(scope, receive, answer.send))
        return answer
    tracemalloc.start()
    try:
        asyncio.run(app(scope, receive, answer.send))
        answer.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return answer


def test_an_export_takes_the_same_whatever_its_size(app: Any) -> None:
    whole, half = ask(app, "GET", "/export"), ask(app, "GET", "/export?session_id=s0")
    assert whole.status == half.status == 200
    assert sum(whole.sizes) > MESSAGES * MEBIBYTE
    assert sum(half.sizes) < sum(whole.sizes) * 0.51
    assert max(whole.sizes) < 6 * MEBIBYTE
    assert whole.peak < 8 * max(whole.sizes)


def test_a_page_ends_where_it_is_full(app: Any) -> None:
    found: list[str] = []
    before = None
    while True:
        page = ask(app, "POST", "/items/query", {"limit": 1000, **({"before": before} if before else {})})
        assert page.status == 200
        assert page.sizes[0] < server_items.MAX_PAGE_BYTES + 2 * MEBIBYTE
        assert page.peak < 8 * page.sizes[0]
        answer = json.loads(page.body)
        found += [each["data"]["content"][0]["text"].partition("x")[0] for each in answer["data"]]
        last = answer["data"][-1]
        before = {"id": last["id"], "timestamp": last["dynamiq_memory"]["timestamp"]}
        before |= {"user_id": last["user_id"], "session_id": last["session_id"]}
        if not answer["has_more"]:
            break
    assert found == [f"number {number} " for number in range(MESSAGES - 1, -1, -1)]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/items?page_size=100", None),
        ("GET", "/items?page_size=10&page=4", None),
        ("POST", "/search", {"limit": 50}),
        ("POST", "/search", {"query": "number"}),
        ("POST", "/items/take", {"filters": {"user_id": "u"}}),
    ],
)
def test_an_answer_that_is_too_large_is_refused_with_a_number(app: Any, method: str, path: str, body: Any) -> None:
    answer = ask(app, method, path, body)
    assert answer.status == 422
    assert f"more than {server_items.MAX_PAGE_BYTES:,} bytes" in answer.body.decode()
    assert answer.peak < 8 * server_items.MAX_PAGE_BYTES


def test_fewer_are_answered(app: Any) -> None:
    for method, path, body in (
        ("GET", "/items?page_size=5&page=2", None),
        ("POST", "/search", {"limit": 5}),
        ("POST", "/search", {"query": "number", "limit": 5}),
    ):
        answer = ask(app, method, path, body)
        assert (answer.status, len(json.loads(answer.body)["data"])) == (200, 5)
        assert answer.peak < 8 * answer.sizes[0] + 16 * MEBIBYTE


def test_a_conversation_reads_little_more_than_it_takes(app: Any) -> None:
    answer = ask(
        app, "POST", "/search", {"strategy": "all", "limit": 1000, "max_tokens": 100, "filters": {"user_id": "u"}}
    )
    assert answer.status == 200
    assert answer.peak < 24 * MEBIBYTE


def anchor_of(item: Any) -> Any:
    return {"id": item["id"], "timestamp": item["dynamiq_memory"]["timestamp"]} | {
        key: item[key] for key in ("user_id", "session_id")
    }


def test_windows_end_where_the_answer_is_full(app: Any) -> None:
    items = json.loads(ask(app, "GET", "/items?page_size=3").body)["data"]
    body = {"anchors": list(map(anchor_of, items)), "before": 19, "after": 1}
    answer = ask(app, "POST", "/items/around", body)
    assert answer.status == 200
    assert 14 * MEBIBYTE < answer.sizes[0] < 18 * MEBIBYTE
    assert answer.peak < 8 * answer.sizes[0]
    read = json.loads(answer.body)
    windows = [[item["data"]["content"][0]["text"].split()[1] for item in window] for window in read["data"]]
    # What is near the first anchor comes first, the nearest first of all.
    assert windows == [[str(number) for number in range(27, 40)], ["38"], ["37"]]
    assert read["more"] == [[True, False], [True, True], [True, True]]
    few = ask(app, "POST", "/items/around", body | {"max_bytes": 2 * MEBIBYTE, "anchor_content": False})
    assert [len(window) for window in json.loads(few.body)["data"]] == [2, 1, 1]
    assert few.peak < 8 * few.sizes[0]


def test_anchors_that_are_too_large_are_refused(app: Any) -> None:
    pages = [json.loads(ask(app, "GET", f"/items?session_id=s{page}&page_size=9").body)["data"] for page in (0, 1)]
    items = [item for page in pages for item in page]
    answer = ask(app, "POST", "/items/around", {"anchors": list(map(anchor_of, items)), "before": 0, "after": 0})
    assert (answer.status, "anchor_content=false" in answer.body.decode()) == (422, True)
    assert answer.peak < 8 * server_items.MAX_PAGE_BYTES


@pytest.mark.parametrize("strategy", ["all", "relevant", "both"])
@pytest.mark.parametrize("max_tokens", [100, None])
def test_no_strategy_reads_all_that_is_near_a_match(app: Any, strategy: str, max_tokens: int | None) -> None:
    body = {"strategy": strategy, "query": "number", "limit": 1000, "filters": {"user_id": "u"}}
    answer = ask(app, "POST", "/search", body | {"max_tokens": max_tokens})
    assert answer.status == 200
    data = json.loads(answer.body)["data"]
    assert len(data) == (0 if max_tokens else 2 if strategy == "all" else 3)
    assert answer.peak < 8 * server_items.MAX_PAGE_BYTES


# Each would hold the loop for long if it were read, parsed, checked, converted or written there.
WORST: dict[str, tuple[str, str, Any]] = {
    "many messages": ("POST", "/items", {"items": [{"data": {"role": "user", "content": "hi"}}] * 5_000}),
    "a large message": ("POST", "/items", {"data": {"role": "user", "content": "word " * 1_000_000}}),
    "a filter": ("POST", "/items/count", {"filters": {"k": [f"value {number}" for number in range(10_000)]}}),
    "a question": ("POST", "/search", {"query": " ".join(f"word{number}" for number in range(20_000))}),
    "a large page": ("POST", "/items/query", {"limit": 1000}),
    "an export": ("GET", "/export", None),
}


@pytest.mark.parametrize("name", WORST)
def test_no_request_holds_up_the_others(app: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run = asyncio.events.Handle._run
    held: list[float] = []

    def measured(handle: asyncio.Handle) -> None:
        started = time.thread_time()  # of this thread alone: a busy machine does not count
        run(handle)
        held.append(time.thread_time() - started)

    monkeypatch.setattr(asyncio.events.Handle, "_run", measured)
    method, path, body = WORST[name]
    memory = MEMORY if name in ("a large page", "an export") else "/v1/memories/other"
    answer = ask(app, method, path, body, memory, measure=False)
    assert answer.status < 300
    assert max(held) < 0.25
