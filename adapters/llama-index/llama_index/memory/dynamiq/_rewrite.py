"""Setting a session to given messages without giving those it holds already new times and ids."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from dynamiq_memory import Memory, Message
from dynamiq_memory.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.native import digest_of
from llama_index.memory.dynamiq._messages import from_message, to_message


def rewritten(stored: Sequence[Message], given: Sequence[Message]) -> list[Message]:
    """Put stored messages in the place of equal ones among those given, as far as the order allows.

    Args:
        stored: The session's messages, in order.
        given: What the session is to hold, in order.
    """
    places: dict[str, deque[int]] = {}
    for place, message in enumerate(stored):
        places.setdefault(_told(to_message(from_message(message))), deque()).append(place)
    result: list[Message] = []
    start = 0
    for message in given:
        equal = places.get(_told(message), deque())
        while equal and equal[0] < start:
            equal.popleft()
        if equal:
            start = equal[0] + 1
        result.append(stored[equal.popleft()] if equal else message)
    return result


def _told(message: Message) -> str:
    """What tells messages apart that LlamaIndex would not hold to be equal."""
    return digest_of(message) + json.dumps(message.native, sort_keys=True, default=repr)


def scope_of(session: Memory) -> dict[str, Any]:
    """What names a session alone, so that its other default filters are given to what is put there."""
    return {key: session.filters[key] for key in (SESSION_KEY, USER_KEY)}
