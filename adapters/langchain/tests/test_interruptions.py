"""Runs that are cut off: the client leaves, the task is cancelled, the model or a tool fails."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, PIIMiddleware, hook_config
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolCallChunk,
    ToolMessage,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from dynamiq_memory import BackendError, Memory, MemoryBackend, MemorySaveMode, Message
from dynamiq_memory.integrations.interruptions import ANSWER_NOTE, CALL_NOTE
from langchain_dynamiq_memory import DynamiqMemoryMiddleware
from tests.fakes.langchain import ScriptedModel, calls, in_short

RUN = {"configurable": {"user_id": "ann", "session_id": "s-1", "thread_id": "s-1"}}
LOOK = AIMessage("Let me look.", tool_calls=calls(("weather", {"city": "Ghent"})).tool_calls)
MODES = ["messages", "updates", "values", ["messages", "updates"]]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


class Broken(BaseException):
    """Ends a run from outside, like KeyboardInterrupt, which pytest would take for its own."""


class Streaming(ScriptedModel):
    """Streams word by word, and waits between the words; may fail after a number of chunks."""

    streaming: bool = False
    fails_after: int | None = None
    error: Any = None

    def _stream(self, *arguments: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        for number, chunk in enumerate(super()._stream(*arguments, **options)):
            if number == self.fails_after:
                raise self.error
            yield chunk
        if self.fails_after is not None and number < self.fails_after:
            raise self.error

    async def _astream(self, *arguments: Any, **options: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(*arguments, **options):
            await asyncio.sleep(0)
            yield chunk
            await asyncio.sleep(0)


def say(messages: list[BaseMessage]) -> AIMessage | str:
    """A turn with a tool, then short ones."""
    if messages[-1].text == "q1":
        return LOOK
    return "It will rain today." if isinstance(messages[-1], ToolMessage) else "ok"


def agent_of(
    memory: Memory, script: Any = say, *, saver: Any = None, others: Sequence[Any] = (), **options: Any
) -> Any:
    """A model and its agent, with options of both and of the middleware."""
    kind, tools = options.pop("kind", Streaming), options.pop("tools", [weather])
    kept = {name: options.pop(name) for name in ("fails_after", "error", "streaming") if name in options}
    model = kind(script=script, **kept)
    middleware = [DynamiqMemoryMiddleware(memory, **options), *others]
    return model, create_agent(model, tools, middleware=middleware, checkpointer=saver and saver())


def faults(prompt: Sequence[BaseMessage]) -> list[str]:
    """What a provider would refuse."""
    found = [] if prompt[0].type == "human" else [f"begins with {prompt[0].type}"]
    waiting: list[str | None] = []
    for message in prompt:
        if isinstance(message, ToolMessage):
            if message.tool_call_id in waiting:
                waiting.remove(message.tool_call_id)
            else:
                found.append(f"result {message.tool_call_id} without a call")
            continue
        found += [f"call {id_} without a result" for id_ in waiting]
        waiting = [call["id"] for call in message.tool_calls] if isinstance(message, AIMessage) else []
        if isinstance(message, AIMessage) and not waiting and not message.text.strip():
            found.append("an answer that says nothing")
    return found


def seen_in(events: Sequence[Any], mode: Any) -> str:
    """The text of the final answer, as far as a client saw it."""
    text = ""
    for kind, event in events if isinstance(mode, list) else ((mode, event) for event in events):
        if kind == "messages":
            chunk, where = event
            text += chunk.text if where["langgraph_step"] > 2 and isinstance(chunk, AIMessageChunk) else ""
        else:
            found = [
                m for part in event.values() for m in (part if kind == "values" else (part or {}).get("messages", ()))
            ]
            text = max([text, *(m.text for m in found if isinstance(m, AIMessage) and not m.tool_calls)], key=len)
    return text


def check_what_follows(memory: Memory, model: Streaming, seen: str) -> None:
    """After an interrupted turn and another one: the prompt is valid, and has what was seen, once."""
    prompt = model.prompts[-1]
    assert faults(prompt) == []
    lines = in_short(prompt)
    assert lines[0] == "human: q1"
    assert lines[-1] == "human: q2"
    assert len(lines) == len(set(lines))
    answers = [m.text for m in prompt if isinstance(m, AIMessage) and not m.tool_calls and m.text != ANSWER_NOTE]
    assert len(answers) <= 1
    assert "".join(answers).startswith(seen.strip())
    stored = memory.get_all()
    assert not any(m.superseded_at for m in stored)
    cut = [m for m in stored if m.interrupted]
    assert len(cut) <= 1
    for message in cut:
        note = CALL_NOTE if message.tool_calls else ANSWER_NOTE
        assert any(line.endswith(note) for line in lines)
    if not cut:
        assert not any(note in line for line in lines for note in (ANSWER_NOTE, CALL_NOTE))
    made_up = (f"tool: {CALL_NOTE}", f"ai: {ANSWER_NOTE}")
    assert len(stored) == len(lines) + 1 - sum(line in made_up for line in lines)


# --- the client leaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_a_client_that_leaves_at_any_event_of_a_stream(mode: Any, saver: Any) -> None:
    places = 0
    while True:
        memory = Memory()
        model, agent = agent_of(memory, saver=saver)
        events: list[Any] = []
        for event in agent.stream({"messages": [("user", "q1")]}, RUN, stream_mode=mode):
            events.append(event)
            if len(events) > places:
                break
        else:
            break
        places += 1
        if not memory.count():
            continue  # the values before the run
        seen = seen_in(events, mode)
        # LangGraph waits for the model when a stream is closed, so an answer of which a client saw a part is whole.
        assert not seen or memory.get_all()[-1].text.strip() == "It will rain today."
        agent.invoke({"messages": [("user", "q2")]}, RUN)
        check_what_follows(memory, model, seen)
    assert places >= 4


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_a_client_that_leaves_at_any_event_of_an_asynchronous_stream(mode: Any, saver: Any) -> None:
    async def leave(place: int) -> bool:
        memory = Memory()
        model, agent = agent_of(memory, saver=saver)
        events: list[Any] = []
        stream = agent.astream({"messages": [("user", "q1")]}, RUN, stream_mode=mode)
        async for event in stream:
            events.append(event)
            if len(events) > place:
                break
        else:
            return False
        await stream.aclose()
        if not memory.count():
            return True  # the values before the run
        seen = seen_in(events, mode)
        assert not seen or memory.get_all()[-1].text.startswith(seen)
        await agent.ainvoke({"messages": [("user", "q2")]}, RUN)
        check_what_follows(memory, model, seen)
        return True

    places = 0
    while asyncio.run(leave(places)):
        places += 1
    assert places >= 4


def test_an_interrupted_answer_is_stored_as_far_as_it_was_streamed(memory: Memory) -> None:
    async def leave() -> None:
        model, agent = agent_of(memory, lambda messages: "one two three four five six seven eight")
        stream = agent.astream({"messages": [("user", "q1")]}, RUN, stream_mode="messages")
        async for _ in stream:
            break
        await stream.aclose()
        kept = memory.get_all()[-1]
        assert kept.interrupted
        assert "one two three four five six seven eight".startswith(kept.text.strip())
        assert kept.metadata["session_id"] == "s-1"
        await agent.ainvoke({"messages": [("user", "q2")]}, RUN)
        assert in_short(model.prompts[-1]) == ["human: q1", f"ai: {kept.text}\n\n{ANSWER_NOTE}", "human: q2"]

    asyncio.run(leave())


def test_a_thread_goes_on_where_a_client_has_left(memory: Memory) -> None:
    """The thread lacks an answer that it never had, and one that was undone: only the latter is superseded."""
    model, agent = agent_of(memory, lambda messages: f"re {messages[-1].text}", saver=InMemorySaver)
    agent.invoke({"messages": [("user", "q0")]}, RUN)
    for _ in agent.stream({"messages": [("user", "q1")]}, RUN, stream_mode="messages"):
        break
    agent.invoke({"messages": [("user", "q2")]}, RUN)
    agent.invoke({"messages": [("user", "q3")]}, RUN)
    gone = [m for m in agent.get_state(RUN).values["messages"] if m.text in ("re q2", "q3", "re q3")]
    agent.update_state(RUN, {"messages": [RemoveMessage(id=m.id) for m in gone]}, as_node="model")
    agent.invoke({"messages": [("user", "q4")]}, RUN)
    assert [message.text.strip() for message in model.prompts[-1]] == ["q0", "re q0", "q1", "re q1", "q2", "q4"]
    assert [m.text for m in memory.get_all() if m.superseded_at] == ["re q2", "q3", "re q3"]


def test_a_stream_that_is_forgotten_is_stored_too(memory: Memory) -> None:
    async def leave() -> None:
        _, agent = agent_of(memory)
        async for event, _ in agent.astream({"messages": [("user", "q2")]}, RUN, stream_mode="messages"):
            if event.text:
                break
        gc.collect()

    asyncio.run(leave())
    assert [m.text.strip() for m in memory.get_all()] == ["q2", "ok"]


# --- the task is cancelled -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saver", "times", "first"), [(None, 1, 0), (None, 5, 3), (InMemorySaver, 1, 6), (InMemorySaver, 5, 9)]
)
def test_a_task_that_is_cancelled_at_any_moment(saver: Any, times: int, first: int) -> None:
    """As when an HTTP client disconnects; some servers cancel again and again until the task ends."""

    async def cancel(moment: int) -> bool:
        memory = Memory()
        model, agent = agent_of(memory, saver=saver)
        events: list[Any] = []

        async def read() -> None:
            async for event in agent.astream({"messages": [("user", "q1")]}, RUN, stream_mode="messages"):
                events.append(event)  # noqa: PERF401 - those before the end are looked at

        task = asyncio.create_task(read())
        for _ in range(moment):
            await asyncio.sleep(0)
        finished = task.done()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        # LangGraph itself does not wait for its tasks if it is cancelled twice.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        seen = seen_in(events, "messages")
        await agent.ainvoke({"messages": [("user", "q2")]}, RUN)
        if len(memory.get_all()) > 2:
            check_what_follows(memory, model, seen)
        return not finished

    moment = first
    while asyncio.run(cancel(moment)):
        moment += 12
    assert moment > 20


def test_a_run_that_is_cancelled_in_a_tool_says_so(memory: Memory) -> None:
    async def cancel(agent: Any) -> None:
        task = asyncio.create_task(agent.ainvoke({"messages": [("user", "q1")]}, RUN))
        await asyncio.wait_for(started.wait(), 120)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @tool("weather")
    async def slow(city: str) -> str:
        """Never ends."""
        started.set()
        await asyncio.Event().wait()
        raise AssertionError(city)

    started = asyncio.Event()
    _, agent = agent_of(memory, tools=[slow])
    asyncio.run(cancel(agent))
    # Another agent, as one that is made for each request.
    model, agent = agent_of(memory)
    asyncio.run(agent.ainvoke({"messages": [("user", "q2")]}, RUN))
    expected = ["human: q1", "ai: Let me look.", f"tool: {CALL_NOTE}", f"ai: {ANSWER_NOTE}", "human: q2"]
    assert in_short(model.prompts[-1]) == expected
    assert [m.interrupted for m in memory.get_all()] == [False, True, False, False]
    agent.invoke({"messages": [("user", "q3")]}, RUN)
    assert in_short(model.prompts[-1]) == [*expected, "ai: ok", "human: q3"]


def test_calls_of_a_turn_that_another_run_has_left_behind_are_not_stored_late(memory: Memory) -> None:
    _, agent = agent_of(memory)
    for _ in agent.stream({"messages": [("user", "q1")]}, RUN, stream_mode="messages"):
        break
    ids = {"user_id": "ann", "session_id": "s-1"}
    memory.add("user", "elsewhere", ids)
    memory.add("assistant", "answered", ids)
    agent.invoke({"messages": [("user", "q2")]}, RUN)
    assert [m.text for m in memory.get_all()] == ["q1", "elsewhere", "answered", "q2", "ok"]


def test_open_calls_in_a_thread_are_closed_for_the_model_and_stored(memory: Memory) -> None:
    """The process died while a tool ran: only the checkpointer knows of the call."""
    model, agent = agent_of(memory, saver=InMemorySaver)
    agent.update_state(RUN, {"messages": [HumanMessage("q1", id="1"), LOOK.model_copy(update={"id": "2"})]})
    agent.invoke({"messages": [("user", "q2")]}, RUN)
    expected = ["human: q1", "ai: Let me look.", f"tool: {CALL_NOTE}", f"ai: {ANSWER_NOTE}", "human: q2"]
    assert in_short(model.prompts[-1]) == expected
    assert [(m.text, m.interrupted) for m in memory.get_all()] == [
        ("q1", False), ("Let me look.", True), ("q2", False), ("ok", False),
    ]  # fmt: skip
    fresh, agent = agent_of(memory)
    agent.invoke({"messages": [("user", "q3")]}, RUN)
    assert in_short(fresh.prompts[-1]) == [*expected, "ai: ok", "human: q3"]
    assert faults(fresh.prompts[-1]) == []


# --- the model fails midway ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asynchronous", "error"),
    [(False, RuntimeError("overloaded")), (True, RuntimeError("overloaded")), (False, Broken())],
)
@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_a_model_that_fails_after_any_number_of_words(saver: Any, error: BaseException, asynchronous: bool) -> None:
    words = ["one ", "two ", "three "]
    for count in range(4):
        memory = Memory()
        model, agent = agent_of(
            memory,
            lambda messages: {"q1": "one two three", "q2": "ok"}[messages[-1].text],
            saver=saver,
            fails_after=count,
            error=error,
            streaming=True,
        )

        async def run(agent: Any = agent) -> None:
            await agent.ainvoke({"messages": [("user", "q1")]}, RUN)

        with pytest.raises(type(error)):
            asyncio.run(run()) if asynchronous else agent.invoke({"messages": [("user", "q1")]}, RUN)
        said = "".join(words[:count])
        kept = memory.get_all()
        assert [(m.text, m.interrupted) for m in kept[1:]] == ([(said, True)] if said else [])
        model.fails_after = None
        agent.invoke({"messages": [("user", "q2")]}, RUN)
        answer = [f"ai: {said}\n\n{ANSWER_NOTE}"] if said else []
        assert in_short(model.prompts[-1]) == ["human: q1", *answer, "human: q2"]


def test_a_failed_answer_that_is_given_again_is_given_once(memory: Memory) -> None:
    model, agent = agent_of(memory, ["one two three", "one two three", "ok"], saver=InMemorySaver,
                            fails_after=2, error=RuntimeError("overloaded"), streaming=True)  # fmt: skip
    with pytest.raises(RuntimeError, match="overloaded"):
        agent.invoke({"messages": [("user", "q1")]}, RUN)
    model.fails_after = None
    agent.invoke(None, RUN)
    agent.invoke({"messages": [("user", "q2")]}, RUN)
    assert [line.strip() for line in in_short(model.prompts[-1])] == ["human: q1", "ai: one two three", "human: q2"]
    assert [m.interrupted for m in memory.get_all()] == [False, True, False, False, False]


def test_a_client_that_sends_what_it_saw_is_given_the_note(memory: Memory) -> None:
    model, agent = agent_of(memory, ["one two three", "ok"], fails_after=2, error=RuntimeError("x"), streaming=True)
    with pytest.raises(RuntimeError, match="x"):
        agent.invoke({"messages": [("user", "q1")]}, RUN)
    model.fails_after = None
    agent.invoke({"messages": [("user", "q1"), ("assistant", "one two"), ("user", "q2")]}, RUN)
    assert in_short(model.prompts[-1]) == ["human: q1", f"ai: one two\n\n{ANSWER_NOTE}", "human: q2"]
    assert len(memory.get_all()) == 4


class Chunked(Streaming):
    """Streams the chunks of its script."""

    def _stream(self, *arguments: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        for chunk in self.script:
            yield ChatGenerationChunk(message=chunk)
        raise self.error


def piece(arguments: str, index: int, name: str | None = None) -> AIMessageChunk:
    made = ToolCallChunk(name=name, args=arguments, id=name and f"c-{index}", index=index, type="tool_call_chunk")
    return AIMessageChunk(content="", tool_call_chunks=[made])


@pytest.mark.parametrize("count", range(1, 7))
def test_calls_whose_arguments_are_incomplete_are_not_stored(memory: Memory, count: int) -> None:
    pieces = [
        AIMessageChunk(content=[{"type": "text", "text": "Let me look.", "index": 0}]),
        AIMessageChunk(content=[{"type": "thinking", "thinking": "Hm", "index": 1}]),
        piece('{"ci', 2, "weather"),
        piece('ty": "Ghent"}', 2),
        piece("{", 3, "weather"),
        piece('"city": "Bruges"}', 3),
    ]
    _, agent = agent_of(memory, pieces[:count], kind=Chunked, error=RuntimeError("x"))
    with pytest.raises(RuntimeError, match="x"):
        list(agent.stream({"messages": [("user", "q1")]}, RUN, stream_mode="messages"))
    kept = memory.get_all()[-1]
    assert (kept.role, kept.content, kept.interrupted) == ("assistant", "Let me look.", True)
    assert [call["id"] for call in kept.tool_calls or ()] == ["c-2", "c-3"][: (count >= 4) + (count >= 6)]
    follower, agent = agent_of(memory)
    agent.invoke({"messages": [("user", "q2")]}, RUN)
    assert faults(follower.prompts[-1]) == []
    assert any(note in line for line in in_short(follower.prompts[-1]) for note in (ANSWER_NOTE, CALL_NOTE))


@pytest.mark.parametrize("save_mode", MemorySaveMode)
def test_save_modes_hold_for_what_was_cut_off(store: MemoryBackend, save_mode: MemorySaveMode) -> None:
    memory = Memory(backend=store, save_mode=save_mode)
    _, agent = agent_of(memory)
    for event, where in agent.stream({"messages": [("user", "q1")]}, RUN, stream_mode="messages"):
        if where["langgraph_step"] > 2 and event.text:
            break
    middle = ["Let me look.", "rain in Ghent"] if save_mode is MemorySaveMode.FULL else []
    assert [m.text.strip() for m in memory.get_all()] == ["q1", *middle, "It will rain today."]


# --- beside other middleware -----------------------------------------------------------------------------------


class Watched(Memory):
    """Notes the text of all that is written."""

    written: ClassVar[list[str]] = []

    def add_many(self, messages: Sequence[Message], *arguments: Any, **options: Any) -> Any:
        Watched.written += [message.to_json() for message in messages]
        return super().add_many(messages, *arguments, **options)


REDACT = PIIMiddleware("email", strategy="redact", apply_to_input=True, apply_to_output=True)


def test_what_others_redact_after_the_model_replaces_the_first_wording(memory: Memory) -> None:
    _, agent = agent_of(memory, ["I wrote to ann@example.org.", "ok"], others=[REDACT])
    agent.invoke({"messages": [("user", "q1")]}, RUN)
    assert [m.text for m in memory.get_all()] == ["q1", "I wrote to [REDACTED_EMAIL]."]
    assert not any("example.org" in message.to_json() for message in memory.get_all())


def test_nothing_that_others_redact_is_ever_stored_without_keeping_what_is_interrupted() -> None:
    Watched.written = []
    memory = Watched()
    script = [AIMessage("I ask ann@example.org.", tool_calls=LOOK.tool_calls), "Ask ben@example.org.", "ok"]
    for places in range(1, 12):
        _, agent = agent_of(memory, script, others=[REDACT], keep_interrupted=False)
        for number, _ in enumerate(agent.stream({"messages": [("user", "q1")]}, RUN, stream_mode="messages"), 1):
            if number == places:
                break
    assert "[REDACTED_EMAIL]" in "".join(Watched.written)
    assert "example.org" not in "".join(Watched.written)


class Guard(AgentMiddleware):
    """Removes an answer, and has the model give another one."""

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        last = state["messages"][-1]
        return {"messages": [RemoveMessage(id=last.id)], "jump_to": "model"} if "secret" in last.text else None

    @hook_config(can_jump_to=["model"])
    async def aafter_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self.after_model(state, runtime)


class Retry(AgentMiddleware):
    def wrap_model_call(self, request: ModelRequest, handler: Callable[..., Any]) -> Any:
        try:
            return handler(request)
        except RuntimeError:
            return handler(request)


@pytest.mark.parametrize("save_mode", MemorySaveMode)
def test_an_answer_that_others_remove_is_not_kept(store: MemoryBackend, save_mode: MemorySaveMode) -> None:
    memory = Memory(backend=store, save_mode=save_mode)
    _, agent = agent_of(memory, ["The secret is 7.", "No."], others=[Guard()])
    agent.invoke({"messages": [("user", "q1")]}, RUN)
    assert [m.text for m in memory.get_all()] == ["q1", "No."]


def test_an_answer_that_a_middleware_asks_for_again_is_given_once(memory: Memory) -> None:
    model, agent = agent_of(memory, ["one two three", "four five", "ok"], others=[Retry()],
                            fails_after=2, error=RuntimeError("x"), streaming=True)  # fmt: skip

    def recover(messages: list[BaseMessage]) -> str:
        if len(model.prompts) > 1:
            model.fails_after = None
        return "one two three" if len(model.prompts) == 1 else "four five"

    model.script = recover
    agent.invoke({"messages": [("user", "q1")]}, RUN)
    assert [m.text.strip() for m in memory.get_all()] == ["q1", "four five"]


def test_a_store_that_fails_does_not_hide_why_the_run_ended(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise BackendError("the disk is full")

    def answer(messages: list[BaseMessage]) -> str:
        monkeypatch.setattr(memory.backend, "_write", fail)
        return "one two three"

    _, agent = agent_of(memory, answer, fails_after=2, error=RuntimeError("overloaded"), streaming=True)
    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="overloaded"):
        agent.invoke({"messages": [("user", "q1")]}, RUN)
    assert "an interrupted answer of session 's-1' was not stored" in caplog.text
    assert "the disk is full" in caplog.text


@pytest.mark.skipif(
    not hasattr(BaseCallbackHandler, "on_stream_event"),
    reason="the lowest langchain-core that is allowed has no event streams of version 3",
)
@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
def test_a_stream_of_events_that_fails_midway_is_stored(memory: Memory) -> None:
    pieces = [
        AIMessageChunk(content="Let me "),
        AIMessageChunk(content="look."),
        piece('{"city": "Ghent"}', 2, "weather"),
    ]
    _, agent = agent_of(memory, [*pieces, piece("{", 3, "weather")], kind=Chunked, error=RuntimeError("x"))

    def read() -> None:
        for stream in agent.stream_events({"messages": [("user", "q1")]}, RUN, version="v3").messages:
            list(stream.text)

    with pytest.raises(RuntimeError, match="x"):
        read()
    kept = memory.get_all()[-1]
    assert (kept.text, kept.interrupted) == ("Let me look.", True)


@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_a_tool_that_is_interrupted_says_so(memory: Memory, saver: Any) -> None:
    @tool("weather")
    def broken(city: str) -> str:
        """Never ends."""
        raise Broken(city)

    model, agent = agent_of(memory, tools=[broken], saver=saver)
    with pytest.raises(Broken):
        agent.invoke({"messages": [("user", "q1")]}, RUN)
    agent.invoke({"messages": [("user", "q2")]}, RUN)
    assert in_short(model.prompts[-1]) == [
        "human: q1",
        "ai: Let me look.",
        f"tool: {CALL_NOTE}",
        f"ai: {ANSWER_NOTE}",
        "human: q2",
    ]
    assert [m.interrupted for m in memory.get_all()] == [False, True, False, False]
