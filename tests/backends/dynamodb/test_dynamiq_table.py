"""A table of the dynamiq package is refused, and copied."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import boto3
import pytest

from dynamiq_memory.backends import DynamoDB
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.testing import contents
from tests.backends.dynamodb.conftest import NewStore
from tests.fakes.dynamodb.limits import Watched

CALLS = [{"id": "c-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.fixture
def old_table(watched: Watched, endpoint: str, table_name: str) -> Iterator[Any]:
    """A table as the package creates it."""
    client = boto3.resource("dynamodb", endpoint_url=endpoint)
    table = client.create_table(
        TableName=f"{table_name}-old",
        AttributeDefinitions=[
            {"AttributeName": "message_id", "AttributeType": "S"},
            {"AttributeName": "timestamp", "AttributeType": "N"},
        ],
        KeySchema=[
            {"AttributeName": "message_id", "KeyType": "HASH"},
            {"AttributeName": "timestamp", "KeyType": "RANGE"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    table.wait_until_exists()
    yield table
    table.delete()
    client.meta.client.close()


def put(table: Any, message_id: str, moment: str, role: str, content: Any, **metadata: Any) -> None:
    """Put an item as the package's `add` does."""
    own = {"message_id": message_id, "timestamp": Decimal(moment)}
    table.put_item(Item={**own, "role": role, "content": content, "metadata": metadata | own})


def test_it_is_refused_with_what_to_do(old_table: Any, new_store: NewStore) -> None:
    with pytest.raises(ConfigurationError, match=r"dynamiq package.*copy_from_dynamiq"):
        new_store(table_name=old_table.name)


def test_its_messages_are_copied(old_table: Any, store: DynamoDB) -> None:
    scope = {"user_id": "u", "session_id": "s"}
    put(old_table, "b", "1700000002.5", "assistant", "", **scope, _tool_calls=CALLS)
    put(old_table, "a", "1700000001", "user", "Hällo", **scope, score=Decimal("0.25"), n=7, tags=["x", {"y": None}])
    put(old_table, "c", "1700000003", "user", "other", user_id="v", session_id="")
    for _ in range(2):  # again doubles nothing
        assert store.copy_from_dynamiq(old_table.name) == 3
    assert store.count() == 3
    first, second = store.get_all(filters=scope)
    assert (first.id, first.content, first.timestamp) == ("a", "Hällo", 1700000001.0)
    shown = {"timestamp": 1700000001.0, "message_id": "a"}
    assert first.metadata == {**scope, "score": 0.25, "n": 7, "tags": ["x", {"y": None}], **shown}
    assert (second.id, second.timestamp, second.tool_calls) == ("b", 1700000002.5, CALLS)
    assert contents(store.get_all(filters={"user_id": "v", "session_id": None})) == ["other"]
    assert asyncio.run(store.acopy_from_dynamiq(old_table.name)) == 3


def test_what_cannot_be_copied_is_named(old_table: Any, store: DynamoDB) -> None:
    with pytest.raises(BackendError, match=r"no-such-table.*not there"):
        store.copy_from_dynamiq("no-such-table")
    with pytest.raises(ConfigurationError, match="not a table of the dynamiq package"):
        store.copy_from_dynamiq(store.table_name)
    put(old_table, "bad", "1", "nobody", "x")
    with pytest.raises(ConfigurationError, match=r"'bad'.*correct or delete"):
        store.copy_from_dynamiq(old_table.name)
