"""Closing, capabilities and descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.exceptions import BackendError, InvalidArgumentError
from dynamiq_memory.memory import Memory
from dynamiq_memory.testing.base import SCOPE, ConformanceBase, Twin, say


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

    def test_wrong_arguments_change_nothing(self, store: Twin) -> None:
        """`MemoryBackend` checks all arguments; a backend that overrides a public method must check them too."""
        wrong = store.add(say()).model_copy(update={"metadata": {"k": object()}})
        calls: list[Callable[[], Any]] = [store.delete, lambda: store.add_many(["text"])]
        calls += [lambda: store.add_many([say(), wrong]), lambda: store.update([wrong])]
        calls += [lambda: store.search(7), lambda: store.clear({"k": {}})]
        calls += [lambda: store.replace({"n": 1}, []), lambda: store.replace(SCOPE, [say(user="other")])]
        for call in calls:
            with pytest.raises(InvalidArgumentError):
                call()
        assert store.count() == 1
