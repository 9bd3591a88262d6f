"""Fixtures of the tests of all adapters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory import MemoryBackend
from dynamiq_memory.backends import InMemory
from tests.conftest import child_environment, run_script

__all__ = ["child_environment", "run_script", "store"]


@pytest.fixture
def store() -> Iterator[MemoryBackend]:
    """An empty store. Since all stores pass the conformance suite, one is enough for what an adapter does."""
    with InMemory() as store:
        yield store
