"""Order, limits, repeated writes and counts."""

from __future__ import annotations

import pytest

from dynamiq_memory.backends.operations import AroundPage, ReadPage
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import Message
from dynamiq_memory.testing.base import SCOPE, SESSION, USER, ConformanceBase, Twin, contents, say


class ReadingConformance(ConformanceBase):
    """Tests of order, limits, pages, repeated writes and sessions."""

    def test_empty_store(self, store: Twin) -> None:
        assert store.get_all() == []
        assert store.search("hello") == []
        assert store.count() == 0
        assert store.sessions() == []
        assert store.is_empty() is True

    def test_messages_come_back_oldest_first(self, store: Twin) -> None:
        for number in range(5):
            store.add(say(f"{number}"))
        assert contents(store.get_all()) == list("01234")
        assert store.is_empty() is False

    def test_a_batch_keeps_its_order(self, store: Twin) -> None:
        store.add_many([say(f"{number}") for number in range(120)])
        assert contents(store.get_all()) == [f"{number}" for number in range(120)]

    def test_given_timestamps_decide_the_order(self, store: Twin) -> None:
        store.add_many([say("late", timestamp=30.5), say("early", timestamp=-10.25), say("middle", timestamp=20.0)])
        store.add(say("between", timestamp=25.0))
        assert contents(store.get_all()) == ["early", "middle", "between", "late"]
        assert contents(store.get_all(limit=2)) == ["between", "late"]

    def test_arrival_decides_between_equal_timestamps(self, store: Twin) -> None:
        store.add_many([say("a", timestamp=5.0, id="z"), say("b", timestamp=5.0, id="m")])
        store.add(say("c", timestamp=5.0, id="a"))
        assert contents(store.get_all()) == ["a", "b", "c"]
        assert contents(store.get_all(limit=2)) == ["b", "c"]

    def test_limit_keeps_the_most_recent(self, store: Twin) -> None:
        store.add_many([say(f"{number}") for number in range(10)])
        assert contents(store.get_all(limit=3)) == ["7", "8", "9"]
        assert contents(store.get_all(limit=1)) == ["9"]
        assert contents(store.get_all(limit=50)) == [f"{number}" for number in range(10)]
        assert contents(store.search(limit=3)) == ["7", "8", "9"]
        assert contents(store.search("  ", limit=3)) == ["7", "8", "9"]

    def test_pages_have_every_message_once(self, store: Twin) -> None:
        stored = store.add_many([say(f"{number:03} {'x' * (number * 20)}") for number in range(8)])
        for filters in (SCOPE, {**SCOPE, "absent": None}):
            for limit, max_bytes in ((3, 10**6), (8, 10**6), (50, 500), (50, 1)):
                for side in ("before", "after"):
                    found: list[Message] = []
                    anchor = stored[0] if side == "after" else None
                    more = True
                    while more:
                        page, more = store.execute(ReadPage(parse(filters), limit, max_bytes, **{side: anchor}))
                        assert 0 < len(page) <= limit or not more
                        found = [*page, *found] if side == "before" else [*found, *page]
                        anchor = page[0 if side == "before" else -1] if page else anchor
                    assert contents(found) == contents(stored[1:] if side == "after" else stored)

    def test_windows_end_at_a_size(self, store: Twin) -> None:
        stored = store.add_many([say(f"{number:03} {'x' * 100}") for number in range(40)])
        anchors = [stored[20], *stored[:18], stored[22]]
        for filters in (SCOPE, {**SCOPE, "absent": None}):
            whole = store.around(anchors, 4, 4, filters)
            for max_bytes in (None, 10**6, 800, 0):
                pages = store.execute(AroundPage(parse(filters), anchors, 4, 4, max_bytes))
                for anchor, window, (page, earlier, later) in zip(anchors, whole, pages, strict=True):
                    here, place = contents(window).index(anchor.text), contents(page).index(anchor.text)
                    assert contents(page) == contents(window)[here - place : here - place + len(page)]
                    if max_bytes is None or max_bytes > 800:
                        assert len(page) == len(window)
                    assert earlier or place == here
                    assert later  # no anchor is near the end
                assert max_bytes != 0 or len(pages[-1][0]) == 1

    def test_a_limit_below_one_is_refused(self, store: Twin) -> None:
        store.add(say())
        for limit in (0, -1, True, 1.5, "3"):
            for call in (store.get_all, store.search):
                with pytest.raises(ValueError, match="limit"):
                    call(limit=limit)

    def test_no_limit_means_all(self, store: Twin) -> None:
        count = 1010  # more than a page of 1,000
        store.add_many([say(f"word {number}") for number in range(count)])
        assert len(store.get_all()) == len(store.search("word")) == store.count() == count

    def test_pages_before_and_after_a_message(self, store: Twin) -> None:
        stored = store.add_many([say(f"{number}", timestamp=float(number // 3)) for number in range(12)])
        assert contents(store.get_all(limit=3, before=stored[7])) == ["4", "5", "6"]
        assert contents(store.get_all(before=stored[2])) == ["0", "1"]
        assert contents(store.get_all(limit=3, after=stored[7])) == ["8", "9", "10"]
        assert contents(store.get_all(after=stored[10])) == ["11"]
        assert contents(store.get_all(before=stored[8], after=stored[4])) == ["5", "6", "7"]
        assert store.get_all(after=stored[-1]) == store.get_all(before=stored[0]) == []

    def test_neighbours_within_the_session(self, store: Twin) -> None:
        stored = [store.add(say(f"{n}", session=f"s{n % 2}", kind="odd" if n % 3 else "even")) for n in range(12)]
        windows = store.around([stored[4], stored[11]], 2, 1)
        assert [contents(window) for window in windows] == [["0", "2", "4", "6"], ["7", "9", "11"]]
        assert contents(store.around([stored[4]], 0, 0)[0]) == ["4"]
        assert contents(store.around([stored[5]], 5, 5, {"kind": "odd"})[0]) == ["1", "5", "7", "11"]

    def test_neighbours_of_several_messages_at_once(self, store: Twin) -> None:
        stored = store.add_many([say(f"{n}", timestamp=float(n)) for n in range(8)])
        elsewhere = store.add(say("9", session="other", timestamp=4.5))
        windows = store.around([stored[5], stored[4], stored[0], elsewhere, stored[5]], 2, 1)
        near = ["3", "4", "5", "6"]
        assert [contents(window) for window in windows] == [near, ["2", "3", "4", "5"], ["0", "1"], ["9"], near]

    def test_add_returns_the_message_as_it_is_read(self, store: Twin) -> None:
        added = store.add(say("hello", note="n"))
        assert store.get_all() == [added]
        assert added.id
        assert added.timestamp is not None
        assert added.metadata == {**SCOPE, "note": "n", "timestamp": added.timestamp, "message_id": added.id}

    def test_the_same_id_again_replaces(self, store: Twin) -> None:
        store.add_many([say("one", id="x"), say("two", id="y")])
        again = say("three", id="x", timestamp=store.get_all()[0].timestamp, note="new")
        store.add(again)
        store.add(again)
        assert contents(store.get_all()) == ["three", "two"]
        assert store.count() == 2
        assert contents(store.search("three")) == ["three"]
        assert store.search("one") == []
        assert store.get_all()[0].metadata["note"] == "new"

    def test_a_retry_neither_doubles_nor_moves_a_message(self, store: Twin) -> None:
        question, batch = say("question"), [say("late"), say("later")]
        store.add(question)
        store.add_many([batch[1], batch[0]])
        store.add(say("answer", "assistant"))
        store.add(question)
        store.add_many([batch[1], batch[0]])
        assert contents(store.get_all()) == ["question", "later", "late", "answer"]

    def test_a_replaced_message_keeps_its_place_among_equal_times(self, store: Twin) -> None:
        store.add_many([say(name, id=name, timestamp=1.0) for name in "abc"])
        store.add(say("A", id="a", timestamp=1.0))
        assert contents(store.get_all()) == ["A", "b", "c"]

    def test_the_same_id_twice_in_a_batch_is_one_message(self, store: Twin) -> None:
        store.add_many([say("old", id="x"), say("other", id="y"), say("new", id="x")])
        assert sorted(contents(store.get_all())) == ["new", "other"]

    def test_the_same_id_elsewhere_is_another_message(self, store: Twin) -> None:
        scopes = [(USER, SESSION), (USER, "session-2"), ("user-2", SESSION), (None, None), (USER, None)]
        for user, session in scopes:
            store.add(say(f"{user} {session}", user=user, session=session, id="same"))
        assert contents(store.get_all()) == [f"{user} {session}" for user, session in scopes]
        store.add(say("changed", id="same"))
        assert store.count() == len(scopes)
        assert store.count({"user_id": "user-2"}) == 1

    def test_sessions_with_their_counts(self, store: Twin) -> None:
        store.add_many([say("1", session="a", timestamp=1.0), say("2", session="b", timestamp=2.0)])
        store.add_many([say("3", session="a", timestamp=3.0), say("4", user="other", session="a", timestamp=4.0)])
        store.add(say("5", user=None, session=None, timestamp=0.5))
        found = [(s.user_id, s.session_id, s.messages, s.first, s.last) for s in store.sessions()]
        assert found == [
            ("other", "a", 1, 4.0, 4.0),
            (USER, "a", 2, 1.0, 3.0),
            (USER, "b", 1, 2.0, 2.0),
            (None, None, 1, 0.5, 0.5),
        ]
        assert [s.session_id for s in store.sessions({"user_id": USER})] == ["a", "b"]
        assert [s.messages for s in store.sessions({"timestamp": {"gt": 2.5}})] == [1, 1]
