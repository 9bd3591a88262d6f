"""Requests to one table: paged, in batches, in transactions, each within the service's limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from dynamiq_memory.backends._batches import batched
from dynamiq_memory.backends.dynamodb.errors import code_of, reasons_of, throttled
from dynamiq_memory.backends.dynamodb.filters import Expression
from dynamiq_memory.backends.dynamodb.keys import PK, SK, Key, key_of
from dynamiq_memory.backends.dynamodb.records import VERSION, Draft, Item, version_of

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
MOST_IN_TRANSACTION = 100
_MOST_IN_BATCH_WRITE = 25
_MOST_IN_BATCH_GET = 100
# Requests at once, where each item needs one.
_AT_ONCE = 8
# Beyond this a page ends by its size, 1 MB.
_LARGEST_PAGE = 1000
# How often in a row nothing of a batch is taken, or a transaction meets another, before it is an error: with the
# waits below about 20 s.
_ATTEMPTS = 15
_FIRST_WAIT = 0.02
_LONGEST_WAIT = 2.0
_PASSING = frozenset({"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_FAILED = "ConditionalCheckFailedException"
_CONFLICT = "TransactionConflictException"

T = TypeVar("T")


@dataclass(slots=True)
class Change:
    """One write, which is made only if what stands there is as expected.

    Attributes:
        key: Where.
        draft: The new version of the message, or None to delete it.
        expected: The item that stands there, in this version; None for none.
        keeps_place: Whether the new version takes the place of that one in the order of arrival.
    """

    key: Key
    draft: Draft | None
    expected: Item | None
    keeps_place: bool = True


def wait(attempt: int) -> None:
    """Wait a random while, longer with each attempt."""
    time.sleep(random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)))  # noqa: S311 - not for a secret


class Table:
    """A table, and how to ask it.

    Args:
        name: Its name.
        where: What to call it in an error.
        client: Gives the client.
        consistent: Whether reads see all writes that were acknowledged before.
    """

    def __init__(self, name: str, where: str, client: Callable[[], Any], *, consistent: bool) -> None:
        """Keep the settings."""
        self.name = name
        self.where = where
        self.consistent = consistent
        self._client = client

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Item | None:
        """Read one item as it is now."""
        item: Item | None = self._client().get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")
        return item

    def get_many(self, keys: Sequence[Key], *, consistent: bool = True) -> list[Item]:
        """Read the items that are there of many keys, in no order."""
        found: list[Item] = []
        for group in batched(_unique(keys), _MOST_IN_BATCH_GET):
            left: list[Key] = list(group)
            attempt = 0
            while left:
                answer = self._client().batch_get_item(
                    RequestItems={self.name: {"Keys": left, "ConsistentRead": consistent}}
                )
                got = answer["Responses"].get(self.name, [])
                found += got
                left = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
                attempt = self._next_attempt(attempt, progressed=bool(got), left=bool(left))
        return found

    def query(
        self,
        pk: str,
        between: tuple[str, str, str] | None = None,
        *,
        index: str | None = None,
        expression: Expression | None = None,
        newest_first: bool = False,
        page: int | None = None,
        **more: Any,
    ) -> Iterator[dict[str, Any]]:
        """Read the pages of a partition.

        Args:
            pk: The partition.
            between: The sort key's attribute, its lowest and its highest value.
            index: The index to read.
            expression: What to filter by.
            newest_first: Whether to read from the end.
            page: How many items to look at in each request, or None for 1 MB.
            more: Other arguments of the request.
        """
        expression = Expression() if expression is None else expression
        condition = f"{expression.name(PK)} = {expression.value({'S': pk})}"
        if between is not None:
            name, low, high = between
            low_value, high_value = expression.value({"S": low}), expression.value({"S": high})
            condition += f" AND {expression.name(name)} BETWEEN {low_value} AND {high_value}"
        if index is not None:
            more["IndexName"] = index
        if page is not None and page <= _LARGEST_PAGE:
            more["Limit"] = page
        return self._pages(
            self._client().query,
            KeyConditionExpression=condition,
            ScanIndexForward=not newest_first,
            **expression.arguments("FilterExpression"),
            **more,
        )

    def scan(self, expression: Expression, *, index: str | None = None, **more: Any) -> Iterator[dict[str, Any]]:
        """Read the pages of the whole table, or of an index."""
        if index is not None:
            more["IndexName"] = index
        return self._pages(self._client().scan, **expression.arguments("FilterExpression"), **more)

    def _pages(self, request: Callable[..., Any], **arguments: Any) -> Iterator[dict[str, Any]]:
        arguments.setdefault("ConsistentRead", self.consistent)
        while True:
            page: dict[str, Any] = request(TableName=self.name, **arguments)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    # --- writing ---------------------------------------------------------------------------------------------

    def write_many(
        self, put: Sequence[Item] = (), delete: Sequence[Key] = (), *, done: list[Key] | None = None
    ) -> None:
        """Put and delete items in batches, without conditions; what the service did not take is sent again.

        Args:
            put: Items to put.
            delete: Keys to delete, none of which is put.
            done: Gets the keys of what is done, as it is done.

        Raises:
            BackendError: The service took nothing for long.
        """
        requests: list[dict[str, Any]] = [{"PutRequest": {"Item": item}} for item in put]
        requests += [{"DeleteRequest": {"Key": each}} for each in _unique(delete)]
        for group in batched(requests, _MOST_IN_BATCH_WRITE):
            left = list(group)
            attempt = 0
            while left:
                sent = left
                answer = self._client().batch_write_item(RequestItems={self.name: sent})
                left = answer.get("UnprocessedItems", {}).get(self.name, [])
                if done is not None:
                    open_ = {identity(_requested(request)) for request in left}
                    done += [key for key in map(_requested, sent) if identity(key) not in open_]
                attempt = self._next_attempt(attempt, progressed=len(left) < len(sent), left=bool(left))

    def put(self, item: Item, condition: Expression | None = None) -> bool:
        """Put an item where a condition holds of what stands there; return whether it did."""
        arguments = {} if condition is None else condition.arguments("ConditionExpression")
        return self._try(self._client().put_item, Item=item, **arguments)

    def set(self, key: Key, attribute: str, value: Mapping[str, Any]) -> bool:
        """Set an attribute of an item that is there; return whether it is."""
        expression = Expression()
        expression.parts.append(f"attribute_exists({expression.name(SK)})")
        update = f"SET {expression.name(attribute)} = {expression.value(value)}"
        arguments = expression.arguments("ConditionExpression")
        return self._try(self._client().update_item, Key=key, UpdateExpression=update, **arguments)

    def remove(self, key: Key, attribute: str, where: str, value: Mapping[str, Any]) -> None:
        """Remove an attribute of an item of which another has a value; else leave it."""
        expression = Expression()
        expression.parts.append(f"{expression.name(where)} = {expression.value(value)}")
        update = f"REMOVE {expression.name(attribute)}"
        arguments = expression.arguments("ConditionExpression")
        self._try(self._client().update_item, Key=key, UpdateExpression=update, **arguments)

    def delete_each(self, keys: Sequence[Key]) -> list[Item]:
        """Delete items, and return those that were there: of several callers at once, one gets each.

        A batch does not say what was there, and a transaction costs double.
        """

        def delete(each: Key) -> Item | None:
            answer = self._write(self._client().delete_item, Key=each, ReturnValues="ALL_OLD")
            deleted: Item | None = answer.get("Attributes")
            return deleted

        return [item for item in _at_once(delete, keys) if item]

    def delete_before(self, keys: Sequence[Key], attribute: str, moment: int) -> None:
        """Delete those items of which an attribute is less than a number, and leave the others."""
        expression = Expression()
        expression.parts.append(f"{expression.name(attribute)} < {expression.value({'N': str(moment)})}")
        arguments = expression.arguments("ConditionExpression")
        _at_once(lambda each: self._try(self._client().delete_item, Key=each, **arguments), keys)

    def _try(self, request: Callable[..., Any], **arguments: Any) -> bool:
        try:
            self._write(request, **arguments)
        except ClientError as error:
            if code_of(error) != _FAILED:
                raise
            return False
        return True

    def _write(self, request: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
        """Write one item, also one that somebody's transaction has just now in its hands."""
        attempt = 0
        while True:
            try:
                answer: dict[str, Any] = request(TableName=self.name, **arguments)
            except ClientError as error:
                attempt += 1
                if code_of(error) != _CONFLICT or attempt == _ATTEMPTS:
                    raise
                wait(attempt)
            else:
                return answer

    def apply(self, changes: Sequence[Change], also: Sequence[Mapping[str, Any]] = ()) -> dict[int, Item | None]:
        """Make changes, all of them or none.

        Args:
            changes: Each of another item.
            also: Other operations of the same transaction; at most 100 with the changes.

        Returns:
            Empty if they were made. Else, for those whose expectation failed, by their number, what stands there; the
            numbers of other operations come behind those of the changes.
        """
        now = int(time.time())
        if len(changes) == 1 and changes[0].draft is not None and not also:
            conflicts = self._put_one(changes[0], now)
        else:
            conflicts = self.transact([*(self._operation(each, now) for each in changes), *also])
        for number, current in conflicts.items():
            draft = changes[number].draft if number < len(changes) else None
            if draft is not None and current is not None and version_of(current) == draft.version:
                return {}  # the answer to our own request was lost, and the SDK has sent it again
        return conflicts

    def _put_one(self, change: Change, now: int) -> dict[int, Item | None]:
        (request,) = self._operation(change, now).values()
        del request["TableName"]  # it is given there
        try:
            self._write(self._client().put_item, **request)
        except ClientError as error:
            if code_of(error) != _FAILED:
                raise
            return {0: error.response.get("Item")}
        return {}

    def transact(self, operations: Sequence[Mapping[str, Any]]) -> dict[int, Item | None]:
        """Do several operations, all of them or none.

        Args:
            operations: At most 100, made by `operation`, each of another item.

        Returns:
            As for `apply`.
        """
        attempt = 0
        while True:
            try:
                self._client().transact_write_items(TransactItems=operations)
            except ClientError as error:
                code = code_of(error)
                reasons = reasons_of(error) if code == "TransactionCanceledException" else []
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

    def _operation(self, change: Change, now: int) -> dict[str, Any]:
        version = None if change.expected is None else version_of(change.expected)
        if change.draft is None:
            return operation(self.name, change.key, version, put=False)
        item = change.draft.item(change.expected if change.keeps_place else None, now)
        return operation(self.name, item, version, put=True)

    def _next_attempt(self, attempt: int, *, progressed: bool, left: bool) -> int:
        if not left or progressed:
            return 0
        if attempt + 1 == _ATTEMPTS:
            raise throttled(self.where)
        wait(attempt)
        return attempt + 1


def operation(table: str, target: Item, version: str | None, *, put: bool, attribute: str = VERSION) -> dict[str, Any]:
    """An operation of a transaction.

    Args:
        table: The table's name.
        target: The item to put, or the key of that to delete.
        version: What stands there must be of this version. None: there must be nothing where an item is put, something
            where one is deleted.
        put: Whether to put.
        attribute: The attribute that names the version.
    """
    expression = Expression()
    if version is not None:
        expression.parts.append(f"{expression.name(attribute)} = {expression.value({'S': version})}")
    else:
        expression.parts.append(f"attribute_{'not_' if put else ''}exists({expression.name(SK)})")
    request = {
        "TableName": table,
        "Item" if put else "Key": target,
        **expression.arguments("ConditionExpression"),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    return {"Put" if put else "Delete": request}


def _at_once(function: Callable[[Key], T], keys: Sequence[Key]) -> list[T]:
    if len(keys) <= 1:
        return [function(each) for each in keys]
    with ThreadPoolExecutor(min(_AT_ONCE, len(keys)), thread_name_prefix="dynamiq-memory-dynamodb") as pool:
        running = [pool.submit(function, each) for each in keys]
        try:
            return [each.result() for each in running]
        except BaseException:
            for each in running:
                each.cancel()
            raise


def _requested(request: dict[str, Any]) -> Key:
    return key_of(request["PutRequest"]["Item"]) if "PutRequest" in request else request["DeleteRequest"]["Key"]


def identity(key: Key) -> tuple[str, str]:
    """What of a key, or an item, tells it from others."""
    return key[PK]["S"], key[SK]["S"]


def _unique(keys: Sequence[Key]) -> list[Key]:
    return list({identity(key): key for key in keys}.values())
