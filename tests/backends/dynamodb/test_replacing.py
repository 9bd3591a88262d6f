"""Replacements larger than a transaction: readers see the old messages or the new, whatever happens on the way."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends.dynamodb import replacements, table, writer
from dynamiq_memory.testing import contents, say
from tests.backends.dynamodb.conftest import NewStore
from tests.fakes.dynamodb.limits import Watched, during

LARGE = "x" * 150_000


class Crash(BaseException):
    """The process dies."""


@pytest.fixture(autouse=True)
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four operations are a transaction's most, so that few messages are many."""
    monkeypatch.setattr(writer, "MOST_IN_TRANSACTION", 4)
    monkeypatch.setattr(replacements, "MOST_IN_TRANSACTION", 4)
    monkeypatch.setattr(table, "wait", lambda _: None)
    monkeypatch.setattr(writer, "wait", lambda _: None)


def items(store: Any) -> list[dict[str, Any]]:
    pages = store._client.get().get_paginator("scan").paginate(TableName=store.table_name, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


def left_behind(store: Any) -> list[str]:
    """What is neither a message, nor a part of one that is there, nor says who has which session, nor a guard."""
    held = items(store)
    parts = {f"chunks/{item['version']['S']}" for item in held if "chunks" in item}
    other = [item for item in held if "version" not in item and item["sk"]["S"][0] not in "@="]
    return [f"{item['pk']['S']} {item['sk']['S']}" for item in other if item["pk"]["S"] not in parts]


def session(name: str, *texts: str) -> list[Message]:
    return [say(text, session=name) for text in texts]


def read(store: Any, name: str) -> list[str]:
    return contents(store.get_all(filters={"user_id": "user-1", "session_id": name}))


def test_a_crash_at_any_request_leaves_the_old_or_the_new(
    new_store: NewStore, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = new_store(), new_store()
    outcomes = []
    old, new = ["0", LARGE, "2"], ["0 again", LARGE + "new", "new 2"]
    for crash_at in itertools.count(1):
        name = f"session-{crash_at}"
        stored = store.add_many(session(name, *old))
        first = stored[0].model_copy(update={"content": new[0]})
        numbers = itertools.count(1)

        def before(*_: object, numbers: Any = numbers, crash_at: int = crash_at) -> None:
            if next(numbers) == crash_at:
                raise Crash

        watched.before = before
        try:
            store.replace({"user_id": "user-1", "session_id": name}, [first, *session(name, *new[1:])])
        except Crash:
            watched.before = lambda *_: None
        else:
            break
        seen = read(other, name)
        assert seen in (old, new)
        outcomes.append(seen == new)
        assert other.count({"user_id": "user-1", "session_id": name}) == 3
        if crash_at % 2:  # a late message comes after the stored ones
            other.add(say("late", session=name))
            seen.append("late")
        with monkeypatch.context() as later:
            real = time.time
            later.setattr(time, "time", lambda real=real: real() + 3601)
            assert read(other, name) == seen
    watched.before = lambda *_: None
    assert outcomes == sorted(outcomes)  # the switch is one request
    assert {True, False} == set(outcomes)
    assert read(store, name) == new
    # What was given up before its signs were up has only parts and a state; clearing removes what is old.
    assert all(each.startswith(("chunks/", "replacement/")) for each in left_behind(store))
    with monkeypatch.context() as later:
        real = time.time
        later.setattr(time, "time", lambda: real() + 25 * 3600)
        store.clear()
    assert items(store) == []


def test_others_see_the_old_until_the_switch_and_then_the_new(new_store: NewStore, watched: Watched) -> None:
    store, other = new_store(), new_store()
    old, new = [f"old {n}" for n in range(5)], [f"new {n}" for n in range(6)]
    store.add_many(session("s", *old))
    seen: list[list[str]] = []

    def look_and_add() -> None:
        seen.append(read(other, "s"))
        other.add(say("meanwhile", session="s"))

    during(watched, "':v0': {'S': 'staging'}", look_and_add)  # the condition of the switch
    store.replace({"user_id": "user-1", "session_id": "s"}, session("s", *new))
    assert seen == [old]
    # It came before the switch, and was not among what is replaced.
    assert sorted(read(other, "s")) == sorted([*new, "meanwhile"])
    assert left_behind(store) == []


@pytest.mark.parametrize("call", ["get_all", "count", "sessions", "search", "delete", "take", "clear", "user", "all"])
def test_the_next_call_finishes_a_switched_replacement(new_store: NewStore, watched: Watched, call: str) -> None:
    store, other = new_store(), new_store()
    store.add_many([*session("s", *(f"old {n}" for n in range(5))), say("else", session="t")])

    def crash() -> None:
        raise Crash

    during(watched, "TransactWriteItems", crash)
    scope = {"user_id": "user-1", "session_id": "s"}
    with pytest.raises(Crash):
        store.replace(scope, session("s", *(f"new {n}" for n in range(6))))
    new = [f"new {n}" for n in range(6)]
    calls: dict[str, tuple[Callable[[], Any], Any]] = {
        "get_all": (lambda: contents(other.get_all(4, scope)), new[2:]),
        "count": (lambda: other.count(scope), 6),
        "sessions": (lambda: sorted(s.messages for s in other.sessions({"user_id": "user-1"})), [1, 6]),
        "search": (lambda: sorted(contents(other.search("new old", scope))), new),
        "delete": (lambda: other.delete(session_id="s", user_id="user-1"), 6),
        "take": (lambda: contents(other.take(scope)), new),
        "clear": (other.clear, 7),
        "user": (lambda: sorted(contents(other.get_all(filters={"user_id": "user-1"}))), ["else", *new]),
        "all": (lambda: sorted(contents(other.get_all())), ["else", *new]),
    }
    do, expected = calls[call]
    assert do() == expected
    assert left_behind(store) == []


def test_a_filter_does_not_hide_what_is_to_be_finished(new_store: NewStore, watched: Watched) -> None:
    store, other = new_store(), new_store()
    store.add_many([say(f"old {n}", session="s", k=n) for n in range(5)])

    def crash() -> None:
        raise Crash

    during(watched, "TransactWriteItems", crash)
    with pytest.raises(Crash):
        store.replace({"session_id": "s"}, [say(f"new {n}", session="s", k=n) for n in range(5)])
    assert contents(other.get_all(filters={"user_id": "user-1", "session_id": "s", "k": 3})) == ["new 3"]


def test_a_message_that_was_changed_in_the_meantime_stays_changed(new_store: NewStore, watched: Watched) -> None:
    store, other = new_store(), new_store()
    stored = store.add_many(session("s", *(f"old {n}" for n in range(5))))
    again = stored[0].model_copy(update={"content": "again"})
    changed = [stored[n].model_copy(update={"content": f"changed {n}"}) for n in (0, 1)]

    def change() -> None:
        other.add(changed[0])
        other.add(changed[1])

    during(watched, "TransactWriteItems", change)
    store.replace({"user_id": "user-1", "session_id": "s"}, [again, *session("s", *(f"new {n}" for n in range(5)))])
    assert sorted(read(other, "s")) == ["changed 0", "changed 1", *(f"new {n}" for n in range(5))]
    assert left_behind(store) == []


def test_a_replacement_that_takes_too_long_begins_again(
    new_store: NewStore, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody took it for given up: its parts are gone, and it must not switch to them."""
    store, other = new_store(), new_store()
    store.add_many(session("s", *(f"old {n}" for n in range(5))))
    new = [LARGE, *(f"new {n}" for n in range(5))]

    def read_much_later() -> None:
        with monkeypatch.context() as later:
            real = time.time
            later.setattr(time, "time", lambda: real() + 3601)
            assert read(other, "s") == [f"old {n}" for n in range(5)]

    during(watched, "':v0': {'S': 'staging'}", read_much_later)
    store.replace({"user_id": "user-1", "session_id": "s"}, session("s", *new))
    assert read(other, "s") == new
    assert [each for each in left_behind(store) if not each.endswith(" state")] == []


def test_of_replacements_at_once_one_is_there_in_the_end(new_store: NewStore) -> None:
    store = new_store()
    store.add_many(session("s", *(f"old {n}" for n in range(5))))
    sets = [[f"{writer_}:{n}" for n in range(size)] for writer_, size in enumerate((6, 5, 2))]

    def replace(texts: list[str]) -> None:
        new_store().replace({"user_id": "user-1", "session_id": "s"}, session("s", *texts))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(replace, sets))
    assert read(store, "s") in sets


def test_a_session_of_several_users_is_replaced_as_one(new_store: NewStore, watched: Watched) -> None:
    store, other = new_store(), new_store()
    store.add_many([say(f"old {n}", user=f"u{n % 3}", session="s") for n in range(6)])

    def crash() -> None:
        raise Crash

    during(watched, "TransactWriteItems", crash)
    with pytest.raises(Crash):
        store.replace({"session_id": "s"}, [say(f"new {n}", user=f"u{n % 4}", session="s") for n in range(6)])
    assert contents(other.get_all(filters={"user_id": "u1", "session_id": "s"})) == ["new 1", "new 5"]
    assert contents(other.get_all(filters={"session_id": "s"})) == [f"new {n}" for n in range(6)]
    assert left_behind(store) == []
