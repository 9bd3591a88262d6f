"""Ids, records, filters, and recent writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamiq_memory import Message
from dynamiq_memory.backends.pinecone import filters, keys, records
from dynamiq_memory.backends.pinecone.recent_writes import KEPT_SECONDS, SETTLED_SECONDS, RecentWrites
from dynamiq_memory.backends.pinecone.records import Stored, chunks, listable
from dynamiq_memory.filters import parse
from dynamiq_memory.testing import say
from tests.fakes.pinecone.server import check_id, check_metadata, compiled

CLEAN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
TIMES = st.floats(-2e11, 2e11)
JSON_TEXTS = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32), max_size=300)


def stored(name: str = "a", version: str = "1", *, time: float = 1.0, session: str = "s") -> Stored:
    message = say(name, id=name, timestamp=time, session=session)
    return Stored(keys.record_id(message), keys.key_of(message), version, version, 0, message)


# --- ids -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(user=CLEAN | st.none(), session=CLEAN | st.none(), identifier=CLEAN, time=TIMES)
def test_any_identifier_makes_a_valid_id(user: str | None, session: str | None, identifier: str, time: float) -> None:
    record_id = keys.record_id(say(user=user, session=session, id=identifier, timestamp=time))
    check_id(record_id)
    parsed = keys.parse(record_id)
    assert parsed.time == time
    assert parsed == (keys.encoded(user), keys.encoded(session), time, keys.encoded(identifier))
    if not keys.is_hashed(parsed.user):
        assert keys.decoded(parsed.user) == user
    assert record_id.startswith(keys.prefix_of(keys.MESSAGES, parsed.user, parsed.session))
    check_id(keys.part_id(parsed.user, parsed.session, parsed.key, "f" * 22, 99_999))


@pytest.mark.parametrize("length", [46, 47, 140, 141, 5000])
def test_long_identifiers_stay_distinct(length: int) -> None:
    ids = [keys.record_id(say(user="ä" * length + end, session=None, id="x", timestamp=1.0)) for end in "ab"]
    assert ids[0] != ids[1]
    for each in ids:
        check_id(each)


@given(first=TIMES, second=TIMES)
def test_ids_sort_the_newest_first(first: float, second: float) -> None:
    a, b = (keys.record_id(say(id="x", timestamp=time)) for time in (first, second))
    assert (a < b) == (first > second)


def test_no_identifier_has_the_code_of_none() -> None:
    assert keys.encoded("%") != keys.encoded(None) == keys.NOBODY
    assert keys.decoded(keys.NOBODY) is None


# --- records -------------------------------------------------------------------------------------------------


@given(JSON_TEXTS, st.sampled_from(["", "x" * 30_000, '"' * 30_000, "\U0001f600" * 9_000, "ä\\" * 20_000]))
def test_chunks_fit_and_make_the_text(text: str, filling: str) -> None:
    whole = text + filling + text
    pieces = chunks(whole)
    assert "".join(pieces) == whole
    assert len(pieces) >= 1
    for piece in pieces:
        assert len(json.dumps(piece, ensure_ascii=False).encode()) <= 28_002


@settings(max_examples=40)
@given(
    content=st.text(max_size=200).map(lambda text: text * 100),
    metadata=st.dictionaries(
        CLEAN,
        st.text()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.booleans()
        | st.none(),
        max_size=30,
    ),
)
def test_any_message_makes_a_valid_record(content: str, metadata: dict[str, object]) -> None:
    message = Message(role="user", content=content, timestamp=1.0, metadata={"user_id": "u", "own": metadata, "k": "v"})
    head, parts = records.records_of(stored_of(message), None, [1.0, 0.0], "")
    for record in (head, *parts):
        check_id(record["id"])
        check_metadata(record["metadata"])
    listed, _ = listable(metadata)
    check_metadata(listed)
    whole = head["metadata"]["text"] + "".join(part["metadata"]["text"] for part in parts)
    assert Message.from_json(whole).content == content


def stored_of(message: Message) -> Stored:
    return Stored(keys.record_id(message), keys.key_of(message), "1", "1", 0, message)


def test_two_thousand_keys_are_partly_listed() -> None:
    listed, complete = listable({f"key {number}": "x" * 20 for number in range(2000)})
    assert not complete
    assert 50 < len(listed) < 2000


# --- filters -------------------------------------------------------------------------------------------------

VALUES = [1, 1.0, True, False, "1", "", "x", 2**53, 2**53 + 1, 0.1, -5, None, ["x"], {"a": 1}, "y" * 600]
FILTERS = [
    {"k": 1}, {"k": True}, {"k": "1"}, {"k": ["x", 1, True]}, {"k": []}, {"k": None}, {"k": 2**53 + 1},
    {"k": {"gt": 0.5}}, {"k": {"gte": 1, "lt": 2**53 + 1}}, {"k": "y" * 600}, {"k": "x", "timestamp": {"lte": 1}},
    {"message_id": ["a", "b"]}, {"$where": "1"}, {"k": "x' OR 1=1"}, {"a.b": 1},
]  # fmt: skip


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_translated_filter_matches_at_least_the_same(wanted: dict[str, object]) -> None:
    filter = parse(wanted)
    translated = [compiled(each) for each in filters.beyond_scope(filter)]
    for number, value in enumerate(VALUES):
        message = say(id="a" if number % 2 else "c", timestamp=1.0, metadata={"k": value})
        head, _ = records.records_of(stored_of(message), None, [1.0], "")
        if filter.matches(message):
            assert all(fits(head["metadata"]) for fits in translated), value


# --- recent writes -------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_write_is_forgotten_when_it_is_shown_and_old_enough() -> None:
    clock = Clock()
    recent = RecentWrites(clock)
    one = stored()
    recent.put([(one, None)])
    assert recent.reconcile(one) is one
    assert len(recent) == 1  # other parts of the service may lag
    clock.now += SETTLED_SECONDS
    recent.reconcile(one)
    assert len(recent) == 0


def test_shown_records_are_compared_by_version() -> None:
    recent = RecentWrites(Clock())
    older, own, newer = (stored(version=version) for version in "123")
    recent.put([(own, None)])
    assert recent.reconcile(older) is own
    assert recent.reconcile(newer) is newer
    assert recent.reconcile(older) is older  # forgotten: another process has written since


def test_a_deletion_hides_older_versions_and_is_forgotten() -> None:
    clock = Clock()
    recent = RecentWrites(clock)
    one = stored()
    assert recent.claim([one.id, one.id], "2") == ([one.id], [None])
    assert recent.claim([one.id], "3") == ([], [])
    assert recent.reconcile(one) is None
    recent.drop_deletions([one.id])
    assert len(recent) == 1
    clock.now += SETTLED_SECONDS
    recent.drop_deletions([one.id])
    assert len(recent) == 0


def test_a_failed_deletion_is_undone() -> None:
    recent = RecentWrites(Clock())
    one = stored()
    recent.put([(one, None)])
    claimed, before = recent.claim([one.id], "2")
    recent.unclaim(claimed, before, "2")
    assert recent.reconcile(one) is one
    assert recent.of_key(one.key) == [one]


def test_entries_expire_and_leave_nothing() -> None:
    clock = Clock()
    recent = RecentWrites(clock)
    recent.put([(stored(f"{n}", session=f"s{n % 3}"), None) for n in range(9)])
    clock.now += KEPT_SECONDS + 1
    assert recent.within(lambda _: True) == []
    assert len(recent) == 0
    assert recent._bytes == 0
    assert not recent._by_key
    assert not recent._by_scope


def test_shown_entries_make_room() -> None:
    recent = RecentWrites(Clock(), most=3)
    entries = [stored(f"{n}") for n in range(3)]
    recent.put([(each, None) for each in entries])
    old = recent.in_the_way(1)
    assert [entry.stored for entry in old] == entries
    recent.drop_shown(old, entries[:1])
    assert len(recent) == 2
    assert recent.in_the_way(1) == []
    assert recent.in_the_way(10_000) != []
