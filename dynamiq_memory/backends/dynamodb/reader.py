"""Reading messages, without ever seeing half of a replacement."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from itertools import chain, islice
from operator import attrgetter
from typing import Any, NamedTuple, ParamSpec, TypeVar

from boto3.dynamodb.conditions import Attr

from dynamiq_memory.backends._order import session_filter, sessions_of, time_of
from dynamiq_memory.backends._windows import alone, grouped, most_between, sides
from dynamiq_memory.backends.dynamodb import keys, records
from dynamiq_memory.backends.dynamodb.filters import filter_condition
from dynamiq_memory.backends.dynamodb.keys import Interval, ItemKey, Span, key_in
from dynamiq_memory.backends.dynamodb.records import Item
from dynamiq_memory.backends.dynamodb.replacements import FLAG, MARKER, LargeReplacements, StaleReadError
from dynamiq_memory.backends.dynamodb.table import Table, concurrently, wait
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Scope, Session, views

# It is unknown how much of a page a filter lets through: each page has at least this many messages.
_LEAST_FILTERED_PAGE = 200
# To find out whether there is any message, of which some may have expired.
_PAGE_TO_FIND_ANY = 100
# More sessions of one user than this are read as all of that user's.
_MOST_SESSIONS = 20
# How often a read may be stale before that is an error, and before it waits.
_MOST_STALE_READS = 50
_STALE_READS_AT_ONCE = 10

_EVERYTHING = Interval()
# None of these names is reserved in expressions.
_KEYS_AND_SCOPE = f"{keys.PK}, {keys.SK}, {keys.AT_USER}, {USER_KEY}, {SESSION_KEY}, {MARKER}"

P = ParamSpec("P")
T = TypeVar("T")


class Found(NamedTuple):
    """A stored message."""

    item: Item
    message: Message

    @property
    def position(self) -> str:
        """Its position."""
        return records.position_of(self.item)


_POSITION = attrgetter("position")


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
        low, high = keys.FIRST, keys.LAST
        if before is not None:
            high = keys.shifted(_position_of(before, self._table.get(records.anchor_key(before))), -1)
        if after is not None:
            low = keys.shifted(_position_of(after, self._table.get(records.anchor_key(after))), 1)
        found = self._first(filter, Interval(low, high, after is None), limit)
        if after is None:
            found.reverse()
        return views(each.message for each in found)

    @retry_stale_reads
    def around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> list[list[Message]]:
        """Read neighbours as `around` promises."""
        wanted = [records.anchor_key(anchor) for anchor in anchors]
        stored = self._table.get_many(wanted)
        positions = [_position_of(anchor, stored.get(key)) for key, anchor in zip(wanted, anchors, strict=True)]
        windows: list[list[Message]] = [[] for _ in anchors]

        def fill(group: Sequence[int]) -> bool:
            bounds = [positions[number] for number in group]
            line = self._line(session_filter(anchors[group[0]], filter), bounds, before, after)
            for number, position in zip(group if line is not None else (), bounds, strict=False):
                # Windows may overlap: each has its own copies.
                earlier, later = (
                    views(found.message for found in side)
                    for side in sides(line or (), position, _POSITION, before, after)
                )
                windows[number] = [*earlier, anchors[number], *later]
            return line is not None

        groups = grouped(anchors)
        filled = concurrently(fill, groups)
        far = [number for group, done in zip(groups, filled, strict=True) if not done for number in group]
        concurrently(fill, alone(far))
        return windows

    @retry_stale_reads
    def newest(self, filter: Filter, limit: int | None) -> list[Found]:
        """Read the newest matching messages, oldest first."""
        return self._first(filter, _EVERYTHING, limit)[::-1]

    def everything(self) -> Iterator[Found]:
        """Read all messages, in no order; some come twice if the table changes in the meantime."""
        while True:
            with suppress(StaleReadError):
                for item in self._items(None, None):
                    if (found := self.match(item, Filter())) is not None:
                        yield found
                return

    def vectors(self, filter: Filter, wanted: Collection[ItemKey]) -> dict[ItemKey, bytes]:
        """Read the vectors of messages.

        Args:
            filter: The filter that found the messages.
            wanted: The keys of the vectors.
        """
        spans = self._spans(filter)
        items: Iterable[Item]
        if filter.beyond_scope or spans is None:
            items = self._table.get_many(list(wanted), consistent=self._table.consistent).values()
        else:
            # All vectors of the scope: they are read at once, a megabyte in each request.
            items = chain.from_iterable(self._table.query(*span.vectors) for span in spans)
        return {key_in(item): item[records.VECTOR]["B"] for item in items}

    def _line(self, filter: Filter, positions: Sequence[str], before: int, after: int) -> list[Found] | None:
        """Read from the first to the last of some positions, and some messages before and after, in order.

        Reading what is between them is one request for each megabyte, not two for each position.

        Returns:
            None if too much is between them: read each by itself.
        """
        low, high = min(positions), max(positions)
        most = most_between(positions, before, after)
        between = self._first(filter, Interval(low, high, newest_first=False), most + 1) if most else []
        if len(between) > most:
            return None
        earlier = self._first(filter, Interval(high=keys.shifted(low, -1)), before)
        later = self._first(filter, Interval(keys.shifted(high, 1), newest_first=False), after)
        return [*reversed(earlier), *between, *later]

    def _first(self, filter: Filter, interval: Interval, limit: int | None) -> list[Found]:
        """Read the first matching messages of an interval; for a limit of 0, without a request."""
        return list(islice(self.matching(filter, interval, limit), limit))

    @retry_stale_reads
    def all_to_change(self, filter: Filter, replacing: str | None = None) -> list[Found]:
        """Read the matching messages, newest first, to change them.

        Args:
            filter: The messages to read.
            replacing: The name of the replacement that reads; see `LargeReplacements.resolve`.
        """
        return list(self.matching(filter, replacing=replacing, changing=True))

    @retry_stale_reads
    def items_to_change(self, wanted: Sequence[ItemKey], scopes: Sequence[Scope]) -> dict[ItemKey, Item]:
        """Read the items at some keys, to change them.

        Args:
            wanted: The keys.
            scopes: Their conversations.
        """
        guards = [keys.session_guard(*scope) for scope in scopes]
        items = self._table.get_many([*wanted, *guards])
        for (user, session), key in zip(scopes, guards, strict=True):
            guard = items.pop(key, None)
            if guard is not None and FLAG in guard and not self._resolve(Span(user, session, keys.BY_SESSION), None):
                self._replacements.clear_flag(guard)
        return items

    def _resolve(self, span: Span, replacing: str | None) -> bool:
        """Resolve markers without reading messages; return whether a replacement is under way.

        Raises:
            StaleReadError: The table has changed.
        """
        between = span.between(keys.AFTER_MESSAGES, keys.LAST)
        markers = list(self._table.query(span.partition, between, IndexName=span.index, ConsistentRead=True))
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
        condition = _condition(filter)
        if spans is None:
            yield from self._in_order(self._items(None, condition), filter, interval, limit)
            return
        by_id = keys.keys_of_ids(filter, spans) if replacing is None else None
        if changing and (by_id is not None or interval.high < keys.LAST):
            for span in spans:
                self._resolve(span, replacing)
        if by_id is not None:
            found = self._table.get_many(by_id, consistent=self._table.consistent)
            yield from self._in_order(found.values(), filter, interval, limit)
            return
        page = max(limit, _LEAST_FILTERED_PAGE) if filter.beyond_scope and limit is not None else limit
        # A replacement must see what was written before its markers and guards.
        more = {} if replacing is None else {"ConsistentRead": True}
        sorted_items = [self._items(span, condition, interval, page, replacing, **more) for span in spans]
        for item in heapq.merge(*sorted_items, key=records.position_of, reverse=interval.newest_first):
            match = self.match(item, filter)
            if match is not None:
                yield match

    def match(self, item: Item | None, filter: Filter) -> Found | None:
        """Return the message of an item, if it matches and has not expired."""
        if item is None or records.has_expired(item):
            return None
        found = self._loaded(item)
        return found if found is not None and filter.matches(found.message) else None

    def _in_order(self, items: Iterable[Item], filter: Filter, interval: Interval, limit: int | None) -> list[Found]:
        """Sort the matching ones of items that come in no order."""
        within = (item for item in items if interval.low <= records.position_of(item) <= interval.high)
        matching = (found for item in within if (found := self.match(item, filter)) is not None)
        if limit is None:
            return sorted(matching, key=_POSITION, reverse=interval.newest_first)
        choose = heapq.nlargest if interval.newest_first else heapq.nsmallest
        return choose(limit, matching, key=_POSITION)

    def _loaded(self, item: Item) -> Found | None:
        """Return the message of an item, with all parts of a large one; None if it no longer exists."""
        while records.CHUNKS in item:
            chunks = records.stored_version(item).chunk_keys
            texts = [chunk[records.BODY]["S"] for chunk in self._table.query(chunks[0][0], ConsistentRead=True)]
            if len(texts) == len(chunks):
                return Found(item, Message.from_json("".join(texts)))
            # Parts are deleted after their item: it has been replaced or deleted since.
            current = self._table.get(key_in(item))
            if current is None:
                return None
            if records.version_of(current) == records.version_of(item):
                raise BackendError(
                    f"{self._table.location}: parts of the message with the key {key_in(item)} are missing"
                )
            item = current
        return Found(item, Message.from_json(item[records.BODY]["S"]))

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
            return [Span(user, None, keys.BY_USER) for user in users]
        spans = []
        for user in users:
            if user is not None and len(sessions) > _MOST_SESSIONS:
                spans.append(Span(user, None, keys.BY_USER))
            else:
                spans += [Span(user, session, keys.BY_SESSION) for session in sessions]
        return spans

    def _of_all_users(self, session: str | None) -> list[Span]:
        """Return the spans of all sessions of one name: that without a user, and those of registered users."""
        # Consistently, since it is little: a user's first message in the session, or replacement, must not be missed.
        registrations = self._table.query(keys.partition(None, session), (keys.SK, "@", "A"), ConsistentRead=True)
        users = [registration[USER_KEY]["S"] for registration in registrations]
        return [Span(user, session, keys.BY_SESSION) for user in (None, *users)]

    # --- without the messages themselves ---------------------------------------------------------------------

    @retry_stale_reads
    def is_empty(self, filter: Filter) -> bool:
        """Whether no message matches."""
        return next(self.keys(filter, page=_PAGE_TO_FIND_ANY), None) is None

    @retry_stale_reads
    def count(self, filter: Filter) -> int:
        """Count as `count` promises."""
        return sum(1 for _ in self.keys(filter))

    @retry_stale_reads
    def sessions(self, filter: Filter) -> list[Session]:
        """List sessions as `sessions` promises."""
        return sessions_of((records.scope_in(item), time_of(records.position_of(item))) for item in self.keys(filter))

    def keys(self, filter: Filter, page: int | None = None) -> Iterator[Item]:
        """Read the keys, scopes and positions of matching messages.

        Args:
            filter: The messages to read. If it is on user_id and session_id alone, nothing else of them is read.
            page: How many items each request reads; None for 1 MB.

        Raises:
            StaleReadError: The table has changed.
        """
        users, sessions = filter.scope(USER_KEY), filter.scope(SESSION_KEY)
        if filter.beyond_scope and users is None and sessions is None:
            # Not sorted, so that a caller who wants to know of any message stops at the first one.
            yield from (item for item in self._items(None, _condition(filter)) if self.match(item, filter) is not None)
            return
        if filter.beyond_scope:
            yield from (found.item for found in self.matching(filter, limit=page))
            return
        unexpired = Attr(records.EXPIRES).not_exists() | Attr(records.EXPIRES).gt(records.from_now())
        spans = self._spans(filter)
        for span in spans if spans is not None else (None,):
            for item in self._items(span, unexpired, page=page, ProjectionExpression=_KEYS_AND_SCOPE):
                user, session = records.scope_in(item)
                if (users is None or user in users) and (sessions is None or session in sessions):
                    yield item

    def keys_to_delete(self, filter: Filter) -> Iterator[Item]:
        """Read the keys again when the table has changed; some may come twice."""
        while True:
            with suppress(StaleReadError):
                yield from self.keys(filter)
                return

    # --- items -----------------------------------------------------------------------------------------------

    def _items(
        self,
        span: Span | None,
        condition: Any,
        interval: Interval = _EVERYTHING,
        page: int | None = None,
        replacing: str | None = None,
        **more: Any,
    ) -> Iterator[Item]:
        """Read the items of a span, or of the whole table for None, and resolve the markers among them."""
        if span is None:
            items = self._table.scan(condition, page=page, IndexName=keys.BY_USER, **more)
        else:
            between = span.between(interval.low, interval.high)
            more |= {"newest_first": interval.newest_first, "page": page, "IndexName": span.index}
            items = self._table.query(span.partition, between, condition, **more)
        for item in items:
            if MARKER in item:
                self._replacements.resolve(item, replacing)
            else:
                yield item


def _condition(filter: Filter) -> Any:
    """Return the condition for the table on what is beyond the scope, which markers meet too; None for no condition."""
    condition = filter_condition(filter.beyond_scope)
    return None if condition is None else condition | Attr(MARKER).exists()


def _position_of(anchor: Message, stored: Item | None) -> str:
    return keys.lowest_position(anchor.timestamp or 0.0) if stored is None else records.position_of(stored)
