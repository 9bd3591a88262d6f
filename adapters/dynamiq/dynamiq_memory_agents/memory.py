"""`AgentMemory`: what an agent of the `dynamiq` package takes as its memory."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from dynamiq.memory import Memory as DynamiqMemory
from dynamiq.memory import MemoryRetrievalStrategy
from dynamiq.memory.memory import FormatType
from dynamiq.nodes.agents.hooks.core import current_hook_ctx
from dynamiq.prompts import Message as DynamiqMessage
from dynamiq.prompts import MessageRole as DynamiqRole
from dynamiq.types.cancellation import CanceledException
from pydantic import Field, SkipValidation

from dynamiq_memory import (
    ConfigurationError,
    DynamiqMemoryError,
    InvalidArgumentError,
    Memory,
    MessageRole,
    Placement,
    Window,
)
from dynamiq_memory.integrations.arguments import check_placement, check_window
from dynamiq_memory.integrations.interruptions import mark_interrupted
from dynamiq_memory.integrations.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.integrations.ordering import set_batch_times
from dynamiq_memory.integrations.references import memory_at, reference_to, resolve
from dynamiq_memory_agents._loads import Load, LoadKey, forget, recall, remember
from dynamiq_memory_agents._messages import from_messages, to_stored, with_metadata, with_stable_ids
from dynamiq_memory_agents._prompt import new_messages

logger = logging.getLogger(__name__)

# More messages than any store has, since some of dynamiq's backends do not accept None.
_ALL = 2**31 - 1
# The settings that the package adds when it makes a component from YAML.
_YAML_SETTINGS = {"type", "is_postponed_component_init"}


def _find_memory(memory: Any) -> Memory:
    if isinstance(memory, Memory):
        return memory
    if isinstance(memory, str):
        return memory_at(memory)
    if isinstance(memory, Mapping):
        return resolve(memory)
    if isinstance(memory, AgentMemory):
        return memory.memory
    if isinstance(memory, DynamiqMemory):
        raise ConfigurationError(
            "memory must be a dynamiq_memory.Memory, not dynamiq's own: give AgentMemory(memory=Memory(backend=…)), "
            "and import the messages of the old one by import_from(old)"
        )
    raise ConfigurationError(
        f"memory must be a dynamiq_memory.Memory, a URL such as sqlite:///conversations.db, or a result of to_dict(); "
        f"not a {type(memory).__name__}"
    )


class AgentMemory(DynamiqMemory):
    """The memory of an agent, kept in a `dynamiq_memory.Memory`.

    Use it wherever the package takes a `Memory`: `Agent(memory=AgentMemory(memory=Memory(backend=…)))`. An agent passes
    its whole prompt when a run ends. Its new messages are added to the session; stored messages are never changed or
    deleted, even those that the agent did not load, trimmed or summarised. One object, or several on one store, may
    serve any number of agents and threads.

    Attributes:
        memory: Where the messages are stored. Also a URL, such as `sqlite:///conversations.db`, or a reference from a
            result of `to_dict`, for YAML workflows.
        message_limit: The limit for calls without one. Defaults to that of `memory`.
        filters: Default filters of every call. Defaults to those of `memory`.
        save_mode: Which messages of a turn are kept. Defaults to that of `memory`.
        window: Where the most recent turns begin when not all of them fit. Defaults to that of `memory`.
        placement: Where RELEVANT and BOTH place messages that match. Defaults to that of `memory`. An agent adds its
            question itself, so "before_question" puts them in front of the last question before it.
        backend: The backend of `memory`.

    Raises:
        ConfigurationError: `memory` is not a memory, or cannot be found again.
    """

    # Copies of an agent, as Map and parallel tool calls make them, share the memory.
    _clone_shared: ClassVar[bool] = True

    memory: SkipValidation[Memory]
    window: Window
    placement: Placement
    backend: Any = Field(default=None, exclude=True)

    def __init__(self, memory: Memory | str | Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Find the memory, and use its settings unless others are given."""
        if memory is None and "backend" in settings:
            raise ConfigurationError("give the backend to the memory: AgentMemory(memory=Memory(backend=…))")
        found = _find_memory(memory)
        unknown = settings.keys() - type(self).model_fields.keys() - _YAML_SETTINGS
        if unknown:
            raise ConfigurationError(
                f"{min(unknown)!r} is unknown: give memory and, optionally, message_limit, filters, save_mode, window "
                "or placement"
            )
        if settings.pop("backend", None) not in (None, found.backend):
            raise ConfigurationError("give the backend to the memory: AgentMemory(memory=Memory(backend=…))")
        defaults = {
            "message_limit": found.message_limit,
            "filters": copy.deepcopy(found.filters),
            "save_mode": found.save_mode.value,
        }
        settings["window"] = check_window(settings.get("window")) or found.window
        settings["placement"] = check_placement(settings.get("placement")) or found.placement
        super().__init__(**{**defaults, **settings, "memory": found, "backend": found.backend})

    def to_dict(self, include_secure_params: bool = False, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002
        """Describe the memory for YAML workflows and traces, without messages and secrets.

        `AgentMemory(**described)` finds the store again: the object itself in the same process, else the memory that
        `dynamiq_memory.register_memory` has named, else by the store's URL.
        """
        store = self._store()
        return {
            "type": f"{__package__}.{type(self).__name__}",
            "memory": reference_to(self.memory),
            "message_limit": store.message_limit,
            "filters": store.to_dict()["filters"],
            "save_mode": store.save_mode.value,
            "window": store.window.value,
            "placement": store.placement.value,
        }

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the store."""
        return copy.copy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a reference to the store, as `to_dict` does."""
        return (_from_dict, (type(self), self.to_dict()))

    # --- what agents call ------------------------------------------------------------------------------------

    def get_agent_conversation(
        self,
        query: str | None = None,
        limit: int | None = None,
        filters: dict[str, Any] | None = None,
        strategy: MemoryRetrievalStrategy | None = MemoryRetrievalStrategy.ALL,
    ) -> list[DynamiqMessage]:
        """Choose the messages for an agent; see `dynamiq_memory.Memory.get_agent_conversation`.

        Args:
            query: The agent's input; RELEVANT and BOTH rank by it.
            limit: Maximum number of messages, 1 or more. Defaults to `message_limit`.
            filters: Only messages that match these and the default filters.
            strategy: ALL, RELEVANT or BOTH; None, which agents allow, is ALL.

        Raises:
            InvalidArgumentError: The limit or strategy is wrong.
            FilterError: The filter is wrong.
            BackendError: The store failed.
        """
        store = self._store()
        key = self._load_key(filters)
        if key is not None:
            store.scoped(key[2], key[1])  # refuses, before the run, a session that could not be saved after it
        chosen = (strategy or MemoryRetrievalStrategy.ALL).value
        found = from_messages(store.get_agent_conversation(query, limit, filters, chosen))
        if key is not None:
            hooks = current_hook_ctx.get()
            # A hook may mask the user's text: then only the masked text may be stored.
            question = query if hooks is None or not hooks.hooks else None
            loaded = tuple(message for message in found if message.role != DynamiqRole.SYSTEM)
            remember(key, Load(question, loaded))
        return found

    def replace_messages(self, filters: dict[str, Any], messages: list[DynamiqMessage]) -> None:
        """Save a run of an agent: add the new messages of its prompt to the session, in one batch.

        New messages are those that follow the result of `get_agent_conversation` for the same user and session within
        the same context, as agents call it. Without such a call before, the messages replace those that match.

        Args:
            filters: The user_id, the session_id, or both.
            messages: The whole prompt of the agent, without instructions.

        Raises:
            InvalidArgumentError: The filters name no user or session, or the prompt is that of another run.
            MessageError: A message cannot be stored as it is.
            BackendError: The store failed; nothing has been stored.
        """
        if not filters or not (filters.get(SESSION_KEY) or filters.get(USER_KEY)):
            raise InvalidArgumentError("replace_messages needs a session_id or a user_id in its filters")
        with _logged(filters):
            store = self._store()
            key = self._load_key(filters)
            loads = recall(key) if key is not None else ()
            if key is None or not loads:
                store.replace_messages(filters, to_stored(messages))
                return
            session = store.scoped(filters.get(SESSION_KEY), filters.get(USER_KEY))
            new = new_messages(messages, loads, session)
            if new:
                with_metadata(new, messages[-1].metadata or {})
                if isinstance(sys.exception(), CanceledException) and new[-1].role is MessageRole.ASSISTANT:
                    # An agent saves what it did while it handles that it was canceled: nothing follows this message.
                    mark_interrupted(new[-1:])
                set_batch_times(new, after=session.get_all(limit=1))
                session.add_many(new)
            forget(key)

    def add(
        self,
        role: DynamiqRole,
        content: str,
        metadata: dict[str, Any] | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> None:
        """Store one message; see `dynamiq_memory.Memory.add`.

        Raises:
            MessageError: The message cannot be stored as it is given.
            BackendError: The store failed.
        """
        known = {key: value for key, value in (metadata or {}).items() if value is not None}
        with _logged(known):
            self._store().add(role.value, content, known, tool_calls, tool_call_id, name)

    # --- what users call -------------------------------------------------------------------------------------

    def get_all(self, limit: int | None = None) -> list[DynamiqMessage]:
        """Read the most recent messages, oldest first.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            BackendError: The store failed.
        """
        return from_messages(self._store().get_all(limit))

    def search(
        self, query: str | None = None, filters: dict[str, Any] | None = None, limit: int | None = None
    ) -> list[DynamiqMessage]:
        """Rank messages by a query, best first; without one, the most recent, oldest first.

        Raises:
            InvalidArgumentError: The limit is not 1 or more.
            FilterError: The filter is wrong.
            BackendError: The store failed.
        """
        return from_messages(self._store().search(query, filters, limit))

    def get_all_messages_as_string(self, format_type: FormatType = FormatType.PLAIN) -> str:
        """Write what `get_all` returns as text."""
        return self._store().get_all_messages_as_string(format_type.value)

    def get_search_results_as_string(
        self, query: str, filters: dict[str, Any] | None = None, format_type: FormatType = FormatType.PLAIN
    ) -> str:
        """Write what `search` returns as text."""
        return self._store().get_search_results_as_string(query, filters, format_type.value)

    def is_empty(self) -> bool:
        """Whether no message matches the default filters."""
        return self._store().is_empty()

    def clear(self) -> None:
        """Delete every message that matches the default filters; without any, every message of the store."""
        self._store().clear()

    def delete(self, session_id: str | None = None, user_id: str | None = None) -> None:
        """Delete a session, a user's messages, or a user's session.

        Raises:
            InvalidArgumentError: Neither is given.
        """
        self._store().delete(session_id, user_id)

    def import_from(self, old: DynamiqMemory) -> int:
        """Import the messages of a memory of the package.

        For a store that only that object can read, such as `dynamiq.memory.backends.InMemory`. (A SQLite file of the
        package is upgraded when `dynamiq_memory.backends.SQLite` opens it.) Importing again adds nothing, unless an
        agent has run on the old memory in the meantime: the package writes a session again with each run.

        Args:
            old: The package's memory; only read.

        Returns:
            The number of its messages.

        Raises:
            ConfigurationError: It is not a memory of the package.
            MessageError: A message has an invalid time or id; nothing has been stored.
        """
        if not isinstance(old, DynamiqMemory):
            raise ConfigurationError(f"old must be a dynamiq.memory.Memory, not a {type(old).__name__}")
        stored = old.get_all(limit=_ALL)
        messages = to_stored(stored)
        with_stable_ids(messages)
        self._store().add_many(messages)
        return len(stored)

    # --- the rest --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store; see `dynamiq_memory.Memory.close`."""
        self.memory.close()

    def __enter__(self) -> Self:
        """Return the object itself; leaving the block closes the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def _store(self) -> Memory:
        """Return the memory with the current settings of this object."""
        store = copy.copy(self.memory)
        store.filters = {**self.memory.filters, **self.filters}
        store.message_limit = self.message_limit
        store.save_mode = type(store.save_mode)(self.save_mode.value)
        store.window, store.placement = self.window, self.placement
        return store

    def _load_key(self, filters: Mapping[str, Any] | None) -> LoadKey | None:
        named = {**self.filters, **(filters or {})}
        user_id, session_id = named.get(USER_KEY), named.get(SESSION_KEY)
        if not isinstance(session_id, str) or not isinstance(user_id, str | None):
            return None
        return (id(self.memory.backend), user_id, session_id)


def _from_dict(kind: type[AgentMemory], described: dict[str, Any]) -> AgentMemory:
    return kind(**described)


@contextmanager
def _logged(scope: Mapping[str, Any]) -> Iterator[None]:
    """Log an error with its session: an agent logs it without, if at all."""
    try:
        yield
    except DynamiqMemoryError:
        logger.exception("session %r of user %r was not stored", scope.get(SESSION_KEY), scope.get(USER_KEY))
        raise
