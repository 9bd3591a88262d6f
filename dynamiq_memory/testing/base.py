"""Fixtures and helpers shared by all parts of the suite."""

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
    """Calls an object's methods, either directly or by running their asynchronous twins.

    Args:
        target: A backend or a memory.
        runner: Runs the asynchronous twins; None calls the synchronous methods.
    """

    def __init__(self, target: Any, runner: asyncio.Runner | None) -> None:
        """Create the wrapper."""
        self.target = target
        self.runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a function that calls the target's method and returns its result."""
        if self.runner is None:
            method: Callable[..., Any] = getattr(self.target, name)
            return method
        twin, runner = getattr(self.target, f"a{name}"), self.runner

        def call(*args: Any, **kwargs: Any) -> Any:
            coroutine = twin(*args, **kwargs)
            assert inspect.isawaitable(coroutine), f"a{name} must be a coroutine function"
            return runner.run(coroutine)  # type: ignore[arg-type]

        return call

    def over(self, **settings: Any) -> Twin:
        """Return a memory on this backend, called in the same way."""
        return Twin(Memory(backend=self.target, **settings), self.runner)


class ConformanceBase:
    """The fixtures of the suite."""

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        """A fresh, empty backend. Subclasses must override this fixture."""
        raise NotImplementedError("override the `backend` fixture with a fresh, empty backend")

    @pytest.fixture(params=["sync", "async"])
    def store(self, request: pytest.FixtureRequest, backend: MemoryBackend) -> Iterator[Twin]:
        """The backend, called synchronously in one run and asynchronously in the other."""
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
    """Create a message. Arguments that are not fields of `Message` go into its metadata."""
    metadata = dict(fields.pop("metadata", {}))
    for name in [name for name in fields if name not in Message.model_fields]:
        metadata[name] = fields.pop(name)
    scope = {"user_id": user, "session_id": session}
    metadata |= {key: value for key, value in scope.items() if value is not None}
    return Message(role=MessageRole(role), content=content, metadata=metadata, **fields)


def contents(messages: Iterable[Message]) -> list[Any]:
    """Return the contents of messages, in order."""
    return [message.content for message in messages]
