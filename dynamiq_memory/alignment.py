"""What of a conversation that a framework holds is in the store already.

For adapters of frameworks that hand over the whole conversation at each turn: only what is new is to be stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from dynamiq_memory.messages import MESSAGE_ID_KEY, Message, MessageRole
from dynamiq_memory.plans import Call, Plan
from dynamiq_memory.saving import MemorySaveMode, select_to_save

_PAGE = 32
_MOST_AT_ONCE = 1024
# Of a conversation without ids, so many questions and answers are compared: the comparison costs their square.
_MOST_SAID = 64


class Held(ABC):
    """A conversation that a framework holds, by place: what it costs to look at a message is paid when it is."""

    @abstractmethod
    def __len__(self) -> int:
        """How many messages there are."""

    @abstractmethod
    def id(self, place: int) -> str:
        """The id under which the message is stored: always the same, and no other message's."""

    @abstractmethod
    def message(self, place: int) -> Message:
        """Our message of the one held."""

    def same(self, place: int, stored: Message) -> bool:  # noqa: ARG002 - for adapters that can tell
        """Whether a stored message is the one held although its id is another."""
        return False


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the held conversation stands to the stored one.

    Attributes:
        stored: How many of the held messages, from the first on, are stored or older than one that is.
        first: The earliest held message that is stored, as stored; None if none is.
    """

    stored: int
    first: Message | None = None


def align(held: Held) -> Plan[Alignment]:
    """Find where the stored part of a held conversation ends; a plan over a scoped `Memory`.

    Messages are recognised by their ids. Where that leaves more than one turn, as with a client that sends the whole
    conversation anew each time, what was said is compared: questions and answers that are stored in the same order
    are old, and so is a client's own wording of an answer that is stored. The cost depends on what is new, not on how
    long the conversation is.

    Args:
        held: The conversation.
    """
    found = yield from _by_id(held)
    start = found.stored if found else 0
    if start < len(held) - 1:
        unknown = [held.message(place) for place in range(max(start, len(held) - _MOST_AT_ONCE), len(held))]
        questions = [place for place, message in enumerate(unknown) if message.role is MessageRole.USER]
        if found is None or (questions and questions[-1] > 0):
            stored = yield from _latest(max(2 * _PAGE, 4 * min(len(held), _MOST_SAID)))
            for other in (_by_likeness(held, stored), _by_content(held, stored)):
                if other is not None and other.stored > start:
                    start, found = other.stored, Alignment(other.stored, found.first if found else other.first)
    return found or Alignment(0)


def _by_id(held: Held) -> Plan[Alignment | None]:
    """Read back from the end, further each time, until a stored message is found; and look at the beginning."""
    stop, size = len(held), _PAGE
    ids: dict[int, str] = {place: held.id(place) for place in range(min(_PAGE, stop))}
    known: dict[str, Message] = {}
    asked: set[str] = set()
    while stop > 0:
        start = max(0, stop - size)
        ids |= {place: held.id(place) for place in range(start, stop) if place not in ids}
        known |= {stored.id: stored for stored in (yield from _stored(set(ids.values()) - asked))}
        asked.update(ids.values())
        places = sorted(place for place, id_ in ids.items() if id_ in known)
        if places and places[-1] >= start:
            return Alignment(places[-1] + 1, known[ids[places[0]]])
        stop, size = start, min(4 * size, _MOST_AT_ONCE)
    return None


def _by_likeness(held: Held, stored: Sequence[Message]) -> Alignment | None:
    found: list[tuple[int, Message]] = []
    for place in range(max(0, len(held) - 2 * _PAGE), len(held)):
        match = next((message for message in reversed(stored) if held.same(place, message)), None)
        if match is not None:
            found.append((place, match))
    return Alignment(found[-1][0] + 1, found[0][1]) if found else None


def _by_content(held: Held, stored: Sequence[Message]) -> Alignment | None:
    """Compare what was said: the longest run of held messages, in order, that the stored ones have in that order."""
    start = max(0, len(held) - 4 * _MOST_SAID)
    messages = [held.message(place) for place in range(start, len(held))]
    said, known = _said(messages)[-_MOST_SAID:], _said(stored)
    pairs = _common([_text(message) for message in said], [_text(message) for message in known])
    if not pairs or (len(said) == 1 and pairs[-1][1] < len(known) - 1):
        return None  # a question alone may be one that is asked again
    last, match = pairs[-1]
    end = next(place for place, message in enumerate(messages) if message is said[last]) + 1
    if said[last].role is MessageRole.USER and match + 1 < len(known) and known[match + 1].role is not MessageRole.USER:
        # It was answered: what the client holds behind it is its own wording of that.
        while (
            end < len(messages)
            and any(m.role is MessageRole.USER for m in messages[end:])
            and (messages[end].role is not MessageRole.USER)
        ):
            end += 1
    return Alignment(start + end, known[pairs[0][1]])


def _said(messages: Sequence[Message]) -> list[Message]:
    """Questions and answers: a client's copy of a conversation seldom has more."""
    return select_to_save(messages, MemorySaveMode.INPUT_OUTPUT)


def _text(message: Message) -> tuple[MessageRole, str]:
    """What a message says, whatever a client does to its spaces and parts."""
    content = message.content if isinstance(message.content, str) else message.text or repr(message.content)
    return (message.role, " ".join(content.split()))


def _common(said: Sequence[object], known: Sequence[object]) -> list[tuple[int, int]]:
    """The longest common subsequence, as pairs of places; of equals, the first of `said` and the last of `known`."""
    longest = [[0] * (len(known) + 1) for _ in range(len(said) + 1)]
    for i, one in enumerate(said, 1):
        for j, other in enumerate(known, 1):
            longest[i][j] = longest[i - 1][j - 1] + 1 if one == other else max(longest[i - 1][j], longest[i][j - 1])
    pairs: list[tuple[int, int]] = []
    i, j = len(said), len(known)
    while i and j:
        if longest[i - 1][j] == longest[i][j]:
            i -= 1
        elif said[i - 1] == known[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        else:
            j -= 1
    return pairs[::-1]


def _stored(ids: Iterable[str]) -> Plan[list[Message]]:
    wanted = sorted(ids)
    if not wanted:
        return []
    arguments = {"limit": len(wanted), "filters": {MESSAGE_ID_KEY: wanted}}
    return cast("list[Message]", (yield Call("get_all", arguments)))


def _latest(limit: int) -> Plan[list[Message]]:
    return cast("list[Message]", (yield Call("get_all", {"limit": limit})))
