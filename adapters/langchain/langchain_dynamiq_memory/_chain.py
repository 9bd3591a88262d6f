"""How `RunnableWithMessageHistory` saves, and what that needs of a history.

Without `history_messages_key`, the chain's input at the end of a run is the history followed by what is new. LangChain
tells the two apart by the length of the history, read again: a run of the same session that has finished in between,
or a window that has moved, would then cost the user's message. So the history answers that second read with nothing,
gets the whole input, and leaves out the messages that it handed out itself.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Sequence
from contextvars import ContextVar

from langchain_core.messages import BaseMessage
from langchain_core.runnables import history

# There is no public sign of this caller. Were it renamed, LangChain's own way would apply again.
_SAVERS = frozenset({"_exit_history", "_aexit_history"})
_whole_input: ContextVar[int | None] = ContextVar("whole_input", default=None)


def saving() -> bool:
    """Whether the method that asks was called by the end of a chain's run."""
    caller = sys._getframe(2)  # noqa: SLF001
    return caller.f_code.co_name in _SAVERS and caller.f_globals.get("__name__") == history.__name__


class HandedOut:
    """Remembers which messages a history has handed out, for as long as they live."""

    def __init__(self) -> None:
        self._messages: weakref.WeakValueDictionary[int, BaseMessage] = weakref.WeakValueDictionary()

    def note(self, messages: Iterable[BaseMessage]) -> None:
        """Remember messages."""
        self._messages.update({id(message): message for message in messages})

    def expect_whole_input(self) -> None:
        """Note that what is added next, in this context, begins with the history."""
        _whole_input.set(id(self))

    def whole_input_expected(self) -> bool:
        """Whether it does; asked once."""
        expected = _whole_input.get() == id(self)
        _whole_input.set(None)
        return expected

    def leading(self, messages: Sequence[BaseMessage]) -> int:
        """How many messages at the beginning are ones that were handed out."""
        count = 0
        while count < len(messages) and self._messages.get(id(messages[count])) is messages[count]:
            count += 1
        return count


def copied(messages: Sequence[BaseMessage], stored: Sequence[BaseMessage]) -> int:
    """How many messages at the beginning are the whole history, for a chain that copies what it is handed."""
    begins = len(messages) > len(stored) and list(messages[: len(stored)]) == list(stored)
    return len(stored) if begins else 0
