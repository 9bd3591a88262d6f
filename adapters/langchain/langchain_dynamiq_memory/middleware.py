"""Memory for agents of LangChain's `create_agent`."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime

from dynamiq_memory import (
    DynamiqMemoryError,
    Memory,
    MemoryRetrievalStrategy,
    MemorySaveMode,
    Message,
    MessageRole,
    Placement,
    Window,
    select_to_save,
)
from dynamiq_memory.integrations.alignment import Alignment, align, store_revisions, stored_since
from dynamiq_memory.integrations.arguments import (
    check_limit,
    check_memory,
    check_placement,
    check_strategy,
    check_window,
)
from dynamiq_memory.integrations.interruptions import mark_interrupted, with_open_calls
from dynamiq_memory.integrations.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    TIMESTAMP_KEY,
    USER_KEY,
    quoted_message,
    quoted_messages,
)
from dynamiq_memory.integrations.native import Default
from dynamiq_memory.integrations.ordering import earlier_than, set_batch_times, set_times_between
from dynamiq_memory.integrations.plans import AddMany, ExplainAgentConversation, GetAll, Plan, Take, arun, run
from dynamiq_memory.integrations.references import reference_to, resolve
from dynamiq_memory.integrations.turns import OPENING, Budget, split_turns
from langchain_dynamiq_memory._interruptions import (
    StreamedAnswer,
    UnfinishedTurn,
    has_open_calls,
    listening,
    recollect,
    remember,
    to_the_end,
)
from langchain_dynamiq_memory._messages import check_default, split, to_message
from langchain_dynamiq_memory._prompt import Held, awith_recalled, greeting_of, is_question, with_recalled
from langchain_dynamiq_memory._scope import agent_of, check_user, names_user, scoped_to_run, thread_of
from langchain_dynamiq_memory._search_tool import TOOL_NAME, SearchScope, check_model, search_tool
from langchain_dynamiq_memory._transcript import StateTranscript, is_summary

logger = logging.getLogger(__name__)

# Threads that are remembered to have run with a user.
_THREADS_KEPT = 10_000


class DynamiqMemoryMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Gives an agent its memory: recalls before each call of the model, and stores new messages.

    The user's message is stored before the model is called, each finished round of tool calls before the next call,
    and the answer when the run ends, so nothing is lost when the model or a tool fails, or the process dies. Recalled
    messages go to the model only, never into the agent's state; messages in the state (from a checkpointer's thread,
    or a history that the client sends) are not recalled again.

    `user_id` and `session_id` come from the run: `context=…`, `config["configurable"]`, or the memory's default
    filters; without a session_id, the checkpointer's `thread_id` is the session. Copies and pickles refer to the
    memory; see `dynamiq_memory.register_memory`.

    Args:
        memory: Where the messages are stored. Its save mode decides which messages of a turn are kept.
        strategy: Which messages are recalled; RELEVANT and BOTH rank by the user's last message.
        limit: Maximum number of recalled messages, in addition to those in the agent's state. Defaults to the memory's
            `message_limit`.
        max_tokens: Maximum number of recalled tokens, by the memory's `token_counter`. Defaults to the memory's
            `max_tokens`.
        window: Where recalled turns begin when not all of them fit. Defaults to the memory's `window`.
        placement: Where RELEVANT and BOTH place messages that match. Defaults to the memory's `placement`.
            "before_question" puts them in front of the text of the user's last message.
        search: Give the agent a tool `search_memory` for its "session", or for all sessions of the "user". The model
            must be one that can call tools.
        require_user: Whether a run that names no user is refused. By default, it is if its thread has run with a user
            here, since LangGraph's `snapshot.config` has the thread but not the user, or if it has a key such as
            "userid".
        keep_interrupted: Store an answer as soon as the model has said it, and what it has said so far when the run is
            cut off. If False, an answer is stored when the run ends, as other middleware has left it: for middleware
            that redacts answers, of which nothing else must reach the store.
        default: Called for a value in a message (such as a tool's artifact) that no store can keep; returns one that
            can be kept, like `default` of `json.dumps`. Without it, such a message is refused.

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
        window: Window | str | None = None,
        placement: Placement | str | None = None,
        search: SearchScope | None = None,
        require_user: bool | None = None,
        keep_interrupted: bool = True,
        default: Default | None = None,
    ) -> None:
        """Check the settings; no I/O."""
        super().__init__()
        self.memory = check_memory(memory)
        self.strategy = check_strategy(strategy)
        self.limit = check_limit("limit", limit)
        self.max_tokens = check_limit("max_tokens", max_tokens)
        self.window = check_window(window)
        self.placement = check_placement(placement)
        self.tools = _tools(memory, search)
        self._search = search
        self._require_user = require_user
        self._keep_interrupted = keep_interrupted
        self._threads_of_users: OrderedDict[str, None] = OrderedDict()
        self._default = check_default(default)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Store new messages, call the model with recalled ones, and store its answer."""
        check_model(request)
        memory, state = self._of_run(request.runtime), request.state["messages"]
        recalled, block, held = run(memory, self._before_model(memory, state))
        with listening() as streamed:
            try:
                response = handler(with_recalled(request, recalled, block, held))
            except GraphBubbleUp:
                raise
            except BaseException:
                with _reporting(memory):
                    run(memory, self._cut_off(memory, state, streamed, held.last))
                raise
        run(memory, self._answered(memory, state, response, held.last))
        return response

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Store new messages, call the model with recalled ones, and store its answer."""
        check_model(request)
        memory, state = self._of_run(request.runtime), request.state["messages"]
        recalled, block, held = await arun(memory, self._before_model(memory, state), state)
        with listening() as streamed:
            try:
                response = await handler(await awith_recalled(request, recalled, block, held))
            except GraphBubbleUp:
                raise
            except BaseException:
                with _reporting(memory):
                    await to_the_end(arun(memory, self._cut_off(memory, state, streamed, held.last), state))
                raise
        await to_the_end(arun(memory, self._answered(memory, state, response, held.last), state))
        return response

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store the rest of the turn."""
        memory = self._of_run(runtime)
        run(memory, self._after_run(memory, state))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store the rest of the turn."""
        memory = self._of_run(runtime)
        await arun(memory, self._after_run(memory, state), state["messages"])

    def __getstate__(self) -> dict[str, Any]:
        """Describe the middleware for copies and pickles, with a reference to its memory."""
        others = [tool for tool in self.tools if tool.name != TOOL_NAME]
        return {**self.__dict__, "memory": reference_to(self.memory), "tools": others}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the memory again.

        Raises:
            ConfigurationError: It cannot be found in this process; see `dynamiq_memory.register_memory`.
        """
        memory = resolve(state["memory"])
        self.__dict__.update(state, memory=memory, tools=[*_tools(memory, state["_search"]), *state["tools"]])

    def _of_run(self, runtime: Runtime[Any]) -> Memory:
        context, configurable = runtime.context, get_config().get("configurable", {})
        if self._is_user_required(names_user(context, configurable), configurable.get("thread_id")):
            check_user(self.memory, context, configurable)
        return scoped_to_run(self.memory, context, configurable)

    def _is_user_required(self, named: bool | None, thread_id: object) -> bool:
        if self._require_user is not None:
            return self._require_user
        if named and thread_id is not None:
            self._threads_of_users[str(thread_id)] = None
            while len(self._threads_of_users) > _THREADS_KEPT:
                self._threads_of_users.popitem(last=False)
        return named is None or (not named and str(thread_id) in self._threads_of_users)

    def _before_model(self, memory: Memory, state: Sequence[BaseMessage]) -> Plan[tuple[list[Message], str, Held]]:
        transcript = self._transcript(memory, state)
        yield from _settle(memory, transcript, ended=False)
        alignment = yield from align(transcript)
        yield from store_revisions(transcript, alignment)
        new = alignment.new_messages(transcript)
        mark_interrupted(with_open_calls(new))
        if memory.save_mode is not MemorySaveMode.FULL:
            # Which answer is the final one is only known when the next question comes, or the run ends.
            questions = [place for place, message in enumerate(new) if message.role is MessageRole.USER]
            new = new[: questions[-1] + 1] if questions else []
        versions = [*transcript.confirmed(alignment.known), *transcript.resumed(alignment.known)]
        saved = select_to_save(new, memory.save_mode)
        stored = yield from _add(transcript, saved, alignment.last, versions, alignment.latest)
        before = alignment.recall_before or next(iter(stored), None)
        recalled, block = yield from self._recall(memory, state, before, alignment)
        known = transcript.by_object(alignment.known)
        greeting = greeting_of(state)
        opens = greeting is not None and (yield from _is_first(memory, known.get(id(greeting), before)))
        scope = {key: memory.filters[key] for key in (USER_KEY, SESSION_KEY)}
        held = Held(
            scope=scope,
            stored=known,
            has_gaps=alignment.has_gaps,
            answered=alignment.answered_ids,
            questions=alignment.question_ids,
            last=stored[-1] if stored else alignment.last,
            opens=opens,
        )
        return recalled, block, held

    def _transcript(self, memory: Memory, state: Sequence[BaseMessage]) -> StateTranscript:
        config = get_config()
        # LangGraph repeats here the checkpoint that the run was called with.
        is_fork = bool(config.get("metadata", {}).get("checkpoint_id"))
        configurable = config.get("configurable", {})
        return StateTranscript(
            state,
            memory,
            self._default,
            thread_of(configurable),
            is_fork=is_fork,
            agent=agent_of(configurable),
        )

    def _answered(
        self, memory: Memory, state: Sequence[BaseMessage], response: ModelResponse[Any], last: Message | None
    ) -> Plan[None]:
        """Store an answer as soon as it is whole: the client may stop reading here, and the run end.

        Calls are stored with their results, or when the next question shows that they have none.
        """
        if not self._keep_interrupted:
            return
        transcript = self._transcript(memory, state)
        said = transcript.following(response.result)
        unfinished = UnfinishedTurn(transcript.turn, last.id if last else None)
        if has_open_calls(response.result):
            unfinished.calls = next(iter(select_to_save(said, memory.save_mode)), None)
        else:
            answer = yield from _add(transcript, select_to_save(said, memory.save_mode), last)
            unfinished.answer = [message.id for message in answer]
        remember(memory, transcript.agent, unfinished)

    def _cut_off(
        self, memory: Memory, state: Sequence[BaseMessage], streamed: StreamedAnswer, last: Message | None
    ) -> Plan[None]:
        """Store what the model has streamed of an answer that it could not finish."""
        answer = streamed.message() if self._keep_interrupted else None
        if answer is None:
            return
        message, whole = answer
        transcript = self._transcript(memory, state)
        said = transcript.following([message])
        if not whole or has_open_calls([message]):
            mark_interrupted(said)
        yield from _add(transcript, select_to_save(said, memory.save_mode), last)

    def _recall(
        self, memory: Memory, state: Sequence[BaseMessage], before: Message | None, alignment: Alignment
    ) -> Plan[tuple[list[Message], str]]:
        """Recall messages before a stored one, except those in the agent's state.

        Returns:
            The messages to merge into the conversation, and the block for the user's last message.
        """
        strategy = self.strategy
        summarised = any(is_summary(message) for message in state)
        if summarised:
            # The note replaces the earlier messages; only those that it may lack are worth recalling.
            if strategy is MemoryRetrievalStrategy.ALL:
                return [], ""
            strategy = MemoryRetrievalStrategy.RELEVANT
        asked = next(filter(is_question, reversed(state)), None)
        question = asked or next((message for message in reversed(state) if isinstance(message, HumanMessage)), None)
        query = None if question is None else str(question.text)
        limit, max_tokens = self.limit, self.max_tokens
        missing: list[Message] = []
        if alignment.lacking_ids and not summarised:
            budget = Budget(limit or memory.message_limit, max_tokens or memory.max_tokens, memory.token_counter)
            missing = _missing(alignment, budget)
            if budget.spent:
                return split(missing), ""
            query, limit, max_tokens = alignment.running[0].text, budget.messages, budget.tokens
        if alignment.goes_further_back:
            return split(missing), ""
        earlier = earlier_than(before.timestamp or 0.0, memory.filters.get(TIMESTAMP_KEY)) if before else None
        recalled = yield from ExplainAgentConversation(
            query=query,
            limit=limit,
            filters=earlier,
            strategy=strategy,
            max_tokens=max_tokens,
            window=self.window,
            placement=self.placement if asked else Placement.CHRONOLOGICAL,
        )
        # The line before an answer that the state has goes with it.
        new = [
            [message for message in some if message.id.removesuffix(OPENING) not in alignment.shared_ids]
            for some in (recalled.recent, recalled.recalled)
        ]
        return split([*new[0], *missing]), _block(new[1])

    def _after_run(self, memory: Memory, state: Mapping[str, Any]) -> Plan[None]:
        transcript = self._transcript(memory, state["messages"])
        yield from _settle(memory, transcript, ended=True)
        alignment = yield from align(transcript, recall=False)
        yield from store_revisions(transcript, alignment)
        new = alignment.new_messages(transcript)
        if memory.save_mode is not MemorySaveMode.FULL and new and isinstance(transcript.last, ToolMessage):
            answer = to_message(_answer_of(state["messages"], transcript.last, state), self._default)
            new.append(answer.model_copy(update={"id": new[-1].id}))
        yield from _add(transcript, select_to_save(new, memory.save_mode), alignment.last, latest=alignment.latest)


def _tools(memory: Memory, search: SearchScope | None) -> list[BaseTool]:
    return [] if search is None else [search_tool(memory, search)]


@contextmanager
def _reporting(memory: Memory) -> Iterator[None]:
    """Log an error of the store, since the run fails with the error that interrupted it."""
    try:
        yield
    except DynamiqMemoryError:
        logger.exception("an interrupted answer of session %r was not stored", memory.filters.get(SESSION_KEY))


def _is_first(memory: Memory, message: Message | None) -> Plan[bool]:
    """Whether the session has no message before a stored one."""
    if message is None:
        return True
    earlier = earlier_than(message.timestamp or 0.0, memory.filters.get(TIMESTAMP_KEY))
    return earlier is not None and not (yield from GetAll(1, earlier))


def _settle(memory: Memory, transcript: StateTranscript, *, ended: bool) -> Plan[None]:
    """Correct what was stored, or not yet, of the model's last message of the session.

    Args:
        memory: The memory.
        transcript: The state, in which other middleware may have changed or removed the message.
        ended: Whether the run ends, so that an answer is the final one.
    """
    for left in recollect(memory, transcript.agent, transcript.turn):
        if left.turn != transcript.turn:
            yield from _settle_calls(transcript, left)
            continue
        final = ended or memory.save_mode is MemorySaveMode.FULL
        kept = transcript.ids_of_turn() if final and left.answer else frozenset()
        replaced = [id_ for id_ in left.answer if id_ not in kept]
        if replaced:
            yield from Take({**memory.filters, MESSAGE_ID_KEY: replaced})


def _settle_calls(transcript: StateTranscript, left: UnfinishedTurn) -> Plan[None]:
    """Store the calls of another turn as interrupted, unless the session has gone on since.

    If its run goes on all the same, the calls are no longer marked when their results are stored. A state with results
    of the calls is of that turn too, only trimmed.
    """
    if left.calls is not None and not transcript.has(left.calls):
        latest = yield from GetAll(1)
        if [message.id for message in latest] == [left.last]:
            if not transcript.answers(left.calls):
                mark_interrupted([left.calls])
            yield from _add(transcript, [left.calls], None)


def _add(
    transcript: StateTranscript,
    messages: list[Message],
    after: Message | None,
    versions: Sequence[Message] = (),
    latest: Sequence[Message] | None = None,
) -> Plan[list[Message]]:
    """Store messages after those of the session, and with them new versions of stored ones.

    What answers a question, or goes on after calls or results, is stored directly after it if another question has been
    stored since.

    Args:
        transcript: The state.
        messages: The messages.
        after: The stored message that they follow in the state; None if they follow none.
        versions: The new versions.
        latest: The session's last message, if it has just been read; empty if there is none.

    Returns:
        The messages, without the versions.
    """
    if not messages:
        return []
    if latest is None:
        latest = yield from GetAll(1)
    answer = list(takewhile(lambda message: message.role is not MessageRole.USER, messages))
    since: Sequence[Message] = ()
    if answer and after is not None and [message.id for message in latest] != [after.id]:
        since = yield from stored_since(after)
    if after is not None and since:
        set_times_between(answer, after, since[0])
        versions = [*versions, *transcript.unnamed(since)]
    set_batch_times(messages[len(answer) :] if since else messages, after=latest)
    return (yield from AddMany([*versions, *messages]))[len(versions) :]


def _missing(alignment: Alignment, budget: Budget) -> list[Message]:
    """Recall what the state lacks of the turn that goes on: its question, and the latest rounds that fit.

    Args:
        alignment: The alignment of the state.
        budget: The messages and tokens that may be recalled; reduced by those that are.
    """
    rounds = [part for turn in split_turns(alignment.running) for part in turn.rounds]
    # The state may have the results of the last calls.
    known = {message.id for part in rounds for message in part}
    rounds.append([message for message in alignment.running if message.id not in known])
    lacking = [[message for message in part if message.id in alignment.lacking_ids] for part in rounds]
    taken = list(takewhile(budget.take, [*lacking[:1], *reversed(lacking[1:])]))
    ids = {message.id for part in taken for message in part}
    return [message for message in alignment.running if message.id in ids]


def _block(found: Sequence[Message]) -> str:
    return quoted_messages(map(quoted_message, found)) if found else ""


def _answer_of(messages: Sequence[BaseMessage], result: ToolMessage, state: Mapping[str, Any]) -> AIMessage:
    """The answer of a run that ended with a tool's result: the structured response, or the result."""
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    arguments = next((call["args"] for call in reversed(calls) if call["id"] == result.tool_call_id), None)
    if state.get("structured_response") is not None and arguments is not None:
        return AIMessage(json.dumps(arguments, ensure_ascii=False, default=str), id=result.id)
    return AIMessage(result.content, id=result.id)
