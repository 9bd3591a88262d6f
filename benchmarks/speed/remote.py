"""Stores behind an API, with their own clients by hand: the newest messages and an append, without searching."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.speed.contests import Contestant
from benchmarks.speed.messages import SCRATCH, Case, Row, role_of
from benchmarks.speed.ours import NEWEST


class RawDynamoDB(Contestant):
    """boto3's client and one table: a query for the newest, a put for an append, 25 puts a batch."""

    name = "boto3"
    TABLE = "raw"

    def __init__(self, endpoint: str) -> None:
        """Create the table."""
        import boto3

        keys = ("pk", "sk")
        self._client: Any = boto3.client("dynamodb", endpoint_url=endpoint)
        self._client.create_table(
            TableName=self.TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": n, "KeyType": k} for n, k in zip(keys, ("HASH", "RANGE"), strict=True)],
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in keys],
        )

    def load(self, rows: Sequence[Row]) -> None:
        """Put the messages."""
        self._put([_item(row.user, row.session, row.timestamp, row.role.value, row.text) for row in rows])

    def append(self, case: Case) -> object:
        """Put a message."""
        item = _item(case.user, SCRATCH, time.time(), "user", case.texts[0])
        return self._client.put_item(TableName=self.TABLE, Item=item)

    def batch(self, case: Case) -> None:
        """Put a hundred messages."""
        now = time.time()
        self._put([_item(case.user, SCRATCH, now + n, role_of(n).value, text) for n, text in enumerate(case.texts)])

    def newest(self, case: Case) -> object:
        """Query the newest messages of a session."""
        return self._client.query(
            TableName=self.TABLE,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"{case.user}/session-1"}},
            ScanIndexForward=False,
            ConsistentRead=True,
            Limit=NEWEST,
        )["Items"]

    def _put(self, items: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(items), 25):
            requests = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            self._client.batch_write_item(RequestItems={self.TABLE: requests})


class RawQdrant(Contestant):
    """qdrant-client in this process: a point for each message, without vectors."""

    name = "qdrant-client"

    def __init__(self) -> None:
        """Create the collection."""
        from qdrant_client import QdrantClient, models

        self._models = models
        self._client = QdrantClient(":memory:")
        self._client.create_collection("raw", vectors_config={})
        self._number = 0

    def load(self, rows: Sequence[Row]) -> None:
        """Upsert the messages."""
        self._upsert([(row.user, row.session, row.timestamp, row.role.value, row.text) for row in rows])

    def append(self, case: Case) -> object:
        """Upsert a message."""
        return self._upsert([(case.user, SCRATCH, time.time(), "user", case.texts[0])])

    def batch(self, case: Case) -> object:
        """Upsert a hundred messages."""
        now = time.time()
        return self._upsert(
            [(case.user, SCRATCH, now + n, role_of(n).value, text) for n, text in enumerate(case.texts)]
        )

    def newest(self, case: Case) -> object:
        """Scroll the newest messages of a session."""
        models = self._models
        scope = {"user": case.user, "session": "session-1"}
        must = [models.FieldCondition(key=k, match=models.MatchValue(value=v)) for k, v in scope.items()]
        order = models.OrderBy(key="timestamp", direction=models.Direction.DESC)
        return self._client.scroll("raw", models.Filter(must=[*must]), limit=NEWEST, order_by=order)

    def _upsert(self, rows: Sequence[tuple[Any, ...]]) -> object:
        points = []
        for row in rows:
            self._number += 1
            payload = dict(zip(("user", "session", "timestamp", "role", "text"), row, strict=True))
            points.append(self._models.PointStruct(id=self._number, vector={}, payload=payload))
        return self._client.upsert("raw", points)


def _item(user: str, session: str, timestamp: float, role: str, text: str) -> dict[str, Any]:
    key = {"pk": f"{user}/{session}", "sk": f"{timestamp:020.6f}"}
    return {name: {"S": value} for name, value in {**key, "role": role, "text": text}.items()}
