"""Plans that read: from the index, and from what was written lately."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from dynamiq_memory.backends.pinecone import filters, keys, records
from dynamiq_memory.backends.pinecone.errors import RefusedRequestError
from dynamiq_memory.backends.pinecone.recent import Recent
from dynamiq_memory.backends.pinecone.records import Stored
from dynamiq_memory.backends.pinecone.requests import (
    MOST_FETCH_CHARACTERS,
    MOST_RESULTS,
    Fetch,
    Listing,
    Query,
    Record,
    Vector,
)
from dynamiq_memory.backends.plans import Plan, Wait
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session

Place = tuple[float, str, str]
Native = filters.Native

_PAGE = 100
# Records are read by queries for so many at once, or for fewer where their texts are more than 4 MB together.
_MOST_LOADED = 500
# 80 full records of 40 KB stay below 4 MB.
_SURELY_FITS = 80
_MOST_PREFIXES = 10
_FEW = 20
_PART_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut into lists of at most `size`."""
    held = list(items)
    for start in range(0, len(held), size):
        yield held[start : start + size]


class Reader:
    """Plans that read an index.

    Args:
        recent: What this process wrote lately.
        listing: Whether the index lists ids: serverless ones do.
        placeholder: The vector of queries that only look for metadata.
    """

    def __init__(self, recent: Recent, *, listing: bool, placeholder: Vector) -> None:
        """Keep these."""
        self.recent = recent
        self.listing = listing
        self.placeholder = placeholder

    # --- reading messages ------------------------------------------------------------------------------------

    def read(
        self, where: Filter, limit: int | None, before: Message | None, after: Message | None
    ) -> Plan[list[Stored]]:
        """Read as a backend's `get_all` promises."""
        upper = (yield from self._place(before)) if before is not None else None
        lower = (yield from self._place(after)) if after is not None else None
        source = _Source(self, where, lower, upper, ascending=after is not None)
        size = _MOST_LOADED
        if limit is not None:
            size = min(max(limit, _PAGE) if where.beyond_scope else limit, _MOST_LOADED)
        found: list[Stored] = []
        while limit is None or len(found) < limit:
            ids = yield from source.take(size)
            if not ids:
                break
            loaded = yield from self.load(ids)
            found += [each for each in loaded if _fits(each, where, lower, upper)]
        found = sorted(unique(found), key=_place_of)
        return found[:limit] if after is not None or limit is None else found[-limit:]

    def around(
        self, anchors: Sequence[Message], before: int, after: int, where: Filter
    ) -> Plan[list[list[Stored | Message]]]:
        """Read as a backend's `around` promises; the anchors stand as they were given."""
        listed: dict[keys.Scope, _Line] = {}
        for anchor in anchors:
            scope = keys.place_of(keys.message_id(anchor)).scope
            if scope not in listed:
                own: Native = {records.USER: {"$eq": scope[0]}, records.SESSION: {"$eq": scope[1]}}
                shown = yield from self.query_ids(filters.all_of(own, *filters.beyond(where)))
                shown |= {entry.id for entry in self.recent.within(scope.__eq__) if entry.stored is not None}
                listed[scope] = _Line(shown)
        # What is most likely needed, in one request; what else is needed, as it is found out.
        known: dict[str, Stored | None] = {}
        wanted = {keys.message_id(anchor) for anchor in anchors}
        for anchor in anchors:
            own_id = keys.message_id(anchor)
            line = listed[keys.place_of(own_id).scope]
            at = bisect_left(line.ids, own_id)  # newest first: what follows is older
            wanted.update(line.ids[max(0, at - after) : at + before + 1])
        yield from self._remember(sorted(wanted), known)
        windows: list[list[Stored | Message]] = []
        for anchor in anchors:
            own_id = keys.message_id(anchor)
            held, time = known.get(own_id), keys.place_of(own_id).time
            place = held.place if held is not None else (time, "", "")
            line = listed[keys.place_of(own_id).scope]
            earlier = yield from self._next(line.from_there_back(time), before, where, known, place, later=False)
            later = yield from self._next(line.from_there_on(time), after, where, known, place, later=True)
            windows.append([*reversed(earlier), anchor, *later])
        return windows

    def _next(
        self,
        ids: Sequence[str],
        count: int,
        where: Filter,
        known: dict[str, Stored | None],
        anchor: Place,
        *,
        later: bool,
    ) -> Plan[list[Stored]]:
        """The first `count` of candidates that match, from the anchor outwards."""
        found: list[Stored] = []
        at = 0
        while at < len(ids) and len(found) < count:
            size = max(count - len(found), _FEW if where.beyond_scope else 1)
            end = _end_of_group(ids, min(at + size, len(ids)))
            group = ids[at:end]
            at = end
            yield from self._remember([each for each in group if each not in known], known)
            held = [stored for stored in map(known.get, group) if stored is not None]
            beside = [s for s in held if (s.place > anchor if later else s.place < anchor)]
            matching = [s for s in beside if s.message is not None and where.matches(s.message)]
            found += sorted(matching, key=_place_of, reverse=not later)
        return found[:count]

    def _remember(self, ids: Sequence[str], known: dict[str, Stored | None]) -> Plan[None]:
        loaded = yield from self.load(ids)
        known.update(dict.fromkeys(ids))
        known.update({stored.id: stored for stored in loaded})

    def _place(self, anchor: Message) -> Plan[Place]:
        found = yield from self.load([keys.message_id(anchor)])
        return found[0].place if found else (anchor.timestamp or 0.0, "", "")

    # --- counting --------------------------------------------------------------------------------------------

    def count(self, where: Filter) -> Plan[int]:
        """Count the messages that match."""
        if where.beyond_scope:
            return len((yield from self.read(where, None, None, None)))
        return len((yield from self.visible(where)))

    def sessions(self, where: Filter) -> Plan[list[Session]]:
        """List the sessions with messages that match, in no order."""
        if where.beyond_scope:
            ids = [stored.id for stored in (yield from self.read(where, None, None, None))]
        else:
            ids = yield from self.visible(where)
        groups: dict[keys.Scope, list[str]] = {}
        for each in ids:
            groups.setdefault(keys.place_of(each).scope, []).append(each)
        unnamed = [own[0] for scope, own in groups.items() if any(map(keys.is_hashed, scope))]
        named = {keys.place_of(s.id).scope: s.message for s in (yield from self.load(unnamed)) if s.message}
        found = []
        for scope, own in groups.items():
            times = [keys.place_of(each).time for each in own]
            message = named.get(scope)
            if message is not None:
                names = message.user_id, message.session_id
            elif any(map(keys.is_hashed, scope)):
                continue  # deleted meanwhile
            else:
                names = keys.decoded(scope[0]), keys.decoded(scope[1])
            found.append(Session(*names, len(own), min(times), max(times)))
        return found

    # --- finding ids -----------------------------------------------------------------------------------------

    def visible(self, where: Filter) -> Plan[list[str]]:
        """The ids of all messages of a filter's scope that are not deleted."""
        shown = set((yield from self.shown_ids(where)))
        recent = self.recent.within(scopes_of(where))
        shown |= {entry.id for entry in recent if entry.stored is not None}
        return sorted(shown - {entry.id for entry in recent if entry.stored is None})

    def shown_ids(self, where: Filter, kind: str = keys.MESSAGES) -> Plan[set[str]]:
        """The ids that the index shows of a filter's scope, and at least of what matches the rest of the filter."""
        prefixes = self.prefixes(where, kind)
        if prefixes is None:
            native = filters.scope(where) + (filters.beyond(where) if kind == keys.MESSAGES else [])
            return (yield from self.query_ids(filters.all_of(*native) if native else {}, kind))
        found: set[str] = set()
        for prefix in prefixes:
            token: str | None = None
            while True:
                ids, token = yield Listing(prefix, token)
                found.update(ids)
                if token is None:
                    break
        return found

    def prefixes(self, where: Filter, kind: str = keys.MESSAGES) -> list[str] | None:
        """The prefixes of the ids of a filter's scope; None where the index is better asked by metadata."""
        users, sessions = where.scope(USER_KEY), where.scope(SESSION_KEY)
        if not self.listing or (kind == keys.MESSAGES and filters.beyond(where)):
            return None
        if users is None:
            return None if sessions is not None else [kind]
        names = [keys.encoded(user) for user in dict.fromkeys(users)]
        if sessions is None:
            return [keys.prefix_of(kind, user) for user in names]
        if len(names) * len(sessions) > _MOST_PREFIXES:
            return None
        return [keys.prefix_of(kind, user, keys.encoded(s)) for user in names for s in dict.fromkeys(sessions)]

    def query_ids(
        self, condition: Native, kind: str = keys.MESSAGES, low: int = 0, high: int = keys.BUCKETS
    ) -> Plan[set[str]]:
        """The ids of all records that meet a condition; more than a result takes are asked for in parts."""
        wanted: Native = {records.KIND: {"$eq": records.MESSAGE if kind == keys.MESSAGES else records.PART}}
        if high - low < keys.BUCKETS:
            wanted = filters.all_of(wanted, {records.BUCKET: {"$gte": low, "$lt": high}})
        try:
            found: list[Record] = yield Query(self.placeholder, MOST_RESULTS, filters.all_of(wanted, condition))
        except RefusedRequestError:
            if high - low < 2:
                raise
        else:
            if len(found) < MOST_RESULTS or high - low < 2:
                return {record.id for record in found}
        middle = (low + high) // 2
        first = yield from self.query_ids(condition, kind, low, middle)
        second = yield from self.query_ids(condition, kind, middle, high)
        return first | second

    # --- loading records -------------------------------------------------------------------------------------

    def load(self, ids: Sequence[str]) -> Plan[list[Stored]]:
        """Read messages by the ids of their records; those that are deleted are left out."""
        shown: dict[str, Record] = {}
        for group in batched(ids, _MOST_LOADED):
            shown.update((yield from self._records(group)))
        found: list[Stored] = []
        pieces: dict[str, list[str]] = {}
        heads: list[Stored] = []
        for each in ids:
            record = shown.get(each)
            if record is None:
                entry = self.recent.get(each)
                if entry is not None and entry.stored is not None:
                    found.append(entry.stored)
                continue
            stored = self.recent.seen(records.head_of(record))
            if stored is not None and stored.message is not None:
                found.append(stored)
            elif stored is not None:
                heads.append(stored)
                pieces[each] = [records.text_of(record)]
        self.recent.missing(each for each in ids if each not in shown)
        whole = [records.joined(head, pieces[head.id]) for head in heads if not head.parts]
        for head in heads:
            if head.parts:
                whole += yield from self._with_parts(head, pieces[head.id])
        return found + whole

    def _records(self, ids: list[str]) -> Plan[dict[str, Record]]:
        # A query, for a fetch would send the vectors along, some 20 KB for each message.
        wanted: Native = {records.KEY: {"$in": [keys.key_of_record(each) for each in ids]}}
        condition = filters.all_of(wanted, {records.KIND: {"$eq": records.MESSAGE}})
        try:
            found: list[Record] = yield Query(
                self.placeholder, min(2 * len(ids), MOST_RESULTS), condition, metadata=True
            )
        except RefusedRequestError:
            if len(ids) <= _SURELY_FITS:
                raise
            middle = len(ids) // 2
            first = yield from self._records(ids[:middle])
            second = yield from self._records(ids[middle:])
            return first | second
        asked = set(ids)
        shown = {record.id: record for record in found if record.id in asked}
        # A query searches approximately: what it left out is fetched, unless that is known not to be shown yet.
        absent = [each for each in ids if each not in shown and self.recent.get(each) is None]
        return shown | (yield from self._fetch(absent))

    def _fetch(self, ids: Sequence[str]) -> Plan[dict[str, Record]]:
        shown: dict[str, Record] = {}
        group: list[str] = []
        for number, each in enumerate(ids, 1):
            group.append(each)
            # Percent signs of an id are encoded once more in the URL.
            if (
                number == len(ids)
                or sum(len(i) + 2 * i.count("%") + 2 * i.count("/") + 6 for i in group) > MOST_FETCH_CHARACTERS
            ):
                found: list[Record] = yield Fetch(group)
                shown.update({record.id: record for record in found})
                group = []
        return shown

    def _with_parts(self, head: Stored, pieces: list[str]) -> Plan[list[Stored]]:
        """Put a large message together; its parts were written before it, but may be shown later."""
        held: dict[str, Record] = {}
        for wait in (*_PART_WAITS, None):
            held |= yield from self._fetch([each for each in head.part_ids if each not in held])
            if all(each in held for each in head.part_ids):
                return [records.joined(head, pieces + [records.text_of(held[each]) for each in head.part_ids])]
            again = yield from self._fetch([head.id])
            if head.id not in again or records.head_of(again[head.id]).version != head.version:
                # Deleted or replaced since.
                return (yield from self.load([head.id])) if head.id in again else []
            if wait is not None:
                yield Wait(wait)
        missing = sum(each not in held for each in head.part_ids)
        raise BackendError(
            f"{missing} of {head.parts} parts of the message in record {head.id!r} are not in the index (yet): if "
            "trying again later does not help, they were deleted by something else, and the message must be deleted or "
            "stored again"
        )

    def shown_heads(self, ids: Sequence[str]) -> Plan[list[Stored]]:
        """What the index itself shows of records, whatever was written lately."""
        return [records.head_of(record) for record in (yield from self._fetch(ids)).values()]

    def held(self, wanted: Sequence[str]) -> Plan[dict[str, list[Stored]]]:
        """The stored versions of messages, by their keys."""
        found: dict[str, dict[str, Stored]] = {}
        for group in batched(dict.fromkeys(wanted), _MOST_LOADED):
            for record in (yield from self._records_of_keys(group)):
                stored = self.recent.seen(records.head_of(record))
                if stored is not None:
                    found.setdefault(stored.key, {})[stored.id] = stored
        for key in wanted:
            for entry in self.recent.of_key(key):
                if entry.stored is not None:
                    found.setdefault(key, {}).setdefault(entry.id, entry.stored)
        return {key: sorted(own.values(), key=lambda each: each.version) for key, own in found.items()}

    def _records_of_keys(self, wanted: list[str]) -> Plan[list[Record]]:
        condition = filters.all_of({records.KEY: {"$in": wanted}}, {records.KIND: {"$eq": records.MESSAGE}})
        try:
            found: list[Record] = yield Query(
                self.placeholder, min(4 * len(wanted), MOST_RESULTS), condition, metadata=True
            )
        except RefusedRequestError:
            if len(wanted) <= _SURELY_FITS // 4:
                raise
            middle = len(wanted) // 2
            first = yield from self._records_of_keys(wanted[:middle])
            second = yield from self._records_of_keys(wanted[middle:])
            return first + second
        return found


class _Line:
    """The ids of a session's messages, the newest first."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = sorted(ids)
        self._times = [-_time_of(each) for each in self.ids]

    def from_there_back(self, time: float) -> list[str]:
        """Those of a time and before, the newest first."""
        return self.ids[bisect_left(self._times, -time) :]

    def from_there_on(self, time: float) -> list[str]:
        """Those of a time and behind, the oldest first."""
        return self.ids[: bisect_right(self._times, -time)][::-1]


class _Source:
    """The ids of candidates in the order of reading, in groups that no messages of equal times are split over.

    The newest of one session are listed only as far as they are needed; of all else, all ids are found first.
    """

    def __init__(
        self, reader: Reader, where: Filter, lower: Place | None, upper: Place | None, *, ascending: bool
    ) -> None:
        self._reader = reader
        self._where = where
        self._least = lower[0] if lower is not None else None
        self._most = upper[0] if upper is not None else None
        self._ascending = ascending
        prefixes = reader.prefixes(where)
        single = prefixes is not None and len(prefixes) == 1 and prefixes[0].count("/") == 3
        self._prefix = prefixes[0] if prefixes and single else None
        self._token: str | None = None
        self._started = False
        self._ended = False
        self._waiting: list[str] = []
        self._ready: list[str] = []

    def take(self, size: int) -> Plan[list[str]]:
        """The next ids, `size` or a few more; none at the end."""
        while not self._ended and (
            self._ascending or len(self._ready) <= size or _time_of(self._ready[size - 1]) == _time_of(self._ready[-1])
        ):
            yield from self._more(size)
        end = _end_of_group(self._ready, min(size, len(self._ready)))
        taken, self._ready = self._ready[:end], self._ready[end:]
        return taken

    def _more(self, size: int) -> Plan[None]:
        if not self._started:
            self._started = True
            recent = self._reader.recent.within(scopes_of(self._where))
            self._waiting = sorted(entry.id for entry in recent if entry.stored is not None)
        if self._prefix is None:
            shown = yield from self._reader.shown_ids(self._where)
            self._ended = True
            new = sorted(shown | set(self._waiting), key=_newest_first)
        else:
            # One more than is wanted, to see whether the last of them has others of its time.
            limit = min(size + 1, _PAGE) if self._token is None else _PAGE
            ids, self._token = yield Listing(self._prefix, self._token, limit)
            self._ended = self._token is None
            here = [each for each in self._waiting if self._ended or (ids and each <= ids[-1])]
            self._waiting = self._waiting[len(here) :]
            new = sorted({*ids, *here})
        for each in new:
            time = _time_of(each)
            if self._least is not None and time < self._least:
                self._ended = True
                break
            if self._most is None or time <= self._most:
                self._ready.append(each)
        if self._ended and self._ascending:
            self._ready.reverse()


def scopes_of(where: Filter) -> Callable[[keys.Scope], bool]:
    """Tell whether a session is within a filter's scope."""
    users, sessions = where.scope(USER_KEY), where.scope(SESSION_KEY)
    own = None if users is None else {keys.encoded(user) for user in users}
    names = None if sessions is None else {keys.encoded(session) for session in sessions}
    return lambda scope: (own is None or scope[0] in own) and (names is None or scope[1] in names)


def unique(found: Iterable[Stored]) -> list[Stored]:
    """Of each message the latest version: another process may have moved it in time while the index was behind."""
    latest: dict[str, Stored] = {}
    for stored in found:
        held = latest.get(stored.key)
        if held is None or held.version < stored.version:
            latest[stored.key] = stored
    return list(latest.values())


def _fits(stored: Stored, where: Filter, lower: Place | None, upper: Place | None) -> bool:
    if lower is not None and stored.place <= lower:
        return False
    if upper is not None and stored.place >= upper:
        return False
    return stored.message is not None and where.matches(stored.message)


def _end_of_group(ids: Sequence[str], end: int) -> int:
    """Where a group that ends here ends, if messages of equal times stay together."""
    while 0 < end < len(ids) and _time_of(ids[end]) == _time_of(ids[end - 1]):
        end += 1
    return end


def _place_of(stored: Stored) -> Place:
    return stored.place


def _time_of(record_id: str) -> float:
    return keys.place_of(record_id).time


def _newest_first(record_id: str) -> tuple[float, str]:
    return -_time_of(record_id), record_id
