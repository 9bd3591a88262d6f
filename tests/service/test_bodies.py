"""No body takes much more memory than its own size, or the event loop."""

from __future__ import annotations

import json
import threading
import tracemalloc
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from dynamiq_memory.server import bodies, models
from dynamiq_memory.server.bodies import InvalidBodyError
from tests.service.conftest import item
from tests.service.serving import Service

ADAPTER: TypeAdapter[Any] = TypeAdapter(models.OneOrMoreItems)
MEBIBYTE = 1 << 20
TINY = json.dumps(item("hi")).encode()
HOSTILE = {
    "numbers": b"[" + b"1," * (2 * MEBIBYTE) + b"1]",
    "objects": b"[" + b"{}," * MEBIBYTE + b"{}]",
    "lists": b"[" * (2 * MEBIBYTE),
    "wrong items": b"[" + b'{"data":{"role":"user","content":1}},' * 40_000 + b"{}]",
    "unknown fields": b"{" + b",".join(b'"key %d":1' % number for number in range(150_000)) + b"}",
    "content": b'{"data":{"role":"user","content":[' + b"1," * MEBIBYTE + b"1]}}",
    "calls": b'{"data":{"role":"user","tool_calls":[' + b'"",' * 90_000 + b"1]}}",
    "a string without an end": b'["' + b'\\"' * (2 * MEBIBYTE),
    "too many items": b"[" + b",".join([TINY] * (models.MAX_ITEMS + 1)) + b"]",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_is_refused_in_little_memory_and_few_words(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidBodyError) as refused:
            bodies._checked(body, ADAPTER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < max(8 * len(body), 48 * MEBIBYTE)
    assert len(refused.value.detail) < 300


def test_a_list_or_object_is_checked_as_what_it_is(open_service: Service) -> None:
    with open_service.client() as api:
        wrong = {"data": {"role": "robot"}}
        for body, place in (
            (wrong, "body.item.data.role"),
            ([item("1"), wrong, wrong], "body.list.1.data.role"),
            ({"items": [wrong]}, "body.items.items.0.data.role"),
        ):
            answer = api.post("/v1/memories/m/items", json=body)
            assert (answer.status_code, answer.json()["type"]) == (422, "InvalidArgumentError")
            assert answer.json()["detail"].startswith(f"{place}: ")
            assert answer.json()["detail"].count(";") == 0


def test_a_long_question_is_shortened_with_and_without_a_strategy(open_service: Service) -> None:
    long = f"apple {'lorem ' * 2_000} pear {'lorem ' * 2_000} plum"
    with open_service.client() as api:
        assert api.post("/v1/memories/m/items", json=[item(word) for word in ("apple", "pear", "plum")]).is_success
        for strategy in (None, "relevant"):
            answer = api.post("/v1/memories/m/search", json={"query": long, "strategy": strategy})
            found = {each["data"]["content"][0]["text"] for each in answer.json()["data"]}
            assert found == {"apple", "plum"}


def test_what_is_in_strings_does_not_count_as_values(open_service: Service) -> None:
    table = "1,[2],{3}\n" * 200_000
    with open_service.client() as api:
        assert api.post("/v1/memories/m/items", json=item(table)).status_code == 201
        (found,) = api.get("/v1/memories/m/items").json()["data"]
    assert found["data"]["content"][0]["text"] == table


def test_large_bodies_are_parsed_and_answers_written_in_other_threads(
    open_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[tuple[int, int | None]] = []
    parsed = bodies._checked

    def checked(body: bytes, adapter: TypeAdapter[Any]) -> Any:
        threads.append((len(body), threading.current_thread().ident))
        return parsed(body, adapter)

    monkeypatch.setattr(bodies, "_checked", checked)
    loops = {thread.ident for thread in threading.enumerate() if "run" in thread.name}
    with open_service.client() as api:
        for count in (1, 2_000):
            assert api.post("/v1/memories/m/items", json=[item(f"{n}") for n in range(count)]).status_code == 201
    (small, on), (large, off) = threads
    assert small < large
    assert on in loops
    assert off not in loops


def test_a_body_that_is_not_json_is_refused(open_service: Service) -> None:
    headers = {"Content-Type": "application/json"}
    with open_service.client() as api:
        for body in (b"{", b'"\xff"', b"[" * 50_000, b'{"data": ' + b"[" * 2_000):
            answer: httpx.Response = api.post("/v1/memories/m/items", content=body, headers=headers)
            assert answer.status_code == 400
            assert answer.json()["detail"].startswith("the body is not JSON: ")
