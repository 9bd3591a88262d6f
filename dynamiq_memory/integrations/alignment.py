"""Which messages of a conversation that a framework hands over are stored already, and which it has left.

For adapters of frameworks that hand over the whole conversation at each turn: only new messages are to be stored, and
what an edit, another answer, a fork or an undo has replaced is marked as superseded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile

from dynamiq_memory._ids import new_id
from dynamiq_memory.conversation.calls import calls_of, is_question
from dynamiq_memory.conversation.revisions import marked
from dynamiq_memory.conversation.saving import MemorySaveMode, select_to_save
from dynamiq_memory.integrations.native import digest_of
from dynamiq_memory.integrations.plans import (
    AddMany,
    GetAll,
    GetEverything,
    Plan,
    UpdateMany,
    get_conversation,
    get_latest,
    get_latest_page,
)
from dynamiq_memory.messages import MESSAGE_ID_KEY, SUPERSEDED_KEY, Message, MessageRole, clock
from dynamiq_memory.ranking.tokenizer import Tokenizer

__all__ = ["Alignment", "Transcript", "align", "store_revisions", "stored_since"]

_PAGE = 32
_MOST_AT_ONCE = 1024
# Number of questions and answers that are compared by their text: the comparison costs its square.
_MOST_COMPARED = 64
# An edited question has more than this share of the words of the shorter version.
_EDITED = 0.5
_tokenizer = Tokenizer()

_Text = tuple[MessageRole, str]


class Transcript(ABC):
    """A conversation as a framework hands it over, by position.

    Only the messages that are looked at need to be converted.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of messages."""

    @abstractmethod
    def id(self, position: int) -> str:
        """Return the id under which the message is stored: always the same, and different from all others."""

    @abstractmethod
    def message(self, position: int) -> Message:
        """Return the message, converted."""

    def outline(self, position: int) -> Message:
        """Return the message with its role, content and calls, if that takes less than to convert it.

        Its id need not be that of the message.
        """
        return self.message(position)

    @abstractmethod
    def is_question(self, position: int) -> bool:
        """Whether it is a message of the user."""

    def is_same(self, position: int, stored: Message) -> bool:  # noqa: ARG002 - for adapters that can find out
        """Whether a stored message with another id is this message."""
        return False

    def has_id_of(self, position: int, stored: Message) -> bool:  # noqa: ARG002 - for adapters that can find out
        """Whether the framework gave the message the id of a stored one, whatever they say."""
        return False

    def has_unique_id_of(self, position: int, stored: Message) -> bool:  # noqa: ARG002 - as before
        """Whether `has_id_of` holds for an id that is never given to another message."""
        return False

    @property
    def is_nested(self) -> bool:
        """Whether others, too, write into the session what they have of the same conversation."""
        return False

    @property
    def is_fork(self) -> bool:
        """Whether the run goes on from an older version of the transcript."""
        return False

    @property
    def stores_calls(self) -> bool:
        """Whether calls and their results are stored, and not only questions and answers."""
        return True

    def wrote(self, stored: Message) -> bool:  # noqa: ARG002 - for adapters that can find out
        """Whether a message was stored from an earlier version of this transcript.

        Only if the framework itself keeps the transcript, so that what it no longer has was undone.
        """
        return False


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a transcript and the stored session fit together.

    Attributes:
        new_from: Position of the first message that is not stored; all before it are stored, or older than one that is.
        recall_before: The stored message from which on the transcript has everything that the session has, up to its
            last question; the messages before it may be recalled. None if the whole transcript is new.
        shared_ids: Ids of stored messages that the transcript has too, or that belong to a turn of which it has its own
            version; some may be before `recall_before`.
        repeated_ids: Ids of messages of the transcript that are the ids of older stored messages: a question that is
            asked again.
        known: The stored messages that the transcript has too, by their positions in it, as far as they were looked at.
        has_gaps: Whether the session has messages that the transcript lacks, after its first one.
        question_ids: Ids of the questions that stored messages belong to, by their own ids, as far as is known.
        answered_ids: Ids of the questions among them that something in the session follows, as far as is known.
        replaced: Stored messages that the transcript has left, oldest first: what followed an edited question, an
            answer that is given again, the rest of a conversation that is forked or undone.
        restored: Superseded messages that are in the transcript again, oldest first.
        revised: Stored messages of which the transcript has another version, by the positions of these. They are among
            `replaced`; `known` has the new versions, and `new_messages` does not.
        running: The stored messages of the turn that goes on, if the transcript lacks some of them.
        lacking_ids: Ids of those that it lacks.
        latest: The session's last message that is not superseded; empty if there is none.
        goes_further_back: Whether the transcript goes on before the messages that were compared. It is taken to have
            what the session has there, so nothing is to be recalled.
    """

    new_from: int
    recall_before: Message | None = None
    shared_ids: frozenset[str] = frozenset()
    repeated_ids: frozenset[str] = frozenset()
    known: Mapping[int, Message] = field(default_factory=dict)
    has_gaps: bool = False
    question_ids: Mapping[str, str] = field(default_factory=dict)
    answered_ids: frozenset[str] = frozenset()
    replaced: Sequence[Message] = ()
    restored: Sequence[Message] = ()
    revised: Mapping[int, Message] = field(default_factory=dict)
    running: Sequence[Message] = ()
    lacking_ids: frozenset[str] = frozenset()
    latest: Sequence[Message] = ()
    goes_further_back: bool = False

    @property
    def last(self) -> Message | None:
        """The stored message that new ones follow: the last of the turn that goes on, or that the transcript has."""
        if self.lacking_ids:
            return self.running[-1]
        return self.known[max(self.known)] if self.known else None

    def new_messages(self, transcript: Transcript) -> list[Message]:
        """Return the messages of the transcript that are not stored; a question that is asked again gets a new id."""
        messages = [transcript.message(position) for position in range(self.new_from, len(transcript))]
        for message in messages:
            if message.id in self.repeated_ids:
                message.id = new_id()
        return messages


def align(transcript: Transcript, *, recall: bool = True) -> Plan[Alignment]:
    """Find where the stored part of a transcript ends; a plan over a scoped `Memory`.

    Messages are recognised by their ids. Where that leaves more than one turn, as with a client that sends the whole
    conversation each time, texts are compared: questions and answers that are stored in the same order are old, and
    so is a client's own wording of an answer that is stored. A transcript without ids whose last answer is not among
    the latest messages is looked for further back. What follows an answer that is known by its id is new, whatever it
    says. In doubt, a message is new: it is better to store it twice than to lose it. The cost depends on how much is
    new, and on how far back the transcript goes on, not on how long the conversation is.

    Where the transcript has left the stored line, the rest of the line is replaced (see `_left`).

    Args:
        transcript: The conversation.
        recall: Whether messages will be recalled, so that all that it shares with the session matter. If not, and its
            last message is stored, earlier ones are not looked for.
    """
    if not len(transcript):
        return Alignment(0)
    latest, is_whole = yield from get_latest_page(_PAGE)
    read, last = latest, tuple(latest[-1:])
    wide: Sequence[Message] = read
    known = yield from _known(transcript, latest, is_whole=is_whole)
    if not latest and not known:
        return Alignment(0, latest=last)
    question = max(filter(transcript.is_question, range(len(transcript))), default=0)
    repeated: frozenset[str] = frozenset()
    if _asked_again(transcript, known, latest) and not _answered_again(transcript, known, latest):
        del known[question]
        repeated = frozenset({transcript.id(question)})
    start, goes_further_back = max(known) + 1 if known else 0, False
    is_unsettled = start < len(transcript) - 1 and (not known or question > start)
    if is_unsettled or (known and min(known) > 0 and (recall or start < len(transcript))):
        wide = read if is_whole else (yield from get_latest(_most_compared(transcript)))
        # After a question that is known by its id comes the work that is done for it now.
        stop = question if question in known else len(transcript)
        found = _by_text(transcript, wide, stop)
        if not known and not is_whole and found.misses_answer:
            wide, found = yield from _further_back_by_text(transcript, wide, found)
        matching, end, goes_further_back = found.matching, found.end, found.goes_further_back
        if known and not transcript.is_question(max(known)):
            # Ids have settled where the stored part ends: whatever follows an answer that is known is new.
            matching, end = {place: match for place, match in matching.items() if place < start}, start
        known = {**matching, **known}
        start = max(start, end)
        before = range(max(0, start - 2 * _PAGE), start)
        known |= _same(transcript, [place for place in before if place not in known], wide)
    revised = _revised(transcript, known, start, latest)
    known |= {place: transcript.message(place) for place in revised}
    left = yield from _left(transcript, known, start, wide)
    replaced = [*left, *(message for message in revised.values() if message not in left)]
    restored = yield from _restored(known.values())
    gone = {message.id for message in replaced}
    latest = [message for message in latest if message.id not in gone]
    running: list[Message] = []
    lacking: frozenset[str] = frozenset()
    if recall:
        latest, running, lacking = yield from _with_running(transcript, known, latest, gone)
    asked = running[0] if lacking else known.get(question)
    result = _result(transcript, known, start, question, asked, latest)
    return replace(
        result,
        recall_before=result.recall_before or (asked if lacking else None),
        has_gaps=result.has_gaps or bool(lacking),
        repeated_ids=repeated,
        replaced=replaced,
        restored=restored,
        revised=revised,
        running=running,
        lacking_ids=lacking,
        latest=last,
        goes_further_back=goes_further_back,
    )


def stored_since(message: Message | None) -> Plan[Sequence[Message]]:
    """Find what was stored after a message that waits for its answer, from another question on.

    Another client, thread or run has stored it. The answer to the earlier question belongs before it.

    Args:
        message: A stored message, or None.

    Returns:
        The messages; empty if there are none, or if the turn of the message has gone on.
    """
    if message is None or (message.role is MessageRole.ASSISTANT and not calls_of(message)):
        return []
    size = _PAGE
    while True:
        latest = yield from get_latest(size)
        if len(latest) < size or (latest[0].timestamp or 0.0) <= (message.timestamp or 0.0):
            break
        size *= 4
    following = _following(message, latest)
    return following if following and is_question(following[0]) else []


def store_revisions(transcript: Transcript, alignment: Alignment) -> Plan[None]:
    """Store what the alignment says of messages that are stored: new versions, and what is superseded or is not.

    Args:
        transcript: The conversation.
        alignment: Its alignment.
    """
    changed = [*marked(alignment.replaced, clock()), *marked(alignment.restored, None)]
    if changed:
        yield from UpdateMany(changed)
    versions = []
    for place, old in alignment.revised.items():
        # At the same time, the later arrival comes later.
        version = transcript.message(place).model_copy(update={"timestamp": old.timestamp})
        versions.append(version)
    if versions:
        yield from AddMany(versions)


def _left(
    transcript: Transcript, known: Mapping[int, Message], start: int, latest: Sequence[Message]
) -> Plan[list[Message]]:
    """Find the stored messages that the transcript has left.

    These are among the messages after the last one that it shares with the store:

    - those that were stored from an earlier version of it, where the framework keeps the transcript itself, and what
      answers questions among them;
    - else all from the first question on, where the transcript goes on with an edited version of that: with its id, or
      with most of its words;
    - else the answer to the transcript's last question, where that question is not all that the transcript shares; or
      what follows its last calls or results, where a run begins with these.

    Where they share nothing, see `_beginning_left`. Otherwise, the messages are another client's, and both count.

    Nothing is left while a run goes on, since what is removed then was trimmed; nor by an agent in another graph,
    since that graph decides what its state is. An answer that was interrupted is never in a transcript, so it is left
    only with its question. A question without an answer may be another run's at the same time; it is left only by a
    transcript that goes on from an older version, or with an edited version of it.
    """
    if transcript.is_nested or not _begins(transcript, known, start):
        return []
    last = len(transcript) - 1
    if not known:
        return (yield from _beginning_left(transcript, latest))
    newest = max(known.values(), key=lambda message: message.timestamp or 0.0)
    place = next(place for place, message in known.items() if message is newest)
    # Trimmed to the first question and the newest.
    is_trimmed = place == 0 < last and is_question(newest) and transcript.is_question(1)
    asks = start <= last and transcript.is_question(start) and not is_trimmed
    size = len(latest)
    while (
        size
        and (asks or any(map(transcript.wrote, _turns(latest)[-1])))
        and (latest[0].timestamp or 0.0) > (newest.timestamp or 0.0)
    ):
        size *= 4
        latest = yield from get_latest(size)
        if len(latest) < size:
            break
    ids = {message.id for message in known.values()}
    after = _following(newest, latest)
    rest = [message for message in after if message.id not in ids]
    said = [message for message in rest if not message.interrupted]
    if is_trimmed and said and not is_question(said[0]):
        return []
    left = _own(transcript, rest)
    if not transcript.is_question(last) or (start > last and _answered_again(transcript, known, latest)):
        left += [message for message in _answer(said) if message not in left]
    if left or start > last:
        return sorted(left, key=rest.index)
    first = next((number for number, message in enumerate(rest) if is_question(message)), None)
    if first is not None and _is_edited(transcript, start, rest[first]):
        return rest[first:]
    if said and transcript.has_id_of(start, said[0]):
        return said
    return []


def _begins(transcript: Transcript, known: Mapping[int, Message], start: int) -> bool:
    """Whether a run begins: with a question, or from an older version that ends with stored calls or their results.

    While a run goes on, calls and results are new together. Where they are not stored, the run has to name the version.
    """
    last = len(transcript) - 1
    if transcript.is_question(last):
        return True
    if transcript.outline(last).role is not MessageRole.TOOL:
        return False
    if start > last:
        return True
    before = known.get(start - 1)
    if before is None:
        return False
    if is_question(before):
        return transcript.is_fork and not transcript.stores_calls
    return bool(calls_of(before)) and transcript.outline(start).role is MessageRole.TOOL


def _is_open(turn: Sequence[Message]) -> bool:
    """Whether a turn may still go on: it has no answer, and nothing in it was interrupted."""
    last = turn[-1]
    answered = last.role is MessageRole.ASSISTANT and not calls_of(last)
    return not answered and not any(message.interrupted for message in turn)


def _own(transcript: Transcript, messages: Sequence[Message]) -> list[Message]:
    """Find the messages that were stored from the transcript, and what answers questions among them."""
    own: list[Message] = []
    for turn in _turns(messages):
        if not is_question(turn[0]):
            wrote = transcript.wrote(turn[0])
            own += [each for each in turn if (wrote or transcript.wrote(each)) and not each.interrupted]
        elif transcript.wrote(turn[0]) and (transcript.is_fork or not _is_open(turn)):
            own += turn
    return own


def _beginning_left(transcript: Transcript, latest: Sequence[Message]) -> Plan[list[Message]]:
    """Find what is left by a transcript that shares nothing with the store: all of it, or nothing.

    A client that sends its question alone shares nothing either. So only an older version that the run names, or an id
    that no two messages have, counts.
    """
    if not transcript.is_fork and not any(transcript.has_unique_id_of(0, message) for message in latest):
        return []
    everything = yield from get_conversation()
    if transcript.is_fork:
        return _own(transcript, everything)
    first = next(number for number, message in enumerate(everything) if transcript.has_unique_id_of(0, message))
    return everything[first:]


def _following(message: Message, latest: Sequence[Message]) -> Sequence[Message]:
    """The messages after a stored one."""
    number = next((number for number, each in enumerate(latest) if each.id == message.id), None)
    if number is not None:
        return latest[number + 1 :]
    return [each for each in latest if (each.timestamp or 0.0) > (message.timestamp or 0.0)]


def _answer(following: Sequence[Message]) -> list[Message]:
    """Return the messages after a question, up to the next one."""
    end = next((number for number, message in enumerate(following) if is_question(message)), len(following))
    return list(following[:end])


def _answered_again(transcript: Transcript, known: Mapping[int, Message], latest: Sequence[Message]) -> bool:
    """Whether the transcript ends with a stored question because it is to be answered again."""
    last = len(transcript) - 1
    if last not in known or not transcript.is_question(last) or transcript.is_nested:
        return False
    answer = _answer(_following(known[last], latest))
    return bool(answer) and (min(known) < last or any(map(transcript.wrote, [known[last], *answer])))


def _is_edited(transcript: Transcript, position: int, stored: Message) -> bool:
    if not transcript.is_question(position):
        return False
    if transcript.has_id_of(position, stored):
        return True
    message = transcript.message(position)
    words, others = _tokenizer.words(message.text), _tokenizer.words(stored.text)
    shared = len(words & others) / max(1, min(len(words), len(others)))
    return shared > _EDITED or _text(message) == _text(stored)


def _revised(
    transcript: Transcript, known: Mapping[int, Message], start: int, latest: Sequence[Message]
) -> dict[int, Message]:
    """Find messages of which the transcript has another version under the same id, before others that it shares."""
    ids = {message.id for message in known.values()}
    found: dict[int, Message] = {}
    for place in range(max(0, start - 2 * _PAGE), start):
        if place not in known:
            same = [message for message in latest if transcript.has_id_of(place, message)]
            # An id of several messages does not identify one.
            if len(same) == 1 and same[0].id not in ids:
                found[place] = same[0]
    return found


def _restored(known: Iterable[Message]) -> Plan[list[Message]]:
    """Find the superseded messages that count again: those in the transcript, and what was superseded with them."""
    until: dict[float, float] = {}
    for message in known:
        at = message.superseded_at
        if at is not None:
            until[at] = max(until.get(at, 0.0), message.timestamp or 0.0)
    found: list[Message] = []
    for at, last in until.items():
        together = yield from GetEverything({SUPERSEDED_KEY: at})
        found += [message for message in together if (message.timestamp or 0.0) <= last]
    return found


def _result(
    transcript: Transcript,
    known: dict[int, Message],
    start: int,
    question: int,
    asked: Message | None,
    latest: Sequence[Message],
) -> Alignment:
    if not known:
        return Alignment(start)
    ids = frozenset(message.id for message in known.values())
    number = next((number for number, message in enumerate(latest) if asked and message.id == asked.id), len(latest))
    # The transcript's question and what follows it is the turn that goes on now, whatever others have stored since.
    turns = _turns(latest[:number])
    shared = list(takewhile(lambda turn: _has(transcript, known, turn, question), reversed(turns)))
    # A client's own version of a turn may lack what was done in it, or have it without ids.
    had = ids.union(message.id for turn in turns if _has(transcript, known, turn, question) for message in turn)
    has_gaps = len(shared) < len(turns)
    if not has_gaps:
        first = known[min(known)]
        before: Message | None = min(first, asked or first, key=lambda message: message.timestamp or 0.0)
    else:
        # The session has more than the transcript: its middle was left out, or another client has added turns.
        before = shared[-1][0] if shared else asked
    questions = {message.id: turn[0].id for turn in _turns(latest) if is_question(turn[0]) for message in turn}
    followed = {one.id for one, other in pairwise(latest) if not is_question(other)}
    waiting = {message.id for message in latest} - followed
    answered = frozenset(message.id for message in known.values() if is_question(message)) - waiting
    return Alignment(start, before, had, known=known, has_gaps=has_gaps, question_ids=questions, answered_ids=answered)


def _goes_on(transcript: Transcript, known: Mapping[int, Message], latest: Sequence[Message]) -> list[Message]:
    """Find the stored turn that goes on: that of the last message that both have.

    If the transcript lacks the answer of that turn, as where only the first and the last messages were kept, it is the
    last turn without an answer, preferably one stored from this transcript. Its beginning may be missing.
    """
    ids = {message.id for message in known.values()}
    turns = _turns(latest)
    shared = [turn for turn in turns if any(message.id in ids for message in turn)]
    if shared and (_is_open(shared[-1]) or shared[-1][-1].id in ids):
        return shared[-1]
    waiting = [turn for turn in turns if _is_open(turn)]
    own = [turn for turn in waiting if transcript.wrote(turn[0])]
    return next(reversed(own or waiting), [])


def _with_running(
    transcript: Transcript, known: Mapping[int, Message], latest: list[Message], gone: Collection[str]
) -> Plan[tuple[list[Message], list[Message], frozenset[str]]]:
    """Find the stored messages of the turn that goes on, if the transcript lacks some of them.

    Args:
        transcript: The transcript.
        known: The stored messages that it has, by their positions.
        latest: The latest messages.
        gone: Ids of those that it has left.

    Returns:
        The latest messages, from the beginning of the turn or from before it; those of the turn; and the ids of those
        that the transcript lacks.
    """
    nothing: tuple[list[Message], list[Message], frozenset[str]] = (latest, [], frozenset())
    if transcript.is_nested or transcript.is_question(len(transcript) - 1):
        return nothing
    if not known and transcript.outline(0).role is not MessageRole.TOOL:
        return nothing  # else its call is stored, and the results after it are new
    places = {message.id: place for place, message in known.items()}
    turn = _goes_on(transcript, known, latest)
    if all(message.id in places or message.interrupted for message in turn):
        place = places.get(turn[0].id, 0) if turn else 0
        if not turn or is_question(turn[0]) or (place and not transcript.is_question(place - 1)):
            return nothing  # the transcript has it, as far as it goes back
    size = max(_PAGE, len(latest))
    while turn and not is_question(turn[0]) and size < _MOST_AT_ONCE:
        size *= 4
        latest = [message for message in (yield from get_latest(size)) if message.id not in gone]
        turn = _goes_on(transcript, known, latest)
    if not turn or not is_question(turn[0]):
        return nothing
    # A client that sends the conversation without ids has these messages under other ones.
    end = range(max(0, len(transcript) - len(latest)), len(transcript))
    own = {digest_of(transcript.outline(place)) for place in end}
    lacking = [each for each in turn if each.id not in places and not each.interrupted and digest_of(each) not in own]
    return latest, turn, frozenset(message.id for message in lacking)


def _turns(messages: Iterable[Message]) -> list[list[Message]]:
    """Split stored messages before each question."""
    turns: list[list[Message]] = []
    for message in messages:
        if is_question(message) or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _has(transcript: Transcript, known: Mapping[int, Message], turn: Sequence[Message], question: int) -> bool:
    """Whether the transcript has a stored turn before the one that goes on.

    That is all of it, or its question with the answer, also in its own words. What follows the transcript's last
    question belongs to the turn that goes on.
    """
    places = {message.id: place for place, message in known.items()}
    if all(message.id in places for message in turn):
        return True
    place = places.get(turn[0].id)
    if place is None or not is_question(turn[0]):
        return False
    answered = place < question and not transcript.is_question(place + 1)
    return turn[-1].id in places or (answered and place + 1 not in known)


def _known(transcript: Transcript, latest: Sequence[Message], *, is_whole: bool) -> Plan[dict[int, Message]]:
    """Find stored messages by their ids: at the beginning, and from the end back to the first that is stored.

    Args:
        transcript: The transcript.
        latest: The latest messages.
        is_whole: Whether these are all that is stored.
    """
    end = range(max(0, len(transcript) - 2 * _PAGE), len(transcript))
    by_id = {message.id: message for message in latest}
    known = {place: by_id[transcript.id(place)] for place in end if transcript.id(place) in by_id}
    questions = list(filter(transcript.is_question, end))
    known |= _same(transcript, questions, latest)
    stop, size = len(transcript), _PAGE
    ids: dict[int, str] = {place: transcript.id(place) for place in range(min(_PAGE, stop))}
    asked: set[str] = set()
    while stop > 0:
        start = max(0, stop - size)
        if not known or max(known) < start:
            ids |= {place: transcript.id(place) for place in range(start, stop)}
        wanted = {id_ for place, id_ in ids.items() if place not in known} - asked
        stored = by_id if is_whole else {message.id: message for message in (yield from _with_ids(wanted))}
        asked |= wanted
        known |= {place: stored[id_] for place, id_ in ids.items() if id_ in stored and place not in known}
        if (known and max(known) >= start) or (not known and _ends_with(transcript, latest)):
            break
        stop, size = start, min(4 * size, _MOST_AT_ONCE)
    if known:
        # A message before a stored one is not new: its id may be made of a question that has been left out since.
        known |= _same(transcript, [place for place in end if place not in known and place < max(known)], latest)
    if not questions or (questions[-1] in known and _has_moved_on(known[questions[-1]], known, latest)):
        # The question that the last messages belong to has been left out: their ids are made of another question.
        known |= _same(transcript, [place for place in end if place not in known], latest)
    # Where the messages between were left out, the ids of later ones are made of another question. Those of the turn
    # that goes on now are not compared, since some models give one id to equal answers.
    newest = max(known, default=-1)
    later = _following(known[newest], latest) if known else latest
    return known | _same(transcript, range(max(end.start, newest + 1), max(questions, default=0)), later)


def _ends_with(transcript: Transcript, latest: Sequence[Message]) -> bool:
    """Whether a transcript without ids has the latest turns, by their texts, directly before what is asked now.

    Then ids further back would not be known either. A few texts could be equal by chance.
    """
    texts, stored = list(map(_text, _spoken(_ending(transcript)))), list(map(_text, _spoken(latest)))
    while texts and texts[-1][0] is MessageRole.USER:
        texts.pop()
    return len(stored) >= _PAGE // 2 and texts[-len(stored) :] == stored


def _ending(transcript: Transcript) -> list[Message]:
    return [transcript.outline(place) for place in range(max(0, len(transcript) - 2 * _PAGE), len(transcript))]


def _same(transcript: Transcript, places: Iterable[int], latest: Sequence[Message]) -> dict[int, Message]:
    found = {
        place: next((message for message in reversed(latest) if transcript.is_same(place, message)), None)
        for place in places
    }
    return {place: message for place, message in found.items() if message is not None}


def _has_moved_on(question: Message, known: dict[int, Message], latest: Sequence[Message]) -> bool:
    """Whether the session goes on after a question with messages that the transcript does not have."""
    number = next((number for number, message in enumerate(latest) if message.id == question.id), None)
    if number is None or number + 1 == len(latest):
        return number is None
    following = latest[number + 1]
    return following.role is not MessageRole.USER and all(following.id != message.id for message in known.values())


def _asked_again(transcript: Transcript, known: dict[int, Message], latest: Sequence[Message]) -> bool:
    """Whether the transcript ends with a question that is stored and answered.

    After an answer that was interrupted, a run goes on with its question.
    """
    last = len(transcript) - 1
    if (
        transcript.is_nested
        or last not in known
        or not transcript.is_question(last)
        or known[last].superseded_at is not None
    ):
        return False
    number = next((number for number, message in enumerate(latest) if message.id == known[last].id), None)
    if number is None:
        return True  # many messages have come since
    following = next((message for message in latest[number + 1 :] if not message.interrupted), None)
    return following is not None and following.role is not MessageRole.USER


@dataclass(frozen=True, slots=True)
class _Texts:
    """What a transcript and stored messages have in common by their texts.

    Attributes:
        matching: The stored messages by the positions of messages with the same text.
        end: The position where the stored part of the transcript ends.
        goes_further_back: Whether the transcript goes on before the messages compared, which all have the same texts.
        misses_answer: Whether the transcript has an answer after its stored part.
        is_complete: Whether all that was said before the questions asked now was found, as far as it was compared.
    """

    matching: Mapping[int, Message] = field(default_factory=dict)
    end: int = 0
    goes_further_back: bool = False
    misses_answer: bool = False
    is_complete: bool = False


def _most_compared(transcript: Transcript) -> int:
    return min(_MOST_AT_ONCE, max(2 * _PAGE, 4 * len(transcript)))


def _further_back_by_text(
    transcript: Transcript, latest: Sequence[Message], found: _Texts
) -> Plan[tuple[Sequence[Message], _Texts]]:
    """Look for a transcript without ids before the latest messages: a client has gone back in a long session.

    Only where the session has all that was compared, it counts: a few texts could be equal by chance.

    Returns:
        The latest messages, from before the place where the transcript was found; and what they have in common. If it
        was not found, the arguments.
    """
    texts = list(map(_text, _spoken(_ending(transcript))))
    while texts and texts[-1][0] is MessageRole.USER:
        texts.pop()
    size = most = _most_compared(transcript)
    wide = latest
    while texts and len(wide) >= size:
        size *= 4
        wide = yield from get_latest(size)
        spoken = _spoken(wide)
        stored = list(map(_text, spoken))
        ends = [number for number, text in enumerate(stored, 1) if text == texts[-1]]
        if ends:
            end = max(ends, key=lambda number: len(_further_back(texts, stored, (len(texts), number))))
            part = spoken[max(0, end - most) : end + 2 * _PAGE]
            there = _by_text(transcript, part, len(transcript))
            if there.is_complete:
                return wide, there
    return latest, found


def _by_text(transcript: Transcript, stored: Sequence[Message], stop: int) -> _Texts:
    """Compare texts, up to a position of the transcript."""
    start = max(0, stop - _MOST_AT_ONCE)
    messages = [transcript.outline(place) for place in range(start, stop)]
    place_of = {id(message): start + number for number, message in enumerate(messages)}
    spoken, known = _spoken(messages), _spoken(stored)
    texts, stored_texts = list(map(_text, spoken)), list(map(_text, known))
    # The questions after the last answer are those asked now.
    answers = [number for number, message in enumerate(spoken) if message.role is not MessageRole.USER]
    before = answers[-1] + 1 if answers else 0
    cut = max(0, before - _MOST_COMPARED)
    pairs = [(cut + i, j) for i, j in _common(texts[cut:before], stored_texts)]
    if pairs:
        pairs = _further_back(texts, stored_texts, pairs[0]) + pairs
    pairs += _asked_before(texts, stored_texts, before, pairs, running=len(messages) > len(spoken))
    if not pairs:
        return _Texts(misses_answer=bool(answers))
    last, match = pairs[-1]
    end = place_of[id(spoken[last])] + 1
    answered = match + 1 < len(known) and known[match + 1].role is not MessageRole.USER
    if spoken[last].role is MessageRole.USER and answered:
        # The messages that follow an answered question are the client's own wording of the answer.
        following = next((place for place in range(end, stop) if transcript.is_question(place)), None)
        end = end if following is None else following
    return _Texts(
        {place_of[id(spoken[i])]: known[j] for i, j in pairs},
        end,
        goes_further_back=start > 0 and 0 in pairs[0],
        misses_answer=bool(answers) and place_of[id(spoken[before - 1])] >= end,
        is_complete=bool(answers) and {i for i, _ in pairs}.issuperset(range(cut, before)),
    )


def _asked_before(
    texts: Sequence[_Text], stored: Sequence[_Text], before: int, pairs: Sequence[tuple[int, int]], *, running: bool
) -> list[tuple[int, int]]:
    """Match the questions asked now with the session's last ones, of a run that failed or is to answer again."""
    asked = list(texts[before:])
    start = pairs[-1][1] + 1 if pairs else len(stored) - len(asked)
    if not asked or start < 0 or list(stored[start : start + len(asked)]) != asked:
        return []
    following = stored[start + len(asked) :]
    if (not pairs and (following or not running)) or any(role is MessageRole.USER for role, _ in following):
        return []  # a single question, or one from long ago, may be asked again
    return [(before + number, start + number) for number in range(len(asked))]


def _further_back(texts: Sequence[_Text], stored: Sequence[_Text], first: tuple[int, int]) -> list[tuple[int, int]]:
    """Extend the first pair towards the beginning, as far as the texts are equal."""
    i, j = first
    pairs: list[tuple[int, int]] = []
    while i and j and texts[i - 1] == stored[j - 1]:
        i, j = i - 1, j - 1
        pairs.append((i, j))
    return pairs[::-1]


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """Questions and answers: a client's copy of a conversation rarely has more."""
    return select_to_save(messages, MemorySaveMode.INPUT_OUTPUT)


def _text(message: Message) -> _Text:
    """The text of a message, whatever a client does to its spaces and parts."""
    content = message.content if isinstance(message.content, str) else message.text or repr(message.content)
    return (message.role, " ".join(content.split()))


def _common(texts: Sequence[_Text], stored: Sequence[_Text]) -> list[tuple[int, int]]:
    """The longest common subsequence, as pairs of positions; of equal ones, the last of `stored`."""
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(texts), reversed(stored), strict=False))
    )
    end, stored_end = len(texts) - same, len(stored) - same
    common = _longest(texts[:end], stored[:stored_end])
    return [*common, *((end + number, stored_end + number) for number in range(same))]


def _longest(texts: Sequence[_Text], stored: Sequence[_Text]) -> list[tuple[int, int]]:
    if not texts:
        return []
    longest = [[0] * (len(stored) + 1) for _ in range(len(texts) + 1)]
    for i, one in enumerate(texts, 1):
        for j, other in enumerate(stored, 1):
            longest[i][j] = longest[i - 1][j - 1] + 1 if one == other else max(longest[i - 1][j], longest[i][j - 1])
    pairs: list[tuple[int, int]] = []
    i, j = len(texts), len(stored)
    while i and j:
        if texts[i - 1] == stored[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif longest[i - 1][j] >= longest[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _with_ids(ids: Iterable[str]) -> Plan[list[Message]]:
    wanted = sorted(ids)
    return (yield from GetAll(len(wanted), {MESSAGE_ID_KEY: wanted})) if wanted else []
