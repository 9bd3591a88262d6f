"""Closing, capabilities and descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.memory import Memory
from dynamiq_memory.testing.base import ConformanceBase, Twin, contents, say


class LifecycleConformance(ConformanceBase):
    """Tests of closing, capabilities, descriptions and argument errors."""

    def test_a_closed_backend_says_so(self, store: Twin) -> None:
        store.add(say())
        store.close()
        store.close()
        calls: list[Callable[[], Any]] = [store.get_all, store.count, store.clear]
        calls += [lambda: store.search("x"), lambda: store.add(say())]
        for call in calls:
            with pytest.raises(BackendError, match="closed"):
                call()

    def test_context_managers_close(self, backend: MemoryBackend) -> None:
        with Memory(backend=backend) as memory:
            memory.add("user", "hello")
            assert contents(memory.get_all()) == ["hello"]
        with pytest.raises(BackendError, match="closed"):
            memory.get_all()

    def test_every_backend_ranks(self, backend: MemoryBackend) -> None:
        capabilities = backend.capabilities
        assert isinstance(capabilities, Capabilities)
        assert capabilities.keyword or capabilities.vector
        assert capabilities.hybrid == (capabilities.keyword and capabilities.vector)
        assert capabilities.max_message_bytes is None or capabilities.max_message_bytes > 1000

    def test_it_describes_itself_without_messages(self, backend: MemoryBackend) -> None:
        backend.add(say("a secret of the user"))
        for description in (backend.to_dict(), Memory(backend=backend).to_dict()):
            assert "secret" not in json.dumps(description)
        assert "secret" not in repr(backend)
        assert backend.name
        assert backend.to_dict()["name"] == backend.name

    def test_messages_must_be_messages(self, store: Twin) -> None:
        wrong: Any
        for wrong in ([{"role": "user", "content": "x"}], ["text"], [None]):
            with pytest.raises(ValueError, match="Message"):
                store.add_many(wrong)
        for wrong in (say(), "text", {"role": "user"}):
            with pytest.raises(ValueError, match="list"):
                store.add_many(wrong)
        assert store.is_empty()
