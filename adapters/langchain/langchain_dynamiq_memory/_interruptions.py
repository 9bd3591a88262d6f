"""What is known of a run that may be cut off: the answer streamed so far, and the last answer or calls of the model."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.tracers.context import register_configure_hook

from dynamiq_memory import Memory, MemoryBackend, Message
from langchain_dynamiq_memory._messages import fixed_filters

# Sessions of which an unfinished turn is remembered.
_TURNS_KEPT = 10_000
# Runs of a session at the same time of which one is remembered.
_RUNS_KEPT = 8

T = TypeVar("T")


class StreamedAnswer(BaseCallbackHandler):
    """The answer that a model is streaming.

    LangGraph lets the model stream if the client reads tokens, so this is what the client can have seen. Without
    streaming, it stays empty.
    """

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        """Begin without an answer."""
        self._runs: set[UUID] = set()
        self._run: UUID | None = None
        self._chunks: list[AIMessageChunk] = []
        self._whole: AIMessage | None = None

    def message(self) -> tuple[AIMessage, bool] | None:
        """Return what has been streamed, and whether it is the whole answer; None if there is nothing to keep.

        An unfinished answer has its text, and its calls with complete arguments.
        """
        if not self._chunks:
            return None
        merged = self._chunks[0] + self._chunks[1:]
        whole = self._whole or (message_chunk_to_message(merged) if self._chunks[-1].chunk_position == "last" else None)
        if isinstance(whole, AIMessage):
            return whole, True
        text, calls = str(merged.text), _complete_calls(merged)
        if not text.strip() and not calls:
            return None
        return AIMessage(text, tool_calls=calls, id=merged.id or f"lc_run--{self._run}"), False

    def on_chain_start(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """Note a chain: models within it do not give the agent's answer."""
        self._runs.add(run_id)

    def on_chat_model_start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **__: Any) -> None:
        """Begin again: another middleware may call the model several times, and the last answer counts."""
        if parent_run_id not in self._runs:
            self._run, self._chunks, self._whole = run_id, [], None
        self._runs.add(run_id)

    def on_llm_new_token(self, *_: Any, chunk: Any = None, run_id: UUID, **__: Any) -> None:
        """Add a chunk."""
        if run_id == self._run and isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            self._chunks.append(chunk.message)

    def on_stream_event(self, event: Mapping[str, Any], *, run_id: UUID, **__: Any) -> None:
        """Add an event of `stream_events(version="v3")`, which has no chunks."""
        if run_id != self._run:
            return
        delta, block = event.get("delta") or {}, event.get("content") or {}
        if event.get("event") == "content-block-delta" and delta.get("type") == "text-delta":
            self._chunks.append(AIMessageChunk(content=delta["text"]))
        elif event.get("event") == "content-block-finish" and block.get("type") == "tool_call":
            self._chunks.append(AIMessageChunk(content="", tool_calls=[block]))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **__: Any) -> None:
        """Note the whole answer."""
        generation = response.generations[0][0]
        if run_id == self._run and isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            self._whole = generation.message


_listener: ContextVar[StreamedAnswer | None] = ContextVar("dynamiq_memory_streamed_answer", default=None)
# Every callback manager made in the context has the listener, whatever model other middleware chooses.
register_configure_hook(_listener, inheritable=False)


@contextmanager
def listening() -> Iterator[StreamedAnswer]:
    """Collect what the model streams in this context."""
    answer = StreamedAnswer()
    token = _listener.set(answer)
    try:
        yield answer
    finally:
        _listener.reset(token)


def _complete_calls(merged: AIMessageChunk) -> list[Any]:
    complete = []
    for chunk in merged.tool_call_chunks:
        try:
            arguments = json.loads(chunk["args"] or "")
        except ValueError:
            continue  # the rest of its arguments was not streamed
        if chunk["name"] and isinstance(arguments, dict):
            complete.append(tool_call(name=chunk["name"], args=arguments, id=chunk["id"]))
    return complete


def has_open_calls(messages: Sequence[BaseMessage]) -> bool:
    """Whether messages have calls that none of them answers."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    return any(call["id"] not in answered for m in messages if isinstance(m, AIMessage) for call in m.tool_calls)


@dataclass
class UnfinishedTurn:
    """The model's last message in a turn that has not ended.

    Attributes:
        turn: The turn, as `StateTranscript.turn` names it.
        last: Id of the session's last message when the model was called.
        answer: Ids of the messages that were stored as its answer.
        calls: Its message with calls, not stored yet.
    """

    turn: str
    last: str | None
    answer: Sequence[str] = ()
    calls: Message | None = None


_Turns = OrderedDict[tuple[str, str], dict[str, UnfinishedTurn]]
_turns: WeakKeyDictionary[MemoryBackend, _Turns] = WeakKeyDictionary()


def remember(memory: Memory, agent: str, turn: UnfinishedTurn) -> None:
    """Remember the unfinished turn of an agent in a session, in this process.

    Args:
        memory: The memory of the session.
        agent: As `agent_of` names it.
        turn: The turn.
    """
    sessions = _turns.setdefault(memory.backend, OrderedDict())
    session = fixed_filters(memory), agent
    turns = sessions.setdefault(session, {})
    sessions.move_to_end(session)
    turns[turn.turn] = turn
    if len(turns) > _RUNS_KEPT:
        turns.pop(next(iter(turns)), None)
    if len(sessions) > _TURNS_KEPT:
        sessions.popitem(last=False)


def recollect(memory: Memory, agent: str, turn: str) -> list[UnfinishedTurn]:
    """Return what is unfinished of a turn in a session, and the calls of other turns, and forget them.

    Another run of the session may be about to finish its answer, which is remembered for it.
    """
    turns = _turns.get(memory.backend, OrderedDict()).get((fixed_filters(memory), agent), {})
    found = [each for name, each in list(turns.items()) if name == turn or each.calls is not None]
    return [each for each in found if turns.pop(each.turn, None)]


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await something that goes on when the task is cancelled; then the task is cancelled after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and task.exception() is None:
        raise cancelled
    return task.result()
