"""Chains over our history: `with_message_history`, and LangChain's own `RunnableWithMessageHistory`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from dynamiq_memory import ConfigurationError, Memory, MessageError
from dynamiq_memory.backends import InMemory, SQLite
from langchain_dynamiq_memory import DynamiqChatMessageHistory, with_message_history

pytestmark = pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")

CONFIG: Any = {"configurable": {"session_id": "s"}}


class Echo(BaseChatModel):
    """Answers "re: …" to the last user's message, after a gate that makes runs overlap; remembers its prompts."""

    gate: Any = None
    agate: Any = None
    seen: Any = None

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _answer(self, messages: list[BaseMessage]) -> str:
        self.seen.append([message.text for message in messages])
        questions = [message.text for message in messages if isinstance(message, HumanMessage)]
        return f"re: {questions[-1]}"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        answer = self._answer(messages)
        if self.gate is not None:
            self.gate(answer)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer))])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        answer = self._answer(messages)
        if self.agate is not None:
            await self.agate(answer)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        answer = self._answer(messages)
        if self.gate is not None:
            self.gate(answer)
        for letter in answer:
            yield ChatGenerationChunk(message=AIMessageChunk(content=letter))

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        answer = self._answer(messages)
        if self.agate is not None:
            await self.agate(answer)
        for letter in answer:
            yield ChatGenerationChunk(message=AIMessageChunk(content=letter))


def echo(gate: Any = None, agate: Any = None) -> Echo:
    return Echo(gate=gate, agate=agate, seen=[])


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.text for message in messages]


# --- forms of a chain --------------------------------------------------------------------------------------------


class Form:
    """One way to wrap a model: what it takes, and what it returns."""

    def __init__(self, build: Callable[[Echo], Runnable[Any, Any]], ask: Callable[[str], Any], **keys: Any) -> None:
        self.build, self.ask, self.keys = build, ask, keys

    def chain(self, model: Echo, factory: Callable[..., Any], **options: Any) -> Runnable[Any, Any]:
        return with_message_history(self.build(model), factory, **self.keys, **options)

    def langchains_chain(self, model: Echo, factory: Callable[..., Any]) -> Runnable[Any, Any]:
        return RunnableWithMessageHistory(self.build(model), factory, **self.keys)

    @staticmethod
    def said(output: Any) -> str:
        if isinstance(output, dict):
            output = next(iter(output.values()))
        if isinstance(output, list):
            output = output[-1]
        return output if isinstance(output, str) else output.text


PROMPT = ChatPromptTemplate.from_messages([("system", "Be brief."), MessagesPlaceholder("messages")])
KEYED = ChatPromptTemplate.from_messages(
    [("system", "Be brief."), MessagesPlaceholder("past"), ("human", "{question}")]
)
KEYED_MESSAGES = ChatPromptTemplate.from_messages([MessagesPlaceholder("past"), MessagesPlaceholder("question")])


def human(text: str) -> list[BaseMessage]:
    return [HumanMessage(text)]


def dictionary(text: str) -> dict[str, Any]:
    return {"messages": human(text)}


FORMS = {
    "model": Form(lambda model: model, human),
    "model, one message": Form(lambda model: model, HumanMessage),
    "model, a string": Form(lambda model: model, lambda text: text),
    "model bound": Form(lambda model: model.bind(stop=["x"]), human),
    "model with retries": Form(lambda model: model.with_retry(), human),
    "model with fallbacks": Form(lambda model: model.with_fallbacks([model]), human),
    "list": Form(lambda model: RunnableLambda(lambda messages: {"messages": messages}) | PROMPT | model, human),
    "list to string": Form(lambda model: PROMPT | model | StrOutputParser(), human),
    "list to list": Form(lambda model: model | RunnableLambda(lambda answer: [answer]), human),
    "dict": Form(lambda model: PROMPT | model, dictionary, input_messages_key="messages"),
    "dict to model": Form(
        lambda model: RunnableLambda(lambda given: given["messages"]) | model, dictionary, input_messages_key="messages"
    ),
    "dict to dict": Form(
        lambda model: RunnableLambda(lambda given: {"answer": (PROMPT | model).invoke(given), "other": 1}),
        dictionary,
        input_messages_key="messages",
        output_messages_key="answer",
    ),
    "keyed": Form(
        lambda model: KEYED | model,
        lambda text: {"question": text},
        input_messages_key="question",
        history_messages_key="past",
    ),
    "keyed messages": Form(
        lambda model: KEYED_MESSAGES | model,
        lambda text: {"question": human(text)},
        input_messages_key="question",
        history_messages_key="past",
    ),
    "keyed to dict": Form(
        lambda model: KEYED | model | RunnableLambda(lambda answer: {"answer": answer, "sources": []}),
        lambda text: {"question": text},
        input_messages_key="question",
        history_messages_key="past",
        output_messages_key="answer",
    ),
    "keyed to string": Form(
        lambda model: KEYED | model | StrOutputParser(),
        lambda text: {"question": text},
        input_messages_key="question",
        history_messages_key="past",
    ),
}
# Without history_messages_key, LangChain's own class would read the history again to find out what to save.
UNKEYED = ["model", "list to string", "dict", "dict to dict"]
SYNC_ONLY = {"dict to dict"}


def gather(parts: list[Any]) -> Any:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


async def agather(stream: AsyncIterator[Any]) -> Any:
    return gather([part async for part in stream])


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "invoke": lambda chain, asked, config: chain.invoke(asked, config),
    "ainvoke": lambda chain, asked, config: asyncio.run(chain.ainvoke(asked, config)),
    "batch": lambda chain, asked, config: chain.batch([asked], config)[0],
    "abatch": lambda chain, asked, config: asyncio.run(chain.abatch([asked], config))[0],
    "stream": lambda chain, asked, config: gather(list(chain.stream(asked, config))),
    "astream": lambda chain, asked, config: asyncio.run(agather(chain.astream(asked, config))),
}

Factory = Callable[[str], DynamiqChatMessageHistory]


def factory_of(memory: Memory, kind: str, **options: Any) -> Factory:
    cached: dict[str, DynamiqChatMessageHistory] = {}

    def fresh(session_id: str) -> DynamiqChatMessageHistory:
        return DynamiqChatMessageHistory(memory, session_id, **options)

    def cache(session_id: str) -> DynamiqChatMessageHistory:
        return cached.setdefault(session_id, fresh(session_id))

    return fresh if kind == "fresh" else cache


def stored(memory: Memory, session_id: str = "s", user_id: str | None = None) -> list[str]:
    return texts(DynamiqChatMessageHistory(memory, session_id, user_id).messages)


KINDS = pytest.mark.parametrize("kind", ["fresh", "cached"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", CALLS)
def test_a_chain_remembers_each_turn_once(form, call):
    memory, model = Memory(), echo()
    chain = FORMS[form].chain(model, factory_of(memory, "fresh"))
    expected: list[str] = []
    for number in range(2):
        output = CALLS[call](chain, FORMS[form].ask(f"q{number}"), CONFIG)
        assert Form.said(output) == f"re: q{number}"
        assert [text for text in model.seen[-1] if text != "Be brief."] == [*expected, f"q{number}"]
        expected += [f"q{number}", f"re: q{number}"]
        assert stored(memory) == expected
    assert stored(memory, "other") == []


@KINDS
@pytest.mark.parametrize("form", FORMS)
def test_calls_of_every_kind_share_one_conversation(memory, form, kind):
    model = echo()
    chain = FORMS[form].chain(model, factory_of(memory, kind))
    expected: list[str] = []
    for call, run in CALLS.items():
        run(chain, FORMS[form].ask(call), CONFIG)
        expected += [call, f"re: {call}"]
    assert stored(memory) == expected


@KINDS
@pytest.mark.parametrize("form", UNKEYED)
@pytest.mark.parametrize("limit", [1, 3])
def test_a_window_smaller_than_the_history_loses_and_doubles_nothing(form, limit, kind):
    memory, model = Memory(), echo()
    chain = FORMS[form].chain(model, factory_of(memory, kind, limit=limit))
    expected: list[str] = []
    for number in range(3):
        chain.invoke(FORMS[form].ask(f"q{number}"), CONFIG)
        asyncio.run(chain.ainvoke(FORMS[form].ask(f"r{number}"), CONFIG))
        expected += [f"q{number}", f"re: q{number}", f"r{number}", f"re: r{number}"]
        assert stored(memory) == expected
        assert len(model.seen[-1]) <= limit + 2


def test_two_users_and_two_sessions_are_apart(memory):
    def history(user_id: str, session_id: str) -> DynamiqChatMessageHistory:
        return DynamiqChatMessageHistory(memory, session_id, user_id)

    specs = [
        ConfigurableFieldSpec(id=name, annotation=str, name=name, default="", is_shared=True)
        for name in ("user_id", "session_id")
    ]
    chain = FORMS["keyed"].chain(echo(), history, history_factory_config=specs)
    for user in ("ann", "bea"):
        for session in ("s", "t"):
            config = {"configurable": {"user_id": user, "session_id": session}}
            chain.invoke({"question": f"{user} {session}"}, config)
            asyncio.run(chain.ainvoke({"question": "again"}, config))
    for user in ("ann", "bea"):
        for session in ("s", "t"):
            own = f"{user} {session}"
            assert stored(memory, session, user) == [own, f"re: {own}", "again", "re: again"]
    assert stored(memory) == []
    with pytest.raises(ValueError, match="user_id"):
        chain.invoke({"question": "x"}, {"configurable": {"session_id": "s"}})


def test_a_run_without_a_session_is_refused(memory):
    chain = FORMS["model"].chain(echo(), factory_of(memory, "fresh"))
    with pytest.raises(ValueError, match="session_id"):
        chain.invoke(human("x"))
    with pytest.raises(ValueError, match="session_id"):
        chain.invoke(human("x"), {"configurable": {"session_id": ""}})
    assert memory.is_empty()


@KINDS
def test_sessions_of_one_batch_are_apart(memory, kind):
    chain = FORMS["list"].chain(echo(), factory_of(memory, kind))
    configs: Any = [{"configurable": {"session_id": name}} for name in "abc"]
    for turn in range(2):
        chain.batch([human(f"{name}{turn}") for name in "abc"], configs)
        asyncio.run(chain.abatch([human(f"{name}{turn}!") for name in "abc"], configs))
    for name in "abc":
        asked = [f"{name}0", f"{name}0!", f"{name}1", f"{name}1!"]
        assert stored(memory, name) == [text for question in asked for text in (question, f"re: {question}")]


# --- runs of one session at the same time ------------------------------------------------------------------------

PAST = [HumanMessage("past"), AIMessage("re: past")]
RUNS = 3


def begin(memory: Memory, past: int) -> None:
    if past:
        DynamiqChatMessageHistory(memory, "s").add_messages(PAST * past)


def assert_all_there_once(memory: Memory, past: int, asked: Sequence[str]) -> None:
    said = stored(memory)
    assert said[: 2 * past] == ["past", "re: past"] * past
    expected = [text for question in asked for text in (question, f"re: {question}")]
    assert sorted(said[2 * past :]) == sorted(expected)


OVERLAPPING = pytest.mark.parametrize(("past", "limit"), [(0, None), (2, None), (3, 2)])


@KINDS
@OVERLAPPING
@pytest.mark.parametrize("form", UNKEYED)
def test_overlapping_runs_in_threads_lose_and_double_nothing(form, past, limit, kind):
    memory = Memory()
    begin(memory, past)
    together = threading.Barrier(RUNS)
    chain = FORMS[form].chain(echo(lambda _: together.wait(120)), factory_of(memory, kind, limit=limit))
    asked = [f"q{number}" for number in range(RUNS)]
    with ThreadPoolExecutor(RUNS) as pool:
        list(pool.map(lambda question: chain.invoke(FORMS[form].ask(question), CONFIG), asked))
    assert_all_there_once(memory, past, asked)


@KINDS
@OVERLAPPING
@pytest.mark.parametrize("form", [form for form in UNKEYED if form not in SYNC_ONLY])
def test_overlapping_runs_in_tasks_lose_and_double_nothing(form, past, limit, kind):
    memory = Memory()
    begin(memory, past)
    asked = [f"q{number}" for number in range(RUNS)]

    async def run() -> None:
        together = asyncio.Barrier(RUNS)

        async def gate(_: str) -> None:
            await together.wait()

        chain = FORMS[form].chain(echo(agate=gate), factory_of(memory, kind, limit=limit))
        await asyncio.gather(*(chain.ainvoke(FORMS[form].ask(question), CONFIG) for question in asked))

    asyncio.run(run())
    assert_all_there_once(memory, past, asked)


@KINDS
@OVERLAPPING
@pytest.mark.parametrize("form", UNKEYED)
def test_a_run_during_which_others_end_loses_and_doubles_nothing(form, past, limit, kind):
    """The others' turns are in the store when the first run saves: the order is known, and so are the messages."""
    memory = Memory()
    begin(memory, past)
    factory = factory_of(memory, kind, limit=limit)
    quick = FORMS[form].chain(echo(), factory)

    def others(_: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            for question in ("b", "c"):
                pool.submit(quick.invoke, FORMS[form].ask(question), CONFIG).result(120)

    slow = FORMS[form].chain(echo(others), factory)
    slow.invoke(FORMS[form].ask("a"), CONFIG)
    assert stored(memory) == ["past", "re: past"] * past + ["b", "re: b", "c", "re: c", "a", "re: a"]


@KINDS
@OVERLAPPING
@pytest.mark.parametrize("form", ["model", "list", "dict"])
def test_a_streamed_run_during_which_others_end_loses_and_doubles_nothing(form, past, limit, kind):
    memory = Memory()
    begin(memory, past)
    factory = factory_of(memory, kind, limit=limit)
    quick = FORMS[form].chain(echo(), factory)
    streamed = FORMS[form].chain(echo(), factory).stream(FORMS[form].ask("a"), CONFIG)
    next(streamed)
    for question in ("b", "c"):
        list(quick.stream(FORMS[form].ask(question), CONFIG))
    list(streamed)
    assert stored(memory) == ["past", "re: past"] * past + ["b", "re: b", "c", "re: c", "a", "re: a"]


@KINDS
@OVERLAPPING
@pytest.mark.parametrize("call", ["batch", "abatch"])
@pytest.mark.parametrize("form", ["model", "list", "dict"])
def test_a_batch_in_one_session_loses_and_doubles_nothing(form, past, limit, kind, call):
    memory = Memory()
    begin(memory, past)
    chain = FORMS[form].chain(echo(), factory_of(memory, kind, limit=limit))
    asked = [f"q{number}" for number in range(RUNS)]
    inputs = [FORMS[form].ask(question) for question in asked]
    if call == "batch":
        chain.batch(inputs, CONFIG)
    else:
        asyncio.run(chain.abatch(inputs, CONFIG))
    assert_all_there_once(memory, past, asked)


@KINDS
@pytest.mark.parametrize("form", ["model", "list", "dict"])
def test_what_is_added_by_hand_during_a_run_costs_no_message(form, kind):
    memory = Memory()
    factory = factory_of(memory, kind)
    chain = FORMS[form].chain(echo(lambda _: factory("s").add_user_message("hi")), factory)
    chain.invoke(FORMS[form].ask("hi"), CONFIG)
    assert stored(memory) == ["hi", "hi", "re: hi"]


@KINDS
@pytest.mark.parametrize("form", ["model", "list", "dict"])
def test_what_is_cleared_during_a_run_does_not_come_back(form, kind):
    memory = Memory()
    begin(memory, 2)
    factory = factory_of(memory, kind)
    chain = FORMS[form].chain(echo(lambda _: factory("s").clear()), factory)
    chain.invoke(FORMS[form].ask("q"), CONFIG)
    assert stored(memory) == ["q", "re: q"]


# --- inputs that resemble the history -----------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("form", UNKEYED)
def test_the_same_question_again_is_another_question(form, kind):
    memory = Memory()
    chain = FORMS[form].chain(echo(), factory_of(memory, kind))
    for _ in range(4):
        chain.invoke(FORMS[form].ask("hi"), CONFIG)
    assert stored(memory) == ["hi", "re: hi"] * 4


@KINDS
@pytest.mark.parametrize("form", ["model", "list"])
def test_a_message_of_the_history_can_be_asked_again(form, kind):
    memory = Memory()
    factory = factory_of(memory, kind)
    begin(memory, 1)
    question = factory("s").messages[0]
    FORMS[form].chain(echo(), factory).invoke([question], CONFIG)
    assert stored(memory) == ["past", "re: past", "past", "re: past"]


@KINDS
@pytest.mark.parametrize("form", ["model", "list"])
def test_an_input_equal_to_the_history_is_stored(form, kind):
    memory = Memory()
    begin(memory, 1)
    FORMS[form].chain(echo(), factory_of(memory, kind)).invoke([*PAST, HumanMessage("q")], CONFIG)
    assert stored(memory) == ["past", "re: past", "past", "re: past", "q", "re: q"]


@KINDS
@pytest.mark.parametrize("form", ["model", "list"])
@pytest.mark.parametrize("limit", [None, 1])
def test_an_empty_input_adds_the_answer_alone(form, kind, limit):
    memory = Memory()
    begin(memory, 1)
    DynamiqChatMessageHistory(memory, "s").add_user_message("open")
    FORMS[form].chain(echo(), factory_of(memory, kind, limit=limit)).invoke([], CONFIG)
    assert stored(memory) == ["past", "re: past", "open", "re: open"]


ODD = {
    "a tuple": ToolMessage("found", tool_call_id="c", artifact=(1, (2, 3))),
    "a set": ToolMessage("found", tool_call_id="c", artifact=[1, None], additional_kwargs={"x": ("y",)}),
    "keys": AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}], response_metadata={1: "x"}),
    "nan": AIMessage("found", response_metadata={"logprob": float("nan")}),
    "a chunk": AIMessageChunk(content="found", tool_call_chunks=[{"name": "f", "args": "{", "id": "c", "index": 0}]),
    "raw calls": AIMessage("", additional_kwargs={"tool_calls": [{"id": "c", "function": {"name": "f"}}]}),
}


@KINDS
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("form", ["model", "list", "dict"])
def test_messages_that_langchains_copy_changes_are_not_doubled(form, odd, kind):
    """A model that is wrapped directly gets its input as JSON, from which not every message comes back equal."""
    memory = Memory()
    DynamiqChatMessageHistory(memory, "s").add_messages([HumanMessage("q"), ODD[odd], AIMessage("done")])
    before = stored(memory)
    chain = FORMS[form].chain(echo(), factory_of(memory, kind))
    for question in ("q1", "q2"):
        chain.invoke(FORMS[form].ask(question), CONFIG)
    assert stored(memory) == [*before, "q1", "re: q1", "q2", "re: q2"]


class Counting(DynamiqChatMessageHistory):
    """A user's subclass that looks at what is added."""

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        super().add_messages(messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        await super().aadd_messages(messages)


class Reading(DynamiqChatMessageHistory):
    """A user's subclass that looks at what is read."""

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        return super().messages

    async def aget_messages(self) -> list[BaseMessage]:
        return await super().aget_messages()


class Both(Counting, Reading):
    pass


@pytest.mark.parametrize("history", [Counting, Reading, Both])
@pytest.mark.parametrize("form", ["model", "list", "dict", "keyed"])
def test_a_subclass_that_overrides_a_method_loses_and_doubles_nothing(form, history):
    memory = Memory()
    chain = FORMS[form].chain(echo(), lambda session_id: history(memory, session_id))
    for number in range(2):
        chain.invoke(FORMS[form].ask(f"q{number}"), CONFIG)
        asyncio.run(chain.ainvoke(FORMS[form].ask(f"r{number}"), CONFIG))
    asked = ["q0", "r0", "q1", "r1"]
    assert stored(memory) == [text for question in asked for text in (question, f"re: {question}")]


@KINDS
def test_a_run_that_fails_leaves_nothing_and_the_next_is_whole(memory, kind):
    def fail(_: str) -> None:
        raise RuntimeError("no model")

    factory = factory_of(memory, kind)
    begin(memory, 1)
    with pytest.raises(RuntimeError, match="no model"):
        FORMS["list"].chain(echo(fail), factory).invoke(human("q"), CONFIG)
    FORMS["list"].chain(echo(), factory).invoke(human("r"), CONFIG)
    assert stored(memory) == ["past", "re: past", "r", "re: r"]


@KINDS
def test_an_output_that_langchain_refuses_does_not_mislead_what_is_added_next(memory, kind):
    factory = factory_of(memory, kind)
    begin(memory, 1)
    bad = with_message_history(RunnableLambda(lambda _: 5), factory)
    assert bad.invoke(human("q"), CONFIG) == 5
    history = factory("s")
    history.add_messages([*history.messages, HumanMessage("by hand")])
    assert stored(memory) == ["past", "re: past", "past", "re: past", "by hand"]


def test_instructions_in_the_history_stay_first(memory):
    DynamiqChatMessageHistory(memory, "s").add_messages([SystemMessage("Be kind."), *PAST])
    model = echo()
    chain = FORMS["model"].chain(model, factory_of(memory, "fresh", limit=3))
    chain.invoke(human("q"), CONFIG)
    assert model.seen == [["Be kind.", "past", "re: past", "q"]]
    assert stored(memory) == ["Be kind.", "past", "re: past", "q", "re: q"]


# --- stores that fail, and stores that outlive the process -------------------------------------------------------


class Full(InMemory):
    driver_errors = (OSError,)

    def _write(self, messages: Any) -> None:
        raise OSError("the disk is full")


@KINDS
@pytest.mark.parametrize("form", ["model", "list", "keyed"])
@pytest.mark.parametrize("call", ["invoke", "ainvoke", "stream"])
def test_a_chain_answers_when_the_store_fails_and_the_log_names_the_session(caplog, form, call, kind):
    chain = FORMS[form].chain(echo(), factory_of(Memory(backend=Full()), kind))
    output = CALLS[call](chain, FORMS[form].ask("q"), {"configurable": {"session_id": "session-17"}})
    assert Form.said(output) == "re: q"
    [record] = [record for record in caplog.records if record.name.startswith("langchain_dynamiq_memory")]
    assert record.levelno == logging.ERROR
    assert "session-17" in record.getMessage()
    assert "the disk is full" in record.getMessage()


@pytest.mark.parametrize("form", ["model", "list", "keyed"])
def test_a_factory_may_open_the_store_by_its_url_on_each_run(shared_stores, tmp_path, form):
    for url in ("memory://", f"sqlite:///{tmp_path}/a.db"):
        model = echo()

        def factory(session_id: str, url: str = url) -> DynamiqChatMessageHistory:
            return DynamiqChatMessageHistory.from_url(url, session_id=session_id)

        chain = FORMS[form].chain(model, factory)
        chain.invoke(FORMS[form].ask("q"), CONFIG)
        asyncio.run(chain.ainvoke(FORMS[form].ask("r"), CONFIG))
        assert texts(factory("s").messages) == ["q", "re: q", "r", "re: r"]
        assert model.seen[-1][-3:] == ["q", "re: q", "r"]


SCRIPT = """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.runnables import RunnableLambda
from langchain_dynamiq_memory import DynamiqChatMessageHistory, with_message_history
url, question = sys.argv[1:]
def factory(session_id):
    return DynamiqChatMessageHistory.from_url(url, session_id=session_id, user_id="ann")
model = RunnableLambda(lambda messages: AIMessage(" | ".join(message.text for message in messages)))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    chain = with_message_history(model, factory)
print(chain.invoke([HumanMessage(question)], {"configurable": {"session_id": "s"}}).text)
"""


def test_a_second_process_remembers_what_the_first_one_stored(run_script, tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    with Memory(backend=SQLite(tmp_path / "a.db")) as memory:
        chain = with_message_history(echo(), lambda session_id: DynamiqChatMessageHistory(memory, session_id, "ann"))
        chain.invoke([HumanMessage("first")], CONFIG)
    assert run_script(SCRIPT, url, "second").stdout.strip() == "first | re: first | second"


# --- histories of a class of one's own ---------------------------------------------------------------------------


class KeepsFour(DynamiqChatMessageHistory):
    def add_messages(self, messages):
        super().add_messages(messages)
        kept = self.messages[-4:]
        self.clear()
        super().add_messages(kept)


class ShowsFour(DynamiqChatMessageHistory):
    @property
    def messages(self):
        return super().messages[-4:]


class Prefixes(DynamiqChatMessageHistory):
    def add_messages(self, messages):
        super().add_messages([message.model_copy(update={"content": f"> {message.content}"}) for message in messages])


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", [KeepsFour, ShowsFour, Prefixes])
def test_what_a_subclass_changes_holds_in_a_chain(store, kind, way):
    memory = Memory(backend=store)
    chain = with_message_history(
        FakeListChatModel(responses=[f"a{n}" for n in range(5)]), lambda session_id: kind(memory, session_id)
    )
    for n in range(5):
        config = {"configurable": {"session_id": "s"}}
        given = [HumanMessage(f"q{n}")]
        chain.invoke(given, config) if way == "sync" else asyncio.run(chain.ainvoke(given, config))
    texts = [message.content for message in DynamiqChatMessageHistory(memory, "s").messages]
    all_of_them = [f"{kind}{n}" for n in range(5) for kind in "qa"]
    expected = {KeepsFour: all_of_them[-4:], ShowsFour: all_of_them, Prefixes: [f"> {text}" for text in all_of_them]}
    assert texts == expected[kind]


# --- LangChain's own class ---------------------------------------------------------------------------------------

KEYED_FORMS = ["keyed", "keyed messages", "keyed to dict", "keyed to string"]


@KINDS
@pytest.mark.parametrize("form", KEYED_FORMS)
@pytest.mark.parametrize("call", CALLS)
def test_langchains_own_class_with_a_key_for_the_history_remembers_each_turn_once(form, call, kind):
    memory, model = Memory(), echo()
    chain = FORMS[form].langchains_chain(model, factory_of(memory, kind))
    for number in range(2):
        CALLS[call](chain, FORMS[form].ask(f"q{number}"), CONFIG)
    assert stored(memory) == ["q0", "re: q0", "q1", "re: q1"]


@KINDS
@pytest.mark.parametrize(
    ("form", "call", "history"),
    [
        *[(form, "invoke", DynamiqChatMessageHistory) for form in FORMS if form not in KEYED_FORMS],
        *[("list", call, DynamiqChatMessageHistory) for call in CALLS],
        *[("dict", "ainvoke", history) for history in (Counting, Reading, ShowsFour)],
    ],
)
def test_langchains_own_class_without_a_key_for_the_history_is_refused(form, call, history, kind):
    memory, model = Memory(), echo()
    begin(memory, 3)
    shared = history(memory, "s")
    chain = FORMS[form].langchains_chain(model, lambda s: shared if kind == "cached" else history(memory, s))
    with pytest.raises(ConfigurationError, match="with_message_history"):
        CALLS[call](chain, FORMS[form].ask("q"), CONFIG)
    assert model.seen == []
    assert stored(memory) == ["past", "re: past"] * 3


def logged(function: Any) -> Any:
    """A user's decorator, with a frame of its own."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


class Decorated(DynamiqChatMessageHistory):
    messages = property(logged(vars(DynamiqChatMessageHistory)["messages"].fget))
    aget_messages = logged(DynamiqChatMessageHistory.aget_messages)
    add_messages = logged(DynamiqChatMessageHistory.add_messages)
    aadd_messages = logged(DynamiqChatMessageHistory.aadd_messages)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("form", UNKEYED)
def test_decorated_methods_change_nothing(form, way):
    memory = Memory()

    def factory(session_id: str) -> DynamiqChatMessageHistory:
        return Decorated(memory, session_id)

    with pytest.raises(ConfigurationError, match="with_message_history"):
        CALLS[way](FORMS[form].langchains_chain(echo(), factory), FORMS[form].ask("q"), CONFIG)
    CALLS[way](FORMS[form].chain(echo(), factory), FORMS[form].ask("q"), CONFIG)
    assert stored(memory) == ["q", "re: q"]


@pytest.mark.parametrize("way", ["langchain", "ours"])
def test_a_step_of_a_chain_may_change_the_history_that_it_is_given(way):
    memory, model = Memory(), echo()
    begin(memory, 1)

    def join(given: dict[str, Any]) -> list[BaseMessage]:
        messages: list[BaseMessage] = given["past"]
        messages += [HumanMessage(given["question"])]
        return messages.copy()

    wrap = RunnableWithMessageHistory if way == "langchain" else with_message_history
    keys = {"input_messages_key": "question", "history_messages_key": "past"}
    chain = wrap(RunnableLambda(join) | model, factory_of(memory, "cached"), **keys)
    for question in "ab":
        chain.invoke({"question": question}, CONFIG)
    assert stored(memory) == ["past", "re: past", "a", "re: a", "b", "re: b"]
    assert model.seen[-1] == ["past", "re: past", "a", "re: a", "b"]


def test_a_history_outside_of_chains_is_a_list(memory):
    begin(memory, 1)
    messages = DynamiqChatMessageHistory(memory, "s").messages
    assert type(messages) is list
    assert type(asyncio.run(DynamiqChatMessageHistory(memory, "s").aget_messages())) is list


@pytest.mark.parametrize("given", [5, {"a": "x", "b": "y"}, None])
def test_an_input_without_messages_is_refused(given):
    chain = with_message_history(echo(), factory_of(Memory(), "fresh"))
    with pytest.raises(MessageError, match="the input of a chain must be"):
        chain.invoke(given, CONFIG)


@pytest.mark.parametrize(
    "given", [{"input": "q", "other": "x"}, {"any": "q"}, {"any": human("q")}, (HumanMessage("q"),)]
)
def test_an_input_may_be_a_dict_with_the_messages(given):
    memory = Memory()
    with_message_history(echo(), factory_of(memory, "fresh")).invoke(given, CONFIG)
    assert stored(memory) == ["q", "re: q"]
