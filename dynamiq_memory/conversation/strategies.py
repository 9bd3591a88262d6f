"""Which messages an agent is given: the strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dynamiq_memory.backends.operations import Around, Read, Search
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.conversation.calls import calls_of, is_question, results_of
from dynamiq_memory.conversation.revisions import current
from dynamiq_memory.conversation.tokens import as_sent
from dynamiq_memory.conversation.turns import Budget, Turn, arrange, latest_turns, split_turns
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, SUPERSEDED_KEY, USER_KEY, Key, Message, key_of

# Messages read at once when more may be needed than the budget will take.
_PAGE = 100
# Neighbours read on each side of a hit at first: most turns are shorter, longer ones are read on.
_NEIGHBOURS = 6
_MATCHES_AT_ONCE = 8
# How far back to read in all for the beginnings of turns that the neighbours do not have.
_REACH = 2_000
# How far back to read for the call of a result that came turns later.
_LATE = 200
_SPARE_MATCHES = 32


class MemoryRetrievalStrategy(StrEnum):
    """Which messages an agent is given.

    Attributes:
        ALL: The most recent turns.
        RELEVANT: The turns of the messages most relevant to the query.
        BOTH: The most recent turns, and the turns of relevant older messages.
    """

    ALL = "all"
    RELEVANT = "relevant"
    BOTH = "both"


class Reason(StrEnum):
    """Why a message was picked.

    Attributes:
        RECENT: It belongs to the most recent turns.
        MATCH: It matches the query.
        CONTEXT: It belongs to the turn of a message that matches.
    """

    RECENT = "recent"
    MATCH = "match"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Pick:
    """A message picked for an agent.

    Attributes:
        message: The message; with a `score` where it matches the query.
        reason: Why it was picked.
    """

    message: Message
    reason: Reason


class Explanation(list[Pick]):
    """The messages picked for an agent, oldest first.

    Attributes:
        tokens: Their number of tokens; None where tokens are not limited.
        bounded_by: What bounds the choice, so that older turns may be left out: "limit", "max_tokens", both or neither.
    """

    def __init__(self, picks: Iterable[Pick], budget: Budget) -> None:
        """Count the tokens."""
        super().__init__(picks)
        limited = budget.tokens is not None
        self.tokens = sum(budget.count_tokens(as_sent(pick.message)) for pick in self) if limited else None
        self.bounded_by = frozenset(budget.exceeded | ({"limit"} if budget.messages <= 0 else set()))


@dataclass(slots=True)
class _Choice:
    """What has been picked so far."""

    budget: Budget
    picks: dict[Key, Pick] = field(default_factory=dict)

    def add(self, messages: Iterable[Message], reason: Reason) -> None:
        for message in messages:
            self.picks.setdefault(key_of(message), Pick(message, reason))

    def rest_of(self, turn: Turn) -> Turn:
        """What of a turn has not been picked."""
        rounds = [part for part in turn.rounds if key_of(part[0]) not in self.picks]
        return Turn(rounds, turn.last, turn.answered)

    def add_turn_of(self, match: Key, turn: Turn, scores: Mapping[Key, float], whole: Budget) -> None:
        """Add the turn of a match, whole if it fits.

        Args:
            match: The match.
            turn: Its turn.
            scores: The scores of all matches.
            whole: The budget at first. Only a turn that could never be given whole is given in part; any other makes
                way for the next one.
        """
        rest = self.rest_of(turn)
        if rest.question_alone:
            return
        if self.budget.take(rest.messages):
            self.add_matches(rest.messages, scores)
        elif not whole.fits(rest.messages):
            self.add_matches(rest.cut(self.budget, match), scores)

    def add_matches(self, messages: Iterable[Message], scores: Mapping[Key, float]) -> None:
        for message in messages:
            key = key_of(message)
            if key in scores:
                message.score = scores[key]
            self.picks.setdefault(key, Pick(message, Reason.MATCH if key in scores else Reason.CONTEXT))


def pick(
    strategy: MemoryRetrievalStrategy,
    query: str | None,
    filters: Mapping[str, Any],
    budget: Budget,
    recent_share: float,
) -> Plan[Explanation]:
    """Pick the messages that an agent is given.

    The result is a conversation that LLM APIs accept: it begins with a user's message (after any system messages), and
    calls and results are kept together or omitted. It is chronological, except for results that arrived later than
    directly after their call: these are moved up to the call.

    Args:
        strategy: The strategy. RELEVANT and BOTH act as ALL where there is no query or nothing matches.
        query: What the agent is asked.
        filters: Only messages that match.
        budget: How much may be picked.
        recent_share: The part of the budget that BOTH gives to the most recent turns, from 0 to 1.
    """
    choice = _Choice(budget)
    ranked = query if query is not None and query.strip() and strategy != MemoryRetrievalStrategy.ALL else None
    if ranked is not None and strategy == MemoryRetrievalStrategy.RELEVANT:
        yield from _pick_relevant(choice, ranked, filters)
    elif ranked is not None:
        yield from _pick_both(choice, ranked, filters, recent_share)
    if not choice.picks:
        messages, _ = yield from _latest(filters, budget)
        choice.add(messages, Reason.RECENT)
    return Explanation((yield from _in_order(choice.picks, filters)), budget)


def _latest(filters: Mapping[str, Any], budget: Budget) -> Plan[tuple[list[Message], list[Turn]]]:
    """Take the most recent whole turns; also return the turns that were read for it."""
    most = budget.messages
    size = most if budget.tokens is None else min(most, _PAGE)
    collected: list[Message] = []
    page: list[Message] = []
    while True:
        page = yield from Read(parse(filters), size, before=page[0] if page else None)
        collected = current(page) + collected
        if len(page) == size and not _has_user(collected):
            size = 10 * _PAGE  # inside of a long turn: nothing can be taken before its beginning is found
            continue
        turns = split_turns(collected)
        attempt = budget.copy()
        taken, full = latest_turns(turns, attempt)
        opened = any(map(is_question, taken))
        enough = full or len(collected) >= most
        if enough and len(page) == size and len(collected) < most + _LATE and _has_late_result(collected):
            size = _LATE
            continue
        if len(page) < size or (opened and enough):
            if len(page) == size and not full:
                budget.exceeded.add("limit")
            budget.messages, budget.tokens = attempt.messages, attempt.tokens
            return taken, turns
        # A turn longer than all that was read, or tokens left over: read on, further each time.
        size = min(max(size, len(collected)), 10 * _PAGE)


def _pick_both(choice: _Choice, query: str, filters: Mapping[str, Any], recent_share: float) -> Plan[None]:
    budget = choice.budget
    recent = budget.share(recent_share)
    if recent.messages == 1 and budget.messages > 2:
        recent.messages = 2  # a question without its answer would seem to be asked once more
    whole = budget.copy()
    _, turns = yield from _latest(filters, whole)
    taken, _ = latest_turns(turns, recent)
    budget.take(taken)
    choice.add(taken, Reason.RECENT)
    yield from _pick_relevant(choice, query, filters)
    # What the relevant ones left goes to the recent turns: to the rest of the last one, then to those before.
    for turn in reversed(turns):
        rest = choice.rest_of(turn)
        if not turn.opened or not rest.rounds or rest.question_alone:
            continue
        if not budget.take(rest.messages):
            if len(rest.rounds) < len(turn.rounds):
                choice.add(rest.cut(budget), Reason.RECENT)
            break
        choice.add(rest.messages, Reason.RECENT)


def _pick_relevant(choice: _Choice, query: str, filters: Mapping[str, Any]) -> Plan[None]:
    budget = choice.budget
    whole = budget.copy()
    # Some matches are picked already, and some will not fit.
    wanted = budget.messages + len(choice.picks) + _SPARE_MATCHES
    matches = yield from Search(parse(filters), query, wanted)
    if len(current(matches)) < len(matches):
        matches = yield from Search(parse({**filters, SUPERSEDED_KEY: None}), query, wanted)
    scores = {key_of(match): match.score for match in matches if match.score is not None}
    reach = _Reach(_REACH)
    turns: dict[Key, Turn] = {}
    for start in range(0, len(matches), _MATCHES_AT_ONCE):
        some = [m for m in matches[start : start + _MATCHES_AT_ONCE] if key_of(m) not in choice.picks]
        if not some or budget.spent:
            continue
        picked = len(choice.picks)
        windows = yield from Around(parse(filters), some, _NEIGHBOURS, _NEIGHBOURS)
        for match, window in zip(some, windows, strict=True):
            key = key_of(match)
            if key in choice.picks:
                continue
            turn = turns.get(key) or (yield from _turn_of(match, window, filters, reach))
            if turn is not None:
                turns |= dict.fromkeys(map(key_of, turn.messages), turn)
                choice.add_turn_of(key, turn, scores, whole)
        if picked and picked == len(choice.picks):
            break  # what is left of the budget is too small for a turn; going on costs reads and brings little


@dataclass(slots=True)
class _Reach:
    """How many messages may still be read to find the beginnings of turns."""

    messages: int

    def next(self, size: int) -> int:
        """How many to read next, if so many are wanted; 0 when nothing is left."""
        size = min(size, self.messages)
        self.messages -= size
        return size


def _turn_of(match: Message, window: Sequence[Message], filters: Mapping[str, Any], reach: _Reach) -> Plan[Turn | None]:
    """Read the whole turn of a message; None if it has no question, or the match would be left out."""
    here = next(number for number, message in enumerate(window) if key_of(message) == key_of(match))
    session = {**filters, USER_KEY: match.user_id, SESSION_KEY: match.session_id}
    before, after = list(window[:here]), list(window[here + 1 :])
    page: Sequence[Message] = after
    size = _NEIGHBOURS
    while len(page) == size and not _has_user(current(after)) and (size := reach.next(min(size * 4, 10 * _PAGE))):
        page = yield from Read(parse(session), size, after=after[-1])
        after = [*after, *page]
    size = _NEIGHBOURS
    whole = len(before) < size
    while True:
        for turn in split_turns(current([*before, match, *after])):
            if turn.opened and any(key_of(message) == key_of(match) for message in turn.messages):
                return turn
        # The question of the turn, or the call that the match answers, is further back.
        missing = bool(results_of(match)) or not _has_user(current([*before, match]))
        size = reach.next(min(size * 4, 10 * _PAGE)) if missing and not whole else 0
        if not size:
            return None
        page = yield from Read(parse(session), size, before=before[0])
        before, whole = [*page, *before], len(page) < size


def _has_user(messages: Iterable[Message]) -> bool:
    return any(map(is_question, messages))


def _has_late_result(messages: Sequence[Message]) -> bool:
    """Whether a result among messages answers a call before them, which has an id of its own."""
    called: set[str] = set()
    for message in messages:
        called.update(call.id for call in calls_of(message))
        if any(result.id and result.id not in called for result in results_of(message)):
            return True
    return False


def _in_order(picks: Mapping[Key, Pick], filters: Mapping[str, Any]) -> Plan[list[Pick]]:
    messages = sorted((p.message for p in picks.values()), key=lambda message: message.timestamp or 0.0)
    if len({message.timestamp for message in messages}) < len(messages):
        # Equal timestamps: only the store knows which message arrived first.
        stored = yield from Read(parse({**filters, MESSAGE_ID_KEY: [message.id for message in messages]}))
        place = {key_of(message): number for number, message in enumerate(stored)}
        messages.sort(key=lambda message: place.get(key_of(message), -1))
    return [Pick(message, picks[key_of(message)].reason) for message in arrange(messages)]
