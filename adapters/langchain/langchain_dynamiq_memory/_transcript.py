"""The conversation in an agent's state, and the ids under which it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, ToolMessage

from dynamiq_memory import Memory, MemorySaveMode, Message, MessageRole
from dynamiq_memory.integrations.alignment import Transcript
from dynamiq_memory.integrations.interruptions import INTERRUPTED_KEY
from dynamiq_memory.integrations.messages import new_id
from dynamiq_memory.integrations.native import Default, digest_of
from langchain_dynamiq_memory._messages import (
    FRAMEWORK,
    fixed_filters,
    is_plain,
    langchain_id,
    outline,
    stable_id,
    to_message,
)

# How LangChain's SummarizationMiddleware marks its note.
_SUMMARY = "summarization"
# Ids of this length are made at random; clients number their messages with shorter ones.
_UNIQUE = 16
# The key in a message's `native` of the thread that had it in its state.
_THREAD = "thread"


def is_summary(message: BaseMessage) -> bool:
    """Whether a message is a note that replaces earlier messages."""
    return isinstance(message, HumanMessage) and message.additional_kwargs.get("lc_source") == _SUMMARY


class StateTranscript(Transcript):
    """The conversation in an agent's state, without instructions and summaries.

    The id of a stored message is made from LangChain's id, the message's content and the question it belongs to: some
    models give the same id to all their answers, and some clients to all their questions.

    Args:
        state: The messages of the state.
        memory: The memory that they are stored in; the values in its default filters are part of the ids.
        default: As for `to_message`.
        thread: The checkpointer's thread that keeps the state; None if no checkpointer does.
        is_fork: Whether the run goes on from a checkpoint that its config names.
        agent: The run of the agent, if it is part of another graph; else empty.
    """

    def __init__(
        self,
        state: Sequence[BaseMessage],
        memory: Memory,
        default: Default | None,
        thread: str | None = None,
        *,
        is_fork: bool = False,
        agent: str = "",
    ) -> None:
        """Take the messages; none is converted yet."""
        self._thread = thread
        self.agent = agent
        self._is_fork = is_fork
        self._state = [m for m in state if not isinstance(m, SystemMessage) and not is_summary(m)]
        self._memory = memory
        self._filters = fixed_filters(memory)
        self._default = default
        self._messages: dict[int, Message] = {}
        self._outlines: dict[int, Message] = {}
        self._own_ids: dict[int, str] = {}
        self._ids: dict[str, str | None] = {}

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self._state)

    @property
    def last(self) -> BaseMessage:
        """The last message, as LangChain has it."""
        return self._state[-1]

    @property
    def turn(self) -> str:
        """A name for the turn: the id of its question; empty without one."""
        question = self._question_of(len(self))
        return "" if question is None else self.id(question)

    def id(self, position: int) -> str:
        """Return the id under which a message is stored."""
        if position in self._messages:
            return self._messages[position].id
        if position not in self._own_ids:
            self._own_ids[position] = self._id_of(position, self.outline(position))
        return self._own_ids[position]

    def outline(self, position: int) -> Message:
        """Return the role, content and calls of a message, which need not be converted for that."""
        if position in self._messages:
            return self._messages[position]
        if position not in self._outlines:
            message = self._state[position]
            if not is_plain(message):
                return self.message(position)
            self._outlines[position] = outline(message, {}, None, str(position))
        return self._outlines[position]

    def message(self, position: int) -> Message:
        """Return the message at a position, converted."""
        if position not in self._messages:
            message = to_message(self._state[position], self._default)
            message.id = self._own_ids.get(position) or self._id_of(position, message)
            if self._thread is not None and message.native is not None:
                message.native[_THREAD] = self._thread
            self._messages[position] = message
        return self._messages[position]

    def is_question(self, position: int) -> bool:
        """Whether it is a message of the user."""
        return isinstance(self._state[position], HumanMessage)

    def is_same(self, position: int, stored: Message) -> bool:
        """Whether a stored message is this one, although its question may have left the state since."""
        return self.has_id_of(position, stored) and digest_of(stored) == digest_of(self.outline(position))

    def has_id_of(self, position: int, stored: Message) -> bool:
        """Whether LangChain gave the message the id of a stored one."""
        id_ = self._state[position].id
        if stored.id not in self._ids:
            self._ids[stored.id] = langchain_id(stored)
        return bool(id_) and self._ids[stored.id] == id_ and stored.role is self.outline(position).role

    def has_unique_id_of(self, position: int, stored: Message) -> bool:
        """Whether LangChain gave the message the id of a stored one, and it is as long as those that do not repeat."""
        id_ = self._state[position].id or ""
        return (len(id_) >= _UNIQUE or self.wrote(stored)) and self.has_id_of(position, stored)

    @property
    def is_nested(self) -> bool:
        """Whether the agent is part of another graph."""
        return bool(self.agent)

    @property
    def is_fork(self) -> bool:
        """Whether the run goes on from an older checkpoint of the thread."""
        return self._is_fork and self._thread is not None

    @property
    def stores_calls(self) -> bool:
        """Whether the memory keeps calls and their results."""
        return self._memory.save_mode is MemorySaveMode.FULL

    def wrote(self, stored: Message) -> bool:
        """Whether a message was stored from the state of the same thread."""
        return self._thread is not None and (stored.native or {}).get(_THREAD) == self._thread

    def following(self, messages: Sequence[BaseMessage]) -> list[Message]:
        """Convert messages that may come after those of the state, with the ids that they will have in it.

        They do not name the thread, which has them only if the run goes on; see `confirmed`.
        """
        for message in messages:
            message.id = message.id or new_id()
        longer = StateTranscript([*self._state, *messages], self._memory, self._default)
        return [longer.message(position) for position in range(len(self), len(longer))]

    def unnamed(self, stored: Iterable[Message]) -> list[Message]:
        """Return the questions of the same thread without its name.

        They were asked while this run went on: of two runs at the same time, the thread may keep this one only, and yet
        the other was not undone. See `confirmed`.
        """
        return [self._named(each, None) for each in stored if each.role is MessageRole.USER and self.wrote(each)]

    def confirmed(self, known: Mapping[int, Message]) -> list[Message]:
        """Return the last answer, and its question, with the name of the thread.

        Those that lack it were stored before it was known that the thread has them.
        """
        answers = [place for place in known if not self.is_question(place)]
        if self._thread is None or not answers:
            return []
        last = [known[max(answers)]]
        question = self._question_of(max(answers))
        if question is not None and question in known and self.is_question(len(self) - 1):  # else the turn goes on
            last.insert(0, known[question])
        natives = [each.native or {} for each in last]
        return [
            self._named(each, self._thread)
            for each, native in zip(last, natives, strict=True)
            if native.get("framework") == FRAMEWORK and _THREAD not in native
        ]

    def resumed(self, known: Mapping[int, Message]) -> list[Message]:
        """Return calls that were taken for interrupted while their run went on: the state has their results."""
        return [
            stored.model_copy(update={"metadata": {**stored.metadata, INTERRUPTED_KEY: False}})
            for place, stored in known.items()
            if stored.interrupted and 0 < len(stored.tool_calls or ()) <= self._count_results(place + 1)
        ]

    def _named(self, stored: Message, thread: str | None) -> Message:
        native = {key: value for key, value in (stored.native or {}).items() if key != _THREAD}
        if thread is not None:
            native[_THREAD] = thread
        return stored.model_copy(update={"native": native, "timestamp": stored.timestamp})

    def has(self, converted: Message) -> bool:
        """Whether a message is in the state, as LangChain knows it."""
        id_ = langchain_id(converted)
        return any(message.id == id_ for message in self._state)

    def answers(self, converted: Message) -> bool:
        """Whether a result of a message's calls is in the state."""
        ids = {call.get("id") for call in converted.tool_calls or ()}
        return any(isinstance(message, ToolMessage) and message.tool_call_id in ids for message in self._state)

    def ids_of_turn(self) -> frozenset[str]:
        """The ids of the messages after the last question."""
        question = self._question_of(len(self))
        return frozenset(map(self.id, range(0 if question is None else question + 1, len(self))))

    def by_object(self, known: Mapping[int, Message]) -> dict[int, Message]:
        """Stored messages by the `id()` of the state's own objects rather than by position."""
        return {id(self._state[position]): message for position, message in known.items()}

    def _id_of(self, position: int, message: Message) -> str:
        id_ = self._state[position].id
        if not id_:
            return new_id()
        question = self._question_of(position)
        if question is None or self.is_question(position):
            return stable_id(self._filters, id_, digest_of(message))
        asked = self._state[question].id or digest_of(self.outline(question))
        return stable_id(self._filters, id_, digest_of(message), asked)

    def _count_results(self, start: int) -> int:
        return sum(1 for _ in takewhile(lambda message: isinstance(message, ToolMessage), self._state[start:]))

    def _question_of(self, position: int) -> int | None:
        """The position of the last question before a message."""
        return next((number for number in range(position - 1, -1, -1) if self.is_question(number)), None)
