"""The conversation in an agent's state, and the ids under which it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from dynamiq_memory import Memory, Message
from dynamiq_memory.integrations.alignment import Transcript
from dynamiq_memory.integrations.messages import new_id
from dynamiq_memory.integrations.native import Default, digest_of
from langchain_dynamiq_memory._messages import fixed_filters, langchain_id, stable_id, to_message

# How LangChain's SummarizationMiddleware marks its note.
_SUMMARY = "summarization"
# The key in a message's `native` of the thread whose state had it.
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
    """

    def __init__(
        self, state: Sequence[BaseMessage], memory: Memory, default: Default | None, thread: str | None = None
    ) -> None:
        """Take the messages; none is converted yet."""
        self._thread = thread
        self._state = [m for m in state if not isinstance(m, SystemMessage) and not is_summary(m)]
        self._filters = fixed_filters(memory)
        self._default = default
        self._messages: dict[int, Message] = {}

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self._state)

    @property
    def last(self) -> BaseMessage:
        """The last message, as LangChain has it."""
        return self._state[-1]

    def id(self, position: int) -> str:
        """Return the id under which a message is stored."""
        return self.message(position).id

    def message(self, position: int) -> Message:
        """Return the message at a position, converted."""
        if position not in self._messages:
            message = to_message(self._state[position], self._default)
            message.id = self._id_of(position, message)
            if self._thread is not None and message.native is not None:
                message.native[_THREAD] = self._thread
            self._messages[position] = message
        return self._messages[position]

    def is_question(self, position: int) -> bool:
        """Whether it is a message of the user."""
        return isinstance(self._state[position], HumanMessage)

    def is_same(self, position: int, stored: Message) -> bool:
        """Whether a stored message is this one, although its question may have left the state since."""
        return self.has_id_of(position, stored) and digest_of(stored) == digest_of(self.message(position))

    def has_id_of(self, position: int, stored: Message) -> bool:
        """Whether LangChain gave the message the id of a stored one."""
        id_ = self._state[position].id
        return bool(id_) and langchain_id(stored) == id_ and stored.role is self.message(position).role

    def wrote(self, stored: Message) -> bool:
        """Whether a message was stored from the state of the same thread."""
        return self._thread is not None and (stored.native or {}).get(_THREAD) == self._thread

    def by_object(self, known: Mapping[int, Message]) -> dict[int, Message]:
        """Stored messages by the `id()` of the state's own objects rather than by position."""
        return {id(self._state[position]): message for position, message in known.items()}

    def _id_of(self, position: int, message: Message) -> str:
        id_ = self._state[position].id
        if not id_:
            return new_id()
        before = range(position - 1, -1, -1)
        question = next((number for number in before if self.is_question(number)), None)
        if question is None or self.is_question(position):
            return stable_id(self._filters, id_, digest_of(message))
        asked = self._state[question].id or digest_of(self.message(question))
        return stable_id(self._filters, id_, digest_of(message), asked)
