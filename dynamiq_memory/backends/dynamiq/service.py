"""Operations on the service of this package (`dynamiq-memory serve`), each as requests for the service to perform."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from dynamiq_memory._batches import batched
from dynamiq_memory._wire import from_item, readable, to_anchor, to_item
from dynamiq_memory.backends import operations
from dynamiq_memory.backends._order import session_filter
from dynamiq_memory.backends._weights import weigh
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.dynamiq.requests import Request, no_result
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.exceptions import BackendError, MessageTooLargeError
from dynamiq_memory.filters import Filter, to_mapping
from dynamiq_memory.messages import Message, Session, views
from dynamiq_memory.ranking import Score

T = TypeVar("T")

# Bytes for the rest of a request's body, beside the items.
_ENVELOPE = 1000
_MOST_ANCHORS = 100


class Service:
    """Plans for the service.

    Args:
        description: The service's description of itself.

    Attributes:
        capabilities: The capabilities of the service's store.
        user_id: The only user that the key is for; None for all users.

    Raises:
        KeyError, TypeError: The description is not one.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Read the limits."""
        limits, capabilities = description["limits"], dict(description["capabilities"])
        self._max_body: int = limits["max_body_bytes"]
        self._max_page: int = limits["max_page_size"]
        self._max_results: int = limits["max_results"]
        largest = capabilities.pop("max_message_bytes")
        self.capabilities = Capabilities(
            max_message_bytes=self._max_body if largest is None else min(largest, self._max_body),
            **{name: capabilities[name] for name in ("keyword", "vector", "ttl", "transactions")},
        )
        self.user_id: str | None = description.get("user_id")

    def plan(self, operation: operations.Operation[Any]) -> Plan[Any] | None:
        """Return the plan of an operation, or None if its default plan is right."""
        match operation:
            case operations.Read():
                return self._read(operation)
            case operations.ReadPage():
                return self._read_page(operation)
            case operations.Search():
                return self._search(operation)
            case operations.Around():
                return self._around(operation)
            case operations.AroundPage():
                return self._around_page(operation)
        endpoint = _ENDPOINTS.get(type(operation))
        return None if endpoint is None else iter(self._request(operation, *endpoint))

    def _request(self, operation: operations.Operation[T], path: str, read: Callable[[Any], T]) -> Request[T]:
        """Return the request that performs an operation."""
        body = _body(operation.filter) if isinstance(operation, operations.FilteredOperation) else {}
        if isinstance(operation, operations.Write | operations.Replace | operations.Update):
            body["items"] = [to_item(message) for message in operation.messages]
            size = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
            if size > self._max_body - _ENVELOPE:
                raise MessageTooLargeError(
                    f"{len(operation.messages)} messages take {size:,} bytes, and the service accepts "
                    f"{self._max_body:,} in one request: store fewer at once"
                )
        # Repeating a replacement would also replace what others have stored since the first time.
        repeatable = operation.repeatable and not isinstance(operation, operations.Replace)
        return Request("POST", path, read, body=body, repeatable=repeatable)

    def _read(self, read: operations.Read) -> Plan[list[Message]]:
        before, after = read.before, read.after
        found: list[Message] = []
        while True:
            size = self._max_page if read.limit is None else read.limit - len(found)
            messages, has_more = yield from self._read_page(operations.ReadPage(read.filter, size, 0, before, after))
            found = [*found, *messages] if after is not None else [*messages, *found]
            if not has_more or not messages or len(found) == read.limit:
                return found
            if after is not None:
                after = found[-1]
            else:
                before = found[0]

    def _read_page(self, page: operations.ReadPage) -> Plan[tuple[list[Message], bool]]:
        """Read a page by one request; the service ends it at a size of its own."""
        body = {**_body(page.filter), "limit": min(self._max_page, page.limit)}
        bounds = {"before": page.before, "after": page.after}
        body |= {name: to_anchor(anchor) for name, anchor in bounds.items() if anchor is not None}
        messages, has_more = yield from Request("POST", "/items/query", _page, body=body)
        return (messages if page.after is not None else messages[::-1]), has_more

    def _search(self, search: operations.Search) -> Plan[list[Message]]:
        """Rank by the service's store, with the service's tokenizer."""
        limit = None if search.limit is None or search.limit > self._max_results else search.limit
        body = {**_body(search.filter), "query": readable(search.query), "limit": limit}
        messages, has_more = yield from Request("POST", "/search", _page, body=body)
        if limit is None and has_more:
            raise BackendError(
                f"more than {self._max_results:,} messages match, the maximum number that the service returns: give a "
                "lower limit"
            )
        return messages

    def _around(self, around: operations.Around) -> Plan[list[list[Message]]]:
        """Read windows, and the rest of those that the service ends, page by page."""
        anchors = around.anchors
        page = operations.AroundPage(around.filter, anchors, around.before, around.after)
        windows: list[list[Message]] = []
        for anchor, (near, earlier, later) in zip(anchors, (yield from self._around_page(page)), strict=True):
            filter, place = session_filter(anchor, around.filter), _place_of(anchor, near)
            before, after = around.before - place, around.after - (len(near) - place - 1)
            first = operations.Read(filter, before, before=near[0])
            last = operations.Read(filter, after, after=near[-1])
            more_earlier = (yield from self._read(first)) if earlier and before else []
            more_later = (yield from self._read(last)) if later and after else []
            windows.append([*more_earlier, *near, *more_later])
        return windows

    def _around_page(self, page: operations.AroundPage) -> Plan[list[tuple[list[Message], bool, bool]]]:
        before, after = min(page.before, self._max_results), min(page.after, self._max_results)
        if before + after + 1 > self._max_results:
            before = after = (self._max_results - 1) // 2
        at_once = max(1, min(_MOST_ANCHORS, self._max_results // (before + after + 1)))
        left = page.max_bytes
        windows: list[tuple[list[Message], bool, bool]] = []
        for anchors in batched(page.anchors, at_once):
            body = {**_body(page.filter), "anchors": [to_anchor(each) for each in anchors]}
            body |= {"before": before, "after": after, "max_bytes": left, "anchor_content": False}
            found = yield from Request("POST", "/items/around", _windows, body=body)
            for anchor, (window, _, _) in zip(anchors, found, strict=True):
                window[_place_of(anchor, window)] = anchor
            if left is not None:
                left = max(0, left - weigh(found, left))
            windows += found
        return windows


def _place_of(anchor: Message, window: Sequence[Message]) -> int:
    return next(place for place, each in enumerate(window) if each.id == anchor.id)


def _body(filter: Filter) -> dict[str, Any]:
    return {"filters": to_mapping(filter)}


def _page(answer: Any) -> tuple[list[Message], bool]:
    return _messages(answer), answer["has_more"]


def _messages(answer: Any) -> list[Message]:
    messages = views(map(from_item, answer["data"]))
    for message, item in zip(messages, answer["data"], strict=True):
        if item.get("score") is not None:
            message.score = Score(item["score"], item.get("score_parts") or {})
    return messages


def _windows(answer: Any) -> list[tuple[list[Message], bool, bool]]:
    windows = zip(answer["data"], answer["more"], strict=True)
    return [(views(map(from_item, window)), *more) for window, more in windows]


def _sessions(answer: Any) -> list[Session]:
    return [Session(**session) for session in answer["data"]]


_ENDPOINTS: dict[type[operations.Operation[Any]], tuple[str, Callable[[Any], Any]]] = {
    operations.Write: ("/items", no_result),
    operations.Replace: ("/items/replace", no_result),
    operations.Update: ("/items/update", _messages),
    operations.Delete: ("/items/delete", itemgetter("deleted")),
    operations.Take: ("/items/take", _messages),
    operations.Count: ("/items/count", itemgetter("count")),
    operations.Sessions: ("/sessions/query", _sessions),
}
