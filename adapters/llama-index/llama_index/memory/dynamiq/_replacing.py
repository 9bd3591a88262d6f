"""Replacing the messages of a session; messages that are stored already keep their times and ids."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from dynamiq_memory import Memory, Message
from dynamiq_memory.integrations.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.integrations.native import digest_of
from dynamiq_memory.integrations.plans import Plan, ReplaceMessages, get_conversation
from llama_index.memory.dynamiq._messages import from_message, to_message, to_messages


def set_messages(session: Memory, messages: Any) -> Plan[None]:
    """Make a session contain exactly these messages; a plan over the session's memory."""
    given = to_messages(messages)
    stored = yield from get_conversation()
    yield from ReplaceMessages(scope_of(session), keep_stored(stored, given))


def keep_stored(stored: Sequence[Message], given: Sequence[Message]) -> list[Message]:
    """Use stored messages instead of equal ones among those given, as far as their order allows.

    Args:
        stored: The session's messages, in order.
        given: The messages that the session is to contain, in order.
    """
    places: dict[str, deque[int]] = {}
    for place, message in enumerate(stored):
        places.setdefault(_identity(to_message(from_message(message))), deque()).append(place)
    result: list[Message] = []
    start = 0
    for message in given:
        equal = places.get(_identity(message), deque())
        while equal and equal[0] < start:
            equal.popleft()
        if equal:
            start = equal[0] + 1
        result.append(stored[equal.popleft()] if equal else message)
    return result


def scope_of(session: Memory) -> dict[str, Any]:
    """The filters that name a session; messages that replace it are given the other default filters too."""
    return {key: session.filters[key] for key in (SESSION_KEY, USER_KEY)}


def _identity(message: Message) -> str:
    """A text that differs for messages that LlamaIndex would not consider equal."""
    return digest_of(message) + json.dumps(message.native, sort_keys=True, default=repr)
