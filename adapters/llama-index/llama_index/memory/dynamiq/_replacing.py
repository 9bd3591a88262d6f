"""Replacing the messages of a session; messages that are stored already keep their times and ids."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from dynamiq_memory import Memory, Message
from dynamiq_memory.integrations.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.integrations.plans import AddMany, Plan, ReplaceMessages, UpdateMany, get_conversation
from dynamiq_memory.integrations.turns import as_stored
from llama_index.memory.dynamiq._messages import (
    from_message,
    identity,
    identity_of_given,
    in_groups,
    to_message,
    to_messages,
)


def set_messages(session: Memory, messages: Any) -> Plan[None]:
    """Make a session contain exactly these messages; a plan over the session's memory."""
    given = to_messages(messages)
    stored = yield from get_conversation()
    plain = as_stored(session, given, stored)
    given = [one if one is other else to_message(from_message(one)) for one, other in zip(plain, given, strict=True)]
    yield from ReplaceMessages(scope_of(session), keep_stored(stored, given))


def keep_stored(stored: Sequence[Message], given: Sequence[Message]) -> list[Message]:
    """Use stored messages instead of equal ones among those given, as far as their order allows.

    A stored message that LlamaIndex reads as several is used where all of these come one after the other.

    Args:
        stored: The session's messages, in order.
        given: The messages that the session is to contain, in order, as `to_message` returned them.
    """
    identities = [[identity(part) for part in group] for group in in_groups(stored)]
    places: dict[str, deque[int]] = {}
    for number, parts in enumerate(identities):
        places.setdefault(parts[0], deque()).append(number)
    wanted = [identity_of_given(message.native) for message in given]
    result: list[Message] = []
    start = position = 0
    while position < len(given):
        equal = places.get(wanted[position], deque())
        while equal and equal[0] < start:
            equal.popleft()
        same = (one for one in equal if identities[one] == wanted[position : position + len(identities[one])])
        place = next(same, None)
        if place is None:
            result.append(given[position])
            position += 1
        else:
            result.append(stored[place])
            position += len(identities[place])
            start = place + 1
    return result


def store_apart(parts: Sequence[Message], session: Sequence[Message]) -> Plan[None]:
    """Store a message as the several that LlamaIndex reads it as; a plan over the session's memory.

    They have the message's time and arrive now, so those of that time that follow it are moved by the least possible.

    Args:
        parts: The messages; the first has the id of the stored one.
        session: The session's messages, in order.
    """
    last = parts[0].timestamp or 0.0
    place = next(place for place, message in enumerate(session) if message.id == parts[0].id)
    moved: list[Message] = []
    for message in session[place + 1 :]:
        if (message.timestamp or 0.0) > last:
            break
        last = math.nextafter(last, math.inf)
        moved.append(message.model_copy(update={"timestamp": last}))
    if moved:
        yield from UpdateMany(moved)
    yield from AddMany(parts)


def scope_of(session: Memory) -> dict[str, Any]:
    """The filters that name a session; messages that replace it are given the other default filters too."""
    return {key: session.filters[key] for key in (SESSION_KEY, USER_KEY)}
