"""The messages of a session as LangChain's chat history."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Sized
from typing import Any, NoReturn

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import run_in_executor

from dynamiq_memory import DynamiqMemoryError, Memory, Message, Window
from dynamiq_memory.integrations.arguments import check_limit, check_memory, check_window
from dynamiq_memory.integrations.messages import MESSAGE_ID_KEY, SESSION_KEY, SUPERSEDED_KEY, USER_KEY
from dynamiq_memory.integrations.native import Default
from dynamiq_memory.integrations.ordering import set_batch_times
from dynamiq_memory.integrations.plans import (
    AddMany,
    GetAgentConversation,
    GetAll,
    Plan,
    arun,
    computed,
    get_conversation,
    run,
)
from dynamiq_memory.integrations.references import memory_at, reference_to, resolve
from langchain_dynamiq_memory._messages import (
    check_default,
    fixed_filters,
    for_model,
    from_messages,
    stable_id,
    to_messages,
)
from langchain_dynamiq_memory.chain import guard_reads

logger = logging.getLogger(__name__)

_CURRENT = {SUPERSEDED_KEY: None}


class DynamiqChatMessageHistory(BaseChatMessageHistory):
    """One session of a memory, as a chat history.

    Making one reads and writes nothing, so a chain may ask for it on every run. One object may be used by many threads
    and asyncio tasks. Copies and pickles refer to the memory; see `dynamiq_memory.register_memory`.

    Args:
        memory: Where the messages are stored. Its default filters apply; its save mode does not, since a history
            stores all that is added to it.
        session_id: The session, a non-empty string.
        user_id: The user it belongs to. Defaults to the user in the memory's default filters, else to no user: then
            only messages without a user are read.
        limit: Maximum number of messages in `messages`: the most recent whole turns that fit, which every provider
            accepts, since a user's message comes first and no tool's result is without its call. None for all messages
            as they were added.
        window: Where these begin when not all of them fit. Defaults to the memory's `window`.
        default: Called for a value in a message (such as a tool's artifact) that no store can keep; returns one that
            can be kept, like `default` of `json.dumps`. Without it, such a message is refused.

    Raises:
        ConfigurationError: session_id is missing, or an argument is wrong.
        MessageError: session_id or user_id is not a non-empty string.
    """

    # The session's last message, in a list that is empty if there is none; None before it has been read.
    _last: Sequence[Message] | None = None

    def __init__(
        self,
        memory: Memory,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        *,
        window: Window | str | None = None,
        default: Default | None = None,
    ) -> None:
        """Bind the session; no I/O."""
        super().__init__()
        self._store = check_memory(memory, ", or use DynamiqChatMessageHistory.from_url(url, session_id=…)")
        self.limit = check_limit("limit", limit)
        self.window = check_window(window)
        self.memory = memory.scoped(session_id, user_id)
        self._default = check_default(default)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guard the methods that a subclass overrides, too."""
        super().__init_subclass__(**kwargs)
        guard_reads(cls)

    @classmethod
    def from_url(
        cls,
        url: str,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        *,
        window: Window | str | None = None,
        default: Default | None = None,
    ) -> DynamiqChatMessageHistory:
        """Make a history on the store at a URL, such as `sqlite:///conversations.db`.

        All histories of a process with the same URL share one store, which stays open until the process ends.

        Args:
            url: As for `dynamiq_memory.backends.create_backend`.
            session_id: As for the class.
            user_id: As for the class.
            limit: As for the class.
            window: As for the class.
            default: As for the class.

        Raises:
            ConfigurationError: The URL is unknown, or an argument is wrong.
        """
        return cls(memory_at(url), session_id, user_id, limit, window=window, default=default)

    @property
    def session_id(self) -> str:
        """The session."""
        return str(self.memory.filters[SESSION_KEY])

    @property
    def user_id(self) -> str | None:
        """The user it belongs to."""
        user_id = self.memory.filters[USER_KEY]
        return None if user_id is None else str(user_id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The messages, oldest first, in a new list that is read from the store each time.

        Raises:
            BackendError: The store failed.
        """
        return run(self.memory, self._read())

    async def aget_messages(self) -> list[BaseMessage]:
        """Read the messages; see `messages`."""
        if self._overrides("messages"):
            return await run_in_executor(None, lambda: self.messages)
        return await arun(self.memory, self._read())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages as one batch, all or none where the store can, after those that are stored.

        A batch in which all messages have ids can be added again without being doubled. Otherwise ids do not matter,
        since some models give the same id to all their answers.

        Args:
            messages: Messages of any LangChain type; not changed.

        Raises:
            MessageError: A message cannot be stored as it is given.
            BackendError: The store failed.
        """
        try:
            run(self.memory, self._add(messages))
        except DynamiqMemoryError as error:
            self._report(error, messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages as one batch; see `add_messages`."""
        if self._overrides("add_messages"):
            return await run_in_executor(None, self.add_messages, messages)
        try:
            await arun(self.memory, self._add(messages), messages)
        except DynamiqMemoryError as error:
            self._report(error, messages)
        return None

    def clear(self) -> None:
        """Delete the session's messages."""
        self.memory.clear()

    async def aclear(self) -> None:
        """Delete the session's messages."""
        if self._overrides("clear"):
            return await run_in_executor(None, self.clear)
        await self.memory.aclear()
        return None

    def search(self, query: str, limit: int = 10) -> list[BaseMessage]:
        """Find the session's messages that are relevant to a query, without superseded ones.

        Args:
            query: The query.
            limit: Maximum number of messages, 1 or more.

        Returns:
            The matching messages, best first; for a blank query, the most recent ones, oldest first.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            BackendError: The store failed.
        """
        return from_messages(self.memory.search(query, _CURRENT, limit))

    async def asearch(self, query: str, limit: int = 10) -> list[BaseMessage]:
        """Find the session's messages that are relevant to a query; see `search`."""
        return await computed(from_messages, await self.memory.asearch(query, _CURRENT, limit))

    def __repr__(self) -> str:
        """Name the session and the store."""
        return (
            f"{type(self).__name__}(session_id={self.session_id!r}, user_id={self.user_id!r}, "
            f"backend={self.memory.backend!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Describe the history for copies and pickles, with a reference to its memory."""
        scope = {key: self.memory.filters[key] for key in (SESSION_KEY, USER_KEY)}
        return {**self.__dict__, "memory": scope, "_store": reference_to(self._store), "_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the memory again.

        Raises:
            ConfigurationError: It cannot be found in this process; see `dynamiq_memory.register_memory`.
        """
        store = resolve(state["_store"])
        self.__dict__.update(state, memory=store.scoped(**state["memory"]), _store=store)

    def _read(self) -> Plan[list[BaseMessage]]:
        if self.limit is None:
            stored = yield from get_conversation()
        else:
            stored = yield from GetAgentConversation(limit=self.limit, window=self.window)
        self._last = stored[-1:]
        return from_messages(stored) if self.limit is None else for_model(stored)

    def _add(self, messages: Sequence[BaseMessage]) -> Plan[None]:
        batch = to_messages(messages, self._default)
        if batch and all(message.id for message in messages):
            self._set_stable_ids(batch)
            ids = [message.id for message in batch]
            stored = {message.id for message in (yield from GetAll(len(ids), {MESSAGE_ID_KEY: ids}))}
            batch = [message for message in batch if message.id not in stored]
        # Asking once is enough to know whether another process, with its clock ahead, has written.
        set_batch_times(batch, after=(yield from GetAll(1)) if self._last is None else self._last)
        yield from AddMany(batch)
        self._last = batch[-1:] or self._last

    def _set_stable_ids(self, batch: Sequence[Message]) -> None:
        """Give each message an id that is the same when the same batch is added again."""
        filters = fixed_filters(self.memory)
        contents = [message.model_copy(update={"id": "", "timestamp": None}).to_json() for message in batch]
        for place, message in enumerate(batch):
            message.id = stable_id(str(place), filters, *contents)

    def _overrides(self, name: str) -> bool:
        """Whether a subclass overrides a method."""
        return getattr(type(self), name) is not getattr(DynamiqChatMessageHistory, name)

    def _report(self, error: DynamiqMemoryError, messages: object) -> NoReturn:
        # A chain only logs the errors of its history, and not which session they concern.
        logger.error(
            "%s messages of session %r (user %r) were not stored: %s",
            len(messages) if isinstance(messages, Sized) else "no",
            self.session_id,
            self.user_id,
            error,
        )
        raise error


guard_reads(DynamiqChatMessageHistory)
