"""The conformance suite for a custom backend with only the three required methods."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import MemoryBackend
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import views
from dynamiq_memory.testing import MemoryBackendConformance
from tests.conformance.calls import Async, Sync


class ListBackend(MemoryBackend):
    """A list and a lock."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._messages: list[Message] = []

    def _write(self, messages: Sequence[Message]) -> None:
        with self._lock:
            for message in messages:
                for number, present in enumerate(self._messages):
                    if _key(present) == _key(message):
                        self._messages[number] = message
                        break
                else:
                    self._messages.append(message)

    def _read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        with self._lock:
            order = sorted(self._messages, key=lambda message: message.timestamp or 0.0)
        keys = [_key(message) for message in order]
        start = keys.index(_key(after)) + 1 if after is not None else 0
        stop = keys.index(_key(before)) if before is not None else len(order)
        found = [message for message in order[start:stop] if where.matches(message)]
        if limit is not None:
            found = found[:limit] if after is not None else found[-limit:]
        return views(found)

    def _delete(self, where: Filter) -> int:
        with self._lock:
            left = [message for message in self._messages if not where.matches(message)]
            deleted = len(self._messages) - len(left)
            self._messages = left
        return deleted

    def _after_fork(self) -> None:
        super()._after_fork()
        self._lock = threading.Lock()


def _key(message: Message) -> tuple[str | None, str | None, str]:
    return (message.user_id, message.session_id, message.id)


class Lists:
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with ListBackend() as backend:
            yield backend


class TestListBackend(Lists, Sync, MemoryBackendConformance):
    stateful_examples = 8


class TestListBackendAsync(Lists, Async):
    pass
