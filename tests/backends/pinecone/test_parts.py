"""Ids, records, filters, and what is remembered of recent writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamiq_memory import Message
from dynamiq_memory.backends.pinecone import filters
from dynamiq_memory.backends.pinecone import keys
from dynamiq_memory.backends.pinecone import records
from dynamiq_memory.backends.pinecone.recent import KEPT_SECONDS, SETTLED_SECONDS, Recent
from dynamiq_memory.backends.pinecone.records import Stored, chunks, listable
from dynamiq_memory.filters import parse
from dynamiq_memory.testing import say
from tests.fakes.pinecone.server import check_id, check_metadata, compiled

CLEAN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
TIMES = st.floats(-2e11, 2e11)
JSON_TEXTS = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32), max_size=300)


def stored(name: str = "a", version: str = "1", *, time: float = 1.0, session: str = "s") -> Stored:
    message = say(name, id=name, timestamp=time, session=session)
    return Stored(keys.message_id(message), keys.key_of_message(message), version, version, 0, message)


# --- ids -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(user=CLEAN | st.none(), session=CLEAN | st.none(), identifier=CLEAN, time=TIMES)
def test_any_identifier_makes_an_id_that_the_service_takes(
    user: str | None, session: str | None, identifier: str, time: float
) -> None:
    record_id = keys.message_id(say(user=user, session=session, id=identifier, timestamp=time))
    check_id(record_id)
    place = keys.place_of(record_id)
    assert place.time == time
    assert place == (keys.encoded(user), keys.encoded(session), time, keys.encoded(identifier))
    if not keys.is_hashed(place.user):
        assert keys.decoded(place.user) == user
    assert record_id.startswith(keys.prefix_of(keys.MESSAGES, place.user, place.session))
    check_id(keys.part_id(place.user, place.session, keys.key_of_record(record_id), "f" * 22, 99_999))


@pytest.mark.parametrize("length", [46, 47, 140, 141, 5000])
def test_long_identifiers_stay_apart(length: int) -> None:
    ids = [keys.message_id(say(user="ä" * length + end, session=None, id="x", timestamp=1.0)) for end in "ab"]
    assert ids[0] != ids[1]
    for each in ids:
        check_id(each)


@given(first=TIMES, second=TIMES)
def test_ids_sort_the_newest_first(first: float, second: float) -> None:
    a, b = (keys.message_id(say(id="x", timestamp=time)) for time in (first, second))
    assert (a < b) == (first > second)


def test_no_identifier_is_taken_for_nobody() -> None:
    assert keys.encoded("%") != keys.encoded(None) == keys.NOBODY
    assert keys.decoded(keys.NOBODY) is None


# --- records -------------------------------------------------------------------------------------------------


@given(JSON_TEXTS, st.sampled_from(["", "x" * 30_000, '"' * 30_000, "\U0001f600" * 9_000, "ä\\" * 20_000]))
def test_pieces_fit_and_make_the_whole(text: str, filling: str) -> None:
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
def test_the_service_takes_the_record_of_any_message(content: str, metadata: dict[str, object]) -> None:
    message = Message(role="user", content=content, timestamp=1.0, metadata={"user_id": "u", "own": metadata, "k": "v"})
    head, parts = records.records_of(stored_of(message), None, [1.0, 0.0])
    for record in (head, *parts):
        check_id(record["id"])
        check_metadata(record["metadata"])
    listed, _ = listable(metadata)
    check_metadata(listed)
    whole = head["metadata"]["text"] + "".join(part["metadata"]["text"] for part in parts)
    assert Message.from_json(whole).content == content


def stored_of(message: Message) -> Stored:
    return Stored(keys.message_id(message), keys.key_of_message(message), "1", "1", 0, message)


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
def test_what_the_service_finds_holds_all_that_matches(wanted: dict[str, object]) -> None:
    where = parse(wanted)
    native = [compiled(each) for each in filters.beyond(where)]
    for number, value in enumerate(VALUES):
        message = say(id="a" if number % 2 else "c", timestamp=1.0, metadata={"k": value})
        head, _ = records.records_of(stored_of(message), None, [1.0])
        if where.matches(message):
            assert all(fits(head["metadata"]) for fits in native), value


# --- recent writes -------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_write_is_forgotten_when_it_is_shown_and_old_enough() -> None:
    clock = Clock()
    recent = Recent(clock)
    one = stored()
    recent.put([(one, None)])
    assert recent.seen(one) is one
    assert len(recent) == 1  # other parts of the service may be behind
    clock.now += SETTLED_SECONDS
    recent.seen(one)
    assert len(recent) == 0


def test_what_is_shown_is_compared_by_version() -> None:
    recent = Recent(Clock())
    older, own, newer = (stored(version=version) for version in "123")
    recent.put([(own, None)])
    assert recent.seen(older) is own
    assert recent.seen(newer) is newer
    assert recent.seen(older) is older  # not known any more: another process has written since


def test_a_deletion_hides_what_is_older_and_ends() -> None:
    clock = Clock()
    recent = Recent(clock)
    one = stored()
    assert recent.claim([one.id, one.id], "2") == ([one.id], [None])
    assert recent.claim([one.id], "3") == ([], [])
    assert recent.seen(one) is None
    recent.missing([one.id])
    assert len(recent) == 1
    clock.now += SETTLED_SECONDS
    recent.missing([one.id])
    assert len(recent) == 0


def test_a_deletion_that_failed_is_taken_back() -> None:
    recent = Recent(Clock())
    one = stored()
    recent.put([(one, None)])
    claimed, before = recent.claim([one.id], "2")
    recent.unclaim(claimed, before, "2")
    assert recent.seen(one) is one
    assert [entry.stored for entry in recent.of_key(one.key)] == [one]


def test_entries_end_after_a_while_and_leave_nothing() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.put([(stored(f"{n}", session=f"s{n % 3}"), None) for n in range(9)])
    clock.now += KEPT_SECONDS + 1
    assert recent.within(lambda _: True) == []
    assert len(recent) == 0
    assert recent._bytes == 0
    assert not recent._by_key
    assert not recent._by_scope


def test_room_is_made_of_what_is_shown() -> None:
    recent = Recent(Clock(), most=3)
    entries = [stored(f"{n}") for n in range(3)]
    recent.put([(each, None) for each in entries])
    old = recent.to_settle(1)
    assert [entry.stored for entry in old] == entries
    recent.settle(old, entries[:1])
    assert len(recent) == 2
    assert recent.to_settle(1) == []
    assert recent.to_settle(10_000) != []
