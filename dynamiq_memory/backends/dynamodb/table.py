"""Requests to one table: paged, in batches or in transactions, within the service's limits."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from boto3.dynamodb.conditions import Attr, ConditionExpressionBuilder, Key
from botocore.exceptions import ClientError

from dynamiq_memory._batches import batched
from dynamiq_memory.backends.dynamodb.errors import failed_conditions, is_conflict, throttled
from dynamiq_memory.backends.dynamodb.keys import PK, SK, ItemKey, key_attributes, key_in
from dynamiq_memory.backends.dynamodb.records import VERSION, Item, version_of

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

T = TypeVar("T")
V = TypeVar("V")


def wait(attempt: int) -> None:
    """Wait for a random time, longer with each attempt."""
    time.sleep(random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)))  # noqa: S311 - not for a secret


class Table:
    """A table of the service. Conditions are those of `boto3.dynamodb.conditions`, of values of the service's types.

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
        request = {"TableName": self.name, "Key": key_attributes(key), "ConsistentRead": True}
        item: Item | None = self._client().get_item(**request).get("Item")
        return item

    def get_many(self, keys: Sequence[ItemKey], *, consistent: bool = True) -> dict[ItemKey, Item]:
        """Read the items that exist at some keys, in no order."""
        found: dict[ItemKey, Item] = {}

        def read(group: list[dict[str, Any]]) -> Any:
            request = {"Keys": group, "ConsistentRead": consistent}
            answer = self._client().batch_get_item(RequestItems={self.name: request})
            found.update((key_in(item), item) for item in answer["Responses"].get(self.name, []))
            return answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])

        self._in_batches(read, map(key_attributes, dict.fromkeys(keys)), _MOST_IN_BATCH_GET)
        return found

    def query(
        self,
        pk: str,
        between: tuple[str, str, str] | None = None,
        condition: Any = None,
        *,
        newest_first: bool = False,
        page: int | None = None,
        **more: Any,
    ) -> Iterator[Item]:
        """Read the items of a partition, page by page.

        Args:
            pk: The partition.
            between: The sort key's attribute, its lowest and its highest value.
            condition: A condition that the items must meet.
            newest_first: Whether to read from the end.
            page: How many items each request reads before it filters; None for 1 MB.
            more: Other arguments of the request.
        """
        keys = Key(PK).eq({"S": pk})
        if between is not None:
            name, low, high = between
            keys &= Key(name).between({"S": low}, {"S": high})
        conditions = _conditions(KeyConditionExpression=keys, FilterExpression=condition)
        return self._pages("query", page, ScanIndexForward=not newest_first, **conditions, **more)

    def scan(self, condition: Any, *, page: int | None = None, **more: Any) -> Iterator[Item]:
        """Read the items of the whole table, or of an index, page by page; see `query`."""
        return self._pages("scan", page, **_conditions(FilterExpression=condition), **more)

    def _pages(self, request: str, page: int | None, **arguments: Any) -> Iterator[Item]:
        arguments = {"TableName": self.name, "ConsistentRead": self.consistent} | arguments
        if page is not None and page <= _LARGEST_PAGE:
            arguments["PaginationConfig"] = {"PageSize": page}
        for answer in self._client().get_paginator(request).paginate(**arguments):
            yield from answer["Items"]

    # --- writing without conditions --------------------------------------------------------------------------

    def write_many(
        self, put: Sequence[Item] = (), delete: Sequence[ItemKey] = (), *, done: set[ItemKey] | None = None
    ) -> None:
        """Put and delete items in batches, without conditions.

        Args:
            put: Items to put.
            delete: Keys to delete; none of an item to put.
            done: A set that receives the key of each item once it is written.

        Raises:
            BackendError: The service keeps processing nothing.
        """

        def write(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
            answer = self._client().batch_write_item(RequestItems={self.name: requests})
            unprocessed: list[dict[str, Any]] = answer.get("UnprocessedItems", {}).get(self.name, [])
            if done is not None:
                done.update(set(map(_requested, requests)) - set(map(_requested, unprocessed)))
            return unprocessed

        requests: list[dict[str, Any]] = [{"PutRequest": {"Item": item}} for item in put]
        requests += [{"DeleteRequest": {"Key": key_attributes(key)}} for key in dict.fromkeys(delete)]
        self._in_batches(write, requests, _MOST_IN_BATCH_WRITE)

    def _in_batches(self, send: Callable[[list[T]], list[T]], requests: Iterable[T], size: int) -> None:
        """Send requests in batches, and again what the service leaves unprocessed."""
        for batch in batched(requests, size):
            left, attempt = list(batch), 0
            while unprocessed := send(left):
                attempt = 0 if len(unprocessed) < len(left) else attempt + 1
                if attempt == _ATTEMPTS:
                    raise throttled(self.location)
                if attempt:
                    wait(attempt - 1)
                left = unprocessed

    # --- writing one item ------------------------------------------------------------------------------------

    def put(self, item: Item, condition: Any = None) -> bool:
        """Put an item if a condition holds for the stored one; return whether it did."""
        return self._if_holds(self._client().put_item, condition, Item=item)

    def touch(self, key: ItemKey, attribute: str, value: dict[str, Any]) -> bool:
        """Set an attribute of an item, which is not a reserved word, if the item exists; return whether it does."""
        return self._if_holds(
            self._client().update_item,
            Attr(SK).exists(),
            Key=key_attributes(key),
            UpdateExpression=f"SET {attribute} = :value",
            ExpressionAttributeValues={":value": value},
        )

    def set_each(self, items: Sequence[Item], attribute: str, value: dict[str, Any]) -> list[bool]:
        """Set an attribute, which is not a reserved word, of messages; return which still had the same version."""

        def set_one(item: Item) -> bool:
            conditions = _conditions(ConditionExpression=Attr(VERSION).eq(item[VERSION]))
            conditions["ExpressionAttributeValues"][":value"] = value
            update = partial(
                _conflicts, self._client().update_item, TableName=self.name, Key=key_attributes(key_in(item))
            )
            return not update(UpdateExpression=f"SET {attribute} = :value", **conditions)

        return concurrently(set_one, items)

    def delete_each(self, keys: Sequence[ItemKey]) -> list[Item]:
        """Delete items and return those that existed; of several callers at once, one gets each.

        A batch does not report what existed, and a transaction costs double.
        """
        exists = _conditions(ConditionExpression=Attr(SK).exists())

        def delete(key: ItemKey) -> Item | None:
            request = {"TableName": self.name, "Key": key_attributes(key), "ReturnValues": "ALL_OLD", **exists}
            try:
                item: Item = _sent(self._client().delete_item, **request)["Attributes"]
            except ClientError as error:
                if not failed_conditions(error):
                    raise
                return None
            return item

        return [item for item in concurrently(delete, keys) if item is not None]

    def delete_older(self, keys: Sequence[ItemKey], attribute: str, moment: dict[str, str]) -> None:
        """Delete those items in which the attribute is a time before another."""
        delete = partial(self._if_holds, self._client().delete_item, Attr(attribute).lt(moment))
        concurrently(lambda key: delete(Key=key_attributes(key)), keys)

    def _if_holds(self, request: Callable[..., Any], condition: Any, **arguments: Any) -> bool:
        conditions = _conditions(ConditionExpression=condition)
        return not _conflicts(request, TableName=self.name, **arguments, **conditions)

    # --- transactions ----------------------------------------------------------------------------------------

    def apply(self, operations: Sequence[dict[str, Any]]) -> dict[int, Item | None]:
        """Do all of some operations, or none; a single put costs half of a transaction.

        Args:
            operations: At most 100 of `put_if` and `delete_if`, each of another item.

        Returns:
            Empty if they were done. Otherwise, the stored item for the number of each with a failed condition.
        """
        if len(operations) == 1 and "Put" in operations[0]:
            conflicts = _conflicts(self._client().put_item, **operations[0]["Put"])
        else:
            conflicts = self.transact(operations)
        for number, current in conflicts.items():
            version = version_of(current)
            if version is not None and version == version_of(operations[number].get("Put", {}).get("Item")):
                return {}  # the answer to our own request was lost, and the SDK has sent it again
        return conflicts

    def transact(self, operations: Sequence[dict[str, Any]]) -> dict[int, Item | None]:
        """Do all of some operations, or none, always in a transaction; see `apply`."""
        return _conflicts(self._client().transact_write_items, TransactItems=operations)

    def put_if(self, item: Item, version: str | None, attribute: str = VERSION) -> dict[str, Any]:
        """Return the operation that puts an item if the stored one has a version; for None, if none is stored.

        Args:
            item: The item.
            version: The version.
            attribute: The attribute that names the version.
        """
        condition = Attr(SK).not_exists() if version is None else Attr(attribute).eq({"S": version})
        return {"Put": self._operation(condition, Item=item)}

    def delete_if(self, key: ItemKey, version: str | None) -> dict[str, Any]:
        """Return the operation that deletes an item if it has a version, or if it exists for None."""
        condition = Attr(SK).exists() if version is None else Attr(VERSION).eq({"S": version})
        return {"Delete": self._operation(condition, Key=key_attributes(key))}

    def _operation(self, condition: Any, **arguments: Any) -> dict[str, Any]:
        arguments |= _conditions(ConditionExpression=condition)
        return {"TableName": self.name, **arguments, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


def _conditions(**conditions: Any) -> dict[str, Any]:
    """Return the arguments of a request for conditions. Placeholders replace all names and values."""
    builder = ConditionExpressionBuilder()
    arguments: defaultdict[str, Any] = defaultdict(dict)
    for argument, condition in conditions.items():
        if condition is not None:
            arguments[argument], names, values = builder.build_expression(condition)
            arguments["ExpressionAttributeNames"].update(names)
            if values:
                arguments["ExpressionAttributeValues"].update(values)
    return arguments


def _sent(request: Callable[..., Any], **arguments: Any) -> Any:
    """Send a write, again while other transactions are writing the same items, and return the answer."""
    attempt = 0
    while True:
        try:
            return request(**arguments)
        except ClientError as error:
            attempt += 1
            if not is_conflict(error) or attempt == _ATTEMPTS:
                raise
        wait(attempt)


def _conflicts(request: Callable[..., Any], **arguments: Any) -> dict[int, Item | None]:
    """Send a write; return the stored items, by the numbers of the operations with conditions that do not hold."""
    try:
        _sent(request, **arguments)
    except ClientError as error:
        conflicts = failed_conditions(error)
        if not conflicts:
            raise
        return conflicts
    return {}


def concurrently(function: Callable[[V], T], values: Sequence[V]) -> list[T]:
    """Call a function with each of some values, several at once."""
    if len(values) < 2:
        return list(map(function, values))
    with ThreadPoolExecutor(_CONCURRENT, thread_name_prefix="dynamiq-memory-dynamodb") as pool:
        return list(pool.map(function, values))


def _requested(request: dict[str, Any]) -> ItemKey:
    return key_in(request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"])
