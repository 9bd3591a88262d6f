"""`Memory`: what users and adapters call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from pydantic import ValidationError

from dynamiq_memory._checks import check_limit, check_query
from dynamiq_memory._closing import Closing
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.in_memory import InMemory
from dynamiq_memory.backends.plans import Plan, arun, run
from dynamiq_memory.exceptions import ConfigurationError, InvalidArgumentError, MessageError
from dynamiq_memory.filters import parse
from dynamiq_memory.formatting import FormatType, format_messages
from dynamiq_memory.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    TIMESTAMP_KEY,
    USER_KEY,
    Message,
    MessageRole,
    Session,
    check_identifier,
    clock,
    refusal,
)
from dynamiq_memory.retrieval import MemoryRetrievalStrategy, Pick, pick
from dynamiq_memory.saving import MemorySaveMode, select_to_save
from dynamiq_memory.turns import Budget, TokenCounter, count_tokens_approximately

DEFAULT_LIMIT = 1000

__all__ = ["DEFAULT_LIMIT", "FormatType", "Memory", "MemoryRetrievalStrategy", "MemorySaveMode"]


class Memory(Closing):
    """Stores the messages of conversations and hands the right ones back.

    Every method has an asynchronous twin of the same name with an `a` before it, and may raise `BackendError`
    when the store fails. Used as a context manager, it closes its backend at the end.

    Args:
        backend: Where the messages live; `InMemory()` by default.
        message_limit: The limit where a call gives none, 1 or more.
        filters: Default filters of every call, reading, counting, replacing and deleting; a call's own filter on
            the same key takes their place. What they fix to a plain value (`user_id`, `session_id`, keys of your own)
            is also given to messages that are added without it, so that what is added here is found here; a message
            that lacks what they demand otherwise (one of several values, a range) is refused.
        save_mode: Which messages of a turn `add_turn` and the adapters keep.
        token_counter: Counts the tokens of a message for `max_tokens`; an estimate by default.
        recent_share: The part of the limit that the strategy BOTH gives to the most recent turns, from 0 to 1.

    Raises:
        ConfigurationError: An argument is wrong.
        FilterError: The filters are not of the filter language.
    """

    def __init__(
        self,
        backend: MemoryBackend | None = None,
        *,
        message_limit: int = DEFAULT_LIMIT,
        filters: Mapping[str, Any] | None = None,
        save_mode: MemorySaveMode | str = MemorySaveMode.FULL,
        token_counter: TokenCounter = count_tokens_approximately,
        recent_share: float = 0.5,
    ) -> None:
        """Check the settings."""
        if isinstance(backend, type):
            raise ConfigurationError(f"backend must be an object, not the class: {backend.__name__}(…)")
        if backend is not None and not isinstance(backend, MemoryBackend):
            raise ConfigurationError(
                f"backend must be a dynamiq_memory MemoryBackend, not a {type(backend).__module__}."
                f"{type(backend).__qualname__}: import it from dynamiq_memory.backends, or use create_backend(url)"
            )
        if not isinstance(message_limit, int) or isinstance(message_limit, bool) or message_limit < 1:
            raise ConfigurationError(f"message_limit must be a whole number of 1 or more, not {message_limit!r}")
        if not callable(token_counter):
            raise ConfigurationError(f"token_counter must be a function of a message, not {token_counter!r}")
        if not isinstance(recent_share, int | float) or not 0 <= recent_share <= 1:
            raise ConfigurationError(f"recent_share must be from 0 to 1, not {recent_share!r}")
        try:
            self.save_mode = MemorySaveMode(save_mode)
        except ValueError:
            known = ", ".join(MemorySaveMode)
            raise ConfigurationError(f"save_mode {save_mode!r} is unknown: use one of {known}") from None
        parse(filters)
        self.backend: MemoryBackend = InMemory() if backend is None else backend
        self.message_limit = message_limit
        self.filters: dict[str, Any] = copy.deepcopy(dict(filters or {}))
        self.token_counter = token_counter
        self.recent_share = recent_share

    def scoped(self, session_id: str | None = None, user_id: str | None = None) -> Self:
        """Make a memory of one session: the same store and settings, with the session fixed by the default filters.

        Nothing is read or written. Closing either closes the store of both.

        Args:
            session_id: The session; by default the one that the default filters fix.
            user_id: Whose it is; by default whom the default filters fix, else nobody's: only messages without a
                user.

        Raises:
            ConfigurationError: There is no session_id, the default filters allow several of what is not given, or they
                exclude what is given: a memory of one user leads to no other's sessions.
            MessageError: An id is no non-empty string.
        """
        scope: dict[str, str | None] = {}
        for key, given in ((SESSION_KEY, session_id), (USER_KEY, user_id)):
            value = self.filters.get(key) if given is None else check_identifier(given, key)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"no {key}: pass one, the memory's default filter {value!r} fixes none")
            if key in self.filters and not parse({key: self.filters[key]}).conditions[0].holds(value):
                raise ConfigurationError(
                    f"{key}={value!r} leads out of the memory's default filter {key}={self.filters[key]!r}: "
                    "use a memory without that filter"
                )
            scope[key] = value
        if scope[SESSION_KEY] is None:
            raise ConfigurationError("no session_id: pass one, or set it in Memory(filters={'session_id': …})")
        other = copy.copy(self)
        other.filters = {**self.filters, **scope}
        return other

    # --- adding ----------------------------------------------------------------------------------------------

    def add(
        self,
        role: MessageRole | str,
        content: str | list[dict[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Message:
        """Store one message.

        Args:
            role: "user", "system", "assistant" or "tool".
            content: Text, or content parts in OpenAI's shape; None, as OpenAI has it beside tool calls, is "".
            metadata: `user_id`, `session_id` and keys of your own. Not changed. A `timestamp` among them sets
                the time of the message; a dict read back from another message does not.
            tool_calls: The calls that an assistant's message makes, in OpenAI's shape.
            tool_call_id: On a tool's message, the id of the call that it answers.
            name: The name of the tool or of the speaker.

        Returns:
            The message as stored.

        Raises:
            MessageError: The message cannot be stored as it is given.
        """
        message = _build(role, content, metadata, tool_calls, tool_call_id, name)
        return self.add_many([message])[0]

    async def aadd(
        self,
        role: MessageRole | str,
        content: str | list[dict[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Message:
        """Store one message; see `add`."""
        message = _build(role, content, metadata, tool_calls, tool_call_id, name)
        return (await self.aadd_many([message]))[0]

    def add_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch, all or none where the store can.

        Args:
            messages: The messages, not changed. An id that is in the session already replaces that message.

        Returns:
            The messages as stored.

        Raises:
            MessageError: A message cannot be stored as it is given.
            PartialWriteError: The store has no transactions and failed midway.
        """
        return self.backend.add_many(self._in_scope(messages))

    async def aadd_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch; see `add_many`."""
        return await self.backend.aadd_many(self._in_scope(messages))

    def add_turn(self, messages: Sequence[Message]) -> list[Message]:
        """Store what the save mode keeps of a finished turn.

        Args:
            messages: The turn: the user's input, calls, results, the answer. System messages are not kept.

        Returns:
            The messages as stored.
        """
        return self.add_many(select_to_save(messages, self.save_mode))

    async def aadd_turn(self, messages: Sequence[Message]) -> list[Message]:
        """Store what the save mode keeps of a finished turn; see `add_turn`."""
        return await self.aadd_many(select_to_save(messages, self.save_mode))

    # --- reading ---------------------------------------------------------------------------------------------

    def get_all(self, limit: int | None = None, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Read the most recent messages, oldest first.

        Args:
            limit: At most so many, 1 or more; the memory's `message_limit` (1,000 unless set) by default.
            filters: Only messages that match, besides the default filters.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            FilterError: The filter is not of the language.
        """
        return self.backend.get_all(self._limit(limit), self._merged(filters))

    async def aget_all(self, limit: int | None = None, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Read the most recent messages, oldest first; see `get_all`."""
        return await self.backend.aget_all(self._limit(limit), self._merged(filters))

    def search(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query.

        Args:
            query: What to look for. None or blank ranks nothing.
            filters: Only messages that match, besides the default filters; applied before ranking.
            limit: At most so many, 1 or more; the memory's `message_limit` (1,000 unless set) by default.

        Returns:
            With a query, the messages that match it, best first, each with its `score`. Without one, the most
            recent, oldest first.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            FilterError: The filter is not of the language.
        """
        return self.backend.search(query, self._merged(filters), self._limit(limit))

    async def asearch(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query; see `search`."""
        return await self.backend.asearch(query, self._merged(filters), self._limit(limit))

    def get_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
    ) -> list[Message]:
        """Pick the messages that an agent is given, as a conversation that every LLM API accepts.

        It begins with a user's message (behind system ones), a tool's result never stands without its call nor a
        call without its results, and turns are whole. A single turn longer than the limit is cut to its user's
        message and the latest rounds that fit. Ranking takes several reads: what somebody else replaces meanwhile
        may be seen half old, half new.

        Args:
            query: What the agent is asked; RELEVANT and BOTH rank by it. Without it, or where nothing matches,
                they act as ALL.
            limit: At most so many messages, 1 or more; `message_limit` by default.
            filters: Only messages that match, besides the default filters.
            strategy: "all", "relevant" or "both".
            max_tokens: At most so many tokens, by the memory's `token_counter`; None for any number.

        Returns:
            The messages, oldest first; those that match the query have a `score`.

        Raises:
            InvalidArgumentError: The limit, max_tokens or strategy is wrong.
            FilterError: The filter is not of the language.
        """
        picks = self.explain_agent_conversation(query, limit, filters, strategy, max_tokens)
        return [picked.message for picked in picks]

    async def aget_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
    ) -> list[Message]:
        """Pick the messages that an agent is given; see `get_agent_conversation`."""
        picks = await self.aexplain_agent_conversation(query, limit, filters, strategy, max_tokens)
        return [picked.message for picked in picks]

    def explain_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
    ) -> list[Pick]:
        """Pick as `get_agent_conversation` does, and tell of each message why.

        Returns:
            The picked messages, oldest first, each with its reason.
        """
        return run(self._pick(query, limit, filters, strategy, max_tokens), self.backend.execute)

    async def aexplain_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
    ) -> list[Pick]:
        """Pick and tell why; see `explain_agent_conversation`."""
        return await arun(self._pick(query, limit, filters, strategy, max_tokens), self.backend.aexecute)

    def get_all_messages_as_string(self, format_type: FormatType | str = FormatType.PLAIN) -> str:
        """Write what `get_all` returns as text: "plain", "markdown" or "xml"."""
        return format_messages(self.get_all(), format_type)

    async def aget_all_messages_as_string(self, format_type: FormatType | str = FormatType.PLAIN) -> str:
        """Write what `get_all` returns as text: "plain", "markdown" or "xml"."""
        return format_messages(await self.aget_all(), format_type)

    def get_search_results_as_string(
        self,
        query: str,
        filters: Mapping[str, Any] | None = None,
        format_type: FormatType | str = FormatType.PLAIN,
        limit: int | None = None,
    ) -> str:
        """Write what `search` returns as text: "plain", "markdown" or "xml"."""
        return format_messages(self.search(query, filters, limit), format_type)

    async def aget_search_results_as_string(
        self,
        query: str,
        filters: Mapping[str, Any] | None = None,
        format_type: FormatType | str = FormatType.PLAIN,
        limit: int | None = None,
    ) -> str:
        """Write what `search` returns as text: "plain", "markdown" or "xml"."""
        return format_messages(await self.asearch(query, filters, limit), format_type)

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match the default filters and these."""
        return self.backend.count(self._merged(filters))

    async def acount(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match the default filters and these."""
        return await self.backend.acount(self._merged(filters))

    def sessions(self, user_id: str | None = None) -> list[Session]:
        """List the sessions, the most recently used first.

        Args:
            user_id: Only this user's; by default, all that match the default filters.
        """
        return self.backend.sessions(self._of_user(user_id))

    async def asessions(self, user_id: str | None = None) -> list[Session]:
        """List the sessions, the most recently used first; see `sessions`."""
        return await self.backend.asessions(self._of_user(user_id))

    def is_empty(self) -> bool:
        """Whether no message matches the default filters."""
        return not self.get_all(limit=1)

    async def ais_empty(self) -> bool:
        """Whether no message matches the default filters."""
        return not await self.aget_all(limit=1)

    # --- changing and deleting -------------------------------------------------------------------------------

    def replace_messages(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Put messages in the place of all that match; a reader sees the old ones or the new ones.

        Args:
            filters: What to replace; with the default filters it must fix user_id, session_id or both to one
                value.
            messages: What to put there, in order. Ids and timestamps that they have stay.

        Returns:
            The messages as stored.

        Raises:
            InvalidArgumentError: The filters are empty or fix no scope, or a message is of another scope.
            MessageError: A message cannot be stored as it is given.
        """
        return self.backend.replace(self._to_replace(filters), self._in_scope(messages, filters))

    async def areplace_messages(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Put messages in the place of all that match; see `replace_messages`."""
        return await self.backend.areplace(self._to_replace(filters), self._in_scope(messages, filters))

    def delete(self, session_id: str | None = None, user_id: str | None = None) -> int:
        """Delete a session, a user's messages, or a user's session.

        The default filters hold besides, but for a default user_id or session_id that an argument names itself.

        Args:
            session_id: Only this session.
            user_id: Only this user.

        Returns:
            How many messages were deleted.

        Raises:
            InvalidArgumentError: Neither is given.
        """
        return self.backend.delete(session_id, user_id, self._beside(session_id, user_id))

    async def adelete(self, session_id: str | None = None, user_id: str | None = None) -> int:
        """Delete a session, a user's messages, or a user's session; see `delete`."""
        return await self.backend.adelete(session_id, user_id, self._beside(session_id, user_id))

    def clear(self) -> int:
        """Delete every message that matches the default filters; without any, every message of the store.

        Returns:
            How many were deleted.
        """
        return self.backend.clear(self.filters)

    async def aclear(self) -> int:
        """Delete every message that matches the default filters; see `clear`."""
        return await self.backend.aclear(self.filters)

    # --- the rest --------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Describe the memory and its backend, without secrets and messages."""
        return {
            "type": f"{type(self).__module__}.{type(self).__qualname__}",
            "backend": self.backend.to_dict(),
            "message_limit": self.message_limit,
            "filters": {key: _listed(value) for key, value in self.filters.items()},
            "save_mode": self.save_mode.value,
            "recent_share": self.recent_share,
        }

    def __repr__(self) -> str:
        """Name the backend and the settings."""
        return f"{type(self).__name__}(backend={self.backend!r}, filters={self.filters!r})"

    def close(self) -> None:
        """Close the backend. A client or engine that was passed to the backend stays open."""
        self.backend.close()

    async def aclose(self) -> None:
        """Close the backend; see `close`."""
        await self.backend.aclose()

    def _merged(self, filters: Mapping[str, Any] | None) -> dict[str, Any]:
        parse(filters)
        return {**self.filters, **(filters or {})}

    def _limit(self, limit: int | None) -> int:
        return check_limit(limit) or self.message_limit

    def _of_user(self, user_id: str | None) -> dict[str, Any]:
        return self._merged(None if user_id is None else {USER_KEY: user_id})

    def _beside(self, session_id: str | None, user_id: str | None) -> dict[str, Any]:
        """The default filters on what a call to `delete` does not name itself."""
        named = {SESSION_KEY: session_id, USER_KEY: user_id}
        return {key: value for key, value in self.filters.items() if named.get(key) is None}

    def _to_replace(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        if not filters:
            raise InvalidArgumentError(
                "replace_messages needs filters with user_id, session_id or both: without, it would replace "
                "everybody's messages"
            )
        return self._merged(filters)

    def _in_scope(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> Sequence[Message]:
        """Give messages what they lack and the default filters, but for what a call's own name, fix to a value.

        Raises:
            MessageError: The default filters demand of a message what only its author can give it.
        """
        standing = {key: value for key, value in self.filters.items() if key not in (filters or ())}
        scope = {
            key: value
            for key, value in standing.items()
            if isinstance(value, str | int | float) and key not in (TIMESTAMP_KEY, MESSAGE_ID_KEY)
        }
        if not standing or isinstance(messages, Message | str | Mapping):
            return messages
        demanded = {key: value for key, value in standing.items() if key not in scope}
        given = list(messages)
        for message in given:
            _check_found(message, demanded)
        return [_with_scope(message, scope) for message in given]

    def _pick(
        self,
        query: str | None,
        limit: int | None,
        filters: Mapping[str, Any] | None,
        strategy: MemoryRetrievalStrategy | str,
        max_tokens: int | None,
    ) -> Plan[list[Pick]]:
        try:
            chosen = MemoryRetrievalStrategy(strategy)
        except ValueError:
            known = ", ".join(MemoryRetrievalStrategy)
            raise InvalidArgumentError(f"strategy {strategy!r} is unknown: use one of {known}") from None
        if max_tokens is not None and (
            not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1
        ):
            raise InvalidArgumentError(
                f"max_tokens must be a whole number of 1 or more, or None for any number; not {max_tokens!r}"
            )
        check_query(query)
        budget = Budget(self._limit(limit), max_tokens, self.token_counter)
        return pick(chosen, query, self._merged(filters), budget, self.recent_share)


def _listed(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else value


def _build(
    role: MessageRole | str,
    content: str | list[dict[str, Any]] | None,
    metadata: Mapping[str, Any] | None,
    tool_calls: list[dict[str, Any]] | None,
    tool_call_id: str | None,
    name: str | None,
) -> Message:
    if metadata is not None and not isinstance(metadata, Mapping):
        raise MessageError(f"metadata must be a dict, not {metadata!r}")
    try:
        return Message(
            role=cast("MessageRole", role),  # the model checks it
            content="" if content is None else content,
            metadata=dict(metadata or {}),
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            name=name,
        )
    except ValidationError as error:
        raise refusal(error) from None


def _check_found(message: Any, demanded: Mapping[str, Any]) -> None:
    """Refuse a message that its memory would not find again. What its own metadata say is its author's will."""
    if not isinstance(message, Message) or not isinstance(message.metadata, dict):
        return  # refused where it is stored
    for condition in parse(demanded).conditions:
        key, value = condition.key, message.metadata.get(condition.key)
        own = value is not None
        if key == MESSAGE_ID_KEY:
            value, own = message.id, False
        elif key == TIMESTAMP_KEY and (not own or "timestamp" in message.model_fields_set):
            value, own = message.timestamp or clock(), False
        if not own and not condition.holds(value):
            raise MessageError(
                f"message {message.id} has {key}={value!r}, and would not be found again: this memory's default "
                f"filters demand {key}={demanded[key]!r}. Add it through a memory without that filter, or with a {key} "
                "that matches"
            )


def _with_scope(message: Any, scope: Mapping[str, Any]) -> Any:
    if not isinstance(message, Message) or not isinstance(message.metadata, dict):
        return message  # refused where it is stored
    own = {key: value for key, value in message.metadata.items() if value is not None or key not in scope}
    return message.model_copy(update={"metadata": {**scope, **own}})
