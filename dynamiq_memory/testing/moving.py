"""Everything can be copied out of a store, and into it."""

from __future__ import annotations

import pytest

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.in_memory import InMemory
from dynamiq_memory.testing.base import ConformanceBase, say
from dynamiq_memory.testing.content import TEXTS, VALUES
from dynamiq_memory.transfer import copy, verify


class MovingConformance(ConformanceBase):
    """Tests of `dynamiq_memory.transfer`."""

    def test_it_is_copied_to_another_store_and_back(
        self, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("reading", "writing"):  # several batches, and sessions of several batches
            monkeypatch.setattr(f"dynamiq_memory.transfer.{module}.BATCH", 4)
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1.10}'}}
        messages = [say(text, id=f"text-{n}", timestamp=1.7e9 + n % 3) for n, text in enumerate(TEXTS)]
        messages += [
            say([{"type": "text", "text": "see"}], session="s-2", id="a", timestamp=5.5, superseded_at=7.5),
            say("", "assistant", session="s-2", id="b", timestamp=5.5, tool_calls=[call], metadata=VALUES),
            say("9:40", "tool", session="s-2", id="c", timestamp=-1.5, tool_call_id="c1", name="look"),
            say("At 9:", "assistant", session="s-2", id="d", timestamp=6.25, interrupted=True),
            say("be kind", "system", user="user-2", id="a", timestamp=1e9, native={"z": [1, None], "a": 0.1}),
        ]
        source, back = InMemory(), InMemory()
        source.add_many(messages)
        assert copy(source, backend).written == len(messages)
        assert verify(source, backend).identical
        assert copy(source, backend).unchanged == len(messages)
        later = verify(backend, source, filters={"timestamp": {"gte": 1.7e9 + 1}})
        assert (later.differences, later.messages) == ((), 6)
        assert copy(backend, back).written == len(messages)
        assert verify(back, source).identical
        assert [each.metadata for each in back.get_all()] == [each.metadata for each in source.get_all()]
