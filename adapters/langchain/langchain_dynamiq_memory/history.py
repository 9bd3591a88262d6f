"""The messages of a session as LangChain's chat history."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Sized
from typing import NoReturn

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import run_in_executor

from dynamiq_memory import ConfigurationError, DynamiqMemoryError, Memory, Message
from dynamiq_memory.messages import MESSAGE_ID_KEY, put_together
from dynamiq_memory.native import Default
from dynamiq_memory.references import memory_at
from langchain_dynamiq_memory._chain import HandedOut, begins_run, ends_run
from langchain_dynamiq_memory._messages import (
    batch_of,
    check_default,
    for_model,
    from_message,
    plain_filters,
    stable_id,
)

logger = logging.getLogger(__name__)


class DynamiqChatMessageHistory(BaseChatMessageHistory):
    """One session of a memory, as a chat history.

    Making one reads and writes nothing, so a chain may ask for it on every run. One object is safe from many threads
    and asyncio tasks.

    Args:
        memory: Where the messages live. Its default filters hold; its save mode does not, since what is added here
            is added by the caller's choice.
        session_id: The session, a non-empty string.
        user_id: Whose session it is; by default the user whom the memory's default filters fix, else nobody: then
            only messages without a user are read.
        limit: With a limit, `messages` are the most recent whole turns with at most so many messages, which every
            provider accepts: no tool's result without its call, a user's message first. None for all messages as
            they were added.
        default: Called for a value in a message (such as a tool's artifact) that no store can hold; returns one that
            can. Without it, such a message is refused. As `default` of `json.dumps`.

    Raises:
        ConfigurationError: There is no session_id, or an argument is wrong.
        MessageError: session_id or user_id is no non-empty string.
    """

    def __init__(
        self,
        memory: Memory,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        *,
        default: Default | None = None,
    ) -> None:
        """Bind the session; no I/O."""
        super().__init__()
        if not isinstance(memory, Memory):
            raise ConfigurationError(
                f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}: "
                "give Memory(backend=…), or use DynamiqChatMessageHistory.from_url(url, session_id=…)"
            )
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise ConfigurationError(f"limit must be a whole number of 1 or more, or None for all; not {limit!r}")
        self.memory = memory.scoped(session_id, user_id)
        self.limit = limit
        self._default = check_default(default)
        self._handed_out = HandedOut()

    @classmethod
    def from_url(
        cls,
        url: str,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        *,
        default: Default | None = None,
    ) -> DynamiqChatMessageHistory:
        """Make a history on the store at a URL, such as `sqlite:///conversations.db`.

        All histories of a process that name the same URL share one store, which stays open until the process ends.

        Args:
            url: As for `dynamiq_memory.backends.create_backend`.
            session_id: As for the class.
            user_id: As for the class.
            limit: As for the class.
            default: As for the class.

        Raises:
            ConfigurationError: The URL is not understood, or an argument is wrong.
        """
        return cls(memory_at(url), session_id, user_id, limit, default=default)

    @property
    def session_id(self) -> str:
        """The session."""
        return str(self.memory.filters["session_id"])

    @property
    def user_id(self) -> str | None:
        """Whose session it is."""
        user_id = self.memory.filters["user_id"]
        return None if user_id is None else str(user_id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The messages, oldest first, read from the store each time: a list of the caller's own.

        Raises:
            BackendError: The store failed.
        """
        if ends_run() and self._is_plain():
            self._handed_out.expect_whole_input()
            return []
        messages = self._read()
        if begins_run():
            self._handed_out.note(messages)
        return messages

    async def aget_messages(self) -> list[BaseMessage]:
        """Read the messages; see `messages`."""
        if not self._is_own("messages"):
            return await run_in_executor(None, lambda: self.messages)
        if ends_run() and self._is_plain():
            self._handed_out.expect_whole_input()
            return []
        messages = await self._aread()
        if begins_run():
            self._handed_out.note(messages)
        return messages

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages as one batch, all or none where the store can, behind those that are there.

        A batch whose messages all have ids can be added again without being doubled. Otherwise an id does not matter:
        some models number all their answers alike.

        Args:
            messages: Messages of any of LangChain's types; not changed.

        Raises:
            MessageError: A message cannot be stored as it is given.
            BackendError: The store failed.
        """
        try:
            if self._handed_out.whole_input_expected() and ends_run():
                messages = self._handed_out.new_among(messages)
            batch, known = self._batch(messages)
            stored = self.memory.get_all(len(batch), {MESSAGE_ID_KEY: known}) if known else []
            self.memory.add_many(_new(batch, stored, self.memory.get_all(1)))
        except DynamiqMemoryError as error:
            self._report(error, messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages as one batch; see `add_messages`."""
        if not self._is_own("add_messages"):
            return await run_in_executor(None, self.add_messages, messages)
        try:
            if self._handed_out.whole_input_expected() and ends_run():
                messages = self._handed_out.new_among(messages)
            batch, known = self._batch(messages)
            stored = await self.memory.aget_all(len(batch), {MESSAGE_ID_KEY: known}) if known else []
            await self.memory.aadd_many(_new(batch, stored, await self.memory.aget_all(1)))
        except DynamiqMemoryError as error:
            self._report(error, messages)
        return None

    def clear(self) -> None:
        """Delete the session's messages."""
        self.memory.clear()

    async def aclear(self) -> None:
        """Delete the session's messages."""
        if not self._is_own("clear"):
            return await run_in_executor(None, self.clear)
        await self.memory.aclear()
        return None

    def search(self, query: str, limit: int = 10) -> list[BaseMessage]:
        """Find the session's messages that are relevant to a query.

        Args:
            query: What to look for.
            limit: At most so many, 1 or more.

        Returns:
            The messages that match, best first; for a blank query, the most recent, oldest first.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            BackendError: The store failed.
        """
        return [from_message(message) for message in self.memory.search(query, limit=limit)]

    async def asearch(self, query: str, limit: int = 10) -> list[BaseMessage]:
        """Find the session's messages that are relevant to a query; see `search`."""
        return [from_message(message) for message in await self.memory.asearch(query, limit=limit)]

    def __repr__(self) -> str:
        """Name the session and the store."""
        return (
            f"{type(self).__name__}(session_id={self.session_id!r}, user_id={self.user_id!r}, "
            f"backend={self.memory.backend!r})"
        )

    def _read(self) -> list[BaseMessage]:
        if self.limit is None:
            found = self.memory.backend.get_all(None, self.memory.filters)
        else:
            found = self.memory.get_agent_conversation(limit=self.limit)
        return self._hand_out(found)

    async def _aread(self) -> list[BaseMessage]:
        if self.limit is None:
            found = await self.memory.backend.aget_all(None, self.memory.filters)
        else:
            found = await self.memory.aget_agent_conversation(limit=self.limit)
        return self._hand_out(found)

    def _hand_out(self, found: Sequence[Message]) -> list[BaseMessage]:
        return [from_message(message) for message in found] if self.limit is None else for_model(found)

    def _is_own(self, name: str) -> bool:
        """Whether a subclass has left a method as it is here."""
        return getattr(type(self), name) is getattr(DynamiqChatMessageHistory, name)

    def _is_plain(self) -> bool:
        """Whether what a chain is handed is what is read here, and what it saves is what is stored here."""
        return all(map(self._is_own, ("messages", "aget_messages", "add_messages", "aadd_messages")))

    def _batch(self, messages: Sequence[BaseMessage]) -> tuple[list[Message], list[str]]:
        """Our messages, and the ids under which they are stored if the batch has been added before."""
        batch = batch_of(messages, self._default)
        if not batch or not all(message.id for message in messages):
            return batch, []
        whole = [plain_filters(self.memory), *(message.to_json() for message in _anonymous(batch))]
        for place, message in enumerate(batch):
            message.id = stable_id(str(place), *whole)
        return batch, [message.id for message in batch]

    def _report(self, error: DynamiqMemoryError, messages: object) -> NoReturn:
        # A chain only logs what its history raises, without saying whose messages are missing.
        logger.error(
            "%s messages of session %r (user %r) were not stored: %s",
            len(messages) if isinstance(messages, Sized) else "no",
            self.session_id,
            self.user_id,
            error,
        )
        raise error


def _anonymous(batch: Iterable[Message]) -> list[Message]:
    """The messages without what they have from being made here."""
    return [message.model_copy(update={"id": "", "timestamp": None}) for message in batch]


def _new(batch: Iterable[Message], stored: Iterable[Message], latest: Sequence[Message]) -> list[Message]:
    """What is not stored yet, to stand behind the latest message."""
    there = {message.id for message in stored}
    new = [message for message in batch if message.id not in there]
    put_together(new, latest[0] if latest else None)
    return new
