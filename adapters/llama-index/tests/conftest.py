"""Fixtures of the tests of the LlamaIndex adapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory import Memory
from dynamiq_memory.integrations import references


@pytest.fixture
def known_memories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stores opened by URL, and names that are registered, are this test's own; the stores are closed at its end."""
    opened: dict[str, Memory] = {}
    monkeypatch.setattr(references, "_by_url", opened)
    monkeypatch.setattr(references, "_by_name", {})
    yield
    for memory in opened.values():
        memory.close()
