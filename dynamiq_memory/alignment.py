"""What of a conversation that a framework holds is in the store already.

For adapters of frameworks that hand over the whole conversation at each turn: only what is new is to be stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from dynamiq_memory.messages import MESSAGE_ID_KEY, Message, MessageRole
from dynamiq_memory.plans import Call, Plan
from dynamiq_memory.saving import MemorySaveMode, select_to_save

_PAGE = 32
_MOST_AT_ONCE = 1024
# Of a conversation without ids, so many questions and answers are compared: the comparison costs their square.
_MOST_SAID = 64

_Said = tuple[MessageRole, str]


class Held(ABC):
    """A conversation that a framework holds, by place: what it costs to look at a message is paid when it is."""

    @abstractmethod
    def __len__(self) -> int:
        """How many messages there are."""

    @abstractmethod
    def id(self, place: int) -> str:
        """The id under which the message is stored: the same each time, and no other message's."""

    @abstractmethod
    def message(self, place: int) -> Message:
        """Our message of the one held."""

    @abstractmethod
    def is_question(self, place: int) -> bool:
        """Whether the user says it."""

    def same(self, place: int, stored: Message) -> bool:  # noqa: ARG002 - for adapters that can tell
        """Whether a stored message is the one held although its id is another."""
        return False


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the held conversation stands to the stored one.

    Attributes:
        stored: How many of the held messages, from the first on, are stored or older than one that is.
        first: The stored message from which on the held conversation has all that the session has up to its last
            question: what stands before may be recalled. None if the held conversation is new altogether.
        held: Ids of stored messages that the held conversation has too; some may stand before `first`.
        taken: Ids of held messages that an older message has: a question that is asked once more.
    """

    stored: int
    first: Message | None = None
    held: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()


def align(held: Held) -> Plan[Alignment]:
    """Find where the stored part of a held conversation ends; a plan over a scoped `Memory`.

    Messages are recognised by their ids. Where that leaves more than one turn, as with a client that sends the whole
    conversation anew each time, what was said is compared: questions and answers that are stored in the same order
    are old, and so is a client's own wording of an answer that is stored. In doubt, a message is new: stored twice
    rather than lost. The cost depends on what is new, not on how long the conversation is.

    Args:
        held: The conversation.
    """
    if not len(held):
        return Alignment(0)
    latest = yield from _latest(_PAGE)
    if not latest:
        return Alignment(0)
    known = yield from _known(held, latest)
    question = max((place for place in range(len(held)) if held.is_question(place)), default=0)
    taken: frozenset[str] = frozenset()
    if _asked_again(held, known, latest):
        del known[question]
        taken = frozenset({held.id(question)})
    start = max(known) + 1 if known else 0
    if (start < len(held) - 1 and (not known or question > start)) or (known and min(known) > 0):
        wide = yield from _latest(min(_MOST_AT_ONCE, max(2 * _PAGE, 4 * len(held))))
        # What follows a question that is known by its id is what is done for it now.
        said, end = _by_content(held, wide, question if question in known else len(held))
        known = {**said, **known}
        start = max(start, end)
    return replace(_result(known, start, question, latest), taken=taken)


def _result(known: dict[int, Message], start: int, question: int, latest: Sequence[Message]) -> Alignment:
    if not known:
        return Alignment(start)
    first = known[min(known)]
    asked = known.get(question)
    places = {message.id: number for number, message in enumerate(latest)}
    ids = frozenset(message.id for message in known.values())
    number = places.get(asked.id, 0) if asked is not None else len(latest)
    earlier = min(known) < question or asked is None
    if number and earlier and latest[number - 1].id not in ids:
        # The session has more than the held conversation: examples before a question, or another client's turns.
        return Alignment(start, asked, ids)
    return Alignment(start, first, ids)


def _known(held: Held, latest: Sequence[Message]) -> Plan[dict[int, Message]]:
    """The held messages that are stored: of the beginning, and of the end as far as a stored one is found."""
    end = range(max(0, len(held) - 2 * _PAGE), len(held))
    by_id = {message.id: message for message in latest}
    known = {place: by_id[held.id(place)] for place in end if held.id(place) in by_id}
    known |= {place: match for place in end if held.is_question(place) and (match := _like(held, place, latest))}
    stop, size = len(held), _PAGE
    ids: dict[int, str] = {place: held.id(place) for place in range(min(_PAGE, stop))}
    asked: set[str] = set()
    while stop > 0:
        start = max(0, stop - size)
        if not known or max(known) < start:
            ids |= {place: held.id(place) for place in range(start, stop) if place not in ids}
        wanted = {id_ for place, id_ in ids.items() if place not in known} - asked
        stored = {m.id: m for m in (yield from _stored(wanted))}
        asked |= wanted
        known |= {place: stored[id_] for place, id_ in ids.items() if id_ in stored and place not in known}
        if known and max(known) >= start:
            break
        stop, size = start, min(4 * size, _MOST_AT_ONCE)
    question = next((place for place in reversed(end) if held.is_question(place)), None)
    if question is None or (question in known and _is_past(known[question], known, latest)):
        # The question that the last messages belong to has been left out: their ids are made of another.
        known |= {place: match for place in end if place not in known and (match := _like(held, place, latest))}
    return known


def _like(held: Held, place: int, latest: Sequence[Message]) -> Message | None:
    return next((message for message in reversed(latest) if held.same(place, message)), None)


def _is_past(question: Message, known: dict[int, Message], latest: Sequence[Message]) -> bool:
    """Whether what was done for a stored question is not what is held behind it."""
    number = next((number for number, message in enumerate(latest) if message.id == question.id), None)
    if number is None or number + 1 == len(latest):
        return number is None
    behind = latest[number + 1]
    return behind.role is not MessageRole.USER and all(behind.id != message.id for message in known.values())


def _asked_again(held: Held, known: dict[int, Message], latest: Sequence[Message]) -> bool:
    """Whether the last held message is a question that is stored and answered: then it is asked once more."""
    last = len(held) - 1
    if last not in known or not held.is_question(last):
        return False
    number = next((number for number, message in enumerate(latest) if message.id == known[last].id), None)
    if number is None:
        return True  # much has been said since
    return number + 1 < len(latest) and latest[number + 1].role is not MessageRole.USER


def _by_content(held: Held, stored: Sequence[Message], stop: int) -> tuple[dict[int, Message], int]:
    """Compare what was said, up to a place.

    Returns:
        Places and the stored messages that say the same; and where the stored part of what is held ends.
    """
    start = max(0, stop - _MOST_AT_ONCE)
    messages = [held.message(place) for place in range(start, stop)]
    place_of = {id(message): start + number for number, message in enumerate(messages)}
    said, known = _said(messages), _said(stored)
    texts, stored_texts = list(map(_text, said)), list(map(_text, known))
    # The questions behind the last answer are what is asked now.
    answers = [number for number, message in enumerate(said) if message.role is not MessageRole.USER]
    before = answers[-1] + 1 if answers else 0
    cut = max(0, before - _MOST_SAID)
    pairs = [(cut + i, j) for i, j in _common(texts[cut:before], stored_texts)]
    if pairs:
        pairs = _further_back(texts, stored_texts, pairs[0]) + pairs
    pairs += _asked_before(texts, stored_texts, before, pairs, running=len(messages) > len(said))
    if not pairs:
        return {}, 0
    last, match = pairs[-1]
    end = place_of[id(said[last])] + 1
    answered = match + 1 < len(known) and known[match + 1].role is not MessageRole.USER
    if said[last].role is MessageRole.USER and answered:
        # What the client holds behind a question that is answered is its own wording of the answer.
        following = next((p for p in range(end, stop) if held.is_question(p)), None)
        end = end if following is None else following
    return {place_of[id(said[i])]: known[j] for i, j in pairs}, end


def _asked_before(
    texts: Sequence[_Said], stored: Sequence[_Said], before: int, pairs: Sequence[tuple[int, int]], *, running: bool
) -> list[tuple[int, int]]:
    """Match what is asked now with the session's last questions: of a run that failed, or is asked to answer anew."""
    asked = list(texts[before:])
    start = pairs[-1][1] + 1 if pairs else len(stored) - len(asked)
    if not asked or start < 0 or list(stored[start : start + len(asked)]) != asked:
        return []
    behind = stored[start + len(asked) :]
    if (not pairs and (behind or not running)) or any(role is MessageRole.USER for role, _ in behind):
        return []  # a question alone, or one of long ago, may be one that is asked again
    return [(before + number, start + number) for number in range(len(asked))]


def _further_back(texts: Sequence[_Said], stored: Sequence[_Said], first: tuple[int, int]) -> list[tuple[int, int]]:
    """Go on from the first pair towards the beginning, as far as both say the same."""
    i, j = first
    pairs: list[tuple[int, int]] = []
    while i and j and texts[i - 1] == stored[j - 1]:
        i, j = i - 1, j - 1
        pairs.append((i, j))
    return pairs[::-1]


def _said(messages: Sequence[Message]) -> list[Message]:
    """Questions and answers: a client's copy of a conversation seldom has more."""
    return select_to_save(messages, MemorySaveMode.INPUT_OUTPUT)


def _text(message: Message) -> _Said:
    """What a message says, whatever a client does to its spaces and parts."""
    content = message.content if isinstance(message.content, str) else message.text or repr(message.content)
    return (message.role, " ".join(content.split()))


def _common(said: Sequence[_Said], known: Sequence[_Said]) -> list[tuple[int, int]]:
    """The longest common subsequence, as pairs of places; of equals, the last of `known`."""
    longest = [[0] * (len(known) + 1) for _ in range(len(said) + 1)]
    for i, one in enumerate(said, 1):
        for j, other in enumerate(known, 1):
            longest[i][j] = longest[i - 1][j - 1] + 1 if one == other else max(longest[i - 1][j], longest[i][j - 1])
    pairs: list[tuple[int, int]] = []
    i, j = len(said), len(known)
    while i and j:
        if said[i - 1] == known[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif longest[i - 1][j] >= longest[i][j - 1]:
            i -= 1
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
