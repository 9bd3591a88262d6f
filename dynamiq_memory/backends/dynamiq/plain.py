"""The operations of a backend on the platform itself, of which three endpoints are known.

`POST /items` stores one message; `GET /items` lists those of one user's session; `DELETE /items` deletes a session, a
user, or both. Filters, ranking and order are this process's: none of it is left to parameters whose meaning is not
known. What cannot be done without a risk of losing messages is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any

from dynamiq_memory.backends._order import check_replaced_order, latest_first, version_filters, with_stored_version
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.dynamiq.requests import Exchange, Request, Work
from dynamiq_memory.exceptions import BackendError, DynamiqMemoryError, InvalidArgumentError, PartialWriteError
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, MessageRole, Session, views
from dynamiq_memory.wire import from_item, to_item

_LARGEST_PAGE = 100_000
_ROUND = 10
Rank = Callable[[str, list[Message], int | None], list[Message]]
_Key = tuple[str | None, str | None, str]


class Plain:
    """What a backend does, as exchanges with the platform.

    Args:
        page_size: How many messages to ask for at once.
        rank: Ranks messages by a query.
    """

    capabilities = Capabilities()
    user_id = None

    def __init__(self, page_size: int, rank: Rank) -> None:
        """Keep both."""
        self._page_size = page_size
        self._rank = rank

    def write(self, messages: Sequence[Message]) -> Exchange[None]:
        """Store messages one after the other; a name of its own lets each be sent again."""
        for message in messages:
            if message.user_id is None or message.session_id is None:
                raise InvalidArgumentError(
                    f"message {message.id} has no {USER_KEY if message.user_id is None else SESSION_KEY}, which the "
                    "platform demands: put it into its metadata, or give the backend a default"
                )
        stored: list[str] = []
        for message in messages:
            try:
                yield Request("POST", "/items", body=to_item(message, in_metadata=True))
            except DynamiqMemoryError as error:
                if not stored:
                    raise
                raise PartialWriteError(f"{len(stored)} of {len(messages)} are stored: {error}", stored) from error
            stored.append(message.id)

    def read(
        self, where: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> Exchange[list[Message]]:
        """Read the sessions that the filter names, whole: their order is that of our times, not of the platform's."""
        order: list[Message] = []
        for user_id, session_id in _pairs(where):
            order += yield from self._session(user_id, session_id)
        order.sort(key=_time)
        start = 0 if after is None else _place(order, after, behind=True)
        stop = len(order) if before is None else _place(order, before, behind=False)
        found = [message for message in order[start:stop] if where.matches(message)]
        if limit is not None:
            found = found[:limit] if after is not None else found[-limit:]
        return views(found)

    def search(self, query: str, where: Filter, limit: int | None) -> Exchange[list[Message]]:
        """Rank in this process all that matches the filter."""
        messages = yield from self.read(where, None, None, None)
        ranked: list[Message] = yield Work(partial(self._rank, query, messages, limit))
        return ranked

    def around(
        self, anchors: Sequence[Message], before: int, after: int, where: Filter
    ) -> Exchange[list[list[Message]]]:
        """Read the neighbours of messages; each session is read once."""
        sessions: dict[tuple[str | None, str | None], list[Message]] = {}
        windows = []
        for anchor in anchors:
            scope = (anchor.user_id, anchor.session_id)
            if scope not in sessions:
                sessions[scope] = yield from self._session(*_known(*scope))
            order = sessions[scope]
            first, last = _place(order, anchor, behind=False), _place(order, anchor, behind=True)
            earlier = [message for message in order[:first] if where.matches(message)]
            later = [message for message in order[last:] if where.matches(message)]
            windows.append(
                views([*(earlier[-before:] if before else []), *(order[first:last] or [anchor]), *later[:after]])
            )
        return windows

    def delete(self, where: Filter) -> Exchange[int]:
        """Delete sessions or users whole. Returns 0 for what the platform neither counts nor lists."""
        if where.beyond_scope:
            raise _impossible("delete some messages of a session")
        users, sessions = _ids(where, USER_KEY), _ids(where, SESSION_KEY)
        if users is None and sessions is None:
            raise _impossible("delete everything")
        deleted = 0
        anybody: list[str | None] = [None]
        for user_id, session_id in product(
            anybody if users is None else users, anybody if sessions is None else sessions
        ):
            known = 0
            if user_id is not None and session_id is not None:
                known = len((yield from self._session(user_id, session_id)))
            scope = {USER_KEY: user_id, SESSION_KEY: session_id}
            params = {key: value for key, value in scope.items() if value is not None}
            answer = yield Request("DELETE", "/items", params, repeatable=False)
            told = answer.get("deleted") if isinstance(answer, dict) else None
            deleted += told if isinstance(told, int) else known
        return deleted

    def replace(self, where: Filter, messages: Sequence[Message]) -> Exchange[None]:
        """Replace messages by themselves and more, or a session by nothing; all else could lose some."""
        if not messages and not where.beyond_scope:
            yield from self.delete(where)
            return
        stored = {_key(message): message for message in (yield from self.read(where, None, None, None))}
        if not stored.keys() <= {_key(message) for message in messages}:
            raise _impossible("take messages out of a session")
        versions: list[Message] = []
        for each in version_filters(messages):
            versions += yield from self.read(each, None, None, None)
        check_replaced_order(versions, messages)
        fresh = [m for m in messages if _key(m) not in stored or views([m]) != [stored[_key(m)]]]
        yield from self.write(fresh)

    def update(self, where: Filter, messages: Sequence[Message]) -> Exchange[list[Message]]:
        """Store new versions of what is still there."""
        held: list[Message] = []
        for each in version_filters(messages, where):
            held += yield from self.read(each, None, None, None)
        present = with_stored_version(messages, held)
        yield from self.write(present)
        return present

    def take(self, where: Filter) -> Exchange[list[Message]]:
        """Not possible: what somebody stores between reading and deleting would be lost."""
        yield from ()
        raise _impossible(f"take messages out of a session ({len(where.conditions)} conditions)")

    def count(self, where: Filter) -> Exchange[int]:
        """Count messages, by reading them."""
        return len((yield from self.read(where, None, None, None)))

    def sessions(self, where: Filter) -> Exchange[list[Session]]:
        """List those of the named sessions that have messages."""
        groups: dict[tuple[str | None, str | None], list[float]] = {}
        for message in (yield from self.read(where, None, None, None)):
            groups.setdefault((message.user_id, message.session_id), []).append(_time(message))
        found = [Session(*scope, len(times), min(times), max(times)) for scope, times in groups.items()]
        return latest_first(found)

    # --- listing ---------------------------------------------------------------------------------------------

    def _session(self, user_id: str, session_id: str) -> Exchange[list[Message]]:
        """All messages of a session in order: of several with one id the latest, at the place of the first."""
        items = yield from self._listed(user_id, session_id)
        unique: dict[_Key, Message] = {}
        for item in reversed(items):
            message = _message(item)
            if message is not None:
                unique[_key(message)] = message
        return sorted(unique.values(), key=_time)

    def _listed(self, user_id: str, session_id: str) -> Exchange[list[dict[str, Any]]]:
        """All items of a session, the latest first, whether the platform pages by number or not."""
        items = yield from self._page(user_id, session_id, self._page_size)
        # A page may be smaller than asked for because it is the last, or because the server has a limit: a round one.
        given, number = len(items), 1
        seen = {_identity(item) for item in items}
        while given and given % _ROUND == 0:
            number += 1
            page = yield from self._page(user_id, session_id, given, number)
            fresh = [item for item in page if _identity(item) not in seen]
            if page and not fresh:
                return (yield from self._unpaged(user_id, session_id, items))
            items += fresh
            seen |= {_identity(item) for item in fresh}
            if len(page) < given:
                break
        return items

    def _unpaged(self, user_id: str, session_id: str, items: list[dict[str, Any]]) -> Exchange[list[dict[str, Any]]]:
        """All items of a session from a server that does not page, in one answer."""
        larger = yield from self._page(user_id, session_id, _LARGEST_PAGE)
        if len(larger) > len(items) and len(larger) % _ROUND:
            return larger
        items = larger if len(larger) > len(items) else items
        oldest = yield from self._page(user_id, session_id, 1, sort="created_at")
        if oldest and _identity(oldest[0]) in {_identity(item) for item in items}:
            return items
        raise BackendError(
            f"the platform gives no more than {len(items):,} messages of a session, and this one has more: the others "
            "cannot be read"
        )

    def _page(
        self, user_id: str, session_id: str, size: int, number: int | None = None, sort: str = "-created_at"
    ) -> Exchange[list[dict[str, Any]]]:
        params: dict[str, Any] = {USER_KEY: user_id, SESSION_KEY: session_id, "page_size": size, "sort": sort}
        if number is not None:
            params["page"] = number
        answer = yield Request("GET", "/items", params)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise BackendError("the platform listed no messages: its answer has no list `data`")
        return [item for item in data if isinstance(item, dict)]


def _message(item: dict[str, Any]) -> Message | None:
    """The message of an item; None for an item of another kind."""
    if item.get("type") not in (None, "message"):
        return None
    data = dict(item.get("data") or {})
    if data.get("role") not in tuple(MessageRole):
        data["role"] = MessageRole.USER.value  # as the dynamiq package reads it
    return from_item({**item, "data": data})


def _identity(item: dict[str, Any]) -> str:
    own = item.get("id")
    return own if isinstance(own, str) else json.dumps(item, sort_keys=True)


def _pairs(where: Filter) -> Iterable[tuple[str, str]]:
    users, sessions = _ids(where, USER_KEY), _ids(where, SESSION_KEY)
    if users is None or sessions is None:
        raise InvalidArgumentError(
            "the platform lists the messages of one user's session: name the "
            f"{USER_KEY if users is None else SESSION_KEY} in the filters, or give the backend a default"
        )
    return product(users, sessions)


def _ids(where: Filter, key: str) -> list[str] | None:
    """The ids that a filter allows; None for any. Nobody's messages are not on the platform."""
    allowed = where.scope(key)
    return None if allowed is None else list(dict.fromkeys(each for each in allowed if each is not None))


def _known(user_id: str | None, session_id: str | None) -> tuple[str, str]:
    if user_id is None or session_id is None:
        raise InvalidArgumentError("the platform has only messages with a user_id and a session_id")
    return user_id, session_id


def default_filter(where: Filter, defaults: dict[str, str]) -> Filter:
    """A filter with defaults for the ids that it says nothing of."""
    more = tuple(OneOf(key, (value,)) for key, value in defaults.items() if where.scope(key) is None)
    return Filter((*where.conditions, *more)) if more else where


def _place(order: Sequence[Message], anchor: Message, *, behind: bool) -> int:
    """Where an anchor stands among messages in order, or where what is behind it begins."""
    for number, message in enumerate(order):
        if _key(message) == _key(anchor):
            return number + behind
    return sum(1 for message in order if _time(message) < _time(anchor))


def _time(message: Message) -> float:
    return message.timestamp or 0.0


def _key(message: Message) -> _Key:
    return (message.user_id, message.session_id, message.id)


def _impossible(what: str) -> BackendError:
    return BackendError(
        f"the Dynamiq platform cannot {what}: its API deletes whole sessions or users alone. Use the service of "
        "dynamiq-memory, or another backend"
    )
