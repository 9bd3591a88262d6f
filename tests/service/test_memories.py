"""The list of memories, and lists by page numbers, as the platform's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import httpx
import pytest

from dynamiq_memory import BackendError
from dynamiq_memory.backends import InMemory
from tests.service.conftest import item
from tests.service.serving import Service, serving

Client = httpx.Client


def test_a_key_lists_its_memories(client: Callable[..., Client]) -> None:
    own = client("c", "a", "b")
    pages = [own.get(f"/v1/memories?project_id=p&page_size=2&page={page}").json() for page in (1, 2, 3)]
    assert [[each["id"] for each in page["data"]] for page in pages] == [["c", "a"], ["b"], []]
    assert [page["pagination"] for page in pages] == [{"page_count": 2, "total_count": 3}] * 3
    assert own.get("/v1/memories/a").json()["data"] == {"id": "a", "name": "a"}
    assert own.get("/v1/memories", headers={"Authorization": ""}).status_code == 401


def test_a_memory_begins_where_its_key_is_valid(client: Callable[..., Client]) -> None:
    own = client("a")
    for name, status in (("a", 201), ("b", 403), ("a/b", 422), ("", 422)):
        answer = own.post("/v1/memories", json={"name": name, "project_id": "p"})
        assert answer.status_code == status
    assert "keys create" in own.post("/v1/memories", json={"name": "b"}).json()["detail"]


def test_without_keys_any_id_is_a_memory(open_service: Service) -> None:
    with open_service.client() as anyone:
        assert anyone.get("/v1/memories").status_code == 404
        assert anyone.post("/v1/memories", json={"name": "new"}).json() == {"data": {"id": "new", "name": "new"}}
    with InMemory() as store, serving(store, memory_id="main") as service, service.client() as anyone:
        assert [each["id"] for each in anyone.get("/v1/memories").json()["data"]] == ["main"]
        assert anyone.post("/v1/memories", json={"name": "new"}).status_code == 403


@pytest.mark.parametrize("user_id", [None, "alice"])
def test_emptying_a_memory_deletes_what_the_key_may_access(client: Callable[..., Client], user_id: str | None) -> None:
    own = client("a", "b")
    for path in ("/v1/memories/a/items", "/v1/memories/b/items"):
        own.post(path, json=[item("hello", user) for user in ("alice", "bob")])
    assert client("a", user_id=user_id).delete("/v1/memories/a").json() == {"deleted": 1 if user_id else 2}
    left = [own.get(f"/v1/memories/{each}/items?page=1").json()["pagination"]["total_count"] for each in ("a", "b")]
    assert left == [1 if user_id else 0, 2]


def test_lists_by_page_numbers_say_how_long_they_are(client: Callable[..., Client]) -> None:
    own = client("m")
    items = [item(f"{number}", "alex", session) for number, session in enumerate(["s", "s", None, "t", "s"])]
    own.post("/v1/memories/m/items", json=[*items, item("another's", "bob")])

    def ask(query: str) -> tuple[list[str], dict[str, int] | None]:
        page = own.get(f"/v1/memories/m/items?user_id=alex&{query}").json()
        return [each["data"]["content"][0]["text"] for each in page["data"]], page.get("pagination")

    everything = "include_scope=user&include_scope=session"
    assert ask(everything) == (list("43210"), {"page_count": 1, "total_count": 5})
    assert ask(f"{everything}&page_size=2&page=3") == (["0"], {"page_count": 3, "total_count": 5})
    assert ask(f"{everything}&page_size=2&page=4") == ([], {"page_count": 3, "total_count": 5})
    assert ask(f"{everything}&session_id=s") == (list("410"), {"page_count": 1, "total_count": 3})
    assert ask("include_scope=user") == (["2"], {"page_count": 1, "total_count": 1})
    for wrong in ("include_scope=session", "include_scope=memory"):
        assert own.get(f"/v1/memories/m/items?user_id=alex&{wrong}").status_code == 422
    cursor = own.get("/v1/memories/m/items?user_id=alex&page_size=2").json()["next_cursor"]
    assert ask(f"page_size=2&cursor={cursor}") == (["2", "1"], None)
    assert ask("page_size=2") == (["4", "3"], None)


def test_a_user_is_forgotten_with_a_receipt(client: Callable[..., Client]) -> None:
    own = client("m")
    own.post(
        "/v1/memories/m/items", json=[item(session=session, user=user) for session in "st" for user in ("a/b", "c")]
    )
    path = "/v1/memories/m/users/a%2Fb"
    assert own.delete(f"{path}?dry_run=true").json()["stores"][0]["found"] == 2
    receipt = own.delete(path).json()
    assert (receipt["user_id"], receipt["is_complete"]) == ("a/b", True)
    assert sorted(receipt["stores"][0]["sessions"]) == ["s", "t"]
    assert own.get("/v1/memories/m/items?page=1").json()["pagination"]["total_count"] == 2


@pytest.mark.parametrize("user", ["ann\n", "\n", "x\ny", "...", "a/..b", "%0A", " ", "\u2028", "users/ann"])
def test_exactly_the_user_of_the_path_is_forgotten(client: Callable[..., Client], user: str) -> None:
    own = client("m")
    stored = own.post("/v1/memories/m/items", json=[item(user=each) for each in (user, "ann", "x", "y", "a", "b")])
    assert stored.status_code == 201
    receipt = own.delete(f"/v1/memories/m/users/{quote(user, safe='')}").json()
    assert (receipt["user_id"], receipt["stores"][0]["deleted"]) == (user, 1)
    left = [each["user_id"] for each in own.get("/v1/memories/m/items").json()["data"]]
    assert sorted(left) == ["a", "ann", "b", "x", "y"]


def test_a_store_that_fails_to_forget_is_an_error_without_details(
    client: Callable[..., Client], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = client("m")
    own.post("/v1/memories/m/items", json=item())

    def fail(_: object) -> int:
        raise BackendError("a secret detail")

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "_delete", fail)
        answer = own.delete("/v1/memories/m/users/u")
    assert answer.status_code == 500
    assert "secret" not in answer.text
