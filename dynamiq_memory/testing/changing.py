"""Updating and taking stored messages, including by several callers at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Barrier

import pytest

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.messages import Message
from dynamiq_memory.testing.base import SCOPE, ConformanceBase, Twin, contents, say

_CALLERS = 4


def _changed(message: Message, content: str, **metadata: object) -> Message:
    return message.model_copy(update={"content": content, "metadata": {**message.metadata, **metadata}})


class ChangingConformance(ConformanceBase):
    """Tests of `update` and `take`."""

    def test_an_update_keeps_the_place(self, store: Twin) -> None:
        first, second, third = store.add_many([say("apple"), say("pear"), say("plum")])
        updated = store.update([_changed(second, "cherry", n=1)])
        assert contents(updated) == ["cherry"]
        assert contents(store.get_all()) == ["apple", "cherry", "plum"]
        assert [message.id for message in store.get_all()] == [first.id, second.id, third.id]
        assert store.get_all(filters={"n": 1}) == updated
        assert store.search("pear") == []
        assert contents(store.search("cherry")) == ["cherry"]

    def test_an_update_brings_nothing_back(self, store: Twin) -> None:
        gone, kept = store.add_many([say("gone"), say("kept")])
        store.clear({"message_id": gone.id})
        assert contents(store.update([_changed(gone, "back"), _changed(kept, "new")])) == ["new"]
        assert contents(store.get_all()) == ["new"]
        assert store.update([_changed(gone, "back")]) == []
        assert store.update([]) == []

    def test_an_update_stays_in_its_session(self, store: Twin) -> None:
        own = store.add(say("own", user="u1", session="s1"))
        others = store.add_many(
            [say("other", user=user, session=session) for user, session in (("u1", "s2"), (None, "s1"))]
        )
        for other in others:
            moved = _changed(own, "moved", **{key: other.metadata.get(key) for key in ("user_id", "session_id")})
            assert store.update([moved]) == []
        assert contents(store.get_all()) == ["own", "other", "other"]
        assert contents(store.update([_changed(others[1], "nobody's"), _changed(own, "mine")])) == ["nobody's", "mine"]

    def test_an_update_can_be_narrowed_to_what_is_as_it_was(self, store: Twin) -> None:
        one, two = store.add_many([say("1", state="new"), say("2", state="new")])
        claimed = [_changed(message, message.text, state="claimed") for message in (one, two)]
        assert store.update(claimed[:1], {"state": "new"}) == store.get_all(filters={"state": "claimed"})
        assert contents(store.update(claimed, {"state": "new"})) == ["2"]
        assert store.update(claimed, {"state": "new"}) == []
        assert store.count({"state": "claimed"}) == 2

    def test_take_deletes_and_returns(self, store: Twin) -> None:
        stored = store.add_many([say(f"{n}", n=n % 2, session=f"s{n % 3}") for n in range(6)])
        assert store.take({"n": 1}) == [stored[1], stored[3], stored[5]]
        assert store.take({"n": 1}) == []
        assert store.get_all() == [stored[0], stored[2], stored[4]]
        assert store.take({"message_id": [stored[4].id, stored[0].id], "session_id": "s0"}) == [stored[0]]
        assert contents(store.take({})) == ["2", "4"]
        assert store.is_empty()

    def test_of_many_who_take_one_gets_each_message(self, backend: MemoryBackend) -> None:
        backend.add_many([say(f"{n}") for n in range(20)])
        _expect_each_once(lambda _: backend.take(SCOPE))

    def test_of_many_who_claim_one_gets_each_message(self, backend: MemoryBackend) -> None:
        if not backend.capabilities.transactions:
            pytest.skip("the store has no transactions")
        stored = backend.add_many([say(f"{n}") for n in range(20)])
        _expect_each_once(lambda number: backend.update([_changed(m, m.text, by=number) for m in stored], {"by": None}))


def _expect_each_once(call: Callable[[int], list[Message]]) -> None:
    """Call a function by several threads at once, which must return each of 20 messages to one of them."""
    start = Barrier(_CALLERS)

    def call_at_once(number: int) -> list[str]:
        start.wait()
        return contents(call(number))

    with ThreadPoolExecutor(_CALLERS) as pool:
        results = list(pool.map(call_at_once, range(_CALLERS)))
    assert sorted(chain.from_iterable(results), key=int) == [f"{n}" for n in range(20)]
