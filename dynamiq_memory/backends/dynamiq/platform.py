"""Operations on the Dynamiq platform, by three endpoints.

`POST /items` stores one message, `GET /items` lists those of a user's session, and `DELETE /items` deletes the session.
Without a session, both mean what the user has in no session, unless `include_scope` asks for everything, which only a
list can. This process does the rest: filters, order, ranking. It refuses what could lose messages.

Source: the commands `memory items` and `memory clear` of dynamiq 0.69.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count as numbers
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

from dynamiq_memory._wire import from_item, to_item
from dynamiq_memory.backends._order import check_replaced_order
from dynamiq_memory.backends._planned import stored_in_batches
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.dynamiq.requests import Request, no_result
from dynamiq_memory.backends.operations import Around, Delete, Operation, Read, Replace, Take, Write, stored_versions
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.exceptions import BackendError, InvalidArgumentError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import (
    SESSION_KEY,
    TIMESTAMP_KEY,
    USER_KEY,
    Key,
    Message,
    MessageRole,
    Scope,
    clock,
    key_of,
    parse_timestamp,
    scope_of,
    views,
)

LARGEST_PAGE = 500
"""Maximum number of items in a page of the platform."""
_EVERYWHERE = {"include_scope": ("user", "session")}


class Platform:
    """Plans for the platform; it uses the default plan of an operation if none is better.

    Args:
        page_size: Number of messages to ask for at once, at most 500.
    """

    capabilities = Capabilities()
    user_id: str | None = None

    def __init__(self, page_size: int) -> None:
        """Keep the page size."""
        self._page_size = min(page_size, LARGEST_PAGE)

    def plan(self, operation: Operation[Any]) -> Plan[Any] | None:
        """Return the plan of an operation, or None if its default plan is right."""
        match operation:
            case Write(messages):
                return _write(messages)
            case Read():
                return self._read(operation)
            case Around():
                return self._around(operation)
            case Delete(filter):
                return self._delete(filter)
            case Replace(filter, messages):
                return _replace(filter, messages)
            case Take():
                # A message stored between reading and deleting would be lost.
                raise _impossible("take messages out of a session")
        return None

    def _read(self, read: Read) -> Plan[list[Message]]:
        """Read whole sessions, since the platform orders messages by its own times, not by theirs."""
        order: list[Message] = []
        for scope in _scopes(read.filter):
            order += _versions((yield from self._items(scope)))
        return views(_chosen(sorted(order, key=_time), read))

    def _around(self, around: Around) -> Plan[list[list[Message]]]:
        """Read each session once."""
        sessions: dict[Scope, list[Message]] = {}
        windows = []
        for anchor in around.anchors:
            user_id, session_id = scope = scope_of(anchor)
            if user_id is None:
                raise InvalidArgumentError("the platform has only messages with a user_id")
            if scope not in sessions:
                sessions[scope] = _versions((yield from self._items(_scope(user_id, session_id))))
            order = sessions[scope]
            start, stop = _span(order, anchor)
            earlier = _chosen(order, Read(around.filter, around.before, before=anchor))
            later = _chosen(order, Read(around.filter, around.after, after=anchor))
            windows.append(views([*earlier, *(order[start:stop] or [anchor]), *later]))
        return windows

    def _delete(self, filter: Filter) -> Plan[int]:
        """Delete sessions, or all that a user has: each listed session, and then what is in no session."""
        if filter.beyond_scope:
            raise _impossible("delete some messages of a session")
        if filter.scope(USER_KEY) is None:
            raise _impossible("delete messages of users that the filter does not name")
        total = 0
        for scope in _scopes(filter):
            items = yield from self._items(scope)
            listed = Counter(message.session_id for message in _versions(items))
            # Also a session without items: it may hold what the platform does not list.
            sessions = {item.session_id or "" for item in items} - {"", scope.get(SESSION_KEY)}
            for session_id in [*sorted(sessions), scope.get(SESSION_KEY)]:
                params = _scope(scope[USER_KEY], session_id)
                deleted = yield from Request("DELETE", "/items", _deleted, params, repeatable=False)
                total += listed[session_id] if deleted is None else deleted
        return total

    def _items(self, scope: Mapping[str, Any]) -> Plan[list[_Item]]:
        """List all items of a scope, the latest first."""
        items: dict[str, _Item] = {}
        for number in numbers(1):
            page = yield from _page(scope, self._page_size, number)
            known = len(items)
            items |= {item.identity: item for item in page.items if item.identity not in items}
            is_last = len(page.items) < self._page_size if page.pages is None else number >= page.pages
            if is_last or not page.items:
                break
            if len(items) == known and page.pages is None:
                raise BackendError(
                    f"the platform gives the same {known:,} messages for each page: the others cannot be read"
                )
        return list(items.values())


def _write(messages: Sequence[Message]) -> Plan[None]:
    """Store messages one after the other; their ids make it harmless to send one twice."""
    for message in messages:
        for key, value in ((USER_KEY, message.user_id), (SESSION_KEY, message.session_id)):
            if value is None:
                raise InvalidArgumentError(
                    f"message {message.id} has no {key}, which the platform requires: put it into the message's "
                    "metadata, or give the backend a default"
                )
    yield from stored_in_batches([[message] for message in messages], _store, attrgetter("id"))


def _store(messages: Sequence[Message]) -> Request[None]:
    """Store one message."""
    return Request("POST", "/items", no_result, body=to_item(messages[0], in_metadata=True))


def _replace(filter: Filter, messages: Sequence[Message]) -> Plan[None]:
    """Add and change messages, or empty a session; a replacement that would remove some messages is refused."""
    if not messages and not filter.beyond_scope:
        yield from Delete(filter)
        return
    stored = {key_of(message): message for message in (yield from Read(filter))}
    if not stored.keys() <= {key_of(message) for message in messages}:
        raise _impossible("take messages out of a session")
    check_replaced_order((yield from stored_versions(messages)), messages)
    yield from Write([message for message in messages if views([message]) != [stored.get(key_of(message))]])


class _Item(NamedTuple):
    """An item on the platform.

    Attributes:
        identity: Distinguishes it from other items.
        session_id: Its session; None for an item in no session.
        message: Its message; None for an item of another kind.
    """

    identity: str
    session_id: str | None
    message: Message | None


class _Page(NamedTuple):
    """A page of items, and the number of pages if the server says it."""

    items: list[_Item]
    pages: int | None


def _page(scope: Mapping[str, Any], size: int, number: int) -> Request[_Page]:
    params = {**scope, "page_size": size, "page": number, "sort": "-created_at"}
    return Request("GET", "/items", _read_page, params)


def _read_page(answer: Any) -> _Page:
    items = answer["data"]
    if not isinstance(items, list):
        raise TypeError("data is not a list")
    read = [_Item(_identity(item), item.get(SESSION_KEY), _message(item)) for item in items if isinstance(item, dict)]
    pages = (answer.get("pagination") or {}).get("page_count")
    return _Page(read, pages if isinstance(pages, int) else None)


def _versions(items: Sequence[_Item]) -> list[Message]:
    """Return messages in order: of several versions of one, the latest at the position of the first."""
    unique: dict[Key, Message] = {}
    for item in reversed(items):
        if item.message is not None:
            if item.message.timestamp is None:
                item.message.timestamp = clock()
            unique[key_of(item.message)] = item.message
    return sorted(unique.values(), key=_time)


def _identity(item: dict[str, Any]) -> str:
    item_id = item.get("id")
    return item_id if isinstance(item_id, str) else json.dumps(item, sort_keys=True)


def _message(item: dict[str, Any]) -> Message | None:
    if item.get("type") not in (None, "message"):
        return None
    data = dict(item.get("data") or {})
    if data.get("role") not in tuple(MessageRole):
        data["role"] = MessageRole.USER.value  # as the dynamiq package reads it
    message = from_item({**item, "data": data})
    if "timestamp" not in message.model_fields_set:  # another client wrote it
        message.timestamp = None
        with suppress(InvalidArgumentError):
            message.timestamp = parse_timestamp(message.metadata.get(TIMESTAMP_KEY))
    return message


def _deleted(answer: Any) -> int | None:
    """Read the number of deleted messages, if there is one."""
    number = answer.get("deleted") if isinstance(answer, dict) else None
    return number if isinstance(number, int) else None


def _scopes(filter: Filter) -> list[dict[str, Any]]:
    """Return what to list, as parameters: the sessions that a filter names, or all that its users have."""
    users, sessions = filter.scope(USER_KEY), filter.scope(SESSION_KEY)
    if users is None:
        raise InvalidArgumentError(
            "the platform lists the messages of one user: name the user_id in the filters, or give the backend a "
            "default"
        )
    named = [user_id for user_id in dict.fromkeys(users) if user_id is not None]
    if sessions is None:
        return [_scope(user_id, None) | _EVERYWHERE for user_id in named]
    return [_scope(user_id, session_id) for user_id, session_id in product(named, dict.fromkeys(sessions))]


def _scope(user_id: str, session_id: str | None) -> dict[str, Any]:
    """Return the parameters for a session of a user, or for what the user has in no session."""
    return {USER_KEY: user_id} if session_id is None else {USER_KEY: user_id, SESSION_KEY: session_id}


def _chosen(order: Sequence[Message], read: Read) -> list[Message]:
    """Return the messages to read from ordered ones; its limit may be 0."""
    start = 0 if read.after is None else _span(order, read.after)[1]
    stop = len(order) if read.before is None else _span(order, read.before)[0]
    found = [message for message in order[start:stop] if read.filter.matches(message)]
    if read.limit is None:
        return found
    return found[: read.limit] if read.after is not None else found[max(0, len(found) - read.limit) :]


def _span(order: Sequence[Message], anchor: Message) -> tuple[int, int]:
    """Return where an anchor begins and ends among ordered messages: an empty span if it is not among them."""
    for number, message in enumerate(order):
        if key_of(message) == key_of(anchor):
            return number, number + 1
    number = sum(1 for message in order if _time(message) < _time(anchor))
    return number, number


def _time(message: Message) -> float:
    return message.timestamp or 0.0


def _impossible(what: str) -> BackendError:
    return BackendError(
        f"the Dynamiq platform cannot {what}: its API deletes only whole sessions or users. Use the service of "
        "dynamiq-memory, or another backend"
    )
