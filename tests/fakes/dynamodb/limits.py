"""The service's limits, which moto does not have: each request is checked before it is sent.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import boto3

KB = 1024
KEYS = ("pk", "sk")
INDEX_KEYS = {"by_session": "at_session", "by_user": "at_user"}
_EXPRESSIONS = (
    "ConditionExpression",
    "FilterExpression",
    "KeyConditionExpression",
    "ProjectionExpression",
    "UpdateExpression",
)
_PLACEHOLDER = re.compile(r"[#:][A-Za-z0-9_]+")


class LimitError(AssertionError):
    """The service would refuse this request."""


def require(holds: bool, text: str) -> None:
    if not holds:
        raise LimitError(text)


def size_of_value(value: dict[str, Any]) -> int:
    """The bytes of a value as the service counts them."""
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(Decimal(content).as_tuple().digits) + 1) // 2 + 2
    if kind in ("BOOL", "NULL"):
        return 1
    if kind == "B":
        return len(content)
    if kind == "L":
        return 3 + sum(1 + size_of_value(each) for each in content)
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + size_of_value(each) for name, each in content.items())
    raise LimitError(f"a type that is not used here: {kind}")


def size_of_item(item: dict[str, Any]) -> int:
    return sum(len(name.encode()) + size_of_value(value) for name, value in item.items())


def check_value(value: dict[str, Any]) -> None:
    ((kind, content),) = value.items()
    if kind == "N":
        number = Decimal(content)
        require(len(number.normalize().as_tuple().digits) <= 38, f"more than 38 digits: {content}")
        small = number == 0 or Decimal("1e-130") <= abs(number) <= Decimal(
            "9.9999999999999999999999999999999999999e125"
        )
        require(small, f"a number out of range: {content}")
    if kind == "S":
        content.encode()  # a lone surrogate
    if kind == "M":
        for each in content.values():
            check_value(each)


def check_key(key: dict[str, Any]) -> None:
    require(set(key) == set(KEYS), f"not the table's key: {key}")
    require(0 < len(key["pk"]["S"].encode()) <= 2048, "a partition key of no or more than 2,048 bytes")
    require(0 < len(key["sk"]["S"].encode()) <= 1024, "a sort key of no or more than 1,024 bytes")


def check_item(item: dict[str, Any]) -> None:
    check_key({name: item[name] for name in KEYS})
    for value in item.values():
        check_value(value)
    copies = 1
    for name in INDEX_KEYS.values():
        if name in item:
            copies += 1
            require(0 < len(item[name]["S"].encode()) <= 1024, "an index's sort key of no or more than 1,024 bytes")
    size = size_of_item(item)
    require(size * copies <= 400 * KB, f"an item of {size} bytes, {copies} times")


def check_expressions(arguments: dict[str, Any]) -> None:
    names = arguments.get("ExpressionAttributeNames", {})
    values = arguments.get("ExpressionAttributeValues", {})
    for given, what in ((names, "names"), (values, "values")):
        require(given != {} or f"ExpressionAttribute{what.title()}" not in arguments, f"empty {what}")
    used: set[str] = set()
    for expression in _EXPRESSIONS:
        if expression in arguments:
            text = arguments[expression]
            require(0 < len(text) <= 4 * KB, f"an expression of {len(text)} bytes")
            found = _PLACEHOLDER.findall(text)
            used.update(found)
            require(text.count(" AND ") + text.count(" OR ") + len(found) <= 300, "more than 300 operators")
    require(used == {*names, *values}, f"unused or unknown in an expression: {used ^ {*names, *values}}")
    for name in names.values():
        require(0 < len(name.encode()) <= 64 * KB, f"an attribute's name of {len(name.encode())} bytes")
    require("" not in names.values(), "an empty name")
    for value in values.values():
        check_value(value)
    if "FilterExpression" in arguments:
        index = arguments.get("IndexName")
        keys = {"pk", INDEX_KEYS[index] if index else "sk"}
        if "KeyConditionExpression" in arguments:
            filtered = {names[each] for each in _PLACEHOLDER.findall(arguments["FilterExpression"]) if each[0] == "#"}
            require(not filtered & keys, f"a filter on a key: {filtered & keys}")
    require(arguments.get("Limit", 1) >= 1, "a limit below 1")


def check_no_doubles(keys: list[dict[str, Any]], what: str) -> None:
    names = [(key["pk"]["S"], key["sk"]["S"]) for key in keys]
    require(len(set(names)) == len(names), f"one item twice in {what}")


def check(operation: str, arguments: dict[str, Any]) -> None:
    """Refuse what the service would refuse.

    Raises:
        LimitError: A limit is passed.
    """
    checks = {
        "PutItem": lambda: check_item(arguments["Item"]),
        "GetItem": lambda: check_key(arguments["Key"]),
        "DeleteItem": lambda: check_key(arguments["Key"]),
        "BatchWriteItem": lambda: check_batch_write(*arguments["RequestItems"].values()),
        "BatchGetItem": lambda: check_batch_get(*arguments["RequestItems"].values()),
        "TransactWriteItems": lambda: check_transaction(arguments["TransactItems"]),
    }
    checks.get(operation, lambda: None)()
    check_expressions(arguments)


def check_batch_write(requests: list[dict[str, Any]]) -> None:
    require(0 < len(requests) <= 25, f"{len(requests)} in a batch")
    items = [each["PutRequest"]["Item"] for each in requests if "PutRequest" in each]
    keys = [each["DeleteRequest"]["Key"] for each in requests if "DeleteRequest" in each]
    for item in items:
        check_item(item)
    for key in keys:
        check_key(key)
    check_no_doubles([*items, *keys], "a batch")
    require(sum(map(size_of_item, items)) <= 16 * KB * KB, "more than 16 MB in a batch")


def check_batch_get(request: dict[str, Any]) -> None:
    require(0 < len(request["Keys"]) <= 100, f"{len(request['Keys'])} keys in a batch")
    for key in request["Keys"]:
        check_key(key)
    check_no_doubles(request["Keys"], "a batch")


def check_transaction(operations: list[dict[str, Any]]) -> None:
    require(0 < len(operations) <= 100, f"{len(operations)} in a transaction")
    targets, size = [], 0
    for each in operations:
        ((_, write),) = each.items()
        check_expressions(write)
        if "Item" in write:
            check_item(write["Item"])
            size += size_of_item(write["Item"]) * 3  # with its copies in the indexes
        targets.append(write.get("Key") or write["Item"])
    check_no_doubles(targets, "a transaction")
    require(size <= 4 * KB * KB, f"{size} bytes in a transaction")


class Watched:
    """A session that checks and counts requests.

    Attributes:
        requests: The requests since the last `reset`, by their operation.
        units: The capacity that they consumed, as the server says.
        looked_at: How many items queries and scans looked at.
        before: Called with each request's operation and arguments before it is sent; it may raise.
    """

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self.session = boto3.Session()
        events = self.session.events
        events.register("provide-client-params.dynamodb", self._before)
        events.register("after-call.dynamodb", self._after)
        self.reset()

    def reset(self) -> None:
        self.requests: Counter[str] = Counter()
        self.units = 0.0
        self.looked_at = 0
        self.before: Callable[[str, dict[str, Any]], None] = lambda *_: None

    def _before(self, params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        check(model.name, params)
        self.before(model.name, params)
        with self._counting:
            self.requests[model.name] += 1
        if model.name in ("Query", "Scan", "GetItem", "BatchGetItem", "PutItem"):
            return params | {"ReturnConsumedCapacity": "TOTAL"}
        return params

    def _after(self, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        consumed = parsed.get("ConsumedCapacity", [])
        for each in consumed if isinstance(consumed, list) else [consumed]:
            self.units += each["CapacityUnits"]
        self.looked_at += parsed.get("ScannedCount", 0)


def during(watched: Watched, wanted: str, act: Callable[[], Any]) -> None:
    """Act once, before the first request with this text."""
    done: list[bool] = []

    def before(operation: str, arguments: dict[str, Any]) -> None:
        if not done and wanted in f"{operation} {arguments}":
            done.append(True)
            act()

    watched.before = before
