"""How `RunnableWithMessageHistory` saves, and what that needs of a history.

Without `history_messages_key`, the chain's input at the end of a run is the history followed by what is new. LangChain
tells the two apart by the length of the history, read again: a run of the same session that has finished in between,
or a window that has moved, would then cost the user's message. So the history answers that second read with nothing,
gets the whole input, and leaves out what it handed out itself when the run began.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from langchain_core.messages import BaseMessage
from langchain_core.runnables import history

from dynamiq_memory import MessageError
from dynamiq_memory.native import digest_of
from langchain_dynamiq_memory._messages import to_message

# There is no public sign of these callers. Were they renamed, LangChain's own way would apply again.
_READERS = frozenset({"_enter_history", "_aenter_history"})
_SAVERS = frozenset({"_exit_history", "_aexit_history"})
# Runs of a history object that chains share, at the same time.
_READS = 64
_whole_input: ContextVar[int | None] = ContextVar("whole_input", default=None)


def begins_run() -> bool:
    """Whether the method that asks was called at the beginning of a chain's run."""
    return _called_by(_READERS)


def ends_run() -> bool:
    """Whether the method that asks was called at the end of a chain's run."""
    return _called_by(_SAVERS)


def _called_by(names: frozenset[str]) -> bool:
    caller = sys._getframe(3)  # noqa: SLF001 - behind the method and the question
    return caller.f_code.co_name in names and caller.f_globals.get("__name__") == history.__name__


@dataclass(frozen=True, slots=True)
class _Read:
    """The messages that one read has handed out: the objects, and what tells their copies."""

    messages: tuple[weakref.ref[BaseMessage], ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.messages)

    def begins(self, given: Sequence[BaseMessage]) -> bool:
        return len(given) >= len(self) and all(one() is other for one, other in zip(self.messages, given, strict=False))

    def begins_copied(self, digests: Sequence[str]) -> bool:
        return self.digests == tuple(digests[: len(self)])


class HandedOut:
    """Remembers what a history has handed out to the runs of chains."""

    def __init__(self) -> None:
        self._reads: deque[_Read] = deque(maxlen=_READS)

    def note(self, messages: Sequence[BaseMessage]) -> None:
        """Remember a read."""
        self._reads.append(_Read(tuple(map(weakref.ref, messages)), tuple(map(_digest, messages))))

    def expect_whole_input(self) -> None:
        """Note that what is added next, in this context, begins with the history."""
        _whole_input.set(id(self))

    def whole_input_expected(self) -> bool:
        """Whether it does; asked once."""
        expected = _whole_input.get() == id(self)
        _whole_input.set(None)
        return expected

    def new_among(self, given: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """Leave out the history that a chain's input begins with.

        Args:
            given: The input, and behind it the output.
        """
        reads = sorted({len(read): read for read in self._reads if read.begins(given)}.items())
        if reads and reads[-1][0]:
            return given[reads[-1][0] :]
        # A model that is wrapped without a prompt gets copies. A question and an answer follow the history, or at
        # least an answer.
        digests = [_digest(message) for message in given]
        for new in (2, 1):
            lengths = [
                len(read) for read in self._reads if len(read) <= len(given) - new and read.begins_copied(digests)
            ]
            if any(lengths) or (lengths and new == 1):
                return given[max(lengths) :]
        return given


def _digest(message: BaseMessage) -> str:
    try:
        return digest_of(to_message(message, repr))
    except MessageError:
        return ""
