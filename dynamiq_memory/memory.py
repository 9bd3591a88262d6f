"""`Memory`, the class that users and adapters call."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from pydantic import ValidationError

from dynamiq_memory import forgetting
from dynamiq_memory._checks import (
    check_choice,
    check_limit,
    check_query,
    check_share,
    check_timezone,
    check_whole_number,
)
from dynamiq_memory._closing import Closing
from dynamiq_memory.backends._threads import computed
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.in_memory import InMemory
from dynamiq_memory.backends.operations import IsEmpty, Read
from dynamiq_memory.backends.plans import Compute, Plan, arun, run
from dynamiq_memory.conversation import revisions
from dynamiq_memory.conversation.comparing import pick_and_compare
from dynamiq_memory.conversation.dating import Dates, dating_for
from dynamiq_memory.conversation.placement import Placement
from dynamiq_memory.conversation.saving import MemorySaveMode, select_to_save
from dynamiq_memory.conversation.strategies import Explanation, MemoryRetrievalStrategy, Ordering, pick, search
from dynamiq_memory.conversation.tokens import TokenCounter, count_tokens_approximately
from dynamiq_memory.conversation.turns import Budget
from dynamiq_memory.conversation.windows import Window
from dynamiq_memory.exceptions import ConfigurationError, InvalidArgumentError, MessageError
from dynamiq_memory.filters import parse
from dynamiq_memory.forgetting import Receipt, forget
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
    views,
)
from dynamiq_memory.ranking.dates import FUSED_FACTOR, WORDS_FACTOR
from dynamiq_memory.ranking.reranking import reranker_of

DEFAULT_LIMIT = 1000
DEFAULT_MAX_TOKENS = 32_000

__all__ = ["DEFAULT_LIMIT", "FormatType", "Memory", "MemoryRetrievalStrategy", "MemorySaveMode"]


class Memory(Closing):
    """Stores the messages of conversations and returns the right ones.

    Every method has an asynchronous twin of the same name with a leading `a`, and may raise `BackendError` if the store
    fails. As a context manager, a memory closes its backend at the end.

    Args:
        backend: The store. Defaults to `InMemory()`.
        message_limit: Limit for calls that do not set one, 1 or more. Defaults to 1,000.
        filters: Default filters for all calls that read, count, replace or delete. A filter passed to a call replaces
            the default for the same key. If a default filter is a plain value (for `user_id`, `session_id` or any other
            key), messages added without that key get the value, so that this memory finds them again. A message that
            lacks a key that another default filter requires (one of several values, a range) raises an error.
        save_mode: Which messages of a turn `add_turn` and the adapters save.
        token_counter: Counts the tokens of a message for `max_tokens`. Defaults to an estimate.
        max_tokens: Maximum number of tokens that an agent is given where a call sets none, by `token_counter`. Defaults
            to 32,000, which leaves room for instructions and an answer in the context of any current model; None for
            no limit.
        recent_share: Share of the limit that the strategy BOTH uses for the most recent turns, from 0 to 1. The last
            two turns may take more, up to half of the limit.
        score_cutoff: Share of the best match's score, from 0 to 1, below which RELEVANT and BOTH use no more matches,
            even if the limit is not reached. Defaults to 0, all matches. It does not apply with a reranker, since its
            scores may have any scale.
        reranker: Orders the 50 best messages of a search again, also for RELEVANT and BOTH: a function of the query and
            the messages that returns a score for each, or a reranker of LangChain, LlamaIndex or `dynamiq`. By default,
            the order is the backend's.
        timezone: The time zone in which queries name dates ("in March", "last Friday"): a name such as
            "Europe/Brussels", or a `tzinfo`. Messages of these dates are preferred.
        dates: Whether an agent is told when the questions that it is given were asked, in that time zone: "off", or
            "turns", with a line such as `[12 Mar 2024]` in front of the first question of each day. The line also names
            the session where the filters allow several. Stored messages remain as they are.
        window: Where the most recent turns begin when not all of them fit: "sliding", with as many as fit, or "stable",
            with up to five sixteenths less, so that providers' caches keep most of the prompt.
        placement: Where RELEVANT and BOTH place messages that match the query: "chronological", or "before_question",
            as one block of text in front of the last question, so that providers' caches keep what comes before.

    Raises:
        ConfigurationError: An argument is invalid.
        FilterError: A filter is malformed.
    """

    def __init__(
        self,
        backend: MemoryBackend | None = None,
        *,
        message_limit: int = DEFAULT_LIMIT,
        filters: Mapping[str, Any] | None = None,
        save_mode: MemorySaveMode | str = MemorySaveMode.FULL,
        token_counter: TokenCounter = count_tokens_approximately,
        max_tokens: int | None = DEFAULT_MAX_TOKENS,
        recent_share: float = 0.25,
        score_cutoff: float = 0.0,
        reranker: Any = None,
        timezone: str | dt.tzinfo = dt.UTC,
        dates: Dates | str = Dates.OFF,
        window: Window | str = Window.SLIDING,
        placement: Placement | str = Placement.CHRONOLOGICAL,
    ) -> None:
        """Check the settings."""
        if isinstance(backend, type):
            raise ConfigurationError(f"backend must be an object, not a class: use {backend.__name__}(…)")
        if backend is not None and not isinstance(backend, MemoryBackend):
            raise ConfigurationError(
                f"backend must be a dynamiq_memory MemoryBackend, not a {type(backend).__module__}."
                f"{type(backend).__qualname__}: import it from dynamiq_memory.backends, or use create_backend(url)"
            )
        check_whole_number("message_limit", message_limit)
        if not callable(token_counter):
            raise ConfigurationError(f"token_counter must be a function of a message, not {token_counter!r}")
        check_share("recent_share", recent_share)
        check_share("score_cutoff", score_cutoff)
        if max_tokens is not None:
            check_whole_number("max_tokens", max_tokens)
        self.save_mode = check_choice(MemorySaveMode, save_mode, "save_mode", ConfigurationError)
        parse(filters)
        self.backend: MemoryBackend = InMemory() if backend is None else backend
        self.message_limit = message_limit
        self.filters: dict[str, Any] = copy.deepcopy(dict(filters or {}))
        self.token_counter = token_counter
        self.max_tokens = max_tokens
        self.recent_share = recent_share
        self.score_cutoff = score_cutoff
        self._reranker = None if reranker is None else reranker_of(reranker)
        self.timezone = check_timezone(timezone)
        self.dates = check_choice(Dates, dates, "dates", ConfigurationError)
        self.window = check_choice(Window, window, "window", ConfigurationError)
        self.placement = check_choice(Placement, placement, "placement", ConfigurationError)

    def scoped(self, session_id: str | None = None, user_id: str | None = None) -> Self:
        """Return a memory of one session: the same store and settings, with the session as a default filter.

        Nothing is read or written. Closing either memory closes the store of both.

        Args:
            session_id: The session. Defaults to the one in the default filters.
            user_id: The user. Defaults to the one in the default filters; without one, the memory is restricted to
                messages without a user.

        Raises:
            ConfigurationError: There is no session_id, the default filters allow several values for an id that is not
                passed, or they exclude an id that is passed (a memory of one user gives no access to another's).
            MessageError: An id is not a non-empty string.
        """
        scope: dict[str, str | None] = {}
        for key, argument in ((SESSION_KEY, session_id), (USER_KEY, user_id)):
            value = self.filters.get(key) if argument is None else check_identifier(argument, key)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(
                    f"no {key}: pass one, since the memory's default filter {value!r} is not a single value"
                )
            if key in self.filters and not parse({key: self.filters[key]}).conditions[0].holds(value):
                raise ConfigurationError(
                    f"{key}={value!r} is outside of the memory's default filter {key}={self.filters[key]!r}: "
                    "use a memory without that filter"
                )
            scope[key] = value
        if scope[SESSION_KEY] is None:
            raise ConfigurationError("no session_id: pass one, or set it in Memory(filters={'session_id': …})")
        scoped = copy.copy(self)
        scoped.filters = {**self.filters, **scope}
        return scoped

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
            content: Text, or content parts in OpenAI's format. None, which OpenAI uses with tool calls, becomes "".
            metadata: `user_id`, `session_id` and any other keys. The dict is not changed. A `timestamp` in it sets the
                time of the message, unless the dict was read from another message.
            tool_calls: Tool calls of an assistant message, in OpenAI's format.
            tool_call_id: Id of the call that a tool message answers.
            name: Name of the tool or the author.

        Returns:
            The message as stored.

        Raises:
            MessageError: The message cannot be stored as it is.
        """
        message = _build(role, content, metadata, tool_calls=tool_calls, tool_call_id=tool_call_id, name=name)
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
        message = _build(role, content, metadata, tool_calls=tool_calls, tool_call_id=tool_call_id, name=name)
        return (await self.aadd_many([message]))[0]

    def add_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch, all or none if the store has transactions.

        Args:
            messages: The messages; they are not changed. A message with an id that is already in the session replaces
                that message.

        Returns:
            The messages as stored.

        Raises:
            MessageError: A message cannot be stored as it is.
            PartialWriteError: The store has no transactions and failed midway.
        """
        return self.backend.add_many(self._in_scope(messages))

    async def aadd_many(self, messages: Sequence[Message]) -> list[Message]:
        """Store messages as one ordered batch; see `add_many`."""
        return await self.backend.aadd_many(await computed(self._in_scope, messages))

    def add_turn(self, messages: Sequence[Message]) -> list[Message]:
        """Store the messages of a finished turn that the save mode keeps.

        Args:
            messages: The turn: the user's input, tool calls, results and the answer. System messages are not stored.

        Returns:
            The messages as stored.
        """
        return self.add_many(select_to_save(messages, self.save_mode))

    async def aadd_turn(self, messages: Sequence[Message]) -> list[Message]:
        """Store the messages of a finished turn; see `add_turn`."""
        return await self.aadd_many(await computed(select_to_save, messages, self.save_mode))

    # --- reading ---------------------------------------------------------------------------------------------

    def get_all(self, limit: int | None = None, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Read the most recent messages, oldest first.

        Args:
            limit: Maximum number of messages, 1 or more. Defaults to the memory's `message_limit` (1,000).
            filters: Additional filters.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            FilterError: A filter is malformed.
        """
        return self.backend.get_all(self._limit(limit), self._merged(filters))

    async def aget_all(self, limit: int | None = None, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Read the most recent messages, oldest first; see `get_all`."""
        return await self.backend.aget_all(self._limit(limit), await computed(self._merged, filters))

    def search(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query.

        Args:
            query: The search text. With None or blank text, messages are not ranked.
            filters: Additional filters, applied before ranking.
            limit: Maximum number of messages, 1 or more. Defaults to the memory's `message_limit` (1,000).

        Returns:
            With a query, the matching messages, best first, each with its `score`. Without one, the most recent
            messages, oldest first.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            FilterError: A filter is malformed.
        """
        return run(self._search(query, filters, limit), self._perform)

    async def asearch(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> list[Message]:
        """Rank messages by their relevance to a query; see `search`."""
        return await arun(self._search(query, filters, limit), self._aperform, given=(query, filters))

    def get_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
        window: Window | str | None = None,
        placement: Placement | str | None = None,
    ) -> list[Message]:
        """Select the messages for an agent, as a conversation that every LLM API accepts.

        The conversation starts with a user message (after any system messages) and consists of whole turns, with all
        tool calls and their results. If a single turn exceeds the limit, it is cut to its user message and the latest
        rounds that fit. Ranking takes several reads, so messages that are replaced at the same time may be returned in
        part old, in part new.

        Args:
            query: The question to the agent, by which RELEVANT and BOTH rank. Without it, or if nothing matches, they
                work like ALL.
            limit: Maximum number of messages, 1 or more. Defaults to `message_limit`.
            filters: Additional filters.
            strategy: "all", "relevant" or "both".
            max_tokens: Maximum number of tokens, counted by the memory's `token_counter`. Defaults to the memory's
                `max_tokens` (32,000).
            window: "sliding" or "stable". Defaults to the memory's `window`.
            placement: "chronological" or "before_question". Defaults to the memory's `placement`. The block is part of
                the last question that is stored; if there is none to hold it, messages are given chronologically.

        Returns:
            The messages, oldest first. Messages that match the query have a `score`.

        Raises:
            InvalidArgumentError: The limit, max_tokens, strategy, window or placement is invalid.
            FilterError: A filter is malformed.
        """
        return self.explain_agent_conversation(
            query, limit, filters, strategy, max_tokens, window, placement
        ).conversation

    async def aget_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
        window: Window | str | None = None,
        placement: Placement | str | None = None,
    ) -> list[Message]:
        """Select the messages for an agent; see `get_agent_conversation`."""
        explanation = await self.aexplain_agent_conversation(
            query, limit, filters, strategy, max_tokens, window, placement
        )
        return explanation.conversation

    def explain_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
        window: Window | str | None = None,
        placement: Placement | str | None = None,
        *,
        compare: bool = False,
    ) -> Explanation:
        """Select the messages like `get_agent_conversation`, with the reason for each.

        Args:
            query: As for `get_agent_conversation`.
            limit: As for `get_agent_conversation`.
            filters: As for `get_agent_conversation`.
            strategy: As for `get_agent_conversation`.
            max_tokens: As for `get_agent_conversation`.
            window: As for `get_agent_conversation`.
            placement: As for `get_agent_conversation`.
            compare: Whether to select them also for the question before, to say how much is `unchanged`. This takes
                twice as long.

        Returns:
            The selected messages, oldest first, each with its reason; and what bounds the choice, the limit or the
            tokens.
        """
        plan = self._pick(query, limit, filters, strategy, max_tokens, window, placement, compare)
        return run(plan, self._perform)

    async def aexplain_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        max_tokens: int | None = None,
        window: Window | str | None = None,
        placement: Placement | str | None = None,
        *,
        compare: bool = False,
    ) -> Explanation:
        """Select messages, with reasons; see `explain_agent_conversation`."""
        plan = await computed(self._pick, query, limit, filters, strategy, max_tokens, window, placement, compare)
        return await arun(plan, self._aperform)

    def get_all_messages_as_string(self, format_type: FormatType | str = FormatType.PLAIN) -> str:
        """Return the messages of `get_all` as text: "plain", "markdown" or "xml"."""
        return format_messages(self.get_all(), format_type)

    async def aget_all_messages_as_string(self, format_type: FormatType | str = FormatType.PLAIN) -> str:
        """Return the messages of `get_all` as text: "plain", "markdown" or "xml"."""
        return await computed(format_messages, await self.aget_all(), format_type)

    def get_search_results_as_string(
        self,
        query: str,
        filters: Mapping[str, Any] | None = None,
        format_type: FormatType | str = FormatType.PLAIN,
        limit: int | None = None,
    ) -> str:
        """Return the messages of `search` as text: "plain", "markdown" or "xml"."""
        return format_messages(self.search(query, filters, limit), format_type)

    async def aget_search_results_as_string(
        self,
        query: str,
        filters: Mapping[str, Any] | None = None,
        format_type: FormatType | str = FormatType.PLAIN,
        limit: int | None = None,
    ) -> str:
        """Return the messages of `search` as text: "plain", "markdown" or "xml"."""
        return await computed(format_messages, await self.asearch(query, filters, limit), format_type)

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match the default filters and the given ones."""
        return self.backend.count(self._merged(filters))

    async def acount(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count the messages that match the default filters and the given ones."""
        return await self.backend.acount(await computed(self._merged, filters))

    def sessions(self, user_id: str | None = None) -> list[Session]:
        """List the sessions, most recently used first.

        Args:
            user_id: List only this user's sessions. By default, all sessions that match the default filters.
        """
        return self.backend.sessions(self._of_user(user_id))

    async def asessions(self, user_id: str | None = None) -> list[Session]:
        """List the sessions, most recently used first; see `sessions`."""
        return await self.backend.asessions(self._of_user(user_id))

    def is_empty(self) -> bool:
        """Return whether no message matches the default filters."""
        return self.backend.execute(IsEmpty(parse(self.filters)))

    async def ais_empty(self) -> bool:
        """Return whether no message matches the default filters."""
        return await self.backend.aexecute(IsEmpty(parse(self.filters)))

    # --- changing and deleting -------------------------------------------------------------------------------

    def replace_messages(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Replace all matching messages atomically: readers see either the old messages or the new ones.

        Args:
            filters: The messages to replace. Together with the default filters, this must fix user_id, session_id or
                both to one value.
            messages: The replacements, in order. Ids and timestamps that are set are kept.

        Returns:
            The messages as stored.

        Raises:
            InvalidArgumentError: The filters are empty or do not fix a scope, or a message has another scope.
            MessageError: A message cannot be stored as it is.
        """
        return self.backend.replace(self._to_replace(filters), self._in_scope(messages, filters))

    async def areplace_messages(self, filters: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """Replace all matching messages atomically; see `replace_messages`."""
        scoped = await computed(self._in_scope, messages, filters)
        return await self.backend.areplace(self._to_replace(filters), scoped)

    def supersede(self, message_id: str, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Mark a message and all that follow it in its session as superseded.

        For a question that the user edits and sends again, an answer that is to be given again, or a turn that is
        undone: call it with the first message that no longer counts, then go on with the conversation. Superseded
        messages stay stored. `search`, `get_all` and exports return them, with the time in `superseded_at`; agents are
        not given them as part of the conversation.

        Args:
            message_id: The first message to mark.
            filters: Additional filters; needed if the default filters and the id do not determine one message.

        Returns:
            The messages marked now, oldest first; those that were marked before are not among them.

        Raises:
            InvalidArgumentError: No message, or more than one, has this id.
        """
        return views(run(revisions.supersede(self._merged(filters), message_id), self.backend.execute))

    async def asupersede(self, message_id: str, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Mark a message and all that follow it in its session as superseded; see `supersede`."""
        plan = revisions.supersede(self._merged(filters), message_id)
        return await computed(views, await arun(plan, self.backend.aexecute))

    def restore(self, message_id: str, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Undo `supersede`: a message and all that were superseded with it count again.

        To return from one branch of a conversation to another, supersede the one and restore the other.

        Args:
            message_id: Any of the messages.
            filters: Additional filters; needed if the default filters and the id do not determine one message.

        Returns:
            The messages restored, oldest first; empty if the message was not superseded.

        Raises:
            InvalidArgumentError: No message, or more than one, has this id.
        """
        return views(run(revisions.restore(self._merged(filters), message_id), self.backend.execute))

    async def arestore(self, message_id: str, filters: Mapping[str, Any] | None = None) -> list[Message]:
        """Undo `supersede`; see `restore`."""
        plan = revisions.restore(self._merged(filters), message_id)
        return await computed(views, await arun(plan, self.backend.aexecute))

    def delete(self, session_id: str | None = None, user_id: str | None = None) -> int:
        """Delete a session, a user's messages, or one session of a user.

        The default filters apply too, except that an argument replaces the default filter for the same id.

        Args:
            session_id: Delete only this session.
            user_id: Delete only this user's messages.

        Returns:
            Number of deleted messages.

        Raises:
            InvalidArgumentError: Neither argument is given.
        """
        return self.backend.delete(session_id, user_id, self._filters_except(session_id, user_id))

    async def adelete(self, session_id: str | None = None, user_id: str | None = None) -> int:
        """Delete a session, a user's messages, or one session of a user; see `delete`."""
        return await self.backend.adelete(session_id, user_id, self._filters_except(session_id, user_id))

    def forget_user(self, user_id: str, *, also: Sequence[Any] = (), dry_run: bool = False) -> Receipt:
        """Delete all that is stored of a user, and look whether it is gone.

        All sessions of the user are deleted, whatever the default filters. A store that fails ends the work and does
        not raise an error: the receipt says what is left, and calling again goes on from there.

        Args:
            user_id: The user.
            also: More to delete from: other memories or backends, and checkpointers with
                `delete_thread(thread_id)`, such as LangGraph's. Their threads are the user's sessions.
            dry_run: Only find out what there is.

        Returns:
            The receipt; `is_complete` says whether nothing is left.

        Raises:
            InvalidArgumentError: The user is not an id, something in `also` is not a store, or a backend has a default
                session, so that it would miss the others.
        """
        return run(forget(user_id, self.backend, also, dry_run=dry_run), forgetting.perform)

    async def aforget_user(self, user_id: str, *, also: Sequence[Any] = (), dry_run: bool = False) -> Receipt:
        """Delete all that is stored of a user, and look whether it is gone; see `forget_user`."""
        return await arun(forget(user_id, self.backend, also, dry_run=dry_run), forgetting.aperform)

    def clear(self) -> int:
        """Delete all messages that match the default filters. Without default filters, this empties the store.

        Returns:
            Number of deleted messages.
        """
        return self.backend.clear(self.filters)

    async def aclear(self) -> int:
        """Delete all messages that match the default filters; see `clear`."""
        return await self.backend.aclear(self.filters)

    # --- the rest --------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Describe the memory and its backend, without secrets or messages."""
        return {
            "type": f"{type(self).__module__}.{type(self).__qualname__}",
            "backend": self.backend.to_dict(),
            "message_limit": self.message_limit,
            "filters": {key: _listed(value) for key, value in self.filters.items()},
            "save_mode": self.save_mode.value,
            "max_tokens": self.max_tokens,
            "recent_share": self.recent_share,
            "score_cutoff": self.score_cutoff,
            "timezone": str(self.timezone),
            "dates": self.dates.value,
            "window": self.window.value,
            "placement": self.placement.value,
        }

    def __repr__(self) -> str:
        """Return the class, the backend and the filters."""
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

    def _filters_except(self, session_id: str | None, user_id: str | None) -> dict[str, Any]:
        """Return the default filters without those for the ids passed."""
        ids = {SESSION_KEY: session_id, USER_KEY: user_id}
        return {key: value for key, value in self.filters.items() if ids.get(key) is None}

    def _to_replace(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        if not filters:
            raise InvalidArgumentError(
                "replace_messages needs filters with user_id, session_id or both; without them, it would replace "
                "everyone's messages"
            )
        return self._merged(filters)

    def _in_scope(self, messages: Sequence[Message], filters: Mapping[str, Any] | None = None) -> Sequence[Message]:
        """Add the values of default filters to messages that lack them, except for keys in the call's own filters.

        Raises:
            MessageError: A message lacks a key for which the default filters do not give a single value.
        """
        defaults = {key: value for key, value in self.filters.items() if key not in (filters or ())}
        if not defaults or isinstance(messages, Message | str | Mapping):
            return messages
        scope = {
            key: value
            for key, value in defaults.items()
            if isinstance(value, str | int | float) and key not in (TIMESTAMP_KEY, MESSAGE_ID_KEY)
        }
        required = {key: value for key, value in defaults.items() if key not in scope}
        return [_with_scope(message, scope, required) for message in messages]

    def _search(self, query: str | None, filters: Mapping[str, Any] | None, limit: int | None) -> Plan[list[Message]]:
        merged, limit, query = self._merged(filters), self._limit(limit), check_query(query)
        if query is None:
            return (yield from Read(parse(merged), limit))
        return (yield from search(query, merged, limit, self._ordering()))

    def _ordering(self) -> Ordering:
        factor = FUSED_FACTOR if self.backend.capabilities.hybrid else WORDS_FACTOR
        return Ordering(self._reranker, self.timezone, factor, self.score_cutoff)

    def _perform(self, step: Any) -> Any:
        return step.work() if isinstance(step, Compute) else self.backend.execute(step)

    async def _aperform(self, step: Any) -> Any:
        if isinstance(step, Compute):
            return await asyncio.to_thread(step.work)
        return await self.backend.aexecute(step)

    def _pick(
        self,
        query: str | None,
        limit: int | None,
        filters: Mapping[str, Any] | None,
        strategy: MemoryRetrievalStrategy | str,
        max_tokens: int | None,
        window: Window | str | None,
        placement: Placement | str | None,
        compare: bool,
    ) -> Plan[Explanation]:
        strategy = check_choice(MemoryRetrievalStrategy, strategy, "strategy", InvalidArgumentError)
        window = check_choice(Window, self.window if window is None else window, "window", InvalidArgumentError)
        placement = self.placement if placement is None else placement
        placement = check_choice(Placement, placement, "placement", InvalidArgumentError)
        if max_tokens is not None and (
            not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1
        ):
            raise InvalidArgumentError(
                f"max_tokens must be a whole number of 1 or more, or None for the memory's own; not {max_tokens!r}"
            )
        query = check_query(query)
        tokens = self.max_tokens if max_tokens is None else max_tokens
        merged = self._merged(filters)
        budget = Budget(
            self._limit(limit),
            tokens,
            self.token_counter,
            window=window,
            dating=dating_for(self.dates, self.timezone, merged),
        )

        def picking(query: str | None, filters: Mapping[str, Any]) -> Plan[Explanation]:
            fresh = replace(budget, exceeded=set())
            return pick(strategy, query, filters, fresh, self.recent_share, placement, self._ordering())

        return pick_and_compare(picking, query, merged, self.token_counter) if compare else picking(query, merged)


def _listed(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else value


def _build(role: Any, content: Any, metadata: Mapping[str, Any] | None, **fields: Any) -> Message:
    if metadata is not None and not isinstance(metadata, Mapping):
        raise MessageError(f"metadata must be a dict, not {metadata!r}")
    try:
        return Message(role=role, content=content, metadata=dict(metadata or {}), **fields)
    except ValidationError as error:
        raise refusal(error) from None


def _with_scope(message: Any, scope: Mapping[str, Any], required: Mapping[str, Any]) -> Any:
    """Add the values of default filters, and check that the memory would find the message again.

    Values that the metadata sets explicitly are accepted.
    """
    if not isinstance(message, Message) or not isinstance(message.metadata, dict):
        return message  # the backend raises the error
    for condition in parse(required).conditions:
        key, value = condition.key, message.metadata.get(condition.key)
        explicit = value is not None
        if key == MESSAGE_ID_KEY:
            value, explicit = message.id, False
        elif key == TIMESTAMP_KEY and (not explicit or "timestamp" in message.model_fields_set):
            value, explicit = message.timestamp or clock(), False
        if not explicit and not condition.holds(value):
            raise MessageError(
                f"message {message.id} has {key}={value!r} and would not be found again: this memory's default "
                f"filters require {key}={required[key]!r}. Add it through a memory without that filter, or with a "
                f"matching {key}"
            )
    metadata = {key: value for key, value in message.metadata.items() if value is not None or key not in scope}
    return message.model_copy(update={"metadata": {**scope, **metadata}})
