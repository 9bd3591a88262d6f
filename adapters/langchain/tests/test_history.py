"""`DynamiqChatMessageHistory` used directly."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)

from dynamiq_memory import (
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    InvalidArgumentError,
    Memory,
    MemoryBackend,
    Message,
    MessageError,
)
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.backends.operations import Operation
from dynamiq_memory.filters import Filter
from langchain_dynamiq_memory import DynamiqChatMessageHistory
from tests.fakes.counting import Counting

QUESTION = HumanMessage("What is the capital of France?")
ANSWER = AIMessage("Paris.", response_metadata={"model": "m"})


@pytest.fixture
def history(memory: Memory) -> DynamiqChatMessageHistory:
    return DynamiqChatMessageHistory(memory, "s1", "ann")


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.text for message in messages]


# --- the interface of LangChain's histories ----------------------------------------------------------------------


def test_it_is_a_chat_history_of_langchains(history):
    assert isinstance(history, BaseChatMessageHistory)
    assert (history.session_id, history.user_id) == ("s1", "ann")
    assert "s1" in repr(history)
    assert "ann" in repr(history)


def test_messages_come_back_as_they_were_added(history):
    history.add_messages([QUESTION, ANSWER])
    history.add_message(SystemMessage("Be brief."))
    history.add_user_message("And of Spain?")
    history.add_user_message(HumanMessage("Please.", name="ann"))
    history.add_ai_message("Madrid.")
    history.add_ai_message(AIMessage("Sure.", id="run--1"))
    assert history.messages == [
        QUESTION,
        ANSWER,
        SystemMessage("Be brief."),
        HumanMessage("And of Spain?"),
        HumanMessage("Please.", name="ann"),
        AIMessage("Madrid."),
        AIMessage("Sure.", id="run--1"),
    ]
    assert asyncio.run(history.aget_messages()) == history.messages


def test_messages_added_asynchronously_come_back_as_they_were_added(history):
    async def run() -> Any:
        await history.aadd_messages([QUESTION, ANSWER])
        await history.aadd_messages([AIMessage("x", id="1")])
        return await history.aget_messages()

    assert asyncio.run(run()) == [QUESTION, ANSWER, AIMessage("x", id="1")] == history.messages


def test_the_list_of_messages_is_the_callers_own(history):
    history.add_messages([HumanMessage([{"type": "text", "text": "a"}], additional_kwargs={"k": [1]})])
    first = history.messages
    first[0].content[0]["text"] = "changed"
    first[0].additional_kwargs["k"].append(2)
    first.append(ANSWER)
    assert history.messages == [HumanMessage([{"type": "text", "text": "a"}], additional_kwargs={"k": [1]})]


def test_what_is_added_is_left_as_it_is(history):
    message = AIMessage([{"type": "text", "text": "a", "id": "b1"}], additional_kwargs={"k": [1]})
    batch = [message]
    history.add_messages(batch)
    assert batch == [message]
    assert message == AIMessage([{"type": "text", "text": "a", "id": "b1"}], additional_kwargs={"k": [1]})
    assert message.id is None


def test_str_is_the_conversation(history):
    history.add_messages([QUESTION, ANSWER])
    assert str(history) == "Human: What is the capital of France?\nAI: Paris."


def test_clear_deletes_the_session_alone(memory):
    sessions = [("s1", "ann"), ("s2", "ann"), ("s1", "bea"), ("s1", None)]
    histories = [DynamiqChatMessageHistory(memory, *session) for session in sessions]
    for number, other in enumerate(histories):
        other.add_user_message(f"{number}")
    histories[0].clear()
    assert [texts(other.messages) for other in histories] == [[], ["1"], ["2"], ["3"]]
    asyncio.run(histories[3].aclear())
    assert [texts(other.messages) for other in histories] == [[], ["1"], ["2"], []]
    histories[0].clear()
    histories[0].add_user_message("again")
    assert texts(histories[0].messages) == ["again"]


def test_adding_nothing_adds_nothing(history):
    history.add_messages([])
    asyncio.run(history.aadd_messages([]))
    assert history.messages == []


def test_a_tuple_of_messages_is_added(history):
    history.add_messages((QUESTION, ANSWER))
    assert history.messages == [QUESTION, ANSWER]


def test_no_warning_is_given(memory, shared_stores):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for made in (
            DynamiqChatMessageHistory(memory, "s", "u", limit=4),
            DynamiqChatMessageHistory.from_url("memory://", session_id="s"),
        ):
            made.add_messages([QUESTION, ANSWER, ToolMessage("x", tool_call_id="1", artifact=(1, {2}))])
            assert made.messages
            assert made.search("capital")
            asyncio.run(made.aadd_messages([QUESTION]))
            asyncio.run(made.aget_messages())
            asyncio.run(made.asearch("capital"))
            str(made)
            made.clear()
            asyncio.run(made.aclear())
        del made
        gc.collect()
    assert [str(warning.message) for warning in given] == []


class AsyncOnly(MemoryBackend):
    """A natively asynchronous store: no synchronous method may be called, nor a thread be used."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InMemory()
        self.threads: set[int] = set()

    def _perform(self, operation: Operation[Any]) -> Any:
        raise AssertionError(f"a synchronous {operation}")

    async def _aperform(self, operation: Operation[Any]) -> Any:
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        return self.inner.execute(operation)


@pytest.mark.parametrize("limit", [None, 3])
def test_asynchronous_methods_await_the_stores_own(limit):
    backend = AsyncOnly()
    history = DynamiqChatMessageHistory(Memory(backend=backend), "s", limit=limit)

    async def run() -> None:
        await history.aadd_messages([QUESTION, AIMessage("Paris.", id="1")])
        await history.aadd_messages([HumanMessage("x", id="2"), AIMessage("again", id="1")])
        assert texts(await history.aget_messages())[-2:] == ["x", "again"]
        assert texts(await history.asearch("capital")) == [QUESTION.text]
        await history.aclear()
        assert await history.aget_messages() == []

    asyncio.run(run())
    assert backend.threads == {threading.get_ident()}


# --- where it is -------------------------------------------------------------------------------------------------


def test_histories_of_one_url_share_a_store(shared_stores, tmp_path):
    for url in ("memory://", f"sqlite:///{tmp_path}/a.db"):
        DynamiqChatMessageHistory.from_url(url, session_id="s", user_id="u").add_messages([QUESTION, ANSWER])
        again = DynamiqChatMessageHistory.from_url(url, "s", "u", 5)
        assert again.messages == [QUESTION, ANSWER]
        assert again.limit == 5
        assert DynamiqChatMessageHistory.from_url(url, session_id="other", user_id="u").messages == []
    elsewhere = DynamiqChatMessageHistory.from_url(f"sqlite:///{tmp_path}/b.db", session_id="s", user_id="u")
    assert elsewhere.messages == []


@pytest.mark.parametrize("url", ["", "nonsense", "nothing://x", "postgres", None, 5])
def test_a_url_that_is_not_understood_is_refused(shared_stores, url):
    with pytest.raises(ConfigurationError):
        DynamiqChatMessageHistory.from_url(url, session_id="s")


def test_threads_that_name_a_new_url_at_once_share_a_store(shared_stores):
    start = threading.Barrier(8)

    def make(_: int) -> MemoryBackend:
        start.wait(120)
        return DynamiqChatMessageHistory.from_url("memory://", session_id="s").memory.backend

    with ThreadPoolExecutor(8) as pool:
        assert len({id(backend) for backend in pool.map(make, range(8))}) == 1


class Untouchable(MemoryBackend):
    def _write(self, messages: Sequence[Message]) -> None:
        raise AssertionError("written")

    def _read(self, *arguments: Any) -> list[Message]:
        raise AssertionError("read")

    def _delete(self, filter: Filter) -> int:
        raise AssertionError("deleted")


def test_making_one_does_no_input_or_output(tmp_path):
    made = DynamiqChatMessageHistory(Memory(backend=Untouchable()), "s", "u", limit=3)
    assert (made.session_id, made.user_id, made.limit) == ("s", "u", 3)
    repr(made)
    with SQLite(tmp_path / "b.db") as sqlite:
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        DynamiqChatMessageHistory(Memory(backend=sqlite), "s")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- whose it is -------------------------------------------------------------------------------------------------


def test_two_users_of_the_same_session_id_are_apart(memory):
    ann, bea = (DynamiqChatMessageHistory(memory, "s1", user) for user in ("ann", "bea"))
    ann.add_messages([HumanMessage("ann's secret", id="1")])
    bea.add_messages([HumanMessage("bea's secret", id="1")])
    assert ann.messages == [HumanMessage("ann's secret", id="1")]
    assert bea.messages == [HumanMessage("bea's secret", id="1")]
    assert texts(ann.search("secret")) == ["ann's secret"]


def test_without_a_user_only_messages_without_one_are_read(memory):
    nobody = DynamiqChatMessageHistory(memory, "s1")
    DynamiqChatMessageHistory(memory, "s1", "ann").add_user_message("ann's")
    assert nobody.user_id is None
    assert nobody.messages == []
    assert nobody.search("ann's") == []
    nobody.add_user_message("nobody's")
    assert texts(nobody.messages) == ["nobody's"]
    nobody.clear()
    assert texts(DynamiqChatMessageHistory(memory, "s1", "ann").messages) == ["ann's"]


def test_the_memorys_default_filters_hold(store):
    acme, other = (Memory(backend=store, filters={"tenant": tenant, "user_id": "ann"}) for tenant in ("acme", "other"))
    histories = [DynamiqChatMessageHistory(memory, "s1") for memory in (acme, other)]
    for history, text in zip(histories, ("acme's", "other's"), strict=True):
        assert history.user_id == "ann"
        history.add_messages([HumanMessage(text), AIMessage("fine", id="1")])
        asyncio.run(history.aadd_messages([HumanMessage(f"{text} too", id="2")]))
    for limit in (None, 10):
        made = [DynamiqChatMessageHistory(memory, "s1", limit=limit) for memory in (acme, other)]
        assert [texts(history.messages) for history in made] == [
            ["acme's", "fine", "acme's too"],
            ["other's", "fine", "other's too"],
        ]
    histories[0].clear()
    assert histories[0].messages == []
    assert texts(histories[1].messages) == ["other's", "fine", "other's too"]


def test_the_session_may_come_from_the_memory(store):
    memory = Memory(backend=store, filters={"session_id": "s1", "user_id": "ann"})
    assert DynamiqChatMessageHistory(memory).session_id == "s1"
    assert DynamiqChatMessageHistory(memory, "s1", "ann").user_id == "ann"
    for session_id, user_id in (("s2", "ann"), ("s1", "bea")):
        with pytest.raises(ConfigurationError, match="is outside"):
            DynamiqChatMessageHistory(memory, session_id, user_id)
    assert memory.filters == {"session_id": "s1", "user_id": "ann"}


def test_the_save_mode_and_message_limit_of_the_memory_do_not_cut_a_history(store):
    memory = Memory(backend=store, save_mode="input_output", message_limit=2)
    history = DynamiqChatMessageHistory(memory, "s")
    conversation = tool_turn(1)
    history.add_messages(conversation)
    assert history.messages == conversation
    assert len(history.memory.get_all()) == 2


def test_more_messages_than_the_default_limit_are_read():
    history = DynamiqChatMessageHistory(Memory(), "s")
    history.add_messages([HumanMessage(f"{number}") for number in range(1_005)])
    assert texts(history.messages) == [f"{number}" for number in range(1_005)]


# --- finding -----------------------------------------------------------------------------------------------------


def test_search_finds_the_sessions_messages_best_first(history, memory):
    history.add_messages([HumanMessage("the capital city of France"), AIMessage("Paris", id="p"), HumanMessage("city")])
    DynamiqChatMessageHistory(memory, "s2", "ann").add_user_message("capital")
    assert texts(history.search("capital city")) == ["the capital city of France", "city"]
    assert history.search("Paris") == [AIMessage("Paris", id="p")]
    assert asyncio.run(history.asearch("capital city")) == history.search("capital city")
    assert len(history.search("city", limit=1)) == 1
    assert texts(history.search(" ", limit=2)) == ["Paris", "city"]
    assert history.search("nowhere") == []


@pytest.mark.parametrize("limit", [0, -1, True, "3", 1.5])
def test_a_searchs_limit_that_is_no_number_is_refused(history, limit):
    with pytest.raises(InvalidArgumentError, match="limit"):
        history.search("x", limit=limit)
    with pytest.raises(InvalidArgumentError, match="limit"):
        asyncio.run(history.asearch("x", limit=limit))


# --- windows -----------------------------------------------------------------------------------------------------


def tool_turn(number: int, calls: int = 1, rounds: int = 1) -> list[BaseMessage]:
    turn: list[BaseMessage] = [HumanMessage(f"question {number}")]
    for step in range(rounds):
        made = [{"name": "look", "args": {"n": n}, "id": f"call-{number}-{step}-{n}"} for n in range(calls)]
        turn.append(AIMessage("", tool_calls=made))
        turn += [ToolMessage(f"found {n}", tool_call_id=call["id"], artifact=(n,)) for n, call in enumerate(made)]
    return [*turn, AIMessage(f"answer {number}")]


def conversations() -> dict[str, list[BaseMessage]]:
    plain = [[HumanMessage(f"q{n}"), AIMessage(f"a{n}")] for n in range(8)]
    mixed = [tool_turn(n, calls=1 + n % 3, rounds=1 + n % 2) if n % 2 else plain[n] for n in range(8)]
    return {
        "plain": list(itertools.chain(*plain)),
        "tools": list(itertools.chain(*mixed)),
        "instructions": [SystemMessage("Be brief."), *itertools.chain(*mixed)],
        "an answer first": [AIMessage("Hello!"), *itertools.chain(*mixed)],
        "directives": [
            HumanMessage("q"),
            RemoveMessage(id="x"),
            AIMessage("a"),
            HumanMessage("r"),
            AIMessage("b"),
            RemoveMessage(id="y"),
        ],
        "a call that broke off": [*tool_turn(1)[:2], *tool_turn(2), HumanMessage("q3"), AIMessage("a3")],
        "a result without a call": [ToolMessage("?", tool_call_id="gone"), *tool_turn(2)],
        "a long turn": tool_turn(1, calls=2, rounds=6),
    }


def assert_every_provider_accepts(window: list[BaseMessage]) -> None:
    spoken = [message for message in window if not isinstance(message, SystemMessage)]
    assert not any(isinstance(message, RemoveMessage) for message in window)
    assert not spoken or isinstance(spoken[0], HumanMessage)
    waiting: list[str | None] = []
    for message in spoken:
        if isinstance(message, ToolMessage):
            assert message.tool_call_id in waiting
            waiting.remove(message.tool_call_id)
            continue
        assert waiting == []
        if isinstance(message, AIMessage):
            waiting = [call["id"] for call in message.tool_calls]
    assert waiting == []
    # A window leaves LangChain's own trimming nothing to do.
    trimmed = trim_messages(
        window, max_tokens=10_000, token_counter=len, strategy="last", start_on="human", include_system=True
    )
    assert trimmed == window


@pytest.mark.parametrize("name", conversations())
def test_a_window_of_any_size_is_a_conversation(name):
    memory = Memory()
    added = conversations()[name]
    DynamiqChatMessageHistory(memory, "s").add_messages(added)
    for limit in range(1, len(added) + 3):
        history = DynamiqChatMessageHistory(memory, "s", limit=limit)
        window = history.messages
        assert len(window) <= limit
        assert all(message in added for message in window)
        assert_every_provider_accepts(window)
        assert asyncio.run(history.aget_messages()) == window


def test_a_window_holds_the_most_recent_whole_turns(store):
    memory = Memory(backend=store)
    added = conversations()["tools"]
    DynamiqChatMessageHistory(memory, "s").add_messages(added)
    # The last turn has 8 messages, the one before it 2, and the one before that 10.
    for limit, length in ((8, 8), (9, 8), (10, 10), (19, 10), (20, 20)):
        window = DynamiqChatMessageHistory(memory, "s", limit=limit).messages
        assert window == added[-length:]
        assert isinstance(window[0], HumanMessage)
    assert DynamiqChatMessageHistory(memory, "s").messages == added


def test_the_whole_history_has_the_directives_that_a_window_leaves_out(store):
    memory = Memory(backend=store)
    added = conversations()["directives"]
    DynamiqChatMessageHistory(memory, "s").add_messages(added)
    assert DynamiqChatMessageHistory(memory, "s").messages == added
    assert texts(DynamiqChatMessageHistory(memory, "s", limit=100).messages) == ["q", "a", "r", "b"]


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, ConfigurationError, "session_id"),
        ({"session_id": None}, ConfigurationError, "session_id"),
        ({"session_id": ""}, MessageError, "session_id"),
        ({"session_id": 5}, MessageError, "session_id"),
        ({"session_id": "a\0b"}, MessageError, "session_id"),
        ({"session_id": "\ud800"}, MessageError, "session_id"),
        ({"session_id": ["s"]}, MessageError, "session_id"),
        ({"session_id": "s", "user_id": ""}, MessageError, "user_id"),
        ({"session_id": "s", "user_id": 5}, MessageError, "user_id"),
        ({"session_id": "s", "limit": 0}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": -1}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": True}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": "5"}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": 2.0}, ConfigurationError, "limit"),
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        DynamiqChatMessageHistory(Memory(), **arguments)
    if isinstance(arguments.get("session_id"), str | None):
        with pytest.raises(error, match=says):
            DynamiqChatMessageHistory.from_url("memory://", **arguments)


@pytest.mark.parametrize("wrong", [None, InMemory(), "sqlite:///x.db", Memory], ids=repr)
def test_what_is_no_memory_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="memory must be a dynamiq_memory"):
        DynamiqChatMessageHistory(wrong, "s")


def test_a_memory_that_allows_several_sessions_is_refused():
    with pytest.raises(ConfigurationError, match="session_id"):
        DynamiqChatMessageHistory(Memory(filters={"session_id": ["a", "b"]}))


@pytest.mark.parametrize(
    "wrong",
    [
        HumanMessage("x"),
        "x",
        None,
        5,
        {"role": "user", "content": "x"},
        [{"role": "user", "content": "x"}],
        [HumanMessage("fine"), "x"],
        [HumanMessage("fine"), None],
        [HumanMessage("fine"), ToolMessage("x", tool_call_id="c", artifact=object())],
    ],
    ids=lambda wrong: f"{wrong!r:.30}",
)
def test_wrong_messages_are_refused_and_nothing_is_stored(history, caplog, wrong):
    with pytest.raises(MessageError):
        history.add_messages(wrong)
    with pytest.raises(MessageError):
        asyncio.run(history.aadd_messages(wrong))
    assert history.messages == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all("'s1'" in record.getMessage() for record in caplog.records)


def test_an_iterator_is_stored_whole_or_refused(history):
    try:
        history.add_messages(message for message in (QUESTION, ANSWER))
    except DynamiqMemoryError:
        assert history.messages == []
    else:
        assert history.messages == [QUESTION, ANSWER]


def test_a_default_stores_what_could_not_be_stored(memory):
    history = DynamiqChatMessageHistory(memory, "s", default=lambda value: f"a {type(value).__name__}")
    history.add_messages([ToolMessage("x", tool_call_id="c", artifact=object())])
    assert history.messages == [ToolMessage("x", tool_call_id="c", artifact="a object")]


class Failing(InMemory):
    """A store that fails to write, to read, or to delete."""

    driver_errors = (OSError,)

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails = fails

    def _write(self, messages: Sequence[Message]) -> None:
        if self.fails == "write":
            raise OSError("the disk is full")
        super()._write(messages)

    def _read(self, *arguments: Any) -> list[Message]:
        if self.fails == "read":
            raise OSError("the disk is gone")
        return super()._read(*arguments)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("fails", ["write", "read"])
def test_a_failing_store_is_told_of_and_logged_by_session(caplog, way, fails):
    backend = Failing()
    history = DynamiqChatMessageHistory(Memory(backend=backend), "session-17", "ann")
    history.add_messages([HumanMessage("before")])
    backend.fails = fails
    batch = [HumanMessage("q", id="1"), AIMessage("a", id="2")]
    with pytest.raises(BackendError, match="the disk is"):
        added(history, way, batch)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.name.startswith("langchain_dynamiq_memory")
    assert "session-17" in record.getMessage()
    assert "ann" in record.getMessage()
    assert "the disk is" in record.getMessage()
    backend.fails = ""
    assert texts(history.messages) == ["before"]


def test_a_store_that_fails_to_read_is_told_of():
    history = DynamiqChatMessageHistory(Memory(backend=Failing("read")), "s")
    with pytest.raises(BackendError, match="the disk is gone"):
        _ = history.messages
    with pytest.raises(BackendError, match="the disk is gone"):
        asyncio.run(history.aget_messages())


def test_a_closed_store_is_told_of(store, caplog):
    history = DynamiqChatMessageHistory(Memory(backend=store), "s")
    store.close()
    with pytest.raises(BackendError, match="closed"):
        history.add_user_message("x")
    assert "'s'" in caplog.text


# --- many at once ------------------------------------------------------------------------------------------------

WRITERS, PAIRS = 8, 12


def pairs_of(writer: int) -> list[list[BaseMessage]]:
    return [[HumanMessage(f"{writer} {n} q"), AIMessage(f"{writer} {n} a")] for n in range(PAIRS)]


def assert_nothing_lost(messages: list[BaseMessage]) -> None:
    said = texts(messages)
    assert sorted(said) == sorted(message.text for w in range(WRITERS) for pair in pairs_of(w) for message in pair)
    for writer in range(WRITERS):
        own = [text for text in said if text.startswith(f"{writer} ")]
        assert own == [message.text for pair in pairs_of(writer) for message in pair]
    for question, answer in zip(said[::2], said[1::2], strict=True):
        assert question.replace("q", "a") == answer


@pytest.mark.parametrize("shared", [True, False], ids=["one history", "a history each"])
def test_threads_that_add_at_once_lose_nothing_and_keep_batches_whole(memory, shared):
    one = DynamiqChatMessageHistory(memory, "s")
    start = threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        history = one if shared else DynamiqChatMessageHistory(memory, "s")
        start.wait(120)
        for pair in pairs_of(writer):
            history.add_messages(pair)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert_nothing_lost(one.messages)


@pytest.mark.parametrize("shared", [True, False], ids=["one history", "a history each"])
def test_tasks_that_add_at_once_lose_nothing_and_keep_batches_whole(memory, shared):
    one = DynamiqChatMessageHistory(memory, "s")

    async def write(writer: int) -> None:
        history = one if shared else DynamiqChatMessageHistory(memory, "s")
        for pair in pairs_of(writer):
            await history.aadd_messages(pair)

    async def run() -> Any:
        await asyncio.gather(*map(write, range(WRITERS)))
        return await one.aget_messages()

    assert_nothing_lost(asyncio.run(run()))


def test_a_batch_stands_behind_what_was_added_while_it_was_prepared(memory):
    """A slow `default` that adds a message between two of a batch is like another thread."""
    other = DynamiqChatMessageHistory(memory, "s")

    def add_another(value: object) -> str:
        other.add_messages([HumanMessage("other q"), AIMessage("other a")])
        return "artifact"

    history = DynamiqChatMessageHistory(memory, "s", default=add_another)
    history.add_messages([HumanMessage("q"), AIMessage("a", additional_kwargs={"x": object()}), HumanMessage("r")])
    assert texts(history.messages) == ["other q", "other a", "q", "a", "r"]


# --- ids ---------------------------------------------------------------------------------------------------------


def added(history: DynamiqChatMessageHistory, way: str, messages: Sequence[BaseMessage]) -> None:
    if way == "sync":
        history.add_messages(messages)
    else:
        asyncio.run(history.aadd_messages(messages))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_another_message_of_the_same_id_is_appended(history, way):
    added(history, way, [HumanMessage("q1", id="q"), AIMessage("a1", id="a")])
    added(history, way, [HumanMessage("q2", id="q"), AIMessage("a2", id="a")])
    added(history, way, [AIMessage("a3", id="a"), AIMessage("a4", id="a")])
    assert texts(history.messages) == ["q1", "a1", "q2", "a2", "a3", "a4"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_batch_of_messages_with_ids_can_be_added_again(history, way):
    first = [HumanMessage("q1", id="1"), AIMessage("a1", id="2", additional_kwargs={"x": (1,)})]
    second = [HumanMessage("q2", id="3"), AIMessage("a2", id="4")]
    for batch in (first, first, second, second):
        added(history, way, batch)
    assert history.messages == [*first, *second]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_batch_that_is_added_again_later_stays_where_it_was(history, way):
    first = [HumanMessage("q1", id="1"), AIMessage("a1", id="2")]
    second = [HumanMessage("q2", id="3"), AIMessage("a2", id="4")]
    for batch in (first, second, first):
        added(history, way, batch)
    assert history.messages == [*first, *second]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_batch_of_which_the_first_messages_are_stored_is_completed(history, way):
    batch = [HumanMessage("q", id="1"), AIMessage("a", id="2"), AIMessage("b", id="3")]
    added(history, way, batch)
    last = history.memory.get_all()[-1]
    history.memory.backend.delete(history.session_id, history.user_id, {"message_id": last.id})
    assert history.messages == batch[:2]
    added(history, way, batch)
    assert history.messages == batch


@pytest.mark.parametrize("way", ["sync", "async"])
def test_messages_without_ids_are_added_each_time(history, way):
    for _ in range(3):
        added(history, way, [HumanMessage("hi"), AIMessage("hello")])
    assert texts(history.messages) == ["hi", "hello"] * 3


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_model_that_gives_every_answer_the_same_id_loses_nothing(history, way):
    for number in range(4):
        added(history, way, [HumanMessage(f"q{number}"), AIMessage(f"a{number}", id="the-only-id")])
    assert texts(history.messages) == [f"{kind}{number}" for number in range(4) for kind in "qa"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_model_that_gives_every_answer_the_same_id_and_text_loses_nothing(history, way):
    """As a fake model, or one of temperature 0, does; the question has no id, so this is no batch added again."""
    for number in range(3):
        added(history, way, [HumanMessage(f"q{number}"), AIMessage("yes", id="the-only-id")])
    assert texts(history.messages) == ["q0", "yes", "q1", "yes", "q2", "yes"]


def test_odd_ids_lose_nothing(history):
    batch = [AIMessage(f"{n}", id=odd) for n, odd in enumerate(["", "", "a\0b", "a\0b", " ", "x" * 5_000, "ü"])]
    history.add_messages(batch)
    assert history.messages == batch


def test_a_message_read_from_the_history_can_be_added_again(history):
    history.add_messages([HumanMessage("q"), AIMessage("a", id="1")])
    history.add_messages([history.messages[0], AIMessage("b", id="2")])
    assert texts(history.messages) == ["q", "a", "q", "b"]


def test_a_history_asks_the_store_no_more_than_the_memory_does():
    store = Counting()
    memory = Memory(backend=store)
    history, recent = (DynamiqChatMessageHistory(memory, "s", limit=limit) for limit in (None, 50))
    assert store.counted(lambda: history.add_messages([HumanMessage("q")])) == [
        "Read",
        "Write",
    ]  # whose clock is ahead?
    add = store.counted(lambda: history.memory.add("user", "q"))
    assert store.counted(lambda: history.add_messages([HumanMessage("q")])) == add == ["Write"]
    assert store.counted(lambda: history.add_messages([HumanMessage("q"), AIMessage("a")] * 50)) == add
    assert store.counted(lambda: history.messages) == store.counted(lambda: history.memory.get_all(10**6)) == ["Read"]
    read = store.counted(lambda: history.memory.get_agent_conversation(limit=50))
    assert store.counted(lambda: recent.messages) == read
    assert store.counted(lambda: recent.add_messages([AIMessage("a")])) == add
    assert len(history.messages) == 104


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_history_that_was_read_adds_after_a_message_of_the_future(store, way):
    memory = Memory(backend=store)
    memory.add("user", "imported", {"session_id": "s", "timestamp": time.time() + 3600})
    history = DynamiqChatMessageHistory(memory, "s")
    assert texts(history.messages) == ["imported"]
    for text in ("a", "b"):
        added(history, way, [AIMessage(text)])
    assert texts(history.messages) == ["imported", "a", "b"]


def test_batches_of_threads_stay_together_behind_a_message_of_the_future(store):
    memory = Memory(backend=store)
    memory.add("user", "imported", {"session_id": "s", "timestamp": time.time() + 60})

    def write(worker):
        history = DynamiqChatMessageHistory(memory, "s")
        for n in range(20):
            history.add_messages([HumanMessage(f"q {worker} {n}"), AIMessage(f"a {worker} {n}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    texts = [message.content for message in DynamiqChatMessageHistory(memory, "s").messages]
    assert len(texts) == 161
    assert all(answer == f"a{question[1:]}" for question, answer in zip(texts[1::2], texts[2::2], strict=True))
