"""A store that counts operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dynamiq_memory.backends import InMemory
from dynamiq_memory.backends.operations import Operation


class Counting(InMemory):
    """Counts operations: each is a request or a transaction of other stores."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def execute(self, operation: Operation[Any]) -> Any:
        self.names.append(type(operation).__name__)
        return super().execute(operation)

    def counted(self, call: Callable[[], Any]) -> list[str]:
        self.names.clear()
        call()
        return [*self.names]
