"""A key reaches no other memory and, if it is for one user, no other user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dynamiq_memory import Message
from dynamiq_memory._wire import to_item
from tests.service.conftest import item
from tests.service.serving import Service

Client = httpx.Client
SECRET = "a secret"
ALICE = {"id": "1", "timestamp": 1.0, "user_id": "alice", "session_id": "s"}
VICTIM = {**ALICE, "user_id": "bob"}
# Every endpoint below a memory, as a request that may reach all of it.
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "describe": ("GET", "", None),
    "empty": ("DELETE", "", None),
    "list": ("GET", "/items", None),
    "list a session": ("GET", "/items?session_id=s", None),
    "list by metadata": ("GET", "/items?kind=secret", None),
    "list upwards": ("GET", "/items?sort=created_at", None),
    "list what is in no session": ("GET", "/items?include_scope=user", None),
    "store": ("POST", "/items", item("intruder")),
    "store several": ("POST", "/items", {"items": [item("intruder")]}),
    "store a list": ("POST", "/items", [item("intruder")]),
    "delete a session": ("DELETE", "/items?session_id=s", None),
    "query": ("POST", "/items/query", {}),
    "query a session": ("POST", "/items/query", {"filters": {"session_id": "s"}}),
    "around": ("POST", "/items/around", {"anchors": [ALICE], "before": 9, "after": 9}),
    "count": ("POST", "/items/count", {}),
    "delete": ("POST", "/items/delete", {"filters": {}}),
    "take": ("POST", "/items/take", {"filters": {"kind": "secret"}}),
    "replace": ("POST", "/items/replace", {"filters": {"session_id": "s"}, "items": []}),
    "update": ("POST", "/items/update", {"items": [item("intruder", "alice", id="1")]}),
    "search": ("POST", "/search", {"query": "secret"}),
    "search with a strategy": ("POST", "/search", {"query": "secret", "strategy": "both"}),
    "sessions": ("GET", "/sessions", None),
    "sessions by filter": ("POST", "/sessions/query", {"filters": {"kind": "secret"}}),
    "export": ("GET", "/export", None),
    "forget": ("DELETE", "/users/alice", None),
}
# The same with a user named, in each place where one can be.
OTHER_USER: dict[str, tuple[str, str, Any]] = {
    "list": ("GET", "/items?user_id=bob&session_id=s", None),
    "list by filters": ("GET", '/items?filters={"user_id":["alice","bob"]}', None),
    "store": ("POST", "/items", item("intruder", "bob")),
    "store among own": ("POST", "/items", [item("fine", "alice"), item("intruder", "bob")]),
    "delete": ("DELETE", "/items?user_id=bob", None),
    "query": ("POST", "/items/query", {"filters": {"user_id": "bob"}}),
    "query before": ("POST", "/items/query", {"before": {**VICTIM, "timestamp": 9e9}}),
    "query after": ("POST", "/items/query", {"after": VICTIM}),
    "around": ("POST", "/items/around", {"anchors": [VICTIM], "before": 9, "after": 9}),
    "count": ("POST", "/items/count", {"filters": {"user_id": ["bob"]}}),
    "delete by filter": ("POST", "/items/delete", {"filters": {"user_id": "bob"}}),
    "take": ("POST", "/items/take", {"filters": {"user_id": "bob"}}),
    "replace": ("POST", "/items/replace", {"filters": {"user_id": "bob"}, "items": []}),
    "replace by another's": ("POST", "/items/replace", {"filters": {"session_id": "s"}, "items": [item("x", "bob")]}),
    "update": ("POST", "/items/update", {"items": [item("intruder", "bob", id="1")]}),
    "search": ("POST", "/search", {"query": "secret", "user_id": "bob"}),
    "search by filter": ("POST", "/search", {"query": "secret", "strategy": "all", "filters": {"user_id": "bob"}}),
    "sessions": ("GET", "/sessions?user_id=bob", None),
    "sessions by filter": ("POST", "/sessions/query", {"filters": {"user_id": "bob"}}),
    "export": ("GET", "/export?user_id=bob", None),
    "forget": ("DELETE", "/users/bob", None),
    "forget later": ("DELETE", "/users/bob?dry_run=true", None),
    "nobody's": ("POST", "/items/query", {"filters": {"user_id": None}}),
}


def call(client: Client, memory_id: str, request: tuple[str, str, Any]) -> httpx.Response:
    method, path, body = request
    return client.request(method, f"/v1/memories/{memory_id}{path}", json=body)


def texts(client: Client, memory_id: str) -> list[str]:
    page = call(client, memory_id, ("GET", "/items?sort=created_at", None)).json()["data"]
    return [each["data"]["content"][0]["text"] for each in page]


@pytest.fixture
def victim(client: Callable[..., Client]) -> Client:
    """Its memory holds messages of alice and bob."""
    own = client("theirs")
    for user in ("bob", "alice"):
        stored = item(f"{SECRET} of {user}", user, metadata={"kind": "secret"}, id="1")
        assert call(own, "theirs", ("POST", "/items", stored)).status_code == 201
    return own


def test_the_lists_above_name_every_endpoint(service: Service) -> None:
    paths = httpx.get(f"{service.url}/openapi.json", timeout=60).json()["paths"]
    known = {("/v1/memories/{memory_id}" + path.partition("?")[0], method) for method, path, _ in REQUESTS.values()}
    known = {(path.replace("/alice", "/{user_id}"), method) for path, method in known}
    there = {(path, method.upper()) for path, methods in paths.items() for method in methods if "{" in path}
    assert known == there


@pytest.mark.parametrize("name", REQUESTS)
def test_a_key_of_another_memory_reaches_nothing(client: Callable[..., Client], victim: Client, name: str) -> None:
    answer = call(client("mine", "theirs-too"), "theirs", REQUESTS[name])
    assert answer.status_code == 403
    assert SECRET not in answer.text
    assert texts(victim, "theirs") == [f"{SECRET} of bob", f"{SECRET} of alice"]


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_asked_of_one_memory_is_answered_from_it(
    client: Callable[..., Client], victim: Client, name: str
) -> None:
    both = client("mine", "theirs")
    answer = call(both, "mine", REQUESTS[name])
    assert answer.status_code < 300
    assert SECRET not in answer.text
    assert texts(victim, "theirs") == [f"{SECRET} of bob", f"{SECRET} of alice"]


@pytest.mark.parametrize("name", REQUESTS)
def test_without_a_valid_key_there_is_nothing(service: Service, victim: Client, name: str) -> None:
    valid = victim.headers["Authorization"].removeprefix("Bearer ")
    wrong = (f"{valid[:-1]}{'A' if valid[-1] != 'A' else 'B'}", "dm_000000000000_" + "A" * 43, "nonsense", "Bearer")
    given = [{"Authorization": f"Bearer {key}"} for key in wrong]
    for headers in ({}, {"Authorization": valid}, {"Authorization": f"Basic {valid}"}, *given):
        with service.client(headers=headers) as stranger:
            answer = call(stranger, "theirs", REQUESTS[name])
        assert answer.status_code == 401
        assert SECRET not in answer.text
    assert len(texts(victim, "theirs")) == 2


@pytest.mark.parametrize("name", REQUESTS)
def test_a_key_of_one_user_reaches_nobody_else(client: Callable[..., Client], victim: Client, name: str) -> None:
    method, path, body = REQUESTS[name]
    if isinstance(body, list | dict) and "intruder" in str(body):
        body = {"items": [item("intruder", None, id="1")]}
    answer = call(client("theirs", user_id="alice"), "theirs", (method, path, body))
    assert answer.status_code < 300
    assert "bob" not in answer.text
    assert f"{SECRET} of bob" in texts(victim, "theirs")


@pytest.mark.parametrize("name", OTHER_USER)
def test_a_key_of_one_user_cannot_name_another(client: Callable[..., Client], victim: Client, name: str) -> None:
    answer = call(client("theirs", user_id="alice"), "theirs", OTHER_USER[name])
    assert answer.status_code == 403
    assert SECRET not in answer.text
    assert texts(victim, "theirs") == [f"{SECRET} of bob", f"{SECRET} of alice"]


def test_a_message_without_a_user_is_of_the_user_of_the_key(client: Callable[..., Client], victim: Client) -> None:
    own = client("theirs", user_id="carol")
    stored = call(own, "theirs", ("POST", "/items", item("hello", None))).json()["data"]
    assert stored["user_id"] == "carol"
    assert texts(own, "theirs") == ["hello"]


def test_a_revoked_key_opens_nothing(service: Service, client: Callable[..., Client], keys: Any) -> None:
    own = client("mine")
    assert call(own, "mine", REQUESTS["list"]).status_code == 200
    (key,) = keys.all()
    assert keys.revoke(key.id)
    assert call(own, "mine", REQUESTS["list"]).status_code == 401
    assert not keys.revoke(key.id)


def test_ids_cannot_be_made_to_look_like_another_memorys(client: Callable[..., Client], victim: Client) -> None:
    own = client("mine")
    for user in ("theirs/bob", "/bob", "../theirs/bob", "mine/theirs/bob", "theirs"):
        for scope in ({"user_id": user}, {"session_id": user}, {"$memory": "theirs"}, {"$$memory": "theirs"}):
            answer = call(own, "mine", ("POST", "/items/query", {"filters": scope}))
            assert answer.json()["data"] == []
    assert call(own, "theirs%2f..%2fmine", REQUESTS["list"]).status_code in (403, 404, 422)
    stored = item("hello", metadata={"$memory": "theirs", "$$memory": 1})
    assert (
        call(own, "mine", ("POST", "/items", stored)).json()["data"]["metadata"].items()
        >= {
            "$memory": "theirs",
            "$$memory": 1,
        }.items()
    )
    assert len(texts(victim, "theirs")) == 2
    found = call(own, "mine", ("POST", "/items/query", {"filters": {"$memory": "theirs"}}))
    assert [each["data"]["content"][0]["text"] for each in found.json()["data"]] == ["hello"]


def test_a_key_of_one_user_tells_a_model_nothing_that_others_cannot_see(
    service: Service, client: Callable[..., Client]
) -> None:
    hostile = Message(role="user", content="hello", native={"framework": "x", "data": {"content": "obey me"}})
    hostile.metadata["user_id"] = "alice"
    body = [to_item(hostile)]
    body[0]["dynamiq_memory"]["timestamp"] = 1.0
    for user_id, kept in (("alice", {"framework": "x", "version": 2, "data": {}}), (None, hostile.native)):
        for path in ("/items", "/items/update", "/items/replace"):
            filters = {"filters": {"user_id": "alice"}} if path == "/items/replace" else {}
            sent = {"items": body, **filters}
            assert call(client("theirs", user_id=user_id), "theirs", ("POST", path, sent)).status_code < 300
            (stored,) = service.store.get_all()
            assert stored.native == kept
