"""Setting a session to given messages without giving those it holds already new times and ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamiq_memory import Memory, Message
from dynamiq_memory.messages import SESSION_KEY, USER_KEY
from llama_index.memory.dynamiq._messages import from_message


def rewritten(stored: Sequence[Message], given: Sequence[Message]) -> list[Message]:
    """Put stored messages in the place of equal ones among those given, as far as the order allows.

    Args:
        stored: The session's messages, in order.
        given: What the session is to hold, in order.
    """
    result: list[Message] = []
    told = [from_message(message) for message in stored]
    start = 0
    for message in given:
        wanted = from_message(message)
        place = next((place for place in range(start, len(stored)) if told[place] == wanted), None)
        if place is None:
            result.append(message)
        else:
            result.append(stored[place])
            start = place + 1
    return result


def scope_of(session: Memory) -> dict[str, Any]:
    """What names a session alone, so that its other default filters are given to what is put there."""
    return {key: session.filters[key] for key in (SESSION_KEY, USER_KEY)}
