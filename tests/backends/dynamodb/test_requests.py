"""The requests and capacity of each call, and retries of what the service leaves unprocessed."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends.dynamodb import table
from dynamiq_memory.backends.dynamodb.records import Item, drafts_of
from dynamiq_memory.exceptions import BackendError, MessageTooLargeError, PartialWriteError
from dynamiq_memory.messages import prepare
from dynamiq_memory.testing import contents, say
from tests.backends.dynamodb.conftest import NewStore
from tests.fakes.dynamodb.limits import Watched
from tests.fakes.dynamodb.server import ENDPOINT, multiply


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Waits are noted, not waited."""
    waits: list[int] = []
    monkeypatch.setattr(table, "wait", waits.append)
    return waits


class Fault:
    """Changes the answers to one operation; `change` gets the arguments and the client's own method."""

    def __init__(self, store: Any, operation: str, change: Any) -> None:
        self._client = store._client.get()
        self._original = getattr(self._client, operation)
        self.calls = 0

        def call(**arguments: Any) -> Any:
            self.calls += 1
            return change(self.calls, self._original, arguments)

        setattr(self._client, operation, call)


def write_directly(watched: Watched, store: Any, messages: list[Message]) -> list[Item]:
    """Put messages into the table without asking what is there, and return their items."""
    ready = prepare(messages)
    items = [record.item() for record in drafts_of(ready, Arrivals().keys(len(ready)), None)]
    store._writer._table.write_many(items)
    return items


def test_reading_a_session_costs_the_same_whatever_else_there_is(store: Any, watched: Watched) -> None:
    store.add_many([say(f"{n}", user="u", session="mine") for n in range(60)])

    def cost() -> tuple[dict[str, int], float, int]:
        watched.reset()
        found = store.get_all(50, {"user_id": "u", "session_id": "mine"})
        assert contents(found) == [f"{n}" for n in range(10, 60)]
        return dict(watched.requests), watched.units, watched.looked_at

    others: list[dict[str, Any]] = [
        {"user": "u", "session": "mine", "timestamp": 1.0},
        {"user": "u", "session": "another"},
        {"user": "somebody else", "session": "mine"},
    ]
    items = write_directly(watched, store, [say("x", **each) for each in others])
    write_directly(watched, store, [say("x", user="u", session=f"s{n % 7}") for n in range(100)])
    few = cost()
    if os.environ.get(ENDPOINT):
        for each in others:
            write_directly(watched, store, [say("x", **each) for _ in range(1500)])
    else:
        for item in items:
            multiply(store.table_name, item, (f"{n:05d}" for n in range(5_000)))
        assert store._writer._table._client().describe_table(TableName=store.table_name)["Table"]["ItemCount"] > 15_000
    assert cost() == few
    assert few[0] == {"Query": 1}
    assert few[2] == 50


def test_each_read_is_the_requests_it_should_be(store: Any, watched: Watched) -> None:
    stored = store.add_many([say(f"{n}", user="u", session=f"s{n % 3}", n=n) for n in range(30)])
    scope = {"user_id": "u", "session_id": "s0"}
    calls: list[tuple[Any, dict[str, int]]] = [
        (lambda: store.get_all(5, {"user_id": "u"}), {"Query": 1}),
        (lambda: store.get_all(5, scope), {"Query": 1}),
        (lambda: store.get_all(5, {**scope, "n": {"lt": 9}}), {"Query": 1}),
        (lambda: store.get_all(5, {"session_id": "s0"}), {"Query": 3}),  # its users, nobody's, the user's
        (lambda: store.get_all(5, scope, before=stored[9]), {"GetItem": 1, "Query": 1}),
        (lambda: store.get_all(None, {**scope, "message_id": stored[0].id}), {"BatchGetItem": 1}),
        (lambda: store.count({"user_id": "u"}), {"Query": 1}),
        (lambda: store.sessions({"user_id": "u"}), {"Query": 1}),
        (store.is_empty, {"Scan": 1}),
        (lambda: store.get_all(5), {"Scan": 1}),
        (lambda: store.get_all(5, {**scope, "n": []}), {}),
        (lambda: store.add(say("x", user="u", session="s0")), {"PutItem": 1}),
        (lambda: store.add_many([say("x", user="u", session="s0")] * 2), {"PutItem": 1}),
        (lambda: store.add_many([say("x", user="u", session="s0") for _ in range(2)]), {"TransactWriteItems": 1}),
        (lambda: store.add(say("x", user="u", session="new")), {"PutItem": 2}),
        (lambda: store.update([stored[0]]), {"BatchGetItem": 1, "PutItem": 1}),
    ]
    for call, expected in calls:
        watched.reset()
        call()
        assert dict(watched.requests) == expected


def test_a_filter_is_paged_until_the_limit_is_met(store: Any, watched: Watched) -> None:
    store.add_many([say("wanted", kind="rare"), *[say(f"{n}", kind="common") for n in range(900)]])
    watched.reset()
    assert contents(store.get_all(1, {"user_id": "user-1", "session_id": "session-1", "kind": "rare"})) == ["wanted"]
    assert watched.requests["Query"] == 5
    watched.reset()
    scope = {"user_id": "user-1", "session_id": "session-1"}
    assert len(store.get_all(2, {**scope, "kind": "common"})) == 2
    assert watched.requests["Query"] == 1


def test_unprocessed_items_are_sent_again(store: Any, no_waits: list[int]) -> None:
    def half(call: int, original: Any, arguments: dict[str, Any]) -> Any:
        ((table, items),) = arguments["RequestItems"].items()
        keep = len(items) // 2 if call % 2 else len(items)
        if keep:
            original(RequestItems={table: items[:keep]})
        return {"UnprocessedItems": {table: items[keep:]} if items[keep:] else {}}

    fault = Fault(store, "batch_write_item", half)
    store.add_many([say(f"{n}") for n in range(130)])
    assert contents(store.get_all()) == [f"{n}" for n in range(130)]
    assert fault.calls > 6


def test_unprocessed_keys_are_asked_for_again(store: Any, no_waits: list[int]) -> None:
    stored = store.add_many([say(f"{n}") for n in range(30)])

    def some(call: int, original: Any, arguments: dict[str, Any]) -> Any:
        ((table, request),) = arguments["RequestItems"].items()
        keys = request["Keys"]
        answer = original(RequestItems={table: {**request, "Keys": keys[:7]}})
        return answer | {"UnprocessedKeys": {table: {**request, "Keys": keys[7:]}} if keys[7:] else {}}

    fault = Fault(store, "batch_get_item", some)
    assert len(store.update(stored)) == 30
    assert fault.calls == 5


def test_a_batch_that_fails_midway_names_what_is_in(store: Any, no_waits: list[int]) -> None:
    def stuck(call: int, original: Any, arguments: dict[str, Any]) -> Any:
        ((table, items),) = arguments["RequestItems"].items()
        if call > 2:
            return {"UnprocessedItems": {table: items}}
        return original(**arguments)

    Fault(store, "batch_write_item", stuck)
    messages = [say(f"{n}") for n in range(130)]
    with pytest.raises(PartialWriteError, match=r"throttled.*50 of 130") as caught:
        store.add_many(messages)
    assert set(caught.value.stored_ids) == {m.id for m in store.get_all()} == {m.id for m in messages[:50]}
    assert len(no_waits) > 5


def test_a_small_batch_that_fails_leaves_nothing(store: Any, no_waits: list[int]) -> None:
    error = store._client.get().exceptions.TransactionCanceledException(
        {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": [{"Code": "TransactionConflict"}]},
        "TransactWriteItems",
    )

    def conflict(call: int, original: Any, arguments: dict[str, Any]) -> Any:
        if call < limit:
            raise error
        return original(**arguments)

    limit = 4
    fault = Fault(store, "transact_write_items", conflict)
    store.add_many([say("1"), say("2")])
    assert fault.calls == limit
    limit = 10**6
    with pytest.raises(BackendError, match="TransactionCanceled"):
        store.add_many([say("3"), say("4")])
    assert contents(store.get_all()) == ["1", "2"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_lost_answer_doubles_nothing(store: Any, count: int) -> None:
    """The SDK sends the request again; the service then finds what it has already done."""

    def twice(call: int, original: Any, arguments: dict[str, Any]) -> Any:
        original(**arguments)
        return original(**arguments)

    store.add(say("registers the user"))
    messages = [say(f"{n}") for n in range(count)]
    Fault(store, "put_item" if count == 1 else "transact_write_items", twice)
    store.add_many(messages)
    assert contents(store.get_all())[1:] == [f"{n}" for n in range(count)]
    changed = [m.model_copy(update={"content": "new"}) for m in messages]
    assert contents(store.update(changed)) == ["new"] * count


def test_large_messages_are_split_and_put_together(store: Any, watched: Watched) -> None:
    text = "ünïcödé 👩‍👩‍👧 " * 60_000
    store.add_many([say("before"), say(text, k=1), say("behind", k=1)])
    assert contents(store.get_all()) == ["before", text, "behind"]
    assert contents(store.get_all(filters={"k": 1})) == [text, "behind"]
    assert _chunks(store) > 3
    large = store.get_all()[1]
    store.update([large.model_copy(update={"content": "short"})])
    assert _chunks(store) == 0
    store.add(large)
    assert _chunks(store) > 3
    assert store.delete(session_id="session-1") == 3
    assert _chunks(store) == 0


def test_many_medium_messages_are_one_transaction(store: Any, watched: Watched) -> None:
    texts = [f"{n} " * 20_000 for n in range(80)]  # some 5 MB in all
    watched.reset()
    store.add_many([say(text) for text in texts])
    assert watched.requests["TransactWriteItems"] == 1
    assert contents(store.get_all()) == texts


def test_many_medium_messages_are_updated_within_the_limits(store: Any, watched: Watched) -> None:
    stored = store.add_many([say("x" * 90_000) for _ in range(102)])
    watched.reset()
    assert len(store.update([m.model_copy(update={"content": "y" * 90_000}) for m in stored])) == 102
    assert watched.requests["TransactWriteItems"] > 2
    assert set(contents(store.get_all())) == {"y" * 90_000}


def test_a_half_written_large_message_is_never_seen(store: Any) -> None:
    def broken(call: int, original: Any, arguments: dict[str, Any]) -> Any:
        raise store._client.get().exceptions.InternalServerError({"Error": {"Code": "InternalServerError"}}, "PutItem")

    store.add(say("small"))
    Fault(store, "put_item", broken)
    with pytest.raises(BackendError):
        store.add(say("x" * 800_000))
    assert contents(store.get_all()) == ["small"]
    assert store.count() == 1
    assert _chunks(store) == 3
    store.clear()
    assert _chunks(store) == 3  # another process may be writing it


def test_too_large_a_message_is_refused_before_anything_is_written(new_store: NewStore, watched: Watched) -> None:
    store = new_store(max_message_bytes=1000)
    watched.reset()
    with pytest.raises(MessageTooLargeError, match="1,000"):
        store.add_many([say("fine"), say("x" * 1001)])
    assert not watched.requests


def test_a_retry_keeps_place_and_parts(store: Any) -> None:
    first, _ = store.add_many([say("first", timestamp=5.0), say("second", timestamp=5.0)])
    store.add(first.model_copy(update={"content": "x" * 500_000}))
    store.add(first.model_copy(update={"content": "first again"}))
    assert contents(store.get_all()) == ["first again", "second"]
    assert _chunks(store) == 0
    moved = first.model_copy(update={"timestamp": 6.0})
    store.add(moved)
    assert contents(store.get_all()) == ["second", "first"]
    assert store.count() == 2


def test_more_than_a_transaction_is_replaced_and_updated(store: Any) -> None:
    scope = {"user_id": "user-1", "session_id": "session-1"}
    stored = store.add_many([say(f"{n}") for n in range(150)])
    kept, new = stored[:70], [say(f"new {n}") for n in range(80)]
    store.replace(scope, [*kept, *new])
    assert contents(store.get_all()) == [*[f"{n}" for n in range(70)], *[f"new {n}" for n in range(80)]]
    changed = [m.model_copy(update={"content": "changed"}) for m in store.get_all()]
    assert len(store.update(changed)) == 150
    assert contents(store.get_all()) == ["changed"] * 150
    assert len(store.take({"user_id": "user-1"})) == 150


def test_expired_messages_are_not_shown(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(ttl=60)
    assert store.capabilities.ttl
    client = store._client.get()
    described = client.describe_time_to_live(TableName=store.table_name)["TimeToLiveDescription"]
    assert described == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    old, _ = store.add_many([say("old", timestamp=5.0), say("x" * 300_000, timestamp=5.0)])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 61)
    assert store.get_all() == store.search("old") == []
    assert store.count() == store.count({"user_id": "user-1"}) == 0
    assert store.is_empty()
    assert store.sessions() == []
    assert store.update([old]) == []
    store.add(say("new", timestamp=5.0))
    store.add(old)
    assert contents(store.get_all()) == ["new", "old"]  # it arrived again
    again = new_store(ttl=60)  # finds it enabled
    assert again.count() == 2


def _chunks(store: Any) -> int:
    pages = store._client.get().get_paginator("scan").paginate(TableName=store.table_name)
    return sum(item["pk"]["S"].startswith("chunks/") for page in pages for item in page["Items"])


def test_whether_there_is_a_message_is_found_out_in_one_page(store: Any, watched: Watched) -> None:
    write_directly(watched, store, [say("x", user=f"u{n % 5}", session="s", kind="a") for n in range(400)])
    for filters in (
        {},
        {"user_id": "u1"},
        {"user_id": "u1", "session_id": "s"},
        {"kind": "a"},
        {"timestamp": {"gt": 0}},
    ):
        memory = Memory(backend=store, filters=filters)
        watched.reset()
        assert not memory.is_empty()
        assert sum(watched.requests.values()) == 1, filters
        assert watched.looked_at <= 400
    for filters in ({"user_id": "nobody"}, {"kind": "b"}, {"user_id": "u1", "kind": "b"}):
        assert Memory(backend=store, filters=filters).is_empty()
