"""One backend for all tests of a class."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dynamiq_memory.backends import MemoryBackend


class Reused:
    """Clears one backend before each test, since opening one takes longer than most tests.

    A subclass has a fixture `open_backend`, which returns a function that opens the backend.
    """

    @pytest.fixture
    def backend(self, opened: list[MemoryBackend], open_backend: Callable[[], MemoryBackend]) -> MemoryBackend:
        """An empty backend."""
        if not opened or opened[-1].is_closed:
            opened.append(open_backend())
        opened[-1].clear()
        return opened[-1]
