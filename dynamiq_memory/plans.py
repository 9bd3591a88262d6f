"""Logic over a backend, written once for sync and async callers.

A plan is a generator that yields the backend calls it needs and is sent their results; `run` and `arun` carry it
out. What decides is then in one place, and neither side is a copy of the other.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from dynamiq_memory.backends.base import MemoryBackend
    from dynamiq_memory.memory import Memory
    from dynamiq_memory.messages import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a backend's method."""

    method: str
    arguments: Mapping[str, Any]


Plan = Generator[Call, Any, T]


def run(backend: MemoryBackend | Memory, plan: Plan[T]) -> T:
    """Carry out a plan with the synchronous methods of a backend (or of a memory, for plans over one)."""
    result: Any = None
    while True:
        try:
            call = plan.send(result)
        except StopIteration as done:
            return cast("T", done.value)
        result = getattr(backend, call.method)(**call.arguments)


async def arun(backend: MemoryBackend | Memory, plan: Plan[T]) -> T:
    """Carry out a plan with the asynchronous methods of a backend (or of a memory, for plans over one)."""
    result: Any = None
    while True:
        try:
            call = plan.send(result)
        except StopIteration as done:
            return cast("T", done.value)
        result = await getattr(backend, f"a{call.method}")(**call.arguments)


def read(
    filters: Mapping[str, Any], limit: int | None, *, before: Message | None = None, after: Message | None = None
) -> Plan[list[Message]]:
    """Read the latest messages, or those beside a stored one."""
    arguments = {"filters": filters, "limit": limit, "before": before, "after": after}
    return cast("list[Message]", (yield Call("get_all", arguments)))


def search(query: str, filters: Mapping[str, Any], limit: int | None) -> Plan[list[Message]]:
    """Rank messages."""
    return cast("list[Message]", (yield Call("search", {"query": query, "filters": filters, "limit": limit})))


def around(
    anchors: Sequence[Message], before: int, after: int, filters: Mapping[str, Any]
) -> Plan[list[list[Message]]]:
    """Read the neighbours of messages."""
    arguments = {"anchors": anchors, "before": before, "after": after, "filters": filters}
    return cast("list[list[Message]]", (yield Call("around", arguments)))
