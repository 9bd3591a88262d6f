"""What all parts of the suite share."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message, MessageRole

USER = "user-1"
SESSION = "session-1"
SCOPE = {"user_id": USER, "session_id": SESSION}


class Twin:
    """Calls an object's methods, or their asynchronous twins and waits for them.

    Args:
        target: A backend or a memory.
        runner: The event loop for the asynchronous twins, or None for the synchronous methods.
    """

    def __init__(self, target: Any, runner: asyncio.Runner | None) -> None:
        """Keep both."""
        self.target = target
        self.runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the target that returns its result either way."""
        if self.runner is None:
            method: Callable[..., Any] = getattr(self.target, name)
            return method
        twin, runner = getattr(self.target, f"a{name}"), self.runner

        def call(*arguments: Any, **named: Any) -> Any:
            coroutine = twin(*arguments, **named)
            assert inspect.isawaitable(coroutine), f"a{name} must be a coroutine function"
            return runner.run(coroutine)  # type: ignore[arg-type]

        return call

    def over(self, **settings: Any) -> Twin:
        """A memory on this backend, called the same way."""
        return Twin(Memory(backend=self.target, **settings), self.runner)


class ConformanceBase:
    """The fixtures of the suite."""

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        """A fresh, empty backend; to be overridden."""
        raise NotImplementedError("override the fixture `backend` with a fresh, empty backend of yours")

    @pytest.fixture(params=["sync", "async"])
    def store(self, request: pytest.FixtureRequest, backend: MemoryBackend) -> Iterator[Twin]:
        """The backend, called synchronously and asynchronously in turn."""
        if request.param == "sync":
            yield Twin(backend, None)
            return
        with asyncio.Runner() as runner:
            yield Twin(backend, runner)


def say(
    content: str | list[dict[str, Any]] = "hello",
    role: str = "user",
    user: str | None = USER,
    session: str | None = SESSION,
    **fields: Any,
) -> Message:
    """Build a message; fields that `Message` does not have go into its metadata."""
    metadata = dict(fields.pop("metadata", {}))
    for name in [name for name in fields if name not in Message.model_fields]:
        metadata[name] = fields.pop(name)
    scope = {"user_id": user, "session_id": session}
    metadata |= {key: value for key, value in scope.items() if value is not None}
    return Message(role=MessageRole(role), content=content, metadata=metadata, **fields)


def contents(messages: Iterable[Message]) -> list[Any]:
    """The contents of messages, in order."""
    return [message.content for message in messages]
