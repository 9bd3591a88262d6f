"""Reading: from the index, and from the recent writes of this process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from dynamiq_memory._batches import batched
from dynamiq_memory.backends._embedding import Vector
from dynamiq_memory.backends._order import session_filter, sessions_of
from dynamiq_memory.backends.pinecone import filters, keys, records, requests
from dynamiq_memory.backends.pinecone.errors import RefusedRequestError
from dynamiq_memory.backends.pinecone.filters import PineconeFilter
from dynamiq_memory.backends.pinecone.keys import EncodedScope
from dynamiq_memory.backends.pinecone.recent_writes import RecentWrites
from dynamiq_memory.backends.pinecone.records import Position, Stored, position_of
from dynamiq_memory.backends.pinecone.requests import MOST_RESULTS, Record
from dynamiq_memory.backends.plans import Plan, Wait
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Scope, Session, scope_of, views

# Maximum number of records per query; fewer if their texts exceed 4 MB.
_MOST_LOADED = 500
# 80 full records of 40 KB fit in the 4 MB of a result: the versions of this many messages.
_VERSIONS = 4
_SURELY_FITS = 80 // _VERSIONS
_MOST_PREFIXES = 10
_SESSIONS_AT_ONCE = 20
_PART_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


class Reader:
    """Reads an index.

    Args:
        recent: The recent writes of this process.
        can_list: Whether the index can list ids: serverless ones can.
        placeholder: The vector of queries that only look for metadata.
    """

    def __init__(self, recent: RecentWrites, placeholder: Vector, *, can_list: bool) -> None:
        """Keep the arguments."""
        self.recent = recent
        self.placeholder = placeholder
        self._can_list = can_list

    # --- reading messages --------------------------------------------------------------------------------------

    def read(
        self, filter: Filter, limit: int | None = None, before: Message | None = None, after: Message | None = None
    ) -> Plan[list[Stored]]:
        """Read the latest matching messages, oldest first; with `after`, the earliest after it."""
        upper = (yield from self._position(before)) if before is not None else None
        lower = (yield from self._position(after)) if after is not None else None
        candidates = _Candidates(self, filter, lower, upper, ascending=after is not None)
        size = _MOST_LOADED
        if limit is not None:
            size = min(max(limit, requests.PAGE) if filter.beyond_scope else limit, _MOST_LOADED)
        found: list[Stored] = []
        while limit is None or len(found) < limit:
            ids = yield from candidates.take(size)
            if not ids:
                break
            found += [each for each in (yield from self.load(ids)) if _matches(each, filter, lower, upper)]
        found = sorted(_latest_versions(found), key=position_of)
        return found[:limit] if after is not None or limit is None else found[-limit:]

    def around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> Plan[list[list[Message]]]:
        """Read the messages before and after each anchor, within its session."""
        anchor_ids = [keys.record_id(anchor) for anchor in anchors]
        parsed = list(map(keys.parse, anchor_ids))
        ids_of = yield from self._ids_of_sessions(list(dict.fromkeys(each.scope for each in parsed)), filter)
        spans = [_span_around(ids_of[each.scope], each.time, before, after) for each in parsed]
        likely = set(anchor_ids).union(
            *(ids_of[each.scope][start:end] for each, (start, end) in zip(parsed, spans, strict=True))
        )
        loaded = {stored.id: stored for stored in (yield from self.load(sorted(likely)))}
        windows = []
        for anchor, anchor_id, place, (start, end) in zip(anchors, anchor_ids, parsed, spans, strict=True):
            ids, stored = ids_of[place.scope], loaded.get(anchor_id)
            position = stored.position if stored is not None else (place.time, "", "")
            near = sorted((loaded[each] for each in ids[start:end] if each in loaded), key=position_of)
            earlier = [each for each in near if _matches(each, filter, upper=position)]
            later = [each for each in near if _matches(each, filter, lower=position)]
            # Some have been deleted, or do not match although the service says so.
            if len(earlier) < before and end < len(ids):
                earlier = yield from self.read(session_filter(anchor, filter), before, before=anchor)
            if len(later) < after and start > 0:
                later = yield from self.read(session_filter(anchor, filter), after, after=anchor)
            earlier = earlier[max(0, len(earlier) - before) :]
            windows.append([*messages_of(earlier), anchor, *messages_of(later[:after])])
        return windows

    def _ids_of_sessions(self, scopes: Sequence[EncodedScope], filter: Filter) -> Plan[dict[EncodedScope, list[str]]]:
        """Find the ids of what matches in some sessions, the newest first, in one query if a result can have them."""
        ids_of: dict[EncodedScope, list[str]] = {scope: [] for scope in scopes}
        for group in batched(scopes, _SESSIONS_AT_ONCE):
            in_scopes: list[PineconeFilter] = [
                filters.all_of({records.USER: {"$eq": user}}, {records.SESSION: {"$eq": session}})
                for user, session in group
            ]
            scope = in_scopes[0] if len(in_scopes) == 1 else {"$or": in_scopes}
            shown = yield from self._query_ids(filters.all_of(scope, *filters.beyond_scope(filter)))
            recent = self.recent.within(set(group).__contains__)
            for each in sorted(shown | {entry.id for entry in recent if entry.stored is not None}):
                ids_of[keys.parse(each).scope].append(each)
        return ids_of

    def _position(self, anchor: Message) -> Plan[Position]:
        found = yield from self.load([keys.record_id(anchor)])
        return found[0].position if found else (anchor.timestamp or 0.0, "", "")

    # --- counting ----------------------------------------------------------------------------------------------

    def count(self, filter: Filter) -> Plan[int]:
        """Count matching messages."""
        return len((yield from self._matching_ids(filter)))

    def is_empty(self, filter: Filter) -> Plan[bool]:
        """Find out whether no message matches, in a page of ids if that is possible."""
        prefixes = self.prefixes(filter)
        if filter.beyond_scope or prefixes is None:
            return not (yield from self.read(filter, 1))
        recent = self.recent.within(keys.in_scope_of(filter))
        if any(entry.stored is not None for entry in recent):
            return False
        deleted = {entry.id for entry in recent}
        for prefix in prefixes:
            token, ended = None, False
            while not ended:
                ids, token = yield from requests.page(prefix, token)
                if not deleted.issuperset(ids):
                    return False
                ended = token is None
        return True

    def sessions(self, filter: Filter) -> Plan[list[Session]]:
        """List the sessions of matching messages."""
        ids = yield from self._matching_ids(filter)
        names: dict[EncodedScope, Scope] = {}
        hashed: dict[EncodedScope, str] = {}
        for each in ids:
            user, session = scope = keys.parse(each).scope
            if keys.is_hashed(user) or keys.is_hashed(session):
                hashed[scope] = each
            else:
                names[scope] = keys.decoded(user), keys.decoded(session)
        # One message of each reveals its names, unless it was deleted since.
        for stored in (yield from self.load(list(hashed.values()))):
            if stored.message is not None:
                names[keys.parse(stored.id).scope] = scope_of(stored.message)
        parsed = map(keys.parse, ids)
        return sessions_of((names[each.scope], each.time) for each in parsed if each.scope in names)

    def _matching_ids(self, filter: Filter) -> Plan[list[str]]:
        if filter.beyond_scope:
            return [stored.id for stored in (yield from self.read(filter))]
        return (yield from self.visible_ids(filter))

    # --- finding ids -------------------------------------------------------------------------------------------

    def visible_ids(self, filter: Filter) -> Plan[list[str]]:
        """Return the ids of all messages in a filter's scope that are not deleted."""
        shown = yield from self.shown_ids(filter)
        recent = self.recent.within(keys.in_scope_of(filter))
        written = {entry.id for entry in recent if entry.stored is not None}
        deleted = {entry.id for entry in recent if entry.stored is None}
        return sorted((shown | written) - deleted)

    def shown_ids(self, filter: Filter, kind: str = keys.MESSAGES) -> Plan[set[str]]:
        """Return the ids in a filter's scope that the index shows, and at least those that match the whole filter."""
        prefixes = self.prefixes(filter, kind)
        if prefixes is None:
            conditions = filters.of_scope(filter)
            if kind == keys.MESSAGES:
                conditions += filters.beyond_scope(filter)
            return (yield from self._query_ids(filters.all_of(*conditions) if conditions else {}, kind))
        found: set[str] = set()
        for prefix in prefixes:
            found |= yield from requests.pages(prefix)
        return found

    def prefixes(self, filter: Filter, kind: str = keys.MESSAGES) -> list[str] | None:
        """Return the prefixes of the ids in a filter's scope; None if a query by metadata is better."""
        users, sessions = filter.scope(USER_KEY), filter.scope(SESSION_KEY)
        if not self._can_list or (kind == keys.MESSAGES and filters.beyond_scope(filter)):
            return None
        if users is None:
            return None if sessions is not None else [kind]
        names = [keys.encoded(user) for user in dict.fromkeys(users)]
        if sessions is None:
            return [keys.prefix_of(kind, user) for user in names]
        if len(names) * len(sessions) > _MOST_PREFIXES:
            return None
        return [keys.prefix_of(kind, user, keys.encoded(each)) for user in names for each in dict.fromkeys(sessions)]

    def ids_of_all(self, filter: PineconeFilter) -> Plan[set[str]]:
        """Return the ids of all messages that the index shows and that match a filter of the service."""
        return (yield from self._query_ids(filter))

    def _query_ids(
        self, filter: PineconeFilter, kind: str = keys.MESSAGES, low: int = 0, high: int = keys.BUCKETS
    ) -> Plan[set[str]]:
        """Return the ids of all matching records, in several requests if a result cannot contain them all."""
        wanted = filters.of_kind(records.MESSAGE if kind == keys.MESSAGES else records.PART)
        if high - low < keys.BUCKETS:
            wanted = filters.all_of(wanted, {records.BUCKET: {"$gte": low, "$lt": high}})
        try:
            found = yield from requests.query(self.placeholder, MOST_RESULTS, filters.all_of(wanted, filter))
        except RefusedRequestError:
            if high - low < 2:
                raise
        else:
            if len(found) < MOST_RESULTS or high - low < 2:
                return {record.id for record in found}
        middle = (low + high) // 2
        first = yield from self._query_ids(filter, kind, low, middle)
        second = yield from self._query_ids(filter, kind, middle, high)
        return first | second

    # --- loading records ---------------------------------------------------------------------------------------

    def load(self, ids: Sequence[str]) -> Plan[list[Stored]]:
        """Read messages by the ids of their records; deleted ones are left out."""
        shown: dict[str, Record] = {}
        for group in batched(ids, _MOST_LOADED):
            shown |= yield from self._records(group)
        self.recent.drop_deletions(each for each in ids if each not in shown)
        found: list[Stored] = []
        for each in ids:
            record = shown.get(each)
            if record is None:
                entry = self.recent.get(each)
                stored = None if entry is None else entry.stored
            else:
                stored = self.recent.reconcile(records.head_of(record))
            if stored is None:
                continue
            if stored.message is not None or record is None:
                found.append(stored)
            elif not stored.parts:
                found.append(stored.with_text([records.text_of(record)]))
            else:
                found += yield from self._with_parts(stored, records.text_of(record))
        return found

    def _records(self, ids: Sequence[str]) -> Plan[dict[str, Record]]:
        # A query, because a fetch would return the vectors as well, some 20 KB for each message.
        found = yield from self._records_of_keys(list({keys.parse(each).key for each in ids}))
        asked = set(ids)
        shown = {record.id: record for record in found if record.id in asked}
        # A query is approximate: missing records are fetched, unless the index is known not to show them yet.
        absent = [each for each in ids if each not in shown and self.recent.get(each) is None]
        return shown | (yield from requests.fetch(absent))

    def _records_of_keys(self, wanted: Sequence[str]) -> Plan[list[Record]]:
        """Read the records of all versions of messages, in several requests if a result cannot contain them all."""
        condition = filters.all_of({records.KEY: {"$in": list(wanted)}}, filters.of_kind(records.MESSAGE))
        top_k = min(_VERSIONS * len(wanted), MOST_RESULTS)
        try:
            return (yield from requests.query(self.placeholder, top_k, condition, metadata=True))
        except RefusedRequestError:
            if len(wanted) <= _SURELY_FITS:
                raise
        middle = len(wanted) // 2
        first = yield from self._records_of_keys(wanted[:middle])
        second = yield from self._records_of_keys(wanted[middle:])
        return first + second

    def _with_parts(self, head: Stored, text: str) -> Plan[list[Stored]]:
        """Complete a large message; its parts were written before it, but the index may show them later."""
        found: dict[str, Record] = {}
        for wait in (*_PART_WAITS, None):
            found |= yield from requests.fetch([each for each in head.part_ids if each not in found])
            if all(each in found for each in head.part_ids):
                return [head.with_text([text, *(records.text_of(found[each]) for each in head.part_ids)])]
            again = yield from requests.fetch([head.id])
            if head.id not in again:
                return []  # deleted since
            if records.head_of(again[head.id]).version != head.version:
                return (yield from self.load([head.id]))
            if wait is not None:
                yield from Wait(wait)
        missing = sum(each not in found for each in head.part_ids)
        raise BackendError(
            f"{missing} of {head.parts} parts of the message in record {head.id!r} are not in the index (yet). If "
            "trying again later does not help, another program deleted them: delete the message or store it again"
        )

    def shown_heads(self, ids: Sequence[str]) -> Plan[list[Stored]]:
        """Read what the index itself shows of records, without recent writes and without texts."""
        return [records.head_of(record) for record in (yield from requests.fetch(ids)).values()]

    def versions(self, wanted: Sequence[str]) -> Plan[dict[str, list[Stored]]]:
        """Read all stored versions of messages, without texts, by the messages' keys."""
        found: dict[str, dict[str, Stored]] = {}
        for group in batched(dict.fromkeys(wanted), _MOST_LOADED):
            for record in (yield from self._records_of_keys(group)):
                stored = self.recent.reconcile(records.head_of(record))
                if stored is not None:
                    found.setdefault(stored.key, {})[stored.id] = stored
        for key in wanted:
            for stored in self.recent.of_key(key):
                found.setdefault(key, {}).setdefault(stored.id, stored)
        return {
            key: sorted(its_versions.values(), key=lambda each: each.version) for key, its_versions in found.items()
        }


class _Candidates:
    """The ids of candidates in the order of reading, in groups that do not separate messages of equal times.

    The newest ids of one session are listed as they are needed; otherwise, all ids are found first.
    """

    def __init__(
        self, reader: Reader, filter: Filter, lower: Position | None, upper: Position | None, *, ascending: bool
    ) -> None:
        self._reader = reader
        self._filter = filter
        self._least = lower[0] if lower is not None else None
        self._most = upper[0] if upper is not None else None
        self._ascending = ascending
        prefixes = reader.prefixes(filter) or []
        is_one_session = len(prefixes) == 1 and prefixes[0].count("/") == 3
        self._prefix = prefixes[0] if is_one_session else None
        self._token: str | None = None
        self._ended = False
        self._recent: list[str] | None = None
        self._ready: list[str] = []

    def take(self, size: int) -> Plan[list[str]]:
        """Return the next ids, `size` or a few more; none at the end."""
        while not self._ended and (
            self._ascending or len(self._ready) <= size or _time_of(self._ready[size - 1]) == _time_of(self._ready[-1])
        ):
            yield from self._find(size)
        end = _end_of_group(self._ready, min(size, len(self._ready)))
        taken, self._ready = self._ready[:end], self._ready[end:]
        return taken

    def _find(self, size: int) -> Plan[None]:
        if self._recent is None:
            entries = self._reader.recent.within(keys.in_scope_of(self._filter))
            self._recent = sorted(entry.id for entry in entries if entry.stored is not None)
        if self._prefix is None:
            shown = yield from self._reader.shown_ids(self._filter)
            self._ended = True
            found = sorted(shown.union(self._recent), key=_newest_first)
        else:
            # One more than necessary, to see whether the last of them has others of its time.
            limit = min(size + 1, requests.PAGE) if self._token is None else requests.PAGE
            ids, self._token = yield from requests.page(self._prefix, self._token, limit)
            self._ended = self._token is None
            due = [each for each in self._recent if self._ended or (ids and each <= ids[-1])]
            self._recent = self._recent[len(due) :]
            found = sorted({*ids, *due})
        for each in found:
            time = _time_of(each)
            if self._least is not None and time < self._least:
                self._ended = True
                break
            if self._most is None or time <= self._most:
                self._ready.append(each)
        if self._ended and self._ascending:
            self._ready.reverse()


def messages_of(found: Iterable[Stored]) -> list[Message]:
    """Return copies of messages for the caller."""
    return views(stored.message for stored in found if stored.message is not None)


def _latest_versions(found: Iterable[Stored]) -> list[Stored]:
    """Return the latest version of each message: another process may have moved one in time while the index lagged."""
    latest: dict[str, Stored] = {}
    for stored in found:
        other = latest.get(stored.key)
        if other is None or other.version < stored.version:
            latest[stored.key] = stored
    return list(latest.values())


def _matches(stored: Stored, filter: Filter, lower: Position | None = None, upper: Position | None = None) -> bool:
    if (lower is not None and stored.position <= lower) or (upper is not None and stored.position >= upper):
        return False
    return stored.message is not None and filter.matches(stored.message)


def _end_of_group(ids: Sequence[str], end: int) -> int:
    """Return where a group must end so that messages of equal times stay together."""
    while 0 < end < len(ids) and _time_of(ids[end]) == _time_of(ids[end - 1]):
        end += 1
    return end


def _span_around(ids: Sequence[str], time: float, before: int, after: int) -> tuple[int, int]:
    """Return where the neighbours of a time begin and end among a session's ids, the newest of which come first."""
    start = bisect_left(ids, -time, key=_age)
    end = _end_of_group(ids, min(bisect_right(ids, -time, key=_age) + before, len(ids)))
    start = max(0, start - after)
    while 0 < start < len(ids) and _time_of(ids[start - 1]) == _time_of(ids[start]):
        start -= 1
    return start, end


def _age(record_id: str) -> float:
    return -_time_of(record_id)


def _time_of(record_id: str) -> float:
    return keys.parse(record_id).time


def _newest_first(record_id: str) -> tuple[float, str]:
    return _age(record_id), record_id
