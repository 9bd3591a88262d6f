"""What InMemory looks at: never more than the scope needs."""

from __future__ import annotations

from typing import Any

import pytest

from dynamiq_memory import Memory
from dynamiq_memory.backends import InMemory
from dynamiq_memory.backends.in_memory import conversations
from dynamiq_memory.testing import say

FILTERS = [{}, {"user_id": "u3"}, {"user_id": "u3", "session_id": "s"}, {"kind": "a"}, {"user_id": "u3", "kind": "a"}]


class Counting(dict[Any, Any]):
    """The conversations by scope; counts how many are looked at."""

    looked_at = 0

    def __getitem__(self, scope):
        self.looked_at += 1
        return super().__getitem__(scope)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_is_empty_looks_at_the_first_message(filters, monkeypatch):
    store = InMemory()
    store.add_many([say(f"{n}", user=f"u{n % 40}", session="s", kind="a") for n in range(400)])
    store._conversations._by_scope = Counting(store._conversations._by_scope)
    matched = []
    matches = conversations.Filter.matches
    monkeypatch.setattr(conversations.Filter, "matches", lambda *args: matched.append(1) or matches(*args))
    assert not Memory(backend=store, filters=filters).is_empty()
    assert store._conversations._by_scope.looked_at == 1
    assert len(matched) == 1


def test_counting_everything_looks_at_no_conversation():
    store = InMemory()
    store.add_many([say(f"{n}", user=f"u{n % 40}", session="s") for n in range(400)])
    store.delete(user_id="u7")
    store._conversations._by_scope = Counting(store._conversations._by_scope)
    assert store.count() == 390
    assert store._conversations._by_scope.looked_at == 0
    assert store.count({"user_id": "u8"}) == 10
