"""Requests to one table: paged, in batches or in transactions, within the service's limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from dynamiq_memory.backends._batches import batched
from dynamiq_memory.backends.dynamodb.errors import cancellation_reasons, code_of, throttled
from dynamiq_memory.backends.dynamodb.expressions import Expression
from dynamiq_memory.backends.dynamodb.keys import PK, SK, ItemKey, key_in, key_tuple
from dynamiq_memory.backends.dynamodb.records import VERSION, Item, Record, version_of

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
MOST_IN_TRANSACTION = 100
_MOST_IN_BATCH_WRITE = 25
_MOST_IN_BATCH_GET = 100
# Concurrent requests, where each item needs its own.
_CONCURRENT = 8
# Above this a page ends by its size, 1 MB.
_LARGEST_PAGE = 1000
# How often in a row the service processes nothing of a batch, or a transaction conflicts with another, before that is
# an error: with the waits below about 20 s.
_ATTEMPTS = 15
_FIRST_WAIT = 0.02
_LONGEST_WAIT = 2.0
_PASSING = frozenset({"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_CONDITION_FAILED = "ConditionalCheckFailedException"
_CONFLICT = "TransactionConflictException"

T = TypeVar("T")


@dataclass(slots=True)
class ConditionalWrite:
    """A write or deletion of a message, done only if the stored item is the expected one.

    Attributes:
        key: The key of the item.
        record: The new version of the message, or None to delete it.
        expected: The stored item; None for none.
        keeps_position: Whether the new version keeps the expected item's position in the order of arrival.
    """

    key: ItemKey
    record: Record | None
    expected: Item | None
    keeps_position: bool = True


def wait(attempt: int) -> None:
    """Wait for a random time, longer with each attempt."""
    time.sleep(random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)))  # noqa: S311 - not for a secret


class Table:
    """A table of the service.

    Args:
        name: Its name.
        location: Its name in errors.
        client: Returns the client.
        consistent: Whether reads see all writes that were acknowledged before.
    """

    def __init__(self, name: str, location: str, client: Callable[[], Any], *, consistent: bool) -> None:
        """Keep the settings."""
        self.name = name
        self.location = location
        self.consistent = consistent
        self._client = client

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, key: ItemKey) -> Item | None:
        """Read one item consistently."""
        item: Item | None = self._client().get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")
        return item

    def get_many(self, keys: Sequence[ItemKey], *, consistent: bool = True) -> list[Item]:
        """Read the items that exist at some keys, in no order."""
        found: list[Item] = []

        def read(group: list[ItemKey]) -> list[ItemKey]:
            request = {"Keys": group, "ConsistentRead": consistent}
            answer = self._client().batch_get_item(RequestItems={self.name: request})
            found.extend(answer["Responses"].get(self.name, []))
            unprocessed: list[ItemKey] = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            return unprocessed

        for group in batched(_unique(keys), _MOST_IN_BATCH_GET):
            self._until_processed(read, list(group))
        return found

    def query(
        self,
        pk: str,
        between: tuple[str, str, str] | None = None,
        index: str | None = None,
        expression: Expression | None = None,
        newest_first: bool = False,
        page: int | None = None,
        **more: Any,
    ) -> Iterator[dict[str, Any]]:
        """Read a partition, page by page.

        Args:
            pk: The partition.
            between: The sort key's attribute, its lowest and its highest value.
            index: The index to read.
            expression: The filter.
            newest_first: Whether to read from the end.
            page: How many items each request reads before it filters; None for 1 MB.
            more: Other arguments of the request.
        """
        expression = Expression() if expression is None else expression
        condition = f"{expression.name(PK)} = {expression.value({'S': pk})}"
        if between is not None:
            name, low, high = between
            low_value, high_value = expression.value({"S": low}), expression.value({"S": high})
            condition += f" AND {expression.name(name)} BETWEEN {low_value} AND {high_value}"
        return self._pages(
            self._client().query,
            expression,
            index,
            page,
            KeyConditionExpression=condition,
            ScanIndexForward=not newest_first,
            **more,
        )

    def scan(
        self, expression: Expression, *, index: str | None = None, page: int | None = None, **more: Any
    ) -> Iterator[dict[str, Any]]:
        """Read the whole table, or an index, page by page; see `query`."""
        return self._pages(self._client().scan, expression, index, page, **more)

    def _pages(
        self, request: Callable[..., Any], expression: Expression, index: str | None, page: int | None, **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        arguments |= expression.arguments("FilterExpression")
        arguments.setdefault("ConsistentRead", self.consistent)
        if index is not None:
            arguments["IndexName"] = index
        if page is not None and page <= _LARGEST_PAGE:
            arguments["Limit"] = page
        while True:
            answer: dict[str, Any] = request(TableName=self.name, **arguments)
            yield answer
            if not answer.get("LastEvaluatedKey"):
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    # --- writing without conditions --------------------------------------------------------------------------

    def write_many(
        self, put: Sequence[Item] = (), delete: Sequence[ItemKey] = (), *, done: list[ItemKey] | None = None
    ) -> None:
        """Put and delete items in batches, without conditions.

        Args:
            put: Items to put.
            delete: Keys to delete; none of an item to put.
            done: A list that receives the key of each item once it is written.

        Raises:
            BackendError: The service keeps processing nothing.
        """

        def write(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
            answer = self._client().batch_write_item(RequestItems={self.name: requests})
            unprocessed: list[dict[str, Any]] = answer.get("UnprocessedItems", {}).get(self.name, [])
            if done is not None:
                left = {key_tuple(_requested(request)) for request in unprocessed}
                done.extend(key for key in map(_requested, requests) if key_tuple(key) not in left)
            return unprocessed

        requests: list[dict[str, Any]] = [{"PutRequest": {"Item": item}} for item in put]
        requests += [{"DeleteRequest": {"Key": key}} for key in _unique(delete)]
        for group in batched(requests, _MOST_IN_BATCH_WRITE):
            self._until_processed(write, list(group))

    def _until_processed(self, send: Callable[[list[T]], list[T]], requests: list[T]) -> None:
        """Send a batch, and again what the service leaves unprocessed."""
        attempt = 0
        while unprocessed := send(requests):
            attempt = 0 if len(unprocessed) < len(requests) else attempt + 1
            if attempt == _ATTEMPTS:
                raise throttled(self.location)
            if attempt:
                wait(attempt - 1)
            requests = unprocessed

    # --- writing one item ------------------------------------------------------------------------------------

    def put(self, item: Item, condition: Expression | None = None) -> bool:
        """Put an item if a condition holds for the stored one; return whether it did."""
        return self._if_holds(self._client().put_item, condition, Item=item)

    def update(self, key: ItemKey, update: str, condition: Expression) -> bool:
        """Update an item if a condition, which has the placeholders, holds for it; return whether it does."""
        return self._if_holds(self._client().update_item, condition, Key=key, UpdateExpression=update)

    def delete_each(self, keys: Sequence[ItemKey]) -> list[Item]:
        """Delete items and return those that existed; of several callers at once, one gets each.

        A batch does not report what existed, and a transaction costs double.
        """

        def delete(key: ItemKey) -> Item | None:
            deleted: Item | None = self._write(self._client().delete_item, Key=key, ReturnValues="ALL_OLD").get(
                "Attributes"
            )
            return deleted

        return [item for item in _concurrently(delete, keys) if item]

    def delete_older(self, keys: Sequence[ItemKey], attribute: str, moment: int) -> None:
        """Delete those items in which the attribute is a time before another, POSIX seconds."""
        condition = Expression().compare(attribute, "<", {"N": str(moment)})
        _concurrently(lambda key: self._if_holds(self._client().delete_item, condition, Key=key), keys)

    def _if_holds(self, request: Callable[..., Any], condition: Expression | None, **arguments: Any) -> bool:
        if condition is not None:
            arguments |= condition.arguments("ConditionExpression")
        try:
            self._write(request, **arguments)
        except ClientError as error:
            if code_of(error) != _CONDITION_FAILED:
                raise
            return False
        return True

    def _write(self, request: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
        """Write one item, again while another transaction is writing it."""
        arguments["TableName"] = self.name
        attempt = 0
        while True:
            try:
                answer: dict[str, Any] = request(**arguments)
            except ClientError as error:
                attempt += 1
                if code_of(error) != _CONFLICT or attempt == _ATTEMPTS:
                    raise
                wait(attempt)
            else:
                return answer

    # --- transactions ----------------------------------------------------------------------------------------

    def apply(
        self, writes: Sequence[ConditionalWrite], also: Sequence[Mapping[str, Any]] = ()
    ) -> dict[int, Item | None]:
        """Do all of some writes, or none.

        Args:
            writes: Each of another item.
            also: Other operations of the same transaction; at most 100 with the writes.

        Returns:
            Empty if they were done. Otherwise, the stored item for the number of each that did not find the expected
            one; the numbers of the other operations follow those of the writes.
        """
        now = int(time.time())
        operations = [self.operation(write, now) for write in writes]
        if len(writes) == 1 and writes[0].record is not None and not also:
            conflicts = self._put_alone(operations[0]["Put"])
        else:
            conflicts = self.transact([*operations, *also])
        for number, current in conflicts.items():
            record = writes[number].record if number < len(writes) else None
            if record is not None and current is not None and version_of(current) == record.version:
                return {}  # the answer to our own request was lost, and the SDK has sent it again
        return conflicts

    def transact(self, operations: Sequence[Mapping[str, Any]]) -> dict[int, Item | None]:
        """Do all of some operations, or none.

        Args:
            operations: At most 100 of `put_if` and `delete_if`, each of another item.

        Returns:
            As for `apply`.
        """
        attempt = 0
        while True:
            try:
                self._client().transact_write_items(TransactItems=operations)
            except ClientError as error:
                code = code_of(error)
                reasons = cancellation_reasons(error) if code == "TransactionCanceledException" else []
                codes = {reason.get("Code") or "None" for reason in reasons}
                if "ConditionalCheckFailed" in codes:
                    return {
                        number: reason.get("Item") or None
                        for number, reason in enumerate(reasons)
                        if reason.get("Code") == "ConditionalCheckFailed"
                    }
                passing = (bool(codes) and codes <= _PASSING) or code == _CONFLICT
                attempt += 1
                if not passing or attempt == _ATTEMPTS:
                    raise
                wait(attempt)
            else:
                return {}

    def _put_alone(self, arguments: dict[str, Any]) -> dict[int, Item | None]:
        try:
            self._write(self._client().put_item, **arguments)
        except ClientError as error:
            if code_of(error) != _CONDITION_FAILED:
                raise
            return {0: error.response.get("Item")}
        return {}

    def operation(self, write: ConditionalWrite, now: int) -> dict[str, Any]:
        """Return the operation of a transaction that does a write."""
        version = None if write.expected is None else version_of(write.expected)
        if write.record is None:
            return self.delete_if(write.key, version)
        return self.put_if(write.record.item(write.expected if write.keeps_position else None, now), version)

    def put_if(self, item: Item, version: str | None, attribute: str = VERSION) -> dict[str, Any]:
        """Return the operation that puts an item if the stored one has a version; for None, if none is stored.

        Args:
            item: The item.
            version: The version.
            attribute: The attribute that names the version.
        """
        return {"Put": self._if_version(attribute, version, Expression().missing(SK), Item=item)}

    def delete_if(self, key: ItemKey, version: str | None) -> dict[str, Any]:
        """Return the operation that deletes an item if it has a version, or if it exists for None."""
        return {"Delete": self._if_version(VERSION, version, Expression().exists(SK), Key=key)}

    def _if_version(
        self, attribute: str, version: str | None, otherwise: Expression, **arguments: Any
    ) -> dict[str, Any]:
        condition = otherwise if version is None else Expression().compare(attribute, "=", {"S": version})
        return {
            "TableName": self.name,
            **arguments,
            **condition.arguments("ConditionExpression"),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }


def _concurrently(function: Callable[[ItemKey], T], keys: Sequence[ItemKey]) -> list[T]:
    if len(keys) <= 1:
        return [function(key) for key in keys]
    with ThreadPoolExecutor(min(_CONCURRENT, len(keys)), thread_name_prefix="dynamiq-memory-dynamodb") as pool:
        running = [pool.submit(function, key) for key in keys]
        try:
            return [each.result() for each in running]
        except BaseException:
            for each in running:
                each.cancel()
            raise


def _requested(request: dict[str, Any]) -> ItemKey:
    return key_in(request["PutRequest"]["Item"]) if "PutRequest" in request else request["DeleteRequest"]["Key"]


def _unique(keys: Sequence[ItemKey]) -> list[ItemKey]:
    return list({key_tuple(key): key for key in keys}.values())
