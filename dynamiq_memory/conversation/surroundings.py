"""The whole turns of messages that match a query, read for all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, dropwhile
from typing import Any

from dynamiq_memory.backends._weights import weigh
from dynamiq_memory.backends.operations import AroundPage
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.conversation.calls import calls_of, is_question, results_of
from dynamiq_memory.conversation.revisions import current
from dynamiq_memory.conversation.turns import Turn, opening_turn, split_turns
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import SESSION_KEY, SUPERSEDED_KEY, TIMESTAMP_KEY, USER_KEY, Key, Message, key_of

# Neighbours read on each side of a match at first: most turns are shorter, longer ones are read on.
NEIGHBOURS = 6
_LARGEST_PAGE = 1_000
_LARGEST = 2**30


@dataclass(slots=True)
class Reach:
    """How much may still be read to find the beginnings and ends of turns.

    Attributes:
        messages: Number of messages, beyond the neighbours of matches.
        bytes: Size of all messages, in characters; None for any.
    """

    messages: int = 2_000
    bytes: int | None = None

    @property
    def spent(self) -> bool:
        """Whether no message may be read."""
        return self.bytes is not None and self.bytes <= 0

    def next(self, size: int, spans: Sequence[Span]) -> tuple[int, Sequence[Span]]:
        """How many messages to read next, and for which of the spans: the first ones, if not for all."""
        size = 0 if self.spent else min(size, self.messages)
        spans = spans[: self.messages // size] if size else ()
        self.messages -= size * len(spans)
        return size, spans

    def windows(
        self, filter: Filter, anchors: Sequence[Message], before: int, after: int
    ) -> Plan[list[tuple[list[Message], bool, bool]]]:
        """Read neighbours, and whether there may be more on each side."""
        windows = yield from AroundPage(filter, anchors, before, after, self.bytes)
        if self.bytes is not None:
            self.bytes -= sum(map(_size, chain.from_iterable(window for window, _, _ in windows)))
            self.bytes += sum(map(_size, anchors))  # which have been read before
        return windows


@dataclass(slots=True, eq=False)
class Span:
    """Consecutive messages of a session.

    Attributes:
        messages: The messages.
        begins: Whether no message comes before them.
        ends: Whether no message comes after them.
        beside_large: Whether a message that is too large to be read comes before or after them.
    """

    messages: list[Message]
    begins: bool
    ends: bool
    beside_large: bool = False

    def turn_of(self, match: Message) -> Turn | None:
        """Return the turn of a message; None if its beginning is missing."""
        near = current(self.messages)
        place = _find(near, match)
        if place is None:
            return None  # it has been superseded since it was found
        turns = split_turns(_narrowed(near, place))
        return next((turn for turn in turns if turn.opened and _find(turn.messages, match) is not None), None)

    def lacks(self, match: Message) -> tuple[bool, bool]:
        """Return whether the turn of a message needs more messages at the beginning, and at the end."""
        if self.beside_large:
            return False, False
        place = self._place_of(match)
        later = not self.ends and not has_question(current(self.messages[place + 1 :]))
        if self.begins:
            return False, later
        # The question of the turn, or the call that the match answers, is further back.
        unopened = not has_question(current(self.messages[: place + 1]))
        return unopened or bool(not later and results_of(match) and self.turn_of(match) is None), later

    def opening_turn_of(self, match: Message) -> Turn | None:
        """Return the turn of what the assistant says before the first question of a session, if the match is in it."""
        if not self.begins or has_question(current(self.messages[: self._place_of(match) + 1])):
            return None
        turn = opening_turn(current(self.messages))
        return None if _find(turn.messages, match) is None else turn

    def _place_of(self, match: Message) -> int:
        place = _find(self.messages, match)
        return len(self.messages) if place is None else place


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The messages around the matches of a query.

    Attributes:
        spans: The messages around each match.
        begun: Whether sessions have their first messages, unless these are not in the spans.
    """

    spans: Mapping[Key, Span]
    begun: bool

    def turn_of(self, match: Message) -> Turn | None:
        """Return the turn of a match; None if it has no question, or the match would be left out."""
        span = self.spans[key_of(match)]
        return span.turn_of(match) or (span.opening_turn_of(match) if self.begun else None)


def surroundings_of(matches: Sequence[Message], filters: Mapping[str, Any], reach: Reach) -> Plan[Surroundings]:
    """Read what is around messages, as far as their turns go.

    Args:
        matches: The messages, the most important first.
        filters: Only messages that match.
        reach: How many messages may be read beyond the neighbours.
    """
    filter, size = parse(filters), NEIGHBOURS
    windows = (yield from reach.windows(filter, matches, size, size)) if matches else []
    spans = {
        key_of(match): Span(window, not earlier, not later)
        for match, (window, earlier, later) in zip(matches, windows, strict=True)
    }
    lacking = list(matches)
    while True:
        size = min(4 * size, _LARGEST_PAGE)
        lacking = [match for match in lacking if any(spans[key_of(match)].lacks(match))]
        spans |= _joined([(match, spans[key_of(match)]) for match in lacking])
        needs = [(span := spans[key_of(match)], *span.lacks(match)) for match in lacking]
        sides = [list(dict.fromkeys(need[0] for need in needs if need[side])) for side in (1, 2)]
        if not (yield from _read_on(filter, size, sides[0], sides[1], reach)):
            return Surroundings(spans, _has_beginnings(filters))


def has_question(messages: Iterable[Message]) -> bool:
    """Whether a question is among messages."""
    return any(map(is_question, messages))


def has_late_result(messages: Sequence[Message]) -> bool:
    """Whether a result answers a call before all messages, which has an id of its own.

    Results before the first question belong to the rest of a turn, which is not given.
    """
    if not any(map(results_of, messages)):
        return False
    called: set[str] = set()
    for message in dropwhile(lambda each: not is_question(each), messages):
        for call in calls_of(message):
            called.add(call.id)
        for result in results_of(message):
            if result.id and result.id not in called:
                return True
    return False


def _size(message: Message) -> int:
    """The size of a message in characters, nearly: without the metadata of a text."""
    return len(message.content) if isinstance(message.content, str) else weigh(message, _LARGEST)


def _find(messages: Sequence[Message], message: Message) -> int | None:
    """Return the place of a message among those of its session; None if it is not there."""
    return next((place for place, each in enumerate(messages) if each.id == message.id), None)


def _joined(spans: Sequence[tuple[Message, Span]]) -> dict[Key, Span]:
    """Join spans that overlap, so that a turn with several matches is read on once."""
    by_key: dict[Key, Span] = {}
    for _, span in spans:
        joined = span
        for other in dict.fromkeys(by_key[key] for key in map(key_of, span.messages) if key in by_key):
            joined = _union(joined, other)
        by_key |= dict.fromkeys(map(key_of, joined.messages), joined)
    return {key_of(match): by_key[key_of(match)] for match, _ in spans}


def _union(first: Span, second: Span) -> Span:
    """Return the span of two that have a message in common."""
    place = _find(first.messages, second.messages[0])
    if place is None:
        first, second = second, first
        place = _find(first.messages, second.messages[0])
    if place is None:
        return second  # the store has changed in between
    messages = first.messages[:place] + max(first.messages[place:], second.messages, key=len)
    last = key_of(messages[-1])
    ends = any(span.ends for span in (first, second) if key_of(span.messages[-1]) == last)
    begins = first.begins or (place == 0 and second.begins)
    return Span(messages, begins, ends, first.beside_large or second.beside_large)


def _read_on(filter: Filter, size: int, earlier: Sequence[Span], later: Sequence[Span], reach: Reach) -> Plan[bool]:
    """Read messages before and after spans; return whether there was anything left to read."""
    count, spans = reach.next(size, earlier)
    if spans:
        windows = yield from reach.windows(filter, [span.messages[0] for span in spans], count, 0)
        for span, (window, more, _) in zip(spans, windows, strict=True):
            span.messages[:1] = window
            span.begins, span.beside_large = not more, more and len(window) <= count
    read = bool(spans)
    count, spans = reach.next(size, later)
    if spans:
        windows = yield from reach.windows(filter, [span.messages[-1] for span in spans], 0, count)
        for span, (window, _, more) in zip(spans, windows, strict=True):
            span.messages[-1:] = window
            span.ends, span.beside_large = not more, span.beside_large or (more and len(window) <= count)
    return read or bool(spans)


def _has_beginnings(filters: Mapping[str, Any]) -> bool:
    """Whether a filter leaves sessions with their first messages, so that the first one that matches is that."""
    times = filters.get(TIMESTAMP_KEY, {})
    others = set(filters) - {USER_KEY, SESSION_KEY, TIMESTAMP_KEY, SUPERSEDED_KEY}
    return not others and isinstance(times, Mapping) and not any("gt" in bound for bound in times)


def _narrowed(messages: Sequence[Message], here: int) -> Sequence[Message]:
    """Return the messages from the question at or before a place up to the next one.

    If a result that came later is among the others, return all.
    """
    start = next((number for number in range(here, -1, -1) if is_question(messages[number])), None)
    end = next((number for number in range(here + 1, len(messages)) if is_question(messages[number])), len(messages))
    if start is None or has_late_result(messages[end:]) or has_late_result(messages[start:end]):
        return messages
    return messages[start : end + 1]  # the next question shows that the turn is over
