"""The conversation in an agent's state, and how it is stored."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from dynamiq_memory import Memory, Message
from dynamiq_memory._ids import new_id
from dynamiq_memory.alignment import Alignment, Held
from dynamiq_memory.native import Default, digest_of
from langchain_dynamiq_memory._messages import own_id, plain_filters, stable_id, to_message

# How LangChain's SummarizationMiddleware marks its note.
_SUMMARY = "summarization"


def is_summary(message: BaseMessage) -> bool:
    """Whether a message is the note that stands for what was said before."""
    return isinstance(message, HumanMessage) and message.additional_kwargs.get("lc_source") == _SUMMARY


class HeldState(Held):
    """What was said, of an agent's state: without instructions and summaries.

    A message is stored under an id made of LangChain's, of what it says and of the question that it belongs to: some
    models number all their answers alike, and some clients all their questions.

    Args:
        state: The messages of the state.
        memory: The memory that they are stored in: what its default filters keep apart is stored apart.
        default: As for `to_message`.
    """

    def __init__(self, state: Sequence[BaseMessage], memory: Memory, default: Default | None) -> None:
        """Take the messages; none is converted yet."""
        self._state = [m for m in state if not isinstance(m, SystemMessage) and not is_summary(m)]
        self._store = plain_filters(memory)
        self._default = default
        self._messages: dict[int, Message] = {}

    def __len__(self) -> int:
        """How many messages there are."""
        return len(self._state)

    @property
    def last(self) -> BaseMessage:
        """The last message."""
        return self._state[-1]

    def id(self, place: int) -> str:
        """The id under which a message is stored."""
        return self.message(place).id

    def message(self, place: int) -> Message:
        """Our message of the one at a place."""
        if place not in self._messages:
            message = to_message(self._state[place], self._default)
            message.id = self._id_of(place, message)
            self._messages[place] = message
        return self._messages[place]

    def is_question(self, place: int) -> bool:
        """Whether the user says it."""
        return isinstance(self._state[place], HumanMessage)

    def same(self, place: int, stored: Message) -> bool:
        """Whether a stored message is the one held: its question may have been left out of the state meanwhile."""
        given = self._state[place].id
        return bool(given) and own_id(stored) == given and digest_of(stored) == digest_of(self.message(place))

    def new(self, found: Alignment) -> list[Message]:
        """Our messages of those that are not stored yet."""
        messages = [self.message(place) for place in range(found.stored, len(self))]
        for message in messages:
            if message.id in found.taken:
                message.id = new_id()
        return messages

    def _id_of(self, place: int, message: Message) -> str:
        given = self._state[place].id
        if not given:
            return new_id()
        before = range(place - 1, -1, -1)
        question = next((number for number in before if self.is_question(number)), None)
        if question is None or self.is_question(place):
            return stable_id(self._store, given, digest_of(message))
        asked = self._state[question].id or digest_of(self.message(question))
        return stable_id(self._store, given, digest_of(message), asked)
