"""Which messages an agent is given: the strategies."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

from dynamiq_memory.backends.operations import Read, ReadPage, Search
from dynamiq_memory.backends.plans import Compute, Plan
from dynamiq_memory.conversation.calls import is_question
from dynamiq_memory.conversation.placement import Placement, last_question, with_block
from dynamiq_memory.conversation.revisions import current
from dynamiq_memory.conversation.surroundings import NEIGHBOURS, Reach, has_late_result, has_question, surroundings_of
from dynamiq_memory.conversation.tokens import as_sent
from dynamiq_memory.conversation.turns import Budget, Turn, arrange, latest_turns, split_turns
from dynamiq_memory.conversation.windows import Window
from dynamiq_memory.filters import parse
from dynamiq_memory.formatting import quoted_message, quoted_messages
from dynamiq_memory.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    SUPERSEDED_KEY,
    USER_KEY,
    Key,
    Message,
    MessageRole,
    clock,
    key_of,
    scope_of,
)
from dynamiq_memory.ranking.dates import LOOKED_AT, WORDS_FACTOR, date_of, periods_of, with_dates
from dynamiq_memory.ranking.reranking import RERANKED, Reranker, reranked
from dynamiq_memory.ranking.scores import parts_of

# Messages read at once when more may be needed than the budget will take.
_PAGE = 100
# The turns of as many matches are read at once as there is room for messages, within these bounds.
_FEWEST_MATCHES, _MOST_MATCHES = 8, 100
# A page ends at a size that no budget takes: a token has fewer bytes.
_BYTES_PER_TOKEN = 16
_LEAST_BYTES = 262_144
# Of messages that are too large for a budget, so many pages are read to find some that fit, but hardly more than this.
_LARGE_PAGES = 16
_MOST_BYTES = 33_554_432
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

    @property
    def score_parts(self) -> dict[str, float]:
        """The parts of the score; see `dynamiq_memory.ranking.Score`. Empty where there is none."""
        return parts_of(self.message.score)


class Explanation(list[Pick]):
    """The messages picked for an agent, oldest first.

    Attributes:
        tokens: The number of tokens of the conversation; None where tokens are not limited.
        bounded_by: The bounds of the choice, by which older turns may be left out: "limit", "max_tokens", both or
            neither.
        recent: The messages that are given as messages, with dates if these are given. With
            `placement="before_question"`, these are the most recent ones, otherwise all.
        recalled: The messages that are given as a block of text in front of the last question, oldest first.
        recalled_block: The block; empty if there are none.
        unchanged: The share of the conversation's tokens, from 0 to 1, in the messages at its beginning that were the
            same for the question before. None if it was not asked for, or for the first question.
    """

    unchanged: float | None = None

    def __init__(
        self,
        picks: Iterable[Pick],
        budget: Budget,
        placement: Placement = Placement.CHRONOLOGICAL,
        session_id: str | None = None,
    ) -> None:
        """Separate the messages given as a block, and count the tokens."""
        super().__init__(picks)
        self._dating = budget.dating
        found = (
            [] if placement is Placement.CHRONOLOGICAL else [pick for pick in self if pick.reason is not Reason.RECENT]
        )
        self.recalled = [pick.message for pick in found]
        recent = [pick.message for pick in self if not found or pick.reason is Reason.RECENT]
        self.recalled_block = _block(self.recalled, recent, session_id)
        self.recent = self._dated(recent)
        self.tokens = None if budget.tokens is None else budget.tokens_as_given(self.conversation)
        self.bounded_by = frozenset(budget.exceeded | ({"limit"} if budget.messages <= 0 else set()))

    @property
    def conversation(self) -> list[Message]:
        """The messages as an agent is given them.

        A block is part of the last question among the recent messages; without such a question, all messages are given
        in the order of time.
        """
        if not self.recalled:
            return list(self.recent)
        place = last_question(self.recent)
        if place is None:
            return self._dated([pick.message for pick in self])
        conversation = list(self.recent)
        conversation[place] = with_block(conversation[place], self.recalled_block)
        return conversation

    def _dated(self, messages: list[Message]) -> list[Message]:
        return messages if self._dating is None else self._dating.dated(messages)


@dataclass(frozen=True, slots=True)
class Ordering:
    """How the best matches are ordered again.

    Attributes:
        rerank: A reranker; None for no other order.
        zone: The time zone of the dates in queries.
        dates_factor: The factor of the scores of messages of such dates.
        cutoff: The share of the best score below which matches are not picked for agents.
    """

    rerank: Reranker | None = None
    zone: dt.tzinfo = dt.UTC
    dates_factor: float = WORDS_FACTOR
    cutoff: float = 0.0

    def good_enough(self, matches: list[Message]) -> list[Message]:
        """Leave out matches below the cutoff, of matches with the best first."""
        if not self.cutoff or not matches or self.rerank is not None:  # a reranker's scores may be below zero
            return matches
        least = self.cutoff * (matches[0].score or 0.0)
        return [match for match in matches if (match.score or 0.0) >= least]


@dataclass(slots=True)
class _Choice:
    """The messages picked so far.

    Attributes:
        budget: The rest that may be picked.
        placement: Where messages are placed that match the query.
        session_id: The session that the conversation belongs to, if it is only one.
        ordering: How matches are ordered again.
        picks: The messages.
        found: The messages of each turn that was found by the query, the best first.
    """

    budget: Budget
    placement: Placement
    session_id: str | None
    ordering: Ordering = field(default_factory=Ordering)
    picks: dict[Key, Pick] = field(default_factory=dict)
    found: list[list[Message]] = field(default_factory=list)

    def add(self, messages: Iterable[Message], reason: Reason) -> None:
        for message in messages:
            self.picks.setdefault(key_of(message), Pick(message, reason))

    def rest_of(self, turn: Turn) -> Turn:
        """Return the rounds of a turn that have not been picked."""
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

    def add_matches(self, messages: list[Message], scores: Mapping[Key, float]) -> None:
        if messages:
            self.found.append(messages)
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
    placement: Placement = Placement.CHRONOLOGICAL,
    ordering: Ordering = Ordering(),
) -> Plan[Explanation]:
    """Pick the messages that an agent is given.

    The result is a conversation that LLM APIs accept: it begins with a user's message (after any system messages), and
    calls and results are kept together or omitted. It is chronological, except for results that arrived later than
    directly after their call: these are moved up to the call.

    Args:
        strategy: The strategy. RELEVANT and BOTH act as ALL without a query, or if nothing matches.
        query: The question to the agent.
        filters: Only messages that match.
        budget: How much may be picked.
        recent_share: The part of the budget that BOTH gives to the most recent turns, from 0 to 1.
        placement: Where messages are placed that match the query.
        ordering: How matches are ordered again.
    """
    session_id = filters.get(SESSION_KEY)
    choice = _Choice(budget, placement, session_id if isinstance(session_id, str) else None, ordering)
    ranked = query if query is not None and query.strip() and strategy != MemoryRetrievalStrategy.ALL else None
    if ranked is not None and strategy == MemoryRetrievalStrategy.RELEVANT:
        yield from _pick_relevant_alone(choice, ranked, filters)
    elif ranked is not None:
        yield from _pick_both(choice, ranked, filters, recent_share)
    if not choice.picks:
        messages, _ = yield from _latest(filters, choice.budget)
        if _one_session(filters) or len(set(map(scope_of, messages))) == 1:
            picks = [Pick(message, Reason.RECENT) for message in messages]
            return Explanation(picks, choice.budget, placement, choice.session_id)
        choice.add(messages, Reason.RECENT)
    return Explanation((yield from _in_order(choice.picks, filters)), choice.budget, placement, choice.session_id)


def search(
    query: str, filters: Mapping[str, Any], limit: int, ordering: Ordering, max_bytes: int | None = None
) -> Plan[list[Message]]:
    """Rank messages by their relevance to a query.

    Args:
        query: The query.
        filters: Only messages that match.
        limit: Maximum number of messages.
        ordering: How matches are ordered again.
        max_bytes: Size, in characters, at which the matches end; None for any.
    """
    periods = periods_of(query, date_of(clock(), ordering.zone) or dt.date.max)
    least = max(LOOKED_AT if periods else 0, RERANKED if ordering.rerank else 0)
    found = yield from Search(parse(filters), query, max(limit, least), max_bytes)
    if periods:
        found = with_dates(found, periods, ordering.zone, ordering.dates_factor)
    if ordering.rerank is not None:
        found = yield from Compute(partial(reranked, ordering.rerank, query, found))
    return found[:limit]


def _one_session(filters: Mapping[str, Any]) -> bool:
    return isinstance(filters.get(USER_KEY), str) and isinstance(filters.get(SESSION_KEY), str)


def _latest(filters: Mapping[str, Any], budget: Budget) -> Plan[tuple[list[Message], list[Turn]]]:
    """Take the most recent whole turns; also return the turns that were read for it."""
    # A stable window must know whether there is an older message.
    most = budget.messages + (budget.window is Window.STABLE)
    size = most if budget.tokens is None else min(most, _PAGE)
    collected: list[Message] = []
    page: list[Message] = []
    large, most_large = 0, max(2, _most_bytes(budget) // _page_bytes(budget))
    while True:
        page, more = yield from _earlier(filters, size, page[0] if page else None, budget)
        large += more and len(page) < size
        more = more and large < most_large
        collected = current(page) + collected
        if more and not has_question(collected):
            size = 10 * _PAGE  # inside of a long turn: nothing can be taken before its beginning is found
            continue
        if more and len(collected) < most and budget.fits(collected):
            size = min(max(size, 3 * len(collected)), 10 * _PAGE)  # all of it fits: further each time
            continue
        turns = split_turns(collected)
        attempt = budget.copy()
        taken, full = latest_turns(turns, attempt, more=more)
        opened = any(map(is_question, taken))
        enough = full or len(collected) >= most
        if enough and more and len(collected) < most + _LATE and has_late_result(collected):
            size = _LATE
            continue
        if not more or (opened and enough):
            if more and not full:
                budget.exceeded.add("limit")
            budget.messages, budget.tokens = attempt.messages, attempt.tokens
            return taken, turns
        # A turn longer than all that was read: read on, further each time.
        size = min(max(size, len(collected)), 10 * _PAGE)


def _earlier(
    filters: Mapping[str, Any], size: int, before: Message | None, budget: Budget
) -> Plan[tuple[list[Message], bool]]:
    """Read the latest messages before another, but hardly more of them than the budget takes; and if there are more."""
    if budget.tokens is None:
        page = yield from Read(parse(filters), size, before=before)
        return page, len(page) == size
    return (yield from ReadPage(parse(filters), size, _page_bytes(budget), before))


def _page_bytes(budget: Budget) -> int:
    """The size of a page, in characters, that has hardly more than a budget takes."""
    return max(_LEAST_BYTES, (budget.tokens or 0) * _BYTES_PER_TOKEN)


def _most_bytes(budget: Budget) -> int:
    """The size of all messages that are read to find some that fit."""
    page = _page_bytes(budget)
    return max(page, min(_LARGE_PAGES * page, _MOST_BYTES))


def _pick_both(choice: _Choice, query: str, filters: Mapping[str, Any], recent_share: float) -> Plan[None]:
    budget = choice.budget
    in_block = choice.placement is Placement.BEFORE_QUESTION
    whole = budget.copy()
    latest, turns = yield from _latest(filters, whole)
    recent = _recent_part(budget, recent_share, turns)
    if not in_block:
        # The messages found come first, so the beginning of the prompt changes with each question.
        recent.window = Window.SLIDING
    elif not budget.exceeded:
        choice.budget = whole
        choice.add(latest, Reason.RECENT)
        return
    taken, _ = latest_turns(turns, recent)
    budget.take(taken)
    choice.add(taken, Reason.RECENT)
    yield from _pick_relevant(choice, query, filters)
    if not choice.found:
        choice.budget, choice.picks = whole, {}
        choice.add(latest, Reason.RECENT)
    elif not in_block:
        _add_rest(choice, turns)


def _recent_part(budget: Budget, share: float, turns: Sequence[Turn]) -> Budget:
    """Return the part of the budget that is for recent turns: the share, or what two turns take, if half is enough."""
    part, half = budget.share(share), (budget.messages + 1) // 2
    two = [message for turn in [turn for turn in turns if turn.opened][-2:] for message in turn.messages]
    part.messages = max(part.messages, min(len(two), half))
    if part.tokens is not None and budget.tokens is not None:
        part.tokens = max(part.tokens, min(budget.tokens_of(two), budget.tokens // 2))
    return part


def _add_rest(choice: _Choice, turns: Sequence[Turn]) -> None:
    """Give what the relevant turns left to the recent ones: to the rest of the last one, then to those before."""
    for turn in reversed(turns):
        rest = choice.rest_of(turn)
        if not turn.opened or not rest.rounds or rest.question_alone:
            continue
        if not choice.budget.take(rest.messages):
            if len(rest.rounds) < len(turn.rounds):
                choice.add(rest.cut(choice.budget), Reason.RECENT)
            break
        choice.add(rest.messages, Reason.RECENT)


def _pick_relevant_alone(choice: _Choice, query: str, filters: Mapping[str, Any]) -> Plan[None]:
    whole = choice.budget.copy()
    if choice.placement is Placement.BEFORE_QUESTION:
        asked = yield from _asked(filters, choice.budget)
        choice.add(asked, Reason.RECENT)
    yield from _pick_relevant(choice, query, filters)
    if not choice.found:
        choice.budget, choice.picks = whole, {}


def _asked(filters: Mapping[str, Any], budget: Budget) -> Plan[list[Message]]:
    """Take the last turn, or what fits of it, if it has no answer yet."""
    few = replace(budget, messages=min(budget.messages, NEIGHBOURS), exceeded=set())
    _, turns = yield from _latest(filters, few)
    turn = max(turns, key=lambda each: each.last, default=Turn())
    if not turn.opened or turn.answered:
        return []
    return turn.messages if budget.take(turn.messages) else turn.cut(budget)


def _pick_relevant(choice: _Choice, query: str, filters: Mapping[str, Any]) -> Plan[None]:
    budget = choice.budget
    whole = budget.copy()
    # Some matches are picked already, and some will not fit.
    wanted = budget.messages + len(choice.picks) + _SPARE_MATCHES
    most = None if budget.tokens is None else _MOST_BYTES
    matches = yield from search(query, filters, wanted, choice.ordering, most)
    if len(current(matches)) < len(matches):
        matches = yield from search(query, {**filters, SUPERSEDED_KEY: None}, wanted, choice.ordering, most)
    scores = {key_of(match): match.score for match in matches if match.score is not None}
    rest = choice.ordering.good_enough(matches)
    reach = Reach(bytes=None if budget.tokens is None else _most_bytes(budget))
    turns: dict[Key, Turn] = {}
    while rest and not budget.spent and not reach.spent:
        at_once = min(max(budget.messages, _FEWEST_MATCHES), _MOST_MATCHES)
        some, rest = [m for m in rest[:at_once] if key_of(m) not in choice.picks], rest[at_once:]
        picked = len(choice.picks)
        near = yield from surroundings_of([m for m in some if key_of(m) not in turns], filters, reach)
        for match in some:
            key = key_of(match)
            if budget.messages <= 0:
                break
            if key in choice.picks:
                continue
            turn = turns.get(key) or near.turn_of(match)
            if turn is not None:
                turns |= dict.fromkeys(map(key_of, turn.messages), turn)
                choice.add_turn_of(key, turn, scores, whole)
        if some and picked and picked == len(choice.picks):
            break  # what is left of the budget is too small for a turn; going on costs reads and brings little
    if choice.placement is Placement.BEFORE_QUESTION:
        _fit_block(choice, whole)


def _fit_block(choice: _Choice, budget: Budget) -> None:
    """Drop the least relevant turns until those found fit as a block. Its frame has tokens of its own."""
    if budget.tokens is None:
        return
    picked = [each.message for each in choice.picks.values() if each.reason is Reason.RECENT]
    # As they are given, since the last of them names the block's session: turns of several sessions may overlap.
    recent = sorted(picked, key=lambda message: message.timestamp or 0.0)
    place = last_question(recent)
    question = Message(role=MessageRole.USER) if place is None else recent[place]
    alone = budget.count_tokens(as_sent(question)) if place is not None else 0

    def tokens(turns: int) -> int:
        block = _block([message for found in choice.found[:turns] for message in found], recent, choice.session_id)
        return budget.count_tokens(as_sent(with_block(question, block))) - alone if block else 0

    fitting = bisect_right(range(len(choice.found) + 1), budget.tokens, key=tokens) - 1
    if fitting < len(choice.found):
        budget.exceeded.add("max_tokens")
    for message in (message for found in choice.found[fitting:] for message in found):
        del choice.picks[key_of(message)]
    del choice.found[fitting:]


def _block(found: Sequence[Message], recent: Sequence[Message], session_id: str | None) -> str:
    """Format what was found, for the session of the recent messages."""
    if recent:
        session_id = recent[-1].session_id
    if not found:
        return ""
    others = [message.session_id if message.session_id != session_id else None for message in found]
    return quoted_messages(
        quoted_message(message, session_id=other) for message, other in zip(found, others, strict=True)
    )


def _in_order(picks: Mapping[Key, Pick], filters: Mapping[str, Any]) -> Plan[list[Pick]]:
    messages = sorted((p.message for p in picks.values()), key=lambda message: message.timestamp or 0.0)
    if len({message.timestamp for message in messages}) < len(messages):
        # Equal timestamps: only the store knows which message arrived first.
        stored = yield from Read(parse({**filters, MESSAGE_ID_KEY: [message.id for message in messages]}))
        place = {key_of(message): number for number, message in enumerate(stored)}
        messages.sort(key=lambda message: (message.timestamp or 0.0, place.get(key_of(message), -1)))
    return [Pick(message, picks[key_of(message)].reason) for message in arrange(messages)]
