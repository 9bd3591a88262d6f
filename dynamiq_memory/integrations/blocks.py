"""Calls of tools and their results that another framework, or the caller, stored as blocks of content.

Providers write these in their own ways (see `dynamiq_memory.conversation.calls`), and a framework reads only its own.
So an adapter converts a message that its framework did not write by canonical fields only: `tool_calls`, and a message
of the tool for each result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynamiq_memory._blocks import Call, block_call, block_result, calls_in, kind_of
from dynamiq_memory._openai import content_parts
from dynamiq_memory.conversation.calls import calls_of, calls_without_ids, made_id, split_results
from dynamiq_memory.conversation.turns import pair_results
from dynamiq_memory.integrations.native import unpack
from dynamiq_memory.messages import MESSAGE_ID_KEY, Message, MessageRole, Scope, scope_of

__all__ = ["in_fields"]

_Place = tuple[int, int]


def in_fields(messages: Iterable[Message], framework: str) -> list[list[Message]]:
    """Give messages that other frameworks wrote the calls and results of their blocks in canonical fields.

    A message with results becomes one of the tool for each, followed by one with what the user says beside them. The
    first has the message's id; the others have ids made of it, which are always the same. All have its time, so a store
    keeps them in this order. Calls without an id, or with one that is not unique within their message, get one; results
    get the id and the name of their call, if it is among the messages.

    Args:
        messages: Stored messages in order; not changed.
        framework: The framework that reads. Messages that it wrote itself or without such blocks stay the same objects.

    Returns:
        For each message, what it becomes: at least one message.
    """
    given = list(messages)
    foreign = {place for place, one in enumerate(given) if _has_blocks(one) and unpack(framework, one) is None}
    groups = [_split(one) if place in foreign else [one] for place, one in enumerate(given)]
    sessions: dict[Scope, list[_Place]] = {}
    for place in range(len(given)) if foreign else ():
        parts = [(place, number) for number in range(len(groups[place]))]
        sessions.setdefault(scope_of(given[place]), []).extend(parts)
    for places in sessions.values():
        _pair(groups, places, foreign)
    for place in foreign:
        groups[place] = list(map(_with_plain_content, groups[place]))
    return groups


def _has_blocks(message: Message) -> bool:
    if any(isinstance(call.get("custom"), Mapping) for call in message.tool_calls or ()):
        return True
    return not isinstance(message.content, str) and any(
        block_call(part) is not None or block_result(part) is not None or _is_untyped_text(part)
        for part in message.content
    )


def _is_untyped_text(part: Mapping[str, Any]) -> bool:
    """Whether a part is text as Gemini has it."""
    return kind_of(part) is None and isinstance(part.get("text"), str)


def _split(message: Message) -> list[Message]:
    first, *others = split_results(message)
    return [first, *(_with_id(part, f"{message.id}/{number}") for number, part in enumerate(others, 1))]


def _with_id(message: Message, id_: str) -> Message:
    metadata = {**message.metadata, MESSAGE_ID_KEY: id_} if MESSAGE_ID_KEY in message.metadata else message.metadata
    return message.model_copy(update={"id": id_, "metadata": metadata})


def _pair(groups: list[list[Message]], places: Sequence[_Place], foreign: set[int]) -> None:
    """Move the calls of one session into fields, and name them in their results."""
    messages = [groups[place][number] for place, number in places]
    ids: dict[_Place, str] = {}
    for position, message in enumerate(messages):
        place, part = places[position]
        if place in foreign and calls_of(message):
            made = {number: made_id(message, number) for number in calls_without_ids(message)}
            ids |= {(position, number): id_ for number, id_ in made.items()}
            calls = enumerate(calls_in(message.tool_calls, message.content))
            fields = [_in_chat_shape(call, made.get(number, call.id)) for number, call in calls]
            groups[place][part] = message.model_copy(update={"tool_calls": fields})
    for position, call_place in pair_results(messages).items():
        place, part = places[position]
        result = messages[position]
        if result.role is MessageRole.TOOL and (place in foreign or call_place in ids):
            call = calls_of(messages[call_place[0]])[call_place[1]]
            named = {
                "tool_call_id": ids.get(call_place, call.id) or result.tool_call_id,
                "name": result.name or call.name or None,
            }
            groups[place][part] = result.model_copy(update=named)


def _in_chat_shape(call: Call, id_: str) -> dict[str, Any]:
    """A call in OpenAI's shape. Free text is an argument, since frameworks take JSON objects only."""
    arguments = {"input": call.arguments or ""} if call.is_free_text else call.arguments or {}
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return {"id": id_, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _with_plain_content(message: Message) -> Message:
    """Copy a message with parts in OpenAI's shape, as far as there is one, and without its calls."""
    if isinstance(message.content, str):
        return message
    is_calling = message.role is MessageRole.ASSISTANT
    kept = [part for part in message.content if not (is_calling and block_call(part) is not None)]
    content = [each for part in kept for each in content_parts(part, message.role.value)]
    return message.model_copy(update={"content": content or ""})
