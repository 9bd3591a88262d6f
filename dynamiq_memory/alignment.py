"""What of a conversation that a framework holds is in the store already.

For adapters of frameworks that hand over the whole conversation at each turn: only what is new is to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from dynamiq_memory.messages import MESSAGE_ID_KEY, Message, MessageRole
from dynamiq_memory.plans import Call, Plan
from dynamiq_memory.saving import MemorySaveMode, select_to_save

_PAGE = 32
_MOST_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the held conversation stands to the stored one.

    Attributes:
        stored: How many of the held messages, from the first on, are stored or older than one that is.
        first: The earliest held message that is stored, as stored; None if none is.
        taken: Ids of held messages that another, older message of the session has. It must not be replaced.
    """

    stored: int
    first: Message | None = None
    taken: frozenset[str] = field(default_factory=frozenset)


def align(ids: Sequence[str], message: Callable[[int], Message]) -> Plan[Alignment]:
    """Find where the stored part of a held conversation ends; a plan over a scoped `Memory`.

    Messages are recognised by their ids, if they are stored in the order in which they are held: models that number
    each answer alike would otherwise be lost. Where no id is known, as with a client that sends the whole
    conversation without ids each time, what was said is compared: the held conversation, up to its last question,
    may begin with the last of the stored one. The cost depends on what is new, not on how long the conversation is.

    Args:
        ids: The ids of the held messages, in order.
        message: Makes our message of the held one at a place.
    """
    found = yield from _by_id(ids)
    if found.first is None and len(ids) > 1:
        held = [message(place) for place in range(len(ids))]
        return (yield from _by_content(held, found.taken))
    return found


def _by_id(ids: Sequence[str]) -> Plan[Alignment]:
    """Read back from the end, further each time, until a stored message is found; and look at the beginning."""
    stop, size = len(ids), _PAGE
    known: dict[str, Message] = {}
    while stop > 0:
        start = max(0, stop - size)
        page = {*ids[start:stop], *ids[:_PAGE]} - known.keys()
        known |= {stored.id: stored for stored in (yield from _stored(page))}
        places = _in_order(ids, known)
        if places and places[-1] >= start:
            return Alignment(places[-1] + 1, known[ids[places[0]]], _taken(ids, places, known))
        stop, size = start, min(4 * size, _MOST_AT_ONCE)
    return Alignment(0, None, frozenset(known))


def _in_order(ids: Sequence[str], known: dict[str, Message]) -> list[int]:
    """The places of the stored messages, those left out that do not stand in the stored order.

    The latest question decides: what is held behind it and stored before it is another message of the same id.
    """
    places = [place for place, id_ in enumerate(ids) if id_ in known]
    chosen: list[int] = []
    for place in places:
        time = known[ids[place]].timestamp or 0.0
        if not chosen or time >= (known[ids[chosen[-1]]].timestamp or 0.0):
            chosen.append(place)
    return chosen


def _taken(ids: Sequence[str], places: Iterable[int], known: dict[str, Message]) -> frozenset[str]:
    return frozenset(known) - {ids[place] for place in places}


def _by_content(held: Sequence[Message], taken: frozenset[str]) -> Plan[Alignment]:
    last_question = max((n for n, m in enumerate(held) if m.role is MessageRole.USER), default=0)
    said = _said(held[:last_question])
    if not said:
        return Alignment(0, None, taken)
    stored = _said((yield from _latest(max(_PAGE, 4 * len(held)))))
    for length in range(min(len(said), len(stored)), 0, -1):
        if all(map(_alike, said[:length], stored[-length:])):
            end = next(n for n, message in enumerate(held) if message is said[length - 1]) + 1
            return Alignment(end, stored[-length], taken)
    return Alignment(0, None, taken)


def _said(messages: Sequence[Message]) -> list[Message]:
    """Questions and answers: a client's copy of a conversation seldom has more."""
    return select_to_save(messages, MemorySaveMode.INPUT_OUTPUT)


def _alike(one: Message, other: Message) -> bool:
    return one.role is other.role and (one.content == other.content or (bool(one.text) and one.text == other.text))


def _stored(ids: Iterable[str]) -> Plan[list[Message]]:
    wanted = sorted(ids)
    if not wanted:
        return []
    arguments = {"limit": len(wanted), "filters": {MESSAGE_ID_KEY: wanted}}
    return cast("list[Message]", (yield Call("get_all", arguments)))


def _latest(limit: int) -> Plan[list[Message]]:
    return cast("list[Message]", (yield Call("get_all", {"limit": limit})))
