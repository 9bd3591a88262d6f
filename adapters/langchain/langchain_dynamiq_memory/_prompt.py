"""The conversation that a model is given: recalled messages and those in the agent's state, in one order."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any, cast

from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from dynamiq_memory import Message, MessageRole
from dynamiq_memory.integrations.interruptions import mark_interrupted, with_open_calls
from dynamiq_memory.integrations.turns import begins_turn, opening_turn, whole_turns
from langchain_dynamiq_memory._messages import for_model, outline
from langchain_dynamiq_memory._transcript import is_summary

# Describing this many messages would hold the event loop for some ten milliseconds.
_MANY = 256


@dataclass(frozen=True, slots=True)
class Held:
    """Facts about the messages in an agent's state.

    Attributes:
        scope: The user_id and session_id.
        stored: The stored messages that it has, by the `id()` of its objects.
        has_gaps: Whether the session has messages between them.
        answered: As for `whole_turns`.
        questions: As for `whole_turns`.
        last: The last of its messages that is stored; None if none is.
        opens: Whether it has the session's first message, and that is an assistant's.
    """

    scope: Mapping[str, Any]
    stored: Mapping[int, Message]
    has_gaps: bool
    answered: Collection[str]
    questions: Mapping[str, str]
    last: Message | None
    opens: bool = False


def with_recalled(request: ModelRequest[Any], recalled: Sequence[Message], block: str, held: Held) -> ModelRequest[Any]:
    """Merge recalled messages into the conversation, in the order of the store and in whole turns.

    What was cut off says so.

    Args:
        request: The request, with the conversation as the agent has it.
        recalled: Recalled messages that it lacks, in their order.
        block: Text in front of the user's last question; empty if there is none.
        held: The conversation as far as it is known.
    """
    merged = _with_merged(request, recalled, held)
    if not block:
        return merged
    return merged.override(messages=cast("list[AnyMessage]", _with_block(merged.messages, block)))


async def awith_recalled(
    request: ModelRequest[Any], recalled: Sequence[Message], block: str, held: Held
) -> ModelRequest[Any]:
    """Merge recalled messages into the conversation; in a thread if it is long, not to hold the event loop."""
    if len(request.messages) <= _MANY:
        return with_recalled(request, recalled, block, held)
    return await asyncio.to_thread(with_recalled, request, recalled, block, held)


def is_question(message: BaseMessage) -> bool:
    """Whether a message is a user's own words, and not the result of a call or a summary."""
    if not isinstance(message, HumanMessage) or is_summary(message):
        return False
    content = message.content
    parts = content if isinstance(content, str) else [part for part in content if isinstance(part, dict)]
    return parts != [] and begins_turn(Message(role=MessageRole.USER, content=parts))


def greeting_of(state: Sequence[BaseMessage]) -> AIMessage | None:
    """Return what the assistant says at the beginning of a state, after any instructions."""
    first = next((message for message in state if not isinstance(message, SystemMessage)), None)
    return first if isinstance(first, AIMessage) and not first.tool_calls else None


def _with_block(messages: Sequence[BaseMessage], block: str) -> list[BaseMessage]:
    place = next((place for place in reversed(range(len(messages))) if is_question(messages[place])), None)
    if place is None:  # other middleware has taken the question out of the request
        return [*messages, HumanMessage(block)]
    content = messages[place].content
    part = {"type": "text", "text": block}
    longer: str | list[Any] = f"{block}\n\n{content}" if isinstance(content, str) else [part, *content]
    question = messages[place].model_copy(update={"content": longer})
    return [*messages[:place], question, *messages[place + 1 :]]


def _with_merged(request: ModelRequest[Any], recalled: Sequence[Message], held: Held) -> ModelRequest[Any]:
    messages = list(request.messages)
    start = next((place for place, m in enumerate(messages) if not isinstance(m, SystemMessage)), len(messages))
    own = messages[start:]
    cut_off = any(message.interrupted for message in held.stored.values())
    if not recalled and not held.has_gaps and not cut_off and _is_whole(own):
        return request
    instructions = [message for message in recalled if message.role is MessageRole.SYSTEM]
    others = [message for message in recalled if message.role is not MessageRole.SYSTEM]
    outlines = [outline(message, held.scope, held.stored.get(id(message))) for message in own]
    mark_interrupted(with_open_calls(outlines))
    originals = {message.id: (message, one) for message, one in zip(outlines, own, strict=True)}
    summaries = sum(1 for _ in takewhile(is_summary, own))
    line = opening_turn(outlines[summaries:]).messages[:1] if held.opens else []
    merged = [*outlines[:summaries], *line, *_merged(others, outlines[summaries:])]
    whole = whole_turns(merged, held.answered, held.questions)
    given = [_original(message, originals) for message in whole]
    conversation = [*messages[:start], *for_model(instructions), *(each for some in given for each in some)]
    return request.override(messages=cast("list[AnyMessage]", conversation))


def _is_whole(messages: Sequence[BaseMessage]) -> bool:
    """Whether a conversation begins with a question, and each call has its result after it, by its id."""
    if messages and not isinstance(messages[0], HumanMessage):
        return False
    waiting: set[str | None] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                return False
            waiting.remove(message.tool_call_id)
        elif waiting or not isinstance(message.content, str):
            return False
        elif isinstance(message, AIMessage):
            waiting = {call["id"] for call in message.tool_calls}
            if len(waiting) < len(message.tool_calls) or message.invalid_tool_calls:
                return False
    return not waiting


def _merged(recalled: Sequence[Message], held: Sequence[Message]) -> list[Message]:
    waiting = deque(recalled)
    times = [math.inf if message.timestamp is None else message.timestamp for message in held]
    # What is new comes last; an unknown message before known ones is as old as these.
    untils = list(accumulate(reversed(times), min))[::-1]
    merged: list[Message] = []
    for message, until in zip(held, untils, strict=True):
        while waiting and (waiting[0].timestamp or 0.0) < until:
            merged.append(waiting.popleft())
        merged.append(message)
    return [*merged, *waiting]


def _original(message: Message, held: Mapping[str, tuple[Message, BaseMessage]]) -> list[BaseMessage]:
    """Return the state's own message, or the recalled one as the model is given it."""
    if message.id not in held:
        return for_model([message])
    outline_, original = held[message.id]
    if message is outline_:
        return [original]
    # Some of its calls or results were left out.
    changed: dict[str, Any] = {"content": message.content}
    if isinstance(original, AIMessage):
        kwargs = {key: value for key, value in original.additional_kwargs.items() if key != "tool_calls"}
        changed |= {"tool_calls": [], "invalid_tool_calls": [], "additional_kwargs": kwargs}
    return [original.model_copy(update=changed)]
