"""Data beyond the service's limits is refused before anything is written, or made to fit."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import DynamoDB
from dynamiq_memory.backends._order import Arrivals
from dynamiq_memory.backends.dynamodb.filters import FILTERABLE
from dynamiq_memory.backends.dynamodb.keys import key_attributes, session_guard
from dynamiq_memory.backends.dynamodb.records import drafts_of
from dynamiq_memory.backends.dynamodb.table import Table
from dynamiq_memory.connections import AWS
from dynamiq_memory.exceptions import BackendConnectionError, ConfigurationError, MessageError, MessageTooLargeError
from dynamiq_memory.messages import prepare
from dynamiq_memory.testing import contents, say
from tests.fakes.dynamodb.limits import Watched, check_transaction, size_of_item

# The longest that is taken.
USER, SESSION = "u" * 4096, "é" * 2048
SCOPE = {"user_id": USER, "session_id": SESSION}


@pytest.mark.parametrize("name", ["user", "session"])
def test_too_long_an_identifier_is_refused_before_anything_is_written(store: Any, watched: Watched, name: str) -> None:
    long = say("x", **{name: "é" * 2049})
    watched.reset()
    for call in (
        lambda: store.add(long),
        lambda: store.add_many([say("fine"), long]),
        lambda: store.update([long]),
        lambda: store.replace({"user_id": long.user_id, "session_id": long.session_id}, [long]),
    ):
        with pytest.raises(MessageTooLargeError, match=rf"{name}_id of 4,098 bytes.*4,096"):
            call()
    assert not watched.requests
    assert store.count({"user_id": "é" * 150_000}) == 0


def largest(count: int, text: str) -> list[Message]:
    metadata: dict[str, Any] = {f"key {n}": "v" * 1000 for n in range(20)}
    return [say(text, user=USER, session=SESSION, id=f"{'%' * 500}{n}", n=n, **metadata) for n in range(count)]


@pytest.mark.parametrize("text", ["", "x" * 3_000, "x" * 99_000], ids=len)
@pytest.mark.parametrize("count", [1, 40, 60, 100])
def test_the_largest_messages_fit_into_one_transaction(count: int, text: str) -> None:
    """With the longest identifiers, much metadata, and any content."""
    ready = prepare(largest(count, text))
    records = drafts_of(ready, Arrivals().keys(count), 2**33)
    table = Table("t", "t", lambda: None, consistent=True)
    operations = [table.put_if(record.item(), None) for record in records]
    guards = [table.put_if(key_attributes(session_guard(USER, f"{SESSION}{n}")), None) for n in range(100 - count)]
    check_transaction([*operations, *guards])
    sizes = [size_of_item(each["Put"]["Item"]) for each in operations]
    assert all(size <= record.size for size, record in zip(sizes, records, strict=True))
    # No more is put aside than needs be.
    found = {len(each["Put"]["Item"][FILTERABLE]["M"]) for each in operations}
    assert (min(found) >= 15) == (count <= 40)
    assert any(record.chunks for record in records) == (count > 1 or len(text) > 3_000)


def test_large_metadata_is_written_found_updated_and_replaced(store: Any) -> None:
    stored = store.add_many(largest(60, ""))
    assert len(store.get_all(filters=SCOPE | {"key 19": "v" * 1000, "n": {"gte": 57}})) == 3
    assert len(store.update(stored)) == 60
    store.replace(SCOPE, largest(50, "moved"))
    assert contents(store.get_all(filters=SCOPE)) == ["moved"] * 50


@pytest.mark.parametrize("ttl", [1e300, 1e12, 10**400], ids=["1e300", "1e12", "10**400"])
def test_too_long_a_ttl_is_refused(credentials: None, ttl: float) -> None:
    with pytest.raises(ConfigurationError, match="100 years"):
        DynamoDB(ttl=ttl)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter@127.0.0.1:1/?token=hunter",
        "http://user:h@hunter@127.0.0.1:1",
        "http://hunter@127.0.0.1:1/a/path?hunter#hunter",
        "http://user:hunter@",
        "user:hunter@127.0.0.1",
    ],
)
def test_secrets_of_the_endpoint_do_not_show(credentials: None, url: str) -> None:
    with pytest.raises((BackendConnectionError, ConfigurationError)) as caught:
        DynamoDB(AWS(), endpoint_url=url, max_attempts=1, connect_timeout=1.0)
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "anchor",
    [
        Message(role="user", content="x", id="\ud800"),
        Message(role="user", content="x", metadata={"user_id": 5}),
        Message(role="user", content="x", metadata={"session_id": "\ud800"}),
    ],
    ids=["surrogate", "number", "session"],
)
def test_an_anchor_that_cannot_be_stored_is_refused(store: Any, anchor: Message) -> None:
    for call in (
        lambda: store.get_all(before=anchor),
        lambda: store.get_all(after=anchor),
        lambda: store.around([anchor], 1, 1),
    ):
        with pytest.raises(MessageError):
            call()
