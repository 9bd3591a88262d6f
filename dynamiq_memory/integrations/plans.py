"""Logic over a `Memory`, written once for sync and async.

A plan (see `dynamiq_memory.backends.plans`) yields these steps, and `run` and `arun` carry it out:

    def add(message: Message) -> Plan[None]:
        latest = yield from GetAll(limit=1)
        set_batch_times([message], after=latest)
        yield from AddMany([message])

    run(memory, add(message))
    await arun(memory, add(message))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dynamiq_memory.backends import plans
from dynamiq_memory.backends._threads import computed
from dynamiq_memory.backends.plans import Plan, Step
from dynamiq_memory.conversation.placement import Placement
from dynamiq_memory.conversation.revisions import current
from dynamiq_memory.conversation.strategies import Explanation, MemoryRetrievalStrategy
from dynamiq_memory.conversation.windows import Window
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message

__all__ = [
    "AddMany",
    "ExplainAgentConversation",
    "GetAgentConversation",
    "GetAll",
    "GetEverything",
    "Plan",
    "ReplaceMessages",
    "Take",
    "UpdateMany",
    "arun",
    "computed",
    "get_conversation",
    "get_latest",
    "get_latest_page",
    "run",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GetAll(Step[list[Message]]):
    """`Memory.get_all`."""

    limit: int | None = None
    filters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GetEverything(Step[list[Message]]):
    """All messages that match the memory's default filters and the given ones, however many they are."""

    filters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Choosing(Step[T]):
    """The arguments of both ways to ask for an agent's conversation."""

    query: str | None = None
    limit: int | None = None
    filters: Mapping[str, Any] | None = None
    strategy: MemoryRetrievalStrategy = MemoryRetrievalStrategy.ALL
    max_tokens: int | None = None
    window: Window | None = None
    placement: Placement | None = None


class GetAgentConversation(_Choosing[list[Message]]):
    """`Memory.get_agent_conversation`."""

    __slots__ = ()


class ExplainAgentConversation(_Choosing[Explanation]):
    """`Memory.explain_agent_conversation`, for adapters that hold the question themselves."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AddMany(Step[list[Message]]):
    """`Memory.add_many`."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class UpdateMany(Step[list[Message]]):
    """Store new versions of messages that still exist; see `MemoryBackend.update`."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class ReplaceMessages(Step[list[Message]]):
    """`Memory.replace_messages`."""

    filters: Mapping[str, Any]
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Take(Step[list[Message]]):
    """Delete matching messages and return them, oldest first. The memory's default filters do not apply."""

    filters: Mapping[str, Any]


def get_latest(count: int) -> Plan[list[Message]]:
    """Read the latest messages of the conversation, without superseded ones.

    Args:
        count: Maximum number of messages, 1 or more.
    """
    return (yield from get_latest_page(count))[0]


def get_latest_page(count: int) -> Plan[tuple[list[Message], bool]]:
    """Read the latest messages of the conversation, and find out whether these are all that it has.

    Args:
        count: Maximum number of messages, 1 or more.

    Returns:
        The messages, without superseded ones; and whether the conversation has no other, nor superseded ones.
    """
    size = count
    while True:
        page = yield from GetAll(size)
        found = current(page)
        if len(page) < size or len(found) >= count:
            return found[-count:], len(found) == len(page) < size
        size *= 4


def get_conversation() -> Plan[list[Message]]:
    """Read all messages of the conversation, without superseded ones."""
    return current((yield from GetEverything()))


def run(memory: Memory, plan: Plan[T]) -> T:
    """Carry out a plan.

    Args:
        memory: The memory that the plan reads and writes.
        plan: The plan.
    """
    return plans.run(plan, partial(_perform, memory))


async def arun(memory: Memory, plan: Plan[T], given: Any = None) -> T:
    """Carry out a plan asynchronously.

    What the plan does with many messages, or with long ones, it does in a thread, not to hold up the event loop.

    Args:
        memory: The memory that the plan reads and writes.
        plan: The plan.
        given: The data of its first steps, such as messages of the framework.
    """
    return await plans.arun(plan, partial(_aperform, memory), given=given)


def _perform(memory: Memory, step: Step[Any]) -> Any:
    match step:
        case GetAll(limit, filters):
            return memory.get_all(limit, filters)
        case GetEverything(filters):
            return memory.backend.get_all(None, {**memory.filters, **(filters or {})})
        case GetAgentConversation(query, limit, filters, strategy, max_tokens, window, placement):
            return memory.get_agent_conversation(query, limit, filters, strategy, max_tokens, window, placement)
        case ExplainAgentConversation(query, limit, filters, strategy, max_tokens, window, placement):
            return memory.explain_agent_conversation(query, limit, filters, strategy, max_tokens, window, placement)
        case AddMany(messages):
            return memory.add_many(messages)
        case UpdateMany(messages):
            return memory.backend.update(messages)
        case ReplaceMessages(filters, messages):
            return memory.replace_messages(filters, messages)
        case Take(filters):
            return memory.backend.take(filters)
    raise _unknown(step)


async def _aperform(memory: Memory, step: Step[Any]) -> Any:
    match step:
        case GetAll(limit, filters):
            return await memory.aget_all(limit, filters)
        case GetEverything(filters):
            return await memory.backend.aget_all(None, {**memory.filters, **(filters or {})})
        case GetAgentConversation(query, limit, filters, strategy, max_tokens, window, placement):
            return await memory.aget_agent_conversation(query, limit, filters, strategy, max_tokens, window, placement)
        case ExplainAgentConversation(query, limit, filters, strategy, max_tokens, window, placement):
            return await memory.aexplain_agent_conversation(
                query, limit, filters, strategy, max_tokens, window, placement
            )
        case AddMany(messages):
            return await memory.aadd_many(messages)
        case UpdateMany(messages):
            return await memory.backend.aupdate(messages)
        case ReplaceMessages(filters, messages):
            return await memory.areplace_messages(filters, messages)
        case Take(filters):
            return await memory.backend.atake(filters)
    raise _unknown(step)


def _unknown(step: Step[Any]) -> TypeError:
    return TypeError(f"{step!r} is not a step of a plan over a Memory")
