"""Reading: which partitions and indexes a filter needs, in which order, and what of it matches."""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from dynamiq_memory.backends._order import session_filter, time_of
from dynamiq_memory.backends.dynamodb.filters import Expression
from dynamiq_memory.backends.dynamodb.keys import (
    AT_SESSION,
    AT_USER,
    BEHIND,
    BY_SESSION,
    BY_USER,
    HIGHEST,
    PK,
    PLACE_DIGITS,
    SK,
    Key,
    highest,
    key_of,
    lowest,
    message_key,
    next_to,
    part,
    partition,
    session_guard,
)
from dynamiq_memory.backends.dynamodb.records import (
    BODY,
    CHUNKS,
    Item,
    chunks_of,
    has_expired,
    place_of,
    version_of,
)
from dynamiq_memory.backends.dynamodb.replacements import REPLACEMENT, SIGNED, Replacements, Scope, Settled
from dynamiq_memory.backends.dynamodb.requests import Table, identity, wait
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter, OneOf, Range
from dynamiq_memory.messages import LATEST, MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message, Session

_FIRST = "0" * PLACE_DIGITS
# What a filter leaves of a page is unknown: look at this many at least.
_LEAST_PAGE_TO_FILTER = 200
# More sessions than this of one user are read as all of that user's, less more than this many ids are looked for.
_MOST_SESSIONS = 20
_MOST_IDS = 1000
_MANY_ANCHORS = 4
# How often a reading may find what must be settled before it goes on.
_MOST_SETTLED = 50
_SETTLED_AT_ONCE = 10

Found = tuple[Item, Message]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """Messages that stand together: those of a session, or of a user over sessions.

    Attributes:
        user_id: Whose.
        session_id: Of which session, where `index` is `BY_SESSION`.
        index: The index that has them in order.
    """

    user_id: str | None
    session_id: str | None
    index: str

    def between(self, low: str, high: str) -> tuple[str, str, str]:
        """The sort key from one place to another."""
        if self.index == BY_USER:
            return AT_USER, low, high
        prefix = f"{part(self.session_id)}/"
        return AT_SESSION, prefix + low, prefix + high


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the order of messages.

    Attributes:
        low: The first place in it.
        high: The last place in it.
        newest_first: Which end is read first.
    """

    low: str = _FIRST
    high: str = HIGHEST
    newest_first: bool = True


def again_when_settled(operation: Callable[P, T]) -> Callable[P, T]:
    """Do an operation that only reads anew when what it reads has been settled meanwhile."""

    @wraps(operation)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(_MOST_SETTLED):
            try:
                return operation(*args, **kwargs)
            except Settled:
                if attempt > _SETTLED_AT_ONCE:
                    wait(attempt)  # without consistent reads, what is settled may be seen for a while yet
        raise BackendError("others keep replacing the same messages; try again")

    return repeated


class Reader:
    """Reads messages from a table.

    Args:
        table: The table.
        replacements: Settles what a replacement left behind.
    """

    def __init__(self, table: Table, replacements: Replacements) -> None:
        """Keep the table."""
        self._table = table
        self._replacements = replacements

    # --- what matches, in order ------------------------------------------------------------------------------

    @again_when_settled
    def read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        """Read messages as `get_all` promises, but not yet as views."""
        high = next_to(self._place(before), -1) if before is not None else HIGHEST
        low = next_to(self._place(after), 1) if after is not None else _FIRST
        chosen = [message for _, message in islice(self.matching(where, Part(low, high, after is None), limit), limit)]
        if after is None:
            chosen.reverse()
        return chosen

    @again_when_settled
    def around(self, anchors: Sequence[Message], before: int, after: int, where: Filter) -> list[list[Message]]:
        """Read neighbours as `around` promises, but not yet as views."""
        keys = [message_key(anchor.user_id, anchor.session_id, anchor.id) for anchor in anchors]
        held = {(item[PK]["S"], item[SK]["S"]): place_of(item) for item in self._table.get_many(keys)}
        places = [
            held.get((key[PK]["S"], key[SK]["S"]), lowest(anchor.timestamp or 0.0))
            for key, anchor in zip(keys, anchors, strict=True)
        ]
        sessions: dict[tuple[str | None, str | None], list[int]] = {}
        for number, anchor in enumerate(anchors):
            sessions.setdefault((anchor.user_id, anchor.session_id), []).append(number)
        windows: list[list[Message]] = [[] for _ in anchors]
        for numbers in sessions.values():
            within = session_filter(anchors[numbers[0]], where)
            # Reading from the first to the last of many is one request for each megabyte, not two for each anchor.
            groups = [numbers] if len(numbers) >= _MANY_ANCHORS else [[number] for number in numbers]
            for group in groups:
                own = [places[number] for number in group]
                line = self._line(within, min(own), max(own), before, after)
                line_places = [place for place, _ in line]
                for number in group:
                    start = bisect_left(line_places, places[number])
                    stop = bisect_right(line_places, places[number])
                    earlier = line[max(0, start - before) : start]
                    later = line[stop : stop + after]
                    windows[number] = [m for _, m in earlier] + [anchors[number]] + [m for _, m in later]
        return windows

    def _line(self, where: Filter, low: str, high: str, before: int, after: int) -> list[tuple[str, Message]]:
        """What matches from one place to another, with some before and behind, in order."""
        found: list[Found] = []
        if before:
            found = list(islice(self.matching(where, Part(high=next_to(low, -1)), before), before))[::-1]
        if low < high:
            found += self.matching(where, Part(low, high, newest_first=False))
        if after:
            found += islice(self.matching(where, Part(next_to(high, 1), newest_first=False), after), after)
        return [(place_of(item), message) for item, message in found]

    @again_when_settled
    def all_matching(self, where: Filter, replacing: str | None = None) -> list[Found]:
        """The messages that match, newest first, for who is to change them.

        Args:
            where: What to read.
            replacing: The name of the replacement that reads; see `Replacements.settle`.
        """
        return list(self.matching(where, replacing=replacing, changing=True))

    @again_when_settled
    def stored(self, keys: Sequence[Key], scopes: Sequence[Scope]) -> dict[tuple[str, str], Item]:
        """The items at some keys, for who is to change them; by `identity`.

        Args:
            keys: The keys.
            scopes: The users and sessions that they are of.
        """
        guards = [session_guard(*scope) for scope in scopes]
        items = {identity(item): item for item in self._table.get_many([*keys, *guards])}
        for (user, session), key in zip(scopes, guards, strict=True):
            guard = items.pop(identity(key), None)
            if guard is not None and SIGNED in guard and not self._settle(Span(user, session, BY_SESSION), None):
                self._replacements.unmark(guard)
        return items

    def _settle(self, span: Span, replacing: str | None) -> bool:
        """Settle what replacements left, without reading messages; return whether any is under way.

        Raises:
            Settled: Something has changed.
        """
        between = span.between(BEHIND, HIGHEST)
        pages = self._table.query(
            partition(span.user_id, span.session_id), between, index=span.index, ConsistentRead=True
        )
        signs = [item for page in pages for item in page["Items"]]
        for sign in signs:
            self._replacements.settle(sign, replacing)
        return bool(signs)

    def matching(
        self,
        where: Filter,
        of: Part = Part(),
        limit: int | None = None,
        replacing: str | None = None,
        *,
        changing: bool = False,
    ) -> Iterator[Found]:
        """The messages that match, in order.

        Args:
            where: What to read.
            of: The part of the order, and its direction.
            limit: How many will be read at most, or None.
            replacing: The name of the replacement that reads.
            changing: Whether what is read is to be changed, so that it must not be what has been replaced.

        Raises:
            Settled: What it reads has changed.
        """
        if any(isinstance(each, OneOf) and not each.values for each in where.conditions):
            return
        of = _within_times(where, of)
        if of.low > of.high:
            return
        spans = self.spans(where)
        if spans is None:
            yield from self._in_order(self._scanned(where), where, of, limit)
            return
        keys = _keys_of_ids(where, spans) if replacing is None else None
        if changing and (keys is not None or of.high < HIGHEST):
            for span in spans:
                self._settle(span, replacing)
        if keys is not None:
            yield from self._in_order(self._table.get_many(keys, consistent=self._table.consistent), where, of, limit)
            return
        items = [self._items(span, where, of, limit, replacing) for span in spans]
        for item in heapq.merge(*items, key=place_of, reverse=of.newest_first):
            found = self.found(item, where)
            if found is not None:
                yield found

    def found(self, item: Item | None, where: Filter) -> Found | None:
        """The item and its message, if it matches and has not expired."""
        if item is None or has_expired(item, int(time.time())):
            return None
        loaded = self._loaded(item)
        return loaded if loaded is not None and where.matches(loaded[1]) else None

    def _in_order(self, items: Iterable[Item], where: Filter, of: Part, limit: int | None) -> list[Found]:
        """Put items that come in no order into one."""
        within = (item for item in items if of.low <= place_of(item) <= of.high)
        matching = (found for found in (self.found(item, where) for item in within) if found is not None)
        if limit is None:
            return sorted(matching, key=_place_of_found, reverse=of.newest_first)
        choose = heapq.nlargest if of.newest_first else heapq.nsmallest
        return choose(limit, matching, key=_place_of_found)

    def _messages(self, pages: Iterable[dict[str, Any]], replacing: str | None = None) -> Iterator[Item]:
        """The items of pages, but for signs of replacements, which are settled."""
        for page in pages:
            for item in page["Items"]:
                if REPLACEMENT in item:
                    self._replacements.settle(item, replacing)
                else:
                    yield item

    def _items(self, span: Span, where: Filter, of: Part, limit: int | None, replacing: str | None) -> Iterator[Item]:
        expression = Expression()
        expression.add(where.beyond_scope)
        expression.or_with(REPLACEMENT)
        filtered = bool(where.beyond_scope)
        # A replacement must see what was written before its signs and guards were.
        more = {} if replacing is None else {"ConsistentRead": True}
        pages = self._table.query(
            partition(span.user_id, span.session_id),
            span.between(of.low, of.high),
            index=span.index,
            expression=expression,
            newest_first=of.newest_first,
            page=max(limit, _LEAST_PAGE_TO_FILTER) if filtered and limit is not None else limit,
            **more,
        )
        return self._messages(pages, replacing)

    def _scanned(self, where: Filter) -> Iterator[Item]:
        expression = Expression()
        expression.add(where.beyond_scope)
        expression.or_with(REPLACEMENT)
        return self._messages(self._table.scan(expression, index=BY_USER))

    def _loaded(self, item: Item) -> Found | None:
        """The message of an item; of a large one, put together. None if it is gone meanwhile."""
        while CHUNKS in item:
            keys = chunks_of(item)
            pages = self._table.query(keys[0][PK]["S"], ConsistentRead=True)
            texts = [chunk[BODY]["S"] for page in pages for chunk in page["Items"]]
            if len(texts) == len(keys):
                return item, Message.from_json("".join(texts))
            # Parts go after the message: it has been replaced or deleted since.
            now = self._table.get(key_of(item))
            if now is None:
                return None
            if version_of(now) == version_of(item):
                raise BackendError(f"{self._table.where}: parts of the message with the key {key_of(item)} are missing")
            item = now
        return item, Message.from_json(item[BODY]["S"])

    # --- where to look ---------------------------------------------------------------------------------------

    def spans(self, where: Filter) -> list[Span] | None:
        """The spans that a filter allows, or None where only the whole table has them all."""
        users, sessions = where.scope(USER_KEY), where.scope(SESSION_KEY)
        users = None if users is None else tuple(dict.fromkeys(users))
        sessions = None if sessions is None else tuple(dict.fromkeys(sessions))
        if users is None and sessions is not None:
            return [span for session in sessions for span in self._of_all_users(session)]
        if users is None or (sessions is None and None in users):
            return None  # what nobody wrote lies in a partition for each session
        if sessions is None:
            return [Span(user, None, BY_USER) for user in users]
        spans = []
        for user in users:
            if user is not None and len(sessions) > _MOST_SESSIONS:
                spans.append(Span(user, None, BY_USER))
            else:
                spans += [Span(user, session, BY_SESSION) for session in sessions]
        return spans

    def _of_all_users(self, session: str | None) -> list[Span]:
        """A session's name: that of nobody, and those of the users who have one of this name."""
        # Consistently, as it is little: a user's first message of the session, or replacement, must not go unseen.
        pages = self._table.query(partition(None, session), (SK, "@", "A"), ConsistentRead=True)
        users = [item[USER_KEY]["S"] for page in pages for item in page["Items"]]
        return [Span(user, session, BY_SESSION) for user in (None, *users)]

    def _place(self, anchor: Message) -> str:
        item = self._table.get(message_key(anchor.user_id, anchor.session_id, anchor.id))
        return lowest(anchor.timestamp or 0.0) if item is None else place_of(item)

    # --- without the messages themselves ---------------------------------------------------------------------

    @again_when_settled
    def empty(self) -> bool:
        """Whether there is no message."""
        return next(self.keys(Filter()), None) is None

    def keys(self, where: Filter) -> Iterator[Item]:
        """What matches a filter on user_id and session_id alone: no messages, but their keys and scopes.

        Raises:
            Settled: What it reads has changed.
        """
        return self._projected(where, (PK, SK, USER_KEY, SESSION_KEY))

    @again_when_settled
    def count(self, where: Filter) -> int:
        """Count as `count` promises."""
        if where.beyond_scope:
            return sum(1 for _ in self.matching(where))
        return sum(1 for _ in self._projected(where, (USER_KEY, SESSION_KEY)))

    @again_when_settled
    def sessions(self, where: Filter) -> list[Session]:
        """The sessions of what matches, in no order."""
        groups: dict[tuple[str | None, str | None], list[float]] = {}
        if where.beyond_scope:
            for _, message in self.matching(where):
                groups.setdefault((message.user_id, message.session_id), []).append(message.timestamp or 0.0)
        else:
            for item in self._projected(where, (AT_USER, USER_KEY, SESSION_KEY)):
                groups.setdefault(scope_of(item), []).append(time_of(place_of(item)))
        return [Session(*scope, len(times), min(times), max(times)) for scope, times in groups.items()]

    def _projected(self, where: Filter, attributes: Sequence[str]) -> Iterator[Item]:
        users, sessions = where.scope(USER_KEY), where.scope(SESSION_KEY)
        spans = self.spans(where)
        for span in spans if spans is not None else (None,):
            expression = _unexpired()
            names = (*attributes, REPLACEMENT, PK, SK)
            projection = {"ProjectionExpression": ", ".join(dict.fromkeys(expression.name(each) for each in names))}
            if span is None:
                pages = self._table.scan(expression, index=BY_USER, **projection)
            else:
                pages = self._span_pages(span, expression, **projection)
            for item in self._messages(pages):
                user, session = scope_of(item)
                if (users is None or user in users) and (sessions is None or session in sessions):
                    yield item

    def _span_pages(self, span: Span, expression: Expression, **more: Any) -> Iterator[dict[str, Any]]:
        pk, between = partition(span.user_id, span.session_id), span.between(_FIRST, HIGHEST)
        return self._table.query(pk, between, index=span.index, expression=expression, newest_first=True, **more)


def scope_of(item: Item) -> tuple[str | None, str | None]:
    """Whose message an item is, and of which session."""
    return item.get(USER_KEY, {}).get("S"), item.get(SESSION_KEY, {}).get("S")


def _place_of_found(found: Found) -> str:
    return place_of(found[0])


def _unexpired() -> Expression:
    expression = Expression()
    expression.unexpired(int(time.time()))
    return expression


def _within_times(where: Filter, of: Part) -> Part:
    """Narrow a part to the times that a filter allows; the filter itself decides at the bounds."""
    low, high = of.low, of.high
    for condition in where.conditions:
        if condition.key != TIMESTAMP_KEY:
            continue
        times: list[tuple[str, float]] = []
        if isinstance(condition, Range):
            times = [(operator, _time(bound)) for operator, bound in condition.bounds]
        elif isinstance(condition, OneOf):
            numbers = [_time(v) for v in condition.values if isinstance(v, int | float) and not isinstance(v, bool)]
            if not numbers:
                return Part(HIGHEST, _FIRST, of.newest_first)
            times = [("gte", min(numbers)), ("lte", max(numbers))]
        for operator, bound in times:
            if operator in ("gt", "gte"):
                low = max(low, lowest(bound))
            else:
                high = min(high, highest(bound))
    return Part(low, high, of.newest_first)


def _time(number: float) -> float:
    return float(max(-LATEST - 1, min(LATEST + 1, number)))


def _keys_of_ids(where: Filter, spans: Sequence[Span]) -> list[Key] | None:
    """The keys of the messages whose ids a filter gives; None if it gives none, or too many."""
    given = [c for c in where.conditions if c.key == MESSAGE_ID_KEY and isinstance(c, OneOf)]
    if not given or not all(span.index == BY_SESSION for span in spans):
        return None
    ids = [value for value in dict.fromkeys(given[0].values) if isinstance(value, str)]
    if len(ids) * len(spans) > _MOST_IDS:
        return None
    return [message_key(span.user_id, span.session_id, each) for span in spans for each in ids]
