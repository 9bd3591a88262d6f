"""Reading messages, without ever seeing half of a replacement."""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from itertools import islice
from typing import Any, NamedTuple, ParamSpec, TypeVar

from dynamiq_memory.backends._order import session_filter, sessions_of, time_of
from dynamiq_memory.backends.dynamodb.expressions import Expression
from dynamiq_memory.backends.dynamodb.filters import filter_expression
from dynamiq_memory.backends.dynamodb.keys import (
    AFTER_MESSAGES,
    AT_USER,
    BY_SESSION,
    BY_USER,
    FIRST,
    LAST,
    PK,
    SK,
    ItemKey,
    KeyTuple,
    key_in,
    key_tuple,
    lowest_position,
    message_key,
    partition,
    session_guard,
    shifted,
)
from dynamiq_memory.backends.dynamodb.records import (
    BODY,
    CHUNKS,
    EXPIRES,
    Item,
    has_expired,
    position_of,
    scope_of,
    stored_version,
    version_of,
)
from dynamiq_memory.backends.dynamodb.replacements import FLAG, MARKER, LargeReplacements, StaleReadError
from dynamiq_memory.backends.dynamodb.spans import Interval, Span, keys_of_ids
from dynamiq_memory.backends.dynamodb.table import Table, wait
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Scope, Session, views
from dynamiq_memory.messages import scope_of as scope_of_message

# It is unknown how much of a page a filter lets through: each page has at least this many messages.
_LEAST_FILTERED_PAGE = 200
# To find out whether there is any message, of which some may have expired.
_PAGE_TO_FIND_ANY = 100
# More sessions of one user than this are read as all of that user's.
_MOST_SESSIONS = 20
_MANY_ANCHORS = 4
# How often a read may be stale before that is an error, and before it waits.
_MOST_STALE_READS = 50
_STALE_READS_AT_ONCE = 10

_EVERYTHING = Interval()

P = ParamSpec("P")
T = TypeVar("T")


class Found(NamedTuple):
    """A stored message."""

    item: Item
    message: Message

    @property
    def position(self) -> str:
        """Its position."""
        return position_of(self.item)


def retry_stale_reads(read: Callable[P, T]) -> Callable[P, T]:
    """Start a read again when what it reads has changed."""

    @wraps(read)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(_MOST_STALE_READS):
            try:
                return read(*args, **kwargs)
            except StaleReadError:
                if attempt > _STALE_READS_AT_ONCE:
                    wait(attempt)  # without consistent reads, a removed marker may be seen for a while
        raise BackendError("others keep replacing the same messages; try again")

    return repeated


class Reader:
    """Reads messages from a table.

    Args:
        table: The table.
        replacements: Finishes or removes replacements when it meets their markers.
    """

    def __init__(self, table: Table, replacements: LargeReplacements) -> None:
        """Keep the table."""
        self._table = table
        self._replacements = replacements

    # --- messages, in order ----------------------------------------------------------------------------------

    @retry_stale_reads
    def read(self, filter: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        """Read messages as `get_all` promises."""
        high = shifted(self._position(before), -1) if before is not None else LAST
        low = shifted(self._position(after), 1) if after is not None else FIRST
        found = list(islice(self.matching(filter, Interval(low, high, after is None), limit), limit))
        if after is None:
            found.reverse()
        return views(each.message for each in found)

    @retry_stale_reads
    def around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> list[list[Message]]:
        """Read neighbours as `around` promises."""
        keys = [message_key(anchor.user_id, anchor.session_id, anchor.id) for anchor in anchors]
        stored = {key_tuple(item): position_of(item) for item in self._table.get_many(keys)}
        positions = [
            stored.get(key_tuple(key), lowest_position(anchor.timestamp or 0.0))
            for key, anchor in zip(keys, anchors, strict=True)
        ]
        numbers_of: dict[Scope, list[int]] = {}
        for number, anchor in enumerate(anchors):
            numbers_of.setdefault(scope_of_message(anchor), []).append(number)
        windows: list[list[Message]] = [[] for _ in anchors]
        for numbers in numbers_of.values():
            # Reading from the first to the last of many is one request for each megabyte, not two for each anchor.
            for group in [numbers] if len(numbers) >= _MANY_ANCHORS else [[number] for number in numbers]:
                bounds = [positions[number] for number in group]
                session = session_filter(anchors[group[0]], filter)
                line = self._line(session, min(bounds), max(bounds), before, after)
                line_positions = [found.position for found in line]
                for number in group:
                    start = bisect_left(line_positions, positions[number])
                    stop = bisect_right(line_positions, positions[number])
                    # Windows may overlap: each has its own copies.
                    earlier = views(found.message for found in line[max(0, start - before) : start])
                    later = views(found.message for found in line[stop : stop + after])
                    windows[number] = [*earlier, anchors[number], *later]
        return windows

    def _line(self, filter: Filter, low: str, high: str, before: int, after: int) -> list[Found]:
        """Read what matches from one position to another, and some messages before and after, in order."""
        found: list[Found] = []
        if before:
            earlier = self.matching(filter, Interval(high=shifted(low, -1)), before)
            found = list(islice(earlier, before))[::-1]
        if low < high:
            found += self.matching(filter, Interval(low, high, newest_first=False))
        if after:
            later = self.matching(filter, Interval(shifted(high, 1), newest_first=False), after)
            found += islice(later, after)
        return found

    @retry_stale_reads
    def all_to_change(self, filter: Filter, replacing: str | None = None) -> list[Found]:
        """Read the matching messages, newest first, to change them.

        Args:
            filter: The messages to read.
            replacing: The name of the replacement that reads; see `LargeReplacements.resolve`.
        """
        return list(self.matching(filter, replacing=replacing, changing=True))

    @retry_stale_reads
    def items_to_change(self, keys: Sequence[ItemKey], scopes: Sequence[Scope]) -> dict[KeyTuple, Item]:
        """Read the items at some keys, to change them.

        Args:
            keys: The keys.
            scopes: Their conversations.
        """
        guards = [session_guard(*scope) for scope in scopes]
        items = {key_tuple(item): item for item in self._table.get_many([*keys, *guards])}
        for (user, session), key in zip(scopes, guards, strict=True):
            guard = items.pop(key_tuple(key), None)
            if guard is not None and FLAG in guard and not self._resolve(Span(user, session, BY_SESSION), None):
                self._replacements.clear_flag(guard)
        return items

    def _resolve(self, span: Span, replacing: str | None) -> bool:
        """Resolve markers without reading messages; return whether a replacement is under way.

        Raises:
            StaleReadError: The table has changed.
        """
        between = span.between(AFTER_MESSAGES, LAST)
        pages = self._table.query(span.partition, between, index=span.index, ConsistentRead=True)
        markers = [item for page in pages for item in page["Items"]]
        for marker in markers:
            self._replacements.resolve(marker, replacing)
        return bool(markers)

    def matching(
        self,
        filter: Filter,
        interval: Interval = _EVERYTHING,
        limit: int | None = None,
        replacing: str | None = None,
        *,
        changing: bool = False,
    ) -> Iterator[Found]:
        """Read matching messages, in order.

        Args:
            filter: The messages to read.
            interval: Where to read, and in which direction.
            limit: Maximum number of messages that the caller will read, or None.
            replacing: The name of the replacement that reads.
            changing: Whether the messages will be changed, so that they must not be replaced ones.

        Raises:
            StaleReadError: The table has changed.
        """
        interval = interval.narrowed(filter)
        if interval.low > interval.high or any(isinstance(c, OneOf) and not c.values for c in filter.conditions):
            return
        spans = self._spans(filter)
        if spans is None:
            items = self._items(None, filter_expression(filter.beyond_scope).or_exists(MARKER))
            yield from self._in_order(items, filter, interval, limit)
            return
        keys = keys_of_ids(filter, spans) if replacing is None else None
        if changing and (keys is not None or interval.high < LAST):
            for span in spans:
                self._resolve(span, replacing)
        if keys is not None:
            found = self._table.get_many(keys, consistent=self._table.consistent)
            yield from self._in_order(found, filter, interval, limit)
            return
        page = max(limit, _LEAST_FILTERED_PAGE) if filter.beyond_scope and limit is not None else limit
        # A replacement must see what was written before its markers and guards.
        more = {} if replacing is None else {"ConsistentRead": True}
        sorted_items = (
            self._items(
                span, filter_expression(filter.beyond_scope).or_exists(MARKER), interval, page, replacing, **more
            )
            for span in spans
        )
        for item in heapq.merge(*sorted_items, key=position_of, reverse=interval.newest_first):
            match = self.match(item, filter)
            if match is not None:
                yield match

    def match(self, item: Item | None, filter: Filter) -> Found | None:
        """Return the message of an item, if it matches and has not expired."""
        if item is None or has_expired(item, int(time.time())):
            return None
        found = self._loaded(item)
        return found if found is not None and filter.matches(found.message) else None

    def _in_order(self, items: Iterable[Item], filter: Filter, interval: Interval, limit: int | None) -> list[Found]:
        """Sort the matching ones of items that come in no order."""
        within = (item for item in items if interval.low <= position_of(item) <= interval.high)
        matching = (found for item in within if (found := self.match(item, filter)) is not None)
        if limit is None:
            return sorted(matching, key=lambda found: found.position, reverse=interval.newest_first)
        choose = heapq.nlargest if interval.newest_first else heapq.nsmallest
        return choose(limit, matching, key=lambda found: found.position)

    def _loaded(self, item: Item) -> Found | None:
        """Return the message of an item, with all parts of a large one; None if it no longer exists."""
        while CHUNKS in item:
            keys = stored_version(item).chunk_keys
            pages = self._table.query(keys[0][PK]["S"], ConsistentRead=True)
            texts = [chunk[BODY]["S"] for page in pages for chunk in page["Items"]]
            if len(texts) == len(keys):
                return Found(item, Message.from_json("".join(texts)))
            # Parts are deleted after their item: it has been replaced or deleted since.
            current = self._table.get(key_in(item))
            if current is None:
                return None
            if version_of(current) == version_of(item):
                raise BackendError(
                    f"{self._table.location}: parts of the message with the key {key_in(item)} are missing"
                )
            item = current
        return Found(item, Message.from_json(item[BODY]["S"]))

    # --- where to look ---------------------------------------------------------------------------------------

    def _spans(self, filter: Filter) -> list[Span] | None:
        """Return the spans that a filter allows, or None where only the whole table contains them all."""
        users, sessions = (
            None if allowed is None else tuple(dict.fromkeys(allowed))
            for allowed in (filter.scope(USER_KEY), filter.scope(SESSION_KEY))
        )
        if users is None and sessions is not None:
            return [span for session in sessions for span in self._of_all_users(session)]
        if users is None or (sessions is None and None in users):
            return None  # messages without a user are in a partition for each session
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
        """Return the spans of all sessions of one name: that without a user, and those of registered users."""
        # Consistently, since it is little: a user's first message in the session, or replacement, must not be missed.
        pages = self._table.query(partition(None, session), (SK, "@", "A"), ConsistentRead=True)
        users = [item[USER_KEY]["S"] for page in pages for item in page["Items"]]
        return [Span(user, session, BY_SESSION) for user in (None, *users)]

    def _position(self, anchor: Message) -> str:
        item = self._table.get(message_key(anchor.user_id, anchor.session_id, anchor.id))
        return lowest_position(anchor.timestamp or 0.0) if item is None else position_of(item)

    # --- without the messages themselves ---------------------------------------------------------------------

    @retry_stale_reads
    def is_empty(self, filter: Filter) -> bool:
        """Whether no message matches a filter on user_id and session_id alone."""
        return next(self.keys(filter, page=_PAGE_TO_FIND_ANY), None) is None

    @retry_stale_reads
    def count(self, filter: Filter) -> int:
        """Count as `count` promises."""
        matching: Iterator[Any] = self.matching(filter) if filter.beyond_scope else self.keys(filter)
        return sum(1 for _ in matching)

    @retry_stale_reads
    def sessions(self, filter: Filter) -> list[Session]:
        """List sessions as `sessions` promises."""
        matching = (found.item for found in self.matching(filter))
        items = matching if filter.beyond_scope else self.keys(filter)
        return sessions_of((scope_of(item), time_of(position_of(item))) for item in items)

    def keys(self, filter: Filter, page: int | None = None) -> Iterator[Item]:
        """Read the keys, scopes and positions of what matches a filter on user_id and session_id alone.

        Args:
            filter: The messages to read.
            page: How many items each request reads; None for 1 MB.

        Raises:
            StaleReadError: The table has changed.
        """
        users, sessions = filter.scope(USER_KEY), filter.scope(SESSION_KEY)
        spans = self._spans(filter)
        for span in spans if spans is not None else (None,):
            unexpired = Expression()
            expires, now = unexpired.name(EXPIRES), unexpired.value({"N": str(int(time.time()))})
            unexpired.require(f"(attribute_not_exists({expires}) OR {expires} > {now})")
            names = ", ".join(map(unexpired.name, (PK, SK, AT_USER, USER_KEY, SESSION_KEY, MARKER)))
            for item in self._items(span, unexpired, page=page, ProjectionExpression=names):
                user, session = scope_of(item)
                if (users is None or user in users) and (sessions is None or session in sessions):
                    yield item

    # --- items -----------------------------------------------------------------------------------------------

    def _items(
        self,
        span: Span | None,
        expression: Expression,
        interval: Interval = _EVERYTHING,
        page: int | None = None,
        replacing: str | None = None,
        **more: Any,
    ) -> Iterator[Item]:
        """Read the items of a span, or of the whole table for None, and resolve the markers among them."""
        if span is None:
            pages = self._table.scan(expression, index=BY_USER, page=page, **more)
        else:
            between = span.between(interval.low, interval.high)
            pages = self._table.query(
                span.partition, between, span.index, expression, interval.newest_first, page, **more
            )
        for each in pages:
            for item in each["Items"]:
                if MARKER in item:
                    self._replacements.resolve(item, replacing)
                else:
                    yield item
