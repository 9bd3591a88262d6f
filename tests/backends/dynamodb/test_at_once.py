"""Concurrent callers: one of several replacements wins, each deletion counts once, updates come after."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends.dynamodb import replacements, table, writer
from dynamiq_memory.backends.dynamodb.replacements import FLAG
from dynamiq_memory.testing import contents, say
from tests.backends.dynamodb.conftest import NewStore
from tests.fakes.dynamodb.limits import Watched, during

SCOPE = {"user_id": "user-1", "session_id": "s"}


class Crash(BaseException):
    """The process dies."""


@pytest.fixture
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five operations are a transaction's most."""
    monkeypatch.setattr(writer, "MOST_IN_TRANSACTION", 5)
    monkeypatch.setattr(replacements, "MOST_IN_TRANSACTION", 5)
    monkeypatch.setattr(writer, "wait", lambda _: None)


def session(*texts: str, user: str = "user-1", name: str = "s") -> list[Message]:
    return [say(text, user=user, session=name) for text in texts]


def switched(store: Any, watched: Watched, where: dict[str, Any], messages: list[Message]) -> None:
    """A replacement by a process that dies between the switch and the moving."""

    def crash() -> None:
        raise Crash

    during(watched, "TransactWriteItems", crash)
    with pytest.raises(Crash):
        store.replace(where, messages)
    watched.before = lambda *_: None


@pytest.mark.parametrize("where", [SCOPE, {"user_id": "user-1"}, {"session_id": "s"}], ids=["both", "user", "session"])
def test_of_two_replacements_of_nothing_the_later_stands(
    new_store: NewStore, watched: Watched, where: dict[str, Any]
) -> None:
    store, other = new_store(), new_store()
    theirs = session("B1", "B2", name="s" if "session_id" in where else "t")
    if "user_id" not in where:
        theirs = session("B1", "B2", user="user-2")
    during(watched, "TransactWriteItems", lambda: other.replace(where, theirs))
    store.replace(where, session("A1", "A2"))
    assert contents(store.get_all()) == ["A1", "A2"]


def test_a_replacement_of_a_user_and_one_of_his_session_do_not_both_stand(
    new_store: NewStore, watched: Watched
) -> None:
    store, other = new_store(), new_store()
    during(watched, "TransactWriteItems", lambda: other.replace({"user_id": "user-1"}, session("B1", "B2")))
    store.replace(SCOPE, session("A1", "A2"))
    assert contents(store.get_all()) == ["A1", "A2"]


def test_one_that_reads_inconsistently_replaces_consistently(new_store: NewStore, watched: Watched) -> None:
    store = new_store(consistent_reads=False)
    stale: list[str] = []

    def before(operation: str, arguments: dict[str, Any]) -> None:
        if operation == "Query" and not arguments["ConsistentRead"]:
            stale.append(str(arguments))

    watched.before = before
    store.replace(SCOPE, session("A1"))
    store.replace({"session_id": "s"}, session("A2"))
    assert stale == []
    assert contents(store.get_all(filters=SCOPE)) == ["A2"]
    assert stale != []


@pytest.mark.usefixtures("small_transactions")
@pytest.mark.parametrize("narrowed", [False, True], ids=["whole", "earlier"])
def test_a_small_replacement_does_not_stand_beside_a_large_one(
    new_store: NewStore, watched: Watched, narrowed: bool
) -> None:
    """The large one comes as far as to its switch between the small one's reading and its transaction."""
    store, other = new_store(), new_store()
    store.add_many(session("old 1", "old 2"))
    where: dict[str, Any] = SCOPE | ({"timestamp": {"lt": 1e11}} if narrowed else {})
    large = [f"large {n}" for n in range(6)]
    at_switch, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def before(operation: str, arguments: dict[str, Any]) -> None:
            text = f"{operation} {arguments}"
            if "':v0': {'S': 'staging'}" in text and "'switched'" in text and not at_switch.is_set():
                at_switch.set()
                assert go_on.wait(60)
            elif operation == "TransactWriteItems" and not begun:
                begun.append(pool.submit(other.replace, where, session(*large)))
                assert at_switch.wait(60)

        begun: list[Any] = []
        watched.before = before
        try:
            store.replace(where, session("small"))
            assert contents(store.get_all(filters=SCOPE)) == ["small"]
        finally:
            go_on.set()
        begun[0].result()
    watched.before = lambda *_: None
    assert contents(store.get_all(filters=SCOPE)) == large


@pytest.mark.usefixtures("small_transactions")
def test_a_large_replacement_sees_the_small_one_that_came_before(new_store: NewStore, watched: Watched) -> None:
    store, other = new_store(), new_store()
    large = [f"large {n}" for n in range(6)]
    during(watched, "'replacement/", lambda: other.replace(SCOPE, session("small")))
    store.replace(SCOPE, session(*large))
    assert contents(store.get_all()) == large


@pytest.mark.usefixtures("small_transactions")
@pytest.mark.parametrize("call", ["new", "old", "take_new", "take_old", "take_earlier", "replace_earlier"])
def test_who_changes_messages_finishes_a_replacement_first(new_store: NewStore, watched: Watched, call: str) -> None:
    store, other = new_store(), new_store()
    old = store.add_many(session(*(f"old {n}" for n in range(3))))
    new = session(*(f"new {n}" for n in range(5)))
    switched(store, watched, SCOPE, new)
    texts = contents(new)
    (stored,) = [each for each in new if each.content == "new 2"]
    edited = [each.model_copy(update={"content": "edited"}) for each in (stored, old[0])]
    everything = SCOPE | {"timestamp": {"lt": 1e11}}
    calls: dict[str, tuple[Callable[[], Any], Any, list[str]]] = {
        "new": (lambda: contents(other.update(edited[:1])), ["edited"], [*texts[:2], "edited", *texts[3:]]),
        "old": (lambda: contents(other.update(edited[1:])), [], texts),
        "take_new": (
            lambda: contents(other.take(SCOPE | {"message_id": stored.id})),
            ["new 2"],
            [*texts[:2], *texts[3:]],
        ),
        "take_old": (lambda: contents(other.take(SCOPE | {"message_id": old[0].id})), [], texts),
        "take_earlier": (lambda: contents(other.take(everything)), texts, []),
        "replace_earlier": (lambda: contents(other.replace(everything, session("one"))), ["one"], ["one"]),
    }
    do, answer, left = calls[call]
    assert do() == answer
    assert contents(other.get_all(filters=SCOPE)) == left


@pytest.mark.usefixtures("small_transactions")
def test_a_mark_stays_while_a_replacement_is_under_way_and_goes_with_the_first_update(
    new_store: NewStore, watched: Watched
) -> None:
    store, other = new_store(), new_store()
    stored = store.add_many(session("old 1", "old 2", "old 3"))
    new = session(*(f"new {n}" for n in range(5)))

    def marked() -> bool:
        key = {"pk": {"S": "user/user-1"}, "sk": {"S": "=s"}}
        return FLAG in store._client.get().get_item(TableName=store.table_name, Key=key)["Item"]

    def update_meanwhile() -> None:
        assert contents(other.update(stored[:1])) == ["old 1"]
        assert marked()

    during(watched, "':v0': {'S': 'staging'}", update_meanwhile)
    store.replace(SCOPE, new)
    assert marked()
    assert len(other.update(new[:1])) == 1
    assert not marked()
    watched.reset()
    assert len(other.update(new[:1])) == 1
    assert dict(watched.requests) == {"BatchGetItem": 1, "PutItem": 1}


def test_of_deletions_at_once_each_message_is_counted_once(new_store: NewStore) -> None:
    stores = [new_store() for _ in range(3)]
    stores[0].add_many(session(*(f"{n}" for n in range(30))))
    together = threading.Barrier(3)

    def delete(store: Any) -> int:
        read = store._reader.keys

        def keys(filter: Any) -> Any:
            store._reader.keys = read
            found = list(read(filter))
            together.wait(60)  # all have read the same before anyone deletes
            return iter(found)

        store._reader.keys = keys
        return int(store.delete(session_id="s", user_id="user-1"))

    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(delete, stores))
    assert sum(counts) == 30
    assert stores[0].count() == 0


def test_a_deletion_waits_for_a_transaction(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_many(session("1", "2", "x" * 200_000))
    waits: list[int] = []
    monkeypatch.setattr(table, "wait", waits.append)
    original = store._client.get().delete_item
    conflict = store._client.get().exceptions.TransactionConflictException(
        {"Error": {"Code": "TransactionConflictException"}}, "DeleteItem"
    )
    failed: list[str] = []

    def delete_item(**arguments: Any) -> Any:
        name = str(arguments["Key"])
        if name not in failed:
            failed.append(name)
            raise conflict
        return original(**arguments)

    monkeypatch.setattr(store._client.get(), "delete_item", delete_item)
    assert store.delete(session_id="s") == 3
    assert len(waits) == len(failed) >= 3
    held = store._client.get().scan(TableName=store.table_name)["Items"]
    assert [item["sk"]["S"] for item in held] == ["@user-1"]  # no parts of the large one
