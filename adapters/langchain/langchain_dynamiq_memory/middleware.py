"""Memory for agents of LangChain's `create_agent`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.config import get_config
from langgraph.runtime import Runtime

from dynamiq_memory import (
    ConfigurationError,
    Memory,
    MemoryRetrievalStrategy,
    MemorySaveMode,
    Message,
    MessageRole,
    select_to_save,
)
from dynamiq_memory.alignment import align
from dynamiq_memory.filters import earlier_than
from dynamiq_memory.messages import TIMESTAMP_KEY, put_together
from dynamiq_memory.native import Default
from dynamiq_memory.plans import Call, Plan, arun, run
from dynamiq_memory.turns import arrange
from langchain_dynamiq_memory._held import HeldState, is_summary
from langchain_dynamiq_memory._messages import check_default, for_model, to_message
from langchain_dynamiq_memory._scope import scoped_to_run
from langchain_dynamiq_memory._search_tool import SearchScope, search_tool


class DynamiqMemoryMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Gives an agent its memory: recalls before each call of the model, and stores what is new.

    The user's message is stored before the model is called, each finished round of tool calls before the next call,
    the answer when the run ends: what has happened is kept when the model or a tool fails, or the process dies.
    Recalled messages go to the model only, never into the agent's state; what the state holds itself (the thread of a
    checkpointer, a history that the client sends) is not recalled again.

    `user_id` and `session_id` come from the run: `context=…`, `config["configurable"]`, or the memory's default
    filters; without a session_id, the checkpointer's `thread_id` is the session.

    Args:
        memory: Where the messages live. Its save mode says what is kept of a turn.
        strategy: Which messages are recalled; RELEVANT and BOTH rank by the user's last message.
        limit: Recall at most so many messages, besides those in the agent's state; the memory's `message_limit` by
            default.
        max_tokens: Recall at most so many tokens, by the memory's `token_counter`; None for any number.
        search: Give the agent a tool `search_memory` over its "session", or over all sessions of the "user".
        default: Called for a value in a message (such as a tool's artifact) that no store can hold; returns one that
            can. Without it, such a message is refused. As `default` of `json.dumps`.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        limit: int | None = None,
        max_tokens: int | None = None,
        search: SearchScope | None = None,
        default: Default | None = None,
    ) -> None:
        """Check the settings; no I/O."""
        super().__init__()
        if not isinstance(memory, Memory):
            raise ConfigurationError(
                f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}: give Memory(backend=…)"
            )
        for name, value in (("limit", limit), ("max_tokens", max_tokens)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, or None; not {value!r}")
        try:
            self.strategy = MemoryRetrievalStrategy(strategy)
        except ValueError:
            known = ", ".join(MemoryRetrievalStrategy)
            raise ConfigurationError(f"strategy {strategy!r} is unknown: use one of {known}") from None
        self.memory = memory
        self.limit = limit
        self.max_tokens = max_tokens
        self.tools = [] if search is None else [search_tool(memory, search)]
        self._default = check_default(default)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Store what is new, and call the model with what is recalled."""
        memory = self._of_run(request.runtime)
        recalled = run(memory, self._before_model(memory, request.state["messages"]))
        return handler(_with_recalled(request, recalled))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Store what is new, and call the model with what is recalled."""
        memory = self._of_run(request.runtime)
        recalled = await arun(memory, self._before_model(memory, request.state["messages"]))
        return await handler(_with_recalled(request, recalled))

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store the rest of the turn."""
        memory = self._of_run(runtime)
        run(memory, self._after_run(memory, state))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store the rest of the turn."""
        memory = self._of_run(runtime)
        await arun(memory, self._after_run(memory, state))

    def _of_run(self, runtime: Runtime[Any]) -> Memory:
        return scoped_to_run(self.memory, runtime.context, get_config().get("configurable", {}))

    def _before_model(self, memory: Memory, state: Sequence[BaseMessage]) -> Plan[list[BaseMessage]]:
        held = HeldState(state, memory, self._default)
        found = yield from align(held)
        new = held.new(found)
        if memory.save_mode is not MemorySaveMode.FULL:
            # Whether an answer is the final one is known when the next question comes, or the run ends.
            questions = [place for place, message in enumerate(new) if message.role is MessageRole.USER]
            new = new[: questions[-1] + 1] if questions else []
        stored = yield from _add(select_to_save(new, memory.save_mode))
        first = found.first or next(iter(stored), None)
        return (yield from self._recall(memory, state, first, found.held))

    def _recall(
        self, memory: Memory, state: Sequence[BaseMessage], first: Message | None, held: frozenset[str]
    ) -> Plan[list[BaseMessage]]:
        """Recall what stands before a message, but for what the agent's state holds itself."""
        strategy = self.strategy
        if any(is_summary(message) for message in state):
            # The note stands for what went before; only what it may have left out is worth recalling.
            if strategy is MemoryRetrievalStrategy.ALL:
                return []
            strategy = MemoryRetrievalStrategy.RELEVANT
        questions = [message for message in state if isinstance(message, HumanMessage)]
        arguments = {
            "query": str(questions[-1].text) if questions else None,
            "limit": self.limit,
            "filters": first and earlier_than(first.timestamp or 0.0, memory.filters.get(TIMESTAMP_KEY)),
            "strategy": strategy,
            "max_tokens": self.max_tokens,
        }
        recalled = cast("list[Message]", (yield Call("get_agent_conversation", arguments)))
        return for_model(arrange(message for message in recalled if message.id not in held))

    def _after_run(self, memory: Memory, state: Mapping[str, Any]) -> Plan[None]:
        held = HeldState(state["messages"], memory, self._default)
        found = yield from align(held)
        new = held.new(found)
        if memory.save_mode is not MemorySaveMode.FULL and new and isinstance(held.last, ToolMessage):
            answer = to_message(_answer_of(state["messages"], held.last, state), self._default)
            new.append(answer.model_copy(update={"id": new[-1].id}))
        yield from _add(select_to_save(new, memory.save_mode))


def _add(messages: list[Message]) -> Plan[list[Message]]:
    """Store messages behind those of the session."""
    if not messages:
        return []
    latest = cast("list[Message]", (yield Call("get_all", {"limit": 1})))
    put_together(messages, latest[0] if latest else None)
    return cast("list[Message]", (yield Call("add_many", {"messages": messages})))


def _with_recalled(request: ModelRequest[Any], recalled: Sequence[BaseMessage]) -> ModelRequest[Any]:
    """Put recalled messages before the conversation, behind the instructions."""
    if not recalled:
        return request
    messages = request.messages
    start = next((place for place, m in enumerate(messages) if not isinstance(m, SystemMessage)), len(messages))
    return request.override(messages=cast("list[AnyMessage]", [*messages[:start], *recalled, *messages[start:]]))


def _answer_of(messages: Sequence[BaseMessage], result: ToolMessage, state: Mapping[str, Any]) -> AIMessage:
    """The answer of a run that ended with a tool's result: the structured response, or what the tool returned."""
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    arguments = next((call["args"] for call in reversed(calls) if call["id"] == result.tool_call_id), None)
    if state.get("structured_response") is not None and arguments is not None:
        return AIMessage(json.dumps(arguments, ensure_ascii=False, default=str), id=result.id)
    return AIMessage(result.content, id=result.id)
