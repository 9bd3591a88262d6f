"""Operations on the Dynamiq platform, of which three endpoints are known.

`POST /items` stores one message, `GET /items` lists the messages of one user's session, and `DELETE /items` deletes a
session, a user, or a user's session. This process does the rest: filters, order, ranking. It sends no parameters that
might mean something else on the platform, and refuses what could lose messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
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

_LARGEST_PAGE = 100_000
_ROUND = 10
_ANY: Sequence[str | None] = (None,)


class Platform:
    """Plans for the platform; it uses the default plan of an operation if none is better.

    Args:
        page_size: Number of messages to ask for at once.
    """

    capabilities = Capabilities()
    user_id: str | None = None

    def __init__(self, page_size: int) -> None:
        """Keep the page size."""
        self._page_size = page_size

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
        for user_id, session_id in _named_sessions(read.filter):
            order += yield from self._session(user_id, session_id)
        return views(_chosen(sorted(order, key=_time), read))

    def _around(self, around: Around) -> Plan[list[list[Message]]]:
        """Read each session once."""
        sessions: dict[Scope, list[Message]] = {}
        windows = []
        for anchor in around.anchors:
            scope = scope_of(anchor)
            if scope not in sessions:
                sessions[scope] = yield from self._session(*_complete(scope))
            order = sessions[scope]
            start, stop = _span(order, anchor)
            earlier = _chosen(order, Read(around.filter, around.before, before=anchor))
            later = _chosen(order, Read(around.filter, around.after, after=anchor))
            windows.append(views([*earlier, *(order[start:stop] or [anchor]), *later]))
        return windows

    def _delete(self, filter: Filter) -> Plan[int]:
        """Delete sessions or users; messages that the platform neither counts nor lists are not in the result."""
        if filter.beyond_scope:
            raise _impossible("delete some messages of a session")
        users, sessions = _ids(filter, USER_KEY), _ids(filter, SESSION_KEY)
        if users is None and sessions is None:
            raise _impossible("delete everything")
        total = 0
        for user_id, session_id in product(_ANY if users is None else users, _ANY if sessions is None else sessions):
            listed = 0
            if user_id is not None and session_id is not None:
                listed = len((yield from self._session(user_id, session_id)))
            scope = {USER_KEY: user_id, SESSION_KEY: session_id}
            params = {key: value for key, value in scope.items() if value is not None}
            deleted = yield from Request("DELETE", "/items", _deleted, params, repeatable=False)
            total += listed if deleted is None else deleted
        return total

    def _session(self, user_id: str, session_id: str) -> Plan[list[Message]]:
        """Read a session in order: of several versions of a message, the latest at the position of the first."""
        unique: dict[Key, Message] = {}
        for item in reversed((yield from self._items(user_id, session_id))):
            if item.message is not None:
                if item.message.timestamp is None:
                    item.message.timestamp = clock()
                unique[key_of(item.message)] = item.message
        return sorted(unique.values(), key=_time)

    def _items(self, user_id: str, session_id: str) -> Plan[list[_Item]]:
        """List all items of a session, the latest first, whether or not the platform pages by number."""
        page = partial(_page, user_id, session_id)
        items = yield from page(self._page_size)
        # A page is the last if it is smaller than asked for, unless that is the server's limit: a round number.
        size, number = len(items), 1
        seen = {item.identity for item in items}
        while size and (size == self._page_size or size % _ROUND == 0):
            number += 1
            more = yield from page(size, number)
            unseen = [item for item in more if item.identity not in seen]
            if more and not unseen:
                return (yield from self._items_without_pages(user_id, session_id, items))
            items += unseen
            seen |= {item.identity for item in unseen}
            if len(more) < size:
                break
        return items

    def _items_without_pages(self, user_id: str, session_id: str, items: list[_Item]) -> Plan[list[_Item]]:
        """List all items of a session at once, for a server that does not page."""
        page = partial(_page, user_id, session_id)
        larger = yield from page(_LARGEST_PAGE)
        if len(larger) > len(items) and len(larger) % _ROUND:
            return larger
        items = larger if len(larger) > len(items) else items
        oldest = yield from page(1, sort="created_at")
        if oldest and oldest[0].identity in {item.identity for item in items}:
            return items
        raise BackendError(
            f"the platform gives no more than {len(items):,} messages of a session, and this one has more: the others "
            "cannot be read"
        )


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
        message: Its message; None for an item of another kind.
    """

    identity: str
    message: Message | None


def _page(
    user_id: str, session_id: str, size: int, number: int | None = None, sort: str = "-created_at"
) -> Request[list[_Item]]:
    params: dict[str, Any] = {USER_KEY: user_id, SESSION_KEY: session_id, "page_size": size, "sort": sort}
    if number is not None:
        params["page"] = number
    return Request("GET", "/items", _read_page, params)


def _read_page(answer: Any) -> list[_Item]:
    items = answer["data"]
    if not isinstance(items, list):
        raise TypeError("data is not a list")
    return [_Item(_identity(item), _message(item)) for item in items if isinstance(item, dict)]


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


def _named_sessions(filter: Filter) -> Iterable[tuple[str, str]]:
    users, sessions = _ids(filter, USER_KEY), _ids(filter, SESSION_KEY)
    if users is None or sessions is None:
        raise InvalidArgumentError(
            "the platform lists the messages of one user's session: name the "
            f"{USER_KEY if users is None else SESSION_KEY} in the filters, or give the backend a default"
        )
    return product(users, sessions)


def _ids(filter: Filter, key: str) -> list[str] | None:
    """Return the ids that a filter allows; None for any. The platform has no messages without these ids."""
    allowed = filter.scope(key)
    return None if allowed is None else list(dict.fromkeys(each for each in allowed if each is not None))


def _complete(scope: Scope) -> tuple[str, str]:
    user_id, session_id = scope
    if user_id is None or session_id is None:
        raise InvalidArgumentError("the platform has only messages with a user_id and a session_id")
    return user_id, session_id


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
