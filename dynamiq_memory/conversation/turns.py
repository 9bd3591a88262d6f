"""Turns of a conversation: cutting it only where every LLM API accepts the cut. Pure functions."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dynamiq_memory.conversation.calls import (
    ToolReference,
    calls_of,
    is_question,
    results_of,
    says_something,
    without_calls,
    without_results,
)
from dynamiq_memory.conversation.dating import Dating
from dynamiq_memory.conversation.interruptions import closing_answer, closing_result, with_note
from dynamiq_memory.conversation.tokens import TokenCounter, as_sent, count_tokens_approximately
from dynamiq_memory.conversation.windows import Window, count_from_step, similar
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Key, Message, MessageRole, Scope, key_of, scope_of

# Given before what an assistant says unasked.
OPENING_LINE = "[The assistant began this conversation.]"
# At the end of its id, after that of the message.
OPENING = "/opening"


@dataclass(slots=True)
class Budget:
    """The number of messages and tokens that may still be taken.

    Attributes:
        messages: Number of messages.
        tokens: Number of tokens, or None for any number.
        count_tokens: Counts the tokens of a message.
        exceeded: The bounds that kept messages from being taken, "limit" or "max_tokens"; parts and copies share it.
        window: Where the most recent turns begin that are taken.
        dating: Adds dates, which count too; None if there are none.
    """

    messages: int
    tokens: int | None = None
    count_tokens: TokenCounter = count_tokens_approximately
    exceeded: set[str] = field(default_factory=set)
    window: Window = Window.SLIDING
    dating: Dating | None = None
    _counted: dict[int, tuple[Message, int]] = field(default_factory=dict, repr=False, compare=False)

    def share(self, part: float) -> Budget:
        """Return a part of the budget, at least one message."""
        tokens = None if self.tokens is None else math.floor(self.tokens * part)
        return replace(self, messages=max(1, math.floor(self.messages * part)), tokens=tokens)

    def copy(self) -> Budget:
        """Return a budget of the same size."""
        return Budget(
            self.messages, self.tokens, self.count_tokens, self.exceeded, self.window, self.dating, self._counted
        )

    @property
    def spent(self) -> bool:
        """Whether nothing more can be taken."""
        return self.messages <= 0 or (self.tokens is not None and self.tokens <= 0)

    def take(self, messages: Sequence[Message]) -> bool:
        """Take messages if they fit.

        Returns:
            Whether they did.
        """
        if len(messages) > self.messages:
            self.exceeded.add("limit")
            return False
        if self.tokens is not None:
            tokens = self.tokens_of(messages)
            if tokens > self.tokens:
                self.exceeded.add("max_tokens")
                return False
            self.tokens -= tokens
        self.messages -= len(messages)
        return True

    def tokens_of(self, messages: Iterable[Message]) -> int:
        """Count the tokens of messages as they are sent, each message object once."""
        counted, total = self._counted, 0
        for message in messages:
            known = counted.get(id(message))
            if known is None:
                longest = message if self.dating is None else self.dating.longest(message)
                known = counted[id(message)] = message, self.count_tokens(as_sent(longest))
            total += known[1]
        return total

    def tokens_as_given(self, conversation: Sequence[Message]) -> int:
        """Count the tokens of a conversation that has its dates already."""
        if self.dating is None:
            return self.tokens_of(conversation)
        return sum(self.count_tokens(as_sent(message)) for message in conversation)

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether messages could be taken."""
        return self.copy().take(messages)


@dataclass(slots=True)
class Turn:
    """A user's question and all that follows it until the next one.

    Attributes:
        rounds: The parts that stay whole: a single message, or an assistant's calls with their results.
        last: The place of its last message in the conversation: a result may come turns later.
        answered: Whether it ends with an assistant's message without calls.
    """

    rounds: list[list[Message]] = field(default_factory=list)
    last: int = 0
    answered: bool = False

    @property
    def messages(self) -> list[Message]:
        """All messages of the turn."""
        return list(itertools.chain.from_iterable(self.rounds))

    @property
    def opened(self) -> bool:
        """Whether it begins with a user's question, so that a conversation can begin with it."""
        return bool(self.rounds) and is_question(self.rounds[0][0])

    @property
    def instructions(self) -> bool:
        """Whether it is a system message before the first question."""
        return bool(self.rounds) and self.rounds[0][0].role is MessageRole.SYSTEM

    @property
    def question_alone(self) -> bool:
        """Whether nothing but the question of an answered turn is left: it would seem to be asked again."""
        if not self.answered or not self.opened or self.rounds[-1][0].role is MessageRole.ASSISTANT:
            return False
        return all(part[0].role is MessageRole.SYSTEM for part in self.rounds[1:])

    def cut(self, budget: Budget, keep: Key | None = None) -> list[Message]:
        """Take as much of the turn as fits: the question and its answer, then the latest rounds.

        Args:
            budget: The messages and tokens that may be taken; it is reduced by those that are.
            keep: A message that the part must contain to be of use.

        Returns:
            The messages in order; empty if not even the indispensable ones fit, or nothing but the question of an
            answered turn would.
        """
        needed = {number for number, part in enumerate(self.rounds) if any(key_of(message) == keep for message in part)}
        if self.opened:
            needed.add(0)
        if self.answered and self.rounds and not self.rounds[0][0].id.endswith(OPENING):
            needed.add(len(self.rounds) - 1)
        kept = [part for number, part in enumerate(self.rounds) if number in needed]
        rest = [part for number, part in enumerate(self.rounds) if number not in needed]
        left = budget.copy()
        if not left.take(list(itertools.chain.from_iterable(kept))):
            return []
        while rest and left.take(rest[-1]):
            kept.append(rest.pop())
        if Turn(kept, answered=self.answered).question_alone:
            return []
        budget.messages, budget.tokens = left.messages, left.tokens
        chosen = {key_of(message) for part in kept for message in part}
        return [message for message in self.messages if key_of(message) in chosen]


@dataclass(slots=True)
class _Round:
    """A message, or an assistant's message with the results of its calls, as found so far.

    Attributes:
        message: The message.
        place: Its place in the conversation.
        question: Whether it begins a turn.
        calls: Its calls.
        results: The last result of each call, by the call's number: its place and message, and its position in that.
        parallel: The rounds directly before it with calls that one message answers together with its own.
        closing: The results given for calls that were interrupted.
    """

    message: Message
    place: int
    question: bool
    calls: Sequence[ToolReference]
    results: dict[int, tuple[int, Message, int]] = field(default_factory=dict)
    parallel: list[_Round] = field(default_factory=list)
    closing: list[Message] = field(default_factory=list)

    @property
    def last(self) -> int:
        return max(self.places, default=self.place) if self.calls else self.place

    @property
    def complete(self) -> bool:
        """Whether all calls have results."""
        if not self.calls and not self.parallel:
            return True
        return all(len(each.results) + len(each.closing) == len(each.calls) for each in (*self.parallel, self))

    @property
    def cut_off(self) -> bool:
        """Whether it is an answer, without calls, that was interrupted."""
        return not self.calls and self.message.role is MessageRole.ASSISTANT and self.message.interrupted

    def close(self) -> None:
        """Give results to the calls of messages that were interrupted."""
        for each in (*self.parallel, self):
            if each.calls and each.message.interrupted:
                last = max([each.message, *(result for _, result, _ in each.results.values())], key=_time)
                missing = [number for number in range(len(each.calls)) if number not in each.results]
                each.closing = [closing_result(each.message, number, each.calls[number], last) for number in missing]

    def messages(self) -> list[Message]:
        """The messages and the results in the order of their arrival; without all of these, only the texts."""
        if self.cut_off:
            return [with_note(self.message)] if says_something(self.message) else []
        if not self.calls and not self.parallel:
            return [self.message] if self.question or _may_be_given(self.message) else []
        heads = [each.message for each in (*self.parallel, self)]
        if self.calls and self.complete:
            results = self.results_by_place
            closing = [result for each in (*self.parallel, self) for result in each.closing]
            return [*heads, *(results[place] for place in sorted(results)), *closing]
        spoken = [without_calls(head) if self.calls else head for head in heads]
        return [head for head in spoken if _may_be_given(head)]

    @property
    def places(self) -> set[int]:
        """The places of all results."""
        return {place for each in (*self.parallel, self) for place, _, _ in each.results.values()}

    @property
    def results_by_place(self) -> dict[int, Message]:
        """All results: a message that answers several calls counts once, with those of its results that count."""
        if len(self.results) == 1 and not self.parallel:
            ((place, message, position),) = self.results.values()
            return {place: _with_results(message, {position})}
        counted: defaultdict[int, set[int]] = defaultdict(set)
        messages: dict[int, Message] = {}
        for each in (*self.parallel, self):
            for place, message, position in each.results.values():
                counted[place].add(position)
                messages[place] = message
        return {place: _with_results(message, counted[place]) for place, message in messages.items()}


def _with_results(message: Message, positions: Collection[int]) -> Message:
    if message.role is MessageRole.TOOL or len(positions) == len(results_of(message)):
        return message
    return without_results(message, positions)


def _may_be_given(message: Message) -> bool:
    return message.role is not MessageRole.ASSISTANT or says_something(message)


def _time(message: Message) -> float:
    return message.timestamp or 0.0


class _OpenCalls:
    """The calls of a session that wait for results.

    A result belongs to the call of its id, where that is the only one of its id in its message. Ids may repeat in a
    session, since some models restart numbering in each turn: the last such call counts. Calls without such an id are
    anonymous: Ollama sends no ids, Vertex uses the tool's name, Cohere gives each result a new id. A result belongs to
    the last open call of its tool in the turn, or of any tool where it has no name; parallel calls are answered in
    their order.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[_Round, int]] = {}
        self._open: defaultdict[str, list[tuple[_Round, int]]] = defaultdict(list)
        self._named: dict[str, tuple[_Round, int]] = {}
        self._first: dict[str, int] = {}

    def begin_turn(self) -> None:
        """Forget anonymous calls: a later result cannot be known to belong to them."""
        self._open.clear()
        self._named.clear()
        self._first.clear()

    def add(self, round_: _Round, *, parallel: bool) -> None:
        """Add the calls of a message; parallel ones may come in several messages, one directly after the other."""
        if not round_.calls:
            return
        if not parallel:
            self._first = {name: len(waiting) for name, waiting in self._open.items()}
        if len(round_.calls) == 1 and round_.calls[0].id:
            self._by_id[round_.calls[0].id] = round_, 0
            return
        times = Counter(call.id for call in round_.calls)
        for number, call in enumerate(round_.calls):
            if call.id and times[call.id] == 1:
                self._by_id[call.id] = round_, number
                continue
            for name in {call.name, call.id, ""}:
                # The first of parallel calls is answered first.
                self._open[name].insert(self._first.get(name, 0), (round_, number))
        for number, call in enumerate(round_.calls):
            if not call.id or times[call.id] > 1:
                self._named |= dict.fromkeys({call.name, call.id} - {""}, (round_, number))

    def of(self, result: ToolReference) -> tuple[_Round, int] | None:
        """Find the call that a result answers, answered before or not."""
        by_id = self._by_id.get(result.id)
        if by_id is not None and not self._named:
            return by_id
        names = [name for name in (result.name, result.id) if name in self._named]
        # Where ids are the names of tools, the last call counts, whether it is the only one of its name or not.
        if by_id is not None and all(by_id[0].place >= self._named[name][0].place for name in names):
            return by_id
        for name in names if names or result.name else [""]:
            waiting = self._open.pop(name, [])
            while waiting:
                round_, number = waiting.pop()
                if number not in round_.results:
                    if waiting:
                        self._open[name] = waiting
                    return round_, number
        return self._named[names[0]] if names else None


def split_turns(messages: Iterable[Message]) -> list[Turn]:
    """Split messages into turns, session by session, in the order in which the turns begin.

    A result is placed directly after the call that it answers, wherever it arrived; of several results of one call, the
    last counts. A result without its call is left out, and so is a call without a result, but not what is said beside
    it: no LLM API accepts them. A user's message that says nothing is left out too, and so is an assistant's that says
    and calls nothing. An answer that was interrupted ends with a note, and is left out if another one follows in its
    turn; its open calls get a result that says so, and an answer that does.

    Args:
        messages: Messages in chronological order, of one session or several.
    """
    sessions: dict[Scope, list[tuple[int, Message]]] = {}
    for place, message in enumerate(messages):
        sessions.setdefault(scope_of(message), []).append((place, message))
    turns: list[tuple[int, Turn]] = []
    for session in sessions.values():
        plain, others = _plain_turns(session)
        turns += plain
        if others:
            over = bool(plain) and plain[-1][0] > others[-1][0]
            turns += _paired_turns(others, over=over)
    turns.sort(key=lambda each: each[0])
    return [turn for _, turn in turns]


def _plain_turns(session: Sequence[tuple[int, Message]]) -> tuple[list[tuple[int, Turn]], list[tuple[int, Message]]]:
    """Take the turns without calls, results and interruptions, where nothing has to be paired: most are.

    Returns:
        The turns with their places, and the messages of the others.
    """
    starts = [number for number, (_, message) in enumerate(session) if _asks(message)]
    turns: list[tuple[int, Turn]] = []
    others = list(session[: starts[0]] if starts else session)
    for start, end in itertools.pairwise([*starts, len(session)]):
        part = session[start:end]
        answers = [message for _, message in part[1:]]
        if all(map(_is_plain_answer, answers)):
            turns.append((part[0][0], Turn([[message] for _, message in part], part[-1][0], bool(answers))))
        else:
            others += part
    return turns, others


def _asks(message: Message) -> bool:
    return message.role is MessageRole.USER and isinstance(message.content, str) and bool(message.content.strip())


def _is_plain_answer(message: Message) -> bool:
    return (
        message.role is MessageRole.ASSISTANT
        and not message.tool_calls
        and isinstance(message.content, str)
        and not message.interrupted
        and bool(message.content.strip())
    )


def _paired_turns(session: Sequence[tuple[int, Message]], *, over: bool) -> Iterator[tuple[int, Turn]]:
    """Split messages of one session, with their places, into turns.

    Args:
        session: The messages with their places.
        over: Whether another turn follows the last one of these.
    """
    turn, opened = Turn(), False
    cut_off = False
    for round_ in _rounds(session):
        part = round_.messages()
        if cut_off and part and round_.message.role is MessageRole.ASSISTANT:
            turn.rounds.pop()  # the question has been answered again
        cut_off = round_.cut_off and bool(part)
        if part and (round_.question or not opened):
            _end(turn, over=True)
            # Before the first question, each part is a turn of its own: system ones may be kept without the others.
            turn, opened = Turn(), round_.question
            yield round_.place, turn
        if part:
            turn.rounds += [part] if round_.complete else [[message] for message in part]
            turn.last = max(turn.last, round_.last)
        turn.answered = turn.answered or (not round_.calls and round_.message.role is MessageRole.ASSISTANT)
    _end(turn, over=over)


def _end(turn: Turn, *, over: bool) -> None:
    """Complete a turn. If it is over, whatever was done in it has answered its question."""
    if turn.rounds:
        turn.rounds[-1] += closing_answer(turn.rounds[-1])
    done = (MessageRole.ASSISTANT, MessageRole.TOOL)
    turn.answered = turn.answered or (over and any(part[0].role in done for part in turn.rounds[1:]))


def opening_turn(messages: Iterable[Message]) -> Turn:
    """Make a turn of what the assistant said before the first question of a session, without calls.

    Many LLM APIs accept no conversation that an assistant begins, so a line of the user says that it did.

    Args:
        messages: The messages of a session from its beginning on.

    Returns:
        The turn; without rounds if the session begins with a question.
    """
    begun = itertools.takewhile(lambda message: not begins_turn(message), messages)
    parts = [part for turn in split_turns(begun) for part in turn.rounds]
    rounds = [part for part in parts if len(part) == 1 and part[0].role is MessageRole.ASSISTANT]
    if not rounds:
        return Turn()
    first = rounds[0][0]
    line = Message(
        role=MessageRole.USER,
        content=OPENING_LINE,
        id=f"{first.id}{OPENING}",
        timestamp=math.nextafter(first.timestamp or 0.0, -math.inf),
        metadata={key: first.metadata[key] for key in (USER_KEY, SESSION_KEY) if key in first.metadata},
    )
    return Turn([[line], *rounds], answered=True)


def pair_results(messages: Iterable[Message]) -> dict[int, tuple[int, int]]:
    """Find the call that each result answers; of several results of one call, only the last is paired.

    Args:
        messages: Messages of one session in chronological order, each with one result at most.

    Returns:
        By the place of a result: the place of the message that made the call, and the call's number in it.
    """
    rounds = (each for round_ in _rounds(list(enumerate(messages))) for each in (*round_.parallel, round_))
    return {place: (each.place, number) for each in rounds for number, (place, _, _) in each.results.items()}


def _rounds(session: Sequence[tuple[int, Message]]) -> list[_Round]:
    """Pair the calls of a session with their results."""
    rounds: list[_Round] = []
    open_calls = _OpenCalls()
    calling = False
    beside: list[tuple[int, Message]] = []
    for place, message in session:
        if message.role is MessageRole.ASSISTANT:
            follows_calls = bool(calling and rounds[-1].calls)
            rounds.append(_Round(message, place, False, calls_of(message)))
            open_calls.add(rounds[-1], parallel=follows_calls)
            calling = True
            continue
        calling = False
        if _asks(message):
            rounds.append(_Round(message, place, True, ()))
            open_calls.begin_turn()
            continue
        results = results_of(message)
        found = {number: call for number, result in enumerate(results) if (call := open_calls.of(result)) is not None}
        if found:
            found = _grouped(rounds, found)
            for position, (round_, number) in found.items():
                round_.results[number] = place, message, position
            if message.role is MessageRole.USER:
                beside.append((place, message))
            continue
        spoken = _spoken(message)
        if spoken is None:
            continue
        rounds.append(_Round(spoken, place, spoken.role is MessageRole.USER, ()))
        if rounds[-1].question:
            open_calls.begin_turn()
    return _with_words(_closed(rounds), beside)


def _spoken(message: Message) -> Message | None:
    """The words of a message, without answers to calls that are not known; None if a user says nothing."""
    results = results_of(message)
    if message.role is not MessageRole.USER:
        return None if results else message
    spoken = without_results(message) if results else message
    if says_something(spoken):
        return spoken
    # Some blocks only its framework knows.
    return message if not results and says_something(as_sent(message)) else None


def begins_turn(message: Message) -> bool:
    """Whether a message is a user's question that is given."""
    return is_question(message) and _spoken(message) is not None


def _grouped(rounds: list[_Round], found: dict[int, tuple[_Round, int]]) -> dict[int, tuple[_Round, int]]:
    """Make one round of the calls that one message answers, if they come directly after each other.

    Returns:
        The calls that the message answers, by its results: all, or only those of the last round.
    """
    group = {id(round_) for round_, _ in found.values()}
    if len(group) == 1:
        return found
    last = max((round_ for round_, _ in found.values()), key=lambda round_: round_.place)
    end = next(number for number in range(len(rounds), 0, -1) if rounds[number - 1] is last)
    start = end - len(group)
    if start < 0 or {id(round_) for round_ in rounds[start:end]} != group:
        return {number: call for number, call in found.items() if call[0] is last}
    for round_ in rounds[start : end - 1]:
        last.parallel += [*round_.parallel, round_]
        round_.parallel = []
    del rounds[start : end - 1]
    return found


def _closed(rounds: list[_Round]) -> list[_Round]:
    """Give results to the calls of messages that were interrupted."""
    for round_ in rounds:
        if round_.calls:
            round_.close()
    return rounds


def _with_words(rounds: list[_Round], beside: Sequence[tuple[int, Message]]) -> list[_Round]:
    """Add what users say beside results that are not given, because other results are missing or newer."""
    if not beside:
        return rounds
    given = set().union(*(round_.places for round_ in rounds if round_.complete))
    spoken = [(place, without_results(message)) for place, message in beside if place not in given]
    words = [_Round(message, place, True, ()) for place, message in spoken if says_something(message)]
    return sorted([*rounds, *words], key=lambda round_: round_.place)


def latest_turns(turns: Sequence[Turn], budget: Budget, *, more: bool = False) -> tuple[list[Message], bool]:
    """Take the most recent whole turns.

    A turn that does not fit ends the choice. Where none has been taken yet, as much of it as fits is taken, or, where
    none of it fits, the turn before it is tried. A turn counts as recent as its last message: as a result that came
    turns later. In a stable window, some of the oldest turns that would fit are left out.

    Args:
        turns: All turns in order; an unopened one at the beginning may be the rest of a turn cut off.
        budget: The messages and tokens that may be taken; it is reduced by those that are.
        more: Whether there may be older turns than these.

    Returns:
        The messages in order, and whether a turn that was there did not fit.
    """
    before = budget.copy()
    taken: list[tuple[int, Turn]] = []
    left: list[Budget] = []
    unopened: list[tuple[int, Turn]] = []
    full = False
    for place, turn in sorted(enumerate(turns), key=lambda each: each[1].last, reverse=True):
        if not turn.opened:
            unopened.append((place, turn))
            continue
        if turn.question_alone:
            continue
        if budget.take(turn.messages):
            taken.append((place, turn))
            if budget.window is Window.STABLE:
                left.append(budget.copy())
            continue
        full = True
        if taken:
            break
        part = turn.cut(budget)
        if part:
            taken.append((place, Turn([part], turn.last)))
            break
    if left and (full or more):
        kept = _count_stable([turn for _, turn in taken], [before, *left])
        taken = taken[:kept]
        budget.messages, budget.tokens = left[kept - 1].messages, left[kept - 1].tokens
    if not full:
        instructions = [(place, turn) for place, turn in reversed(unopened) if turn.instructions]
        fitting = [(place, turn) for place, turn in instructions if budget.take(turn.messages)]
        full = len(fitting) < len(instructions)
        taken += fitting
    taken.sort(key=lambda each: each[0])
    return [message for _, turn in taken for message in turn.messages], full


def _count_stable(taken: Sequence[Turn], left: Sequence[Budget]) -> int:
    """Count the turns of a stable window.

    Args:
        taken: The turns that fit, most recent first.
        left: The budget at first, and what each turn has left of it.
    """
    messages, tokens = similar(left[0].messages), similar(left[0].tokens or 0)
    sizes = [
        max((one.messages - two.messages) * tokens, ((one.tokens or 0) - (two.tokens or 0)) * messages)
        for one, two in itertools.pairwise(left)
    ]
    return count_from_step([turn.rounds[0][0].id for turn in taken], sizes, messages * tokens)


def whole_turns(messages: Iterable[Message], answered: Collection[str], questions: Mapping[str, str]) -> list[Message]:
    """Leave out what no LLM API accepts in a conversation that was put together from several sources.

    Messages before the first question are left out, unless all messages are; so are the rest of a turn without its
    question, calls without results, results without calls, and a question that lacks its answer.

    Args:
        messages: Messages of one session, in order.
        answered: Ids of questions that were answered.
        questions: Ids of the questions that messages belong to, by their own ids, as far as is known.

    Returns:
        The others in order, but results directly after their calls.
    """
    turns = split_turns(_with_their_questions(messages, questions))
    if any(turn.opened for turn in turns):
        turns = [turn for turn in turns if turn.opened or turn.instructions]
    given = [
        turn
        for turn in turns[:-1]
        if not turn.question_alone and not (len(turn.rounds) == 1 and turn.opened and turn.messages[0].id in answered)
    ]
    return [message for turn in [*given, *turns[-1:]] for message in turn.messages]


def _with_their_questions(messages: Iterable[Message], questions: Mapping[str, str]) -> Iterator[Message]:
    known = set(questions.values())
    question = None
    for message in messages:
        if is_question(message):
            # Anything may follow what is not a stored question, such as a summary.
            question = message.id if message.id in known else None
        elif question is not None and questions.get(message.id, question) != question:
            continue
        yield message


def arrange(messages: Iterable[Message]) -> list[Message]:
    """Put results directly after the calls that they answer, in an otherwise chronological conversation."""
    ordered = list(messages)
    if not any(calls_of(message) or results_of(message) for message in ordered):
        spoken = [message for message in ordered if _spoken(message) is not None]
        return list(filter(_may_be_given, spoken))
    parts = {key_of(part[0]): part for turn in split_turns(ordered) for part in turn.rounds}
    given = [message for first in ordered for message in parts.pop(key_of(first), ())]
    # No answer is added here, where the messages have been counted. One that was added before may come twice: with its
    # result, and where its time has put it.
    known = set(map(key_of, ordered))
    once: dict[Key, Message] = {}
    for message in given:
        if message.role is not MessageRole.ASSISTANT or key_of(message) in known:
            once.setdefault(key_of(message), message)
    return list(once.values())
