"""Fixtures of the tests of the LangChain adapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory import Memory, MemoryBackend
from dynamiq_memory.integrations import references


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's settings of LangSmith must not send the tests' runs anywhere."""
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store)


@pytest.fixture
def shared_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stores opened by URL are this test's own, and closed at its end."""
    opened: dict[str, Memory] = {}
    monkeypatch.setattr(references, "_by_url", opened)
    yield
    for memory in opened.values():
        memory.close()
