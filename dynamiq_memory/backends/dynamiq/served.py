"""The operations of a backend on our own service, which does the work."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.dynamiq.requests import Exchange, Request
from dynamiq_memory.exceptions import BackendError, MessageTooLargeError
from dynamiq_memory.filters import Filter, to_mapping
from dynamiq_memory.messages import Message, Session, views
from dynamiq_memory.wire import from_item, readable, to_anchor, to_item

# Room for the names around the items.
_ENVELOPE = 1000


class Served:
    """What a backend does, as exchanges with our service.

    Args:
        description: What the service says of itself.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Keep the limits."""
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

    def write(self, messages: Sequence[Message]) -> Exchange[None]:
        """Store messages."""
        yield self._with_items("/items", messages, {})

    def read(
        self, where: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> Exchange[list[Message]]:
        """Read messages, page by page."""
        found: list[Message] = []
        while True:
            size = self._max_page if limit is None else min(self._max_page, limit - len(found))
            query: dict[str, Any] = {"filters": to_mapping(where), "limit": size}
            if before is not None:
                query["before"] = to_anchor(before)
            if after is not None:
                query["after"] = to_anchor(after)
            page = yield Request("POST", "/items/query", body=query)
            messages = _messages(page)
            found += messages
            if not page["has_more"] or not messages or len(found) == limit:
                return found if after is not None else found[::-1]
            if after is not None:
                after = messages[-1]
            else:
                before = messages[-1]

    def search(self, query: str, where: Filter, limit: int | None) -> Exchange[list[Message]]:
        """Rank messages, by the ranking of the service's store."""
        asked = None if limit is None or limit > self._max_results else limit
        body = {"query": readable(query), "filters": to_mapping(where), "limit": asked}
        found = yield Request("POST", "/search", body=body)
        if asked is None and found["has_more"] and (limit is None or limit > self._max_results):
            raise BackendError(f"more than {self._max_results:,} messages match, which is all that the service gives")
        return _messages(found)

    def around(
        self, anchors: Sequence[Message], before: int, after: int, where: Filter
    ) -> Exchange[list[list[Message]]]:
        """Read the neighbours of messages."""
        before, after = min(before, self._max_results), min(after, self._max_results)
        if before + after + 1 > self._max_results:
            before = after = (self._max_results - 1) // 2
        at_once = max(1, min(100, self._max_results // (before + after + 1)))
        windows: list[list[Message]] = []
        for start in range(0, len(anchors), at_once):
            some = [to_anchor(anchor) for anchor in anchors[start : start + at_once]]
            body = {"anchors": some, "before": before, "after": after, "filters": to_mapping(where)}
            answer = yield Request("POST", "/items/around", body=body)
            windows += [views(map(from_item, window)) for window in answer["data"]]
        return windows

    def delete(self, where: Filter) -> Exchange[int]:
        """Delete messages."""
        answer = yield Request("POST", "/items/delete", body={"filters": to_mapping(where)}, repeatable=False)
        deleted: int = answer["deleted"]
        return deleted

    def replace(self, where: Filter, messages: Sequence[Message]) -> Exchange[None]:
        """Replace messages, as atomically as the service's store does."""
        # Sent again, it would also replace what others have stored since it was carried out.
        yield self._with_items("/items/replace", messages, {"filters": to_mapping(where)}, repeatable=False)

    def update(self, where: Filter, messages: Sequence[Message]) -> Exchange[list[Message]]:
        """Store new versions of what is still there."""
        answer = yield self._with_items("/items/update", messages, {"filters": to_mapping(where)}, repeatable=False)
        return _messages(answer)

    def take(self, where: Filter) -> Exchange[list[Message]]:
        """Delete messages and return them."""
        answer = yield Request("POST", "/items/take", body={"filters": to_mapping(where)}, repeatable=False)
        return _messages(answer)

    def count(self, where: Filter) -> Exchange[int]:
        """Count messages."""
        answer = yield Request("POST", "/items/count", body={"filters": to_mapping(where)})
        count: int = answer["count"]
        return count

    def sessions(self, where: Filter) -> Exchange[list[Session]]:
        """List sessions."""
        answer = yield Request("POST", "/sessions/query", body={"filters": to_mapping(where)})
        return [Session(**session) for session in answer["data"]]

    def _with_items(
        self, path: str, messages: Sequence[Message], more: Mapping[str, Any], *, repeatable: bool = True
    ) -> Request:
        body = {**more, "items": [to_item(message) for message in messages]}
        size = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
        if size > self._max_body - _ENVELOPE:
            raise MessageTooLargeError(
                f"{len(messages)} messages take {size:,} bytes, and the service takes {self._max_body:,} in one "
                "request: store fewer at once"
            )
        return Request("POST", path, body=body, repeatable=repeatable)


def _messages(answer: Mapping[str, Any]) -> list[Message]:
    messages = []
    for item in answer["data"]:
        message = from_item(item)
        if item.get("score") is not None:
            message.score = item["score"]
        messages.append(message)
    return views(messages)
