"""The chat stores: LlamaIndex's synchronous interface, and the one that its `Memory` runs on."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemoryBlock, ChatMemoryBuffer
from llama_index.core.memory import Memory as LlamaIndexMemory
from llama_index.core.storage.chat_store import BaseChatStore, SimpleChatStore
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
from llama_index.core.storage.chat_store.loading import load_chat_store
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from pydantic import Field

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
from dynamiq_memory.backends.operations import Operation, Read, Update, Write
from dynamiq_memory.filters import parse
from llama_index.memory.dynamiq import DynamiqMemory
from llama_index.storage.chat_store.dynamiq import DynamiqAsyncChatStore, DynamiqChatStore
from tests.fakes.llama_index import assistant, calls, result, texts, user

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED
MESSAGES = [user("a"), calls(("c", "f", {"n": 1})), result("c", "1"), assistant("b")]

# The asynchronous names of LlamaIndex's interface follow no rule.
ASYNCHRONOUS = {
    "set_messages": "aset_messages",
    "get_messages": "aget_messages",
    "add_message": "async_add_message",
    "delete_messages": "adelete_messages",
    "delete_message": "adelete_message",
    "delete_last_message": "adelete_last_message",
    "get_keys": "aget_keys",
}


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store)


@pytest.fixture
def chats(memory: Memory) -> DynamiqChatStore:
    return DynamiqChatStore(memory)


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a chat store's method synchronously or asynchronously, so that each test covers both."""

    def call(chats: DynamiqChatStore, method: str, *arguments: Any) -> Any:
        if request.param == "async":
            return asyncio.run(getattr(chats, ASYNCHRONOUS[method])(*arguments))
        return getattr(chats, method)(*arguments)

    return call


def numbered(count: int, start: int = 0) -> list[ChatMessage]:
    return [user(f"{number}") for number in range(start, start + count)]


# --- DynamiqChatStore --------------------------------------------------------------------------------------------


def test_it_is_a_chat_store_of_llama_indexs(chats):
    assert isinstance(chats, BaseChatStore)
    assert DynamiqChatStore.class_name() == "DynamiqChatStore"
    for name, asynchronous in ASYNCHRONOUS.items():
        assert getattr(DynamiqChatStore, asynchronous) is not getattr(BaseChatStore, asynchronous)
        assert inspect.signature(getattr(DynamiqChatStore, name)) == inspect.signature(
            getattr(DynamiqChatStore, asynchronous)
        )


def test_messages_come_back_as_they_were_added(do, chats):
    for message in MESSAGES:
        do(chats, "add_message", "s", message)
    assert do(chats, "get_messages", "s") == MESSAGES
    assert do(chats, "get_messages", "other") == []
    do(chats, "set_messages", "s", [user("x"), assistant("y")])
    assert do(chats, "get_messages", "s") == [user("x"), assistant("y")]
    assert do(chats, "delete_messages", "s") == [user("x"), assistant("y")]
    assert do(chats, "delete_messages", "s") is None
    assert do(chats, "get_messages", "s") == []


def test_everything_is_kept_whatever_the_save_mode(do, store):
    chats = DynamiqChatStore(Memory(backend=store, save_mode="input_output", message_limit=2))
    given = [ChatMessage(role="system", content="Be brief."), *MESSAGES]
    for message in given:
        do(chats, "add_message", "s", message)
    assert do(chats, "get_messages", "s") == given


@pytest.mark.parametrize("idx", [-5, -4, -3, -1, 0, 1, 3, 4, 99])
def test_a_message_is_deleted_by_its_place(do, chats, idx):
    do(chats, "set_messages", "s", MESSAGES)
    do(chats, "set_messages", "u/s", MESSAGES)
    expected = list(MESSAGES)
    deleted = expected.pop(idx) if -4 <= idx < 4 else None
    assert do(chats, "delete_message", "s", idx) == deleted
    assert do(chats, "get_messages", "s") == expected
    assert do(chats, "get_messages", "u/s") == MESSAGES


def test_deleting_one_of_equal_messages_deletes_the_one_at_that_place(do, chats, memory):
    do(chats, "set_messages", "s", [user("a"), user("a"), user("a")])
    ids = [message.id for message in memory.scoped("s").get_all()]
    do(chats, "delete_message", "s", 1)
    assert [message.id for message in memory.scoped("s").get_all()] == [ids[0], ids[2]]


def test_the_last_message_is_deleted(do, chats):
    do(chats, "set_messages", "s", MESSAGES)
    for number in range(4, 0, -1):
        assert do(chats, "delete_last_message", "s") == MESSAGES[number - 1]
        assert do(chats, "get_messages", "s") == MESSAGES[: number - 1]
    assert do(chats, "delete_last_message", "s") is None


def test_a_deleted_place_is_none_of_another_session(do, chats):
    do(chats, "add_message", "a", user("x"))
    assert do(chats, "delete_message", "b", 0) is None
    assert do(chats, "delete_last_message", "b") is None
    assert do(chats, "get_messages", "a") == [user("x")]


def test_it_does_what_llama_indexs_own_store_does(do, chats):
    """But for a last message of an empty session and an index below the first: there LlamaIndex's raises."""
    own = SimpleChatStore()

    def check(method: str, *arguments: Any) -> None:
        assert do(chats, method, *copy.deepcopy(arguments)) == getattr(own, method)(*copy.deepcopy(arguments))
        for key in ("s", "t"):
            assert do(chats, "get_messages", key) == own.get_messages(key)

    check("add_message", "s", user("a"))
    check("set_messages", "t", numbered(5))
    check("add_message", "t", assistant("x"))
    check("delete_message", "t", 2)
    check("delete_message", "t", -1)
    check("delete_message", "t", 7)
    check("delete_message", "none", 0)
    check("delete_last_message", "t")
    check("delete_last_message", "none")
    check("delete_messages", "none")
    check("set_messages", "t", numbered(3, 2))
    assert sorted(do(chats, "get_keys")) == sorted(own.get_keys())
    check("delete_messages", "t")
    assert do(chats, "get_keys") == own.get_keys() == ["s"]


@pytest.mark.parametrize("given", ["xab", "axb", "ba", "aab", "b", ""])
def test_a_session_holds_just_what_was_set(do, chats, given):
    do(chats, "set_messages", "s", [user("a"), user("b")])
    do(chats, "set_messages", "s", [user(letter) for letter in given])
    assert "".join(texts(do(chats, "get_messages", "s"))) == given


def test_what_stays_keeps_its_id_and_time(do, chats, memory):
    do(chats, "set_messages", "s", MESSAGES)
    before = memory.scoped("s").get_all()
    do(chats, "set_messages", "s", [*MESSAGES[:3], user("new")])
    assert memory.scoped("s").get_all()[:3] == before[:3]


def test_what_is_read_is_the_callers_own(do, chats):
    message = ChatMessage(role="user", content="a", additional_kwargs={"k": [1]})
    do(chats, "add_message", "s", message)
    read = do(chats, "get_messages", "s")
    read[0].additional_kwargs["k"].append(2)
    message.additional_kwargs["k"].append(3)
    read.append(user("more"))
    assert do(chats, "get_messages", "s") == [ChatMessage(role="user", content="a", additional_kwargs={"k": [1]})]


# --- keys --------------------------------------------------------------------------------------------------------

KEYS = {
    "session": (None, "session"),
    "ann/s1": ("ann", "s1"),
    "ann/a/b": ("ann", "a/b"),
    "/a/b": (None, "a/b"),
    "a%2Fb/s": ("a/b", "s"),
    "100%25/s": ("100%", "s"),
    "50%": (None, "50%"),
    "%2F": (None, "%2F"),
    "ann/50%2F": ("ann", "50%2F"),
    "//": (None, "/"),
    "ann//": ("ann", "/"),
    " /  ": (" ", "  "),
    "ä@x:y/ö": ("ä@x:y", "ö"),
    "session.with:all?kinds#of&signs=": (None, "session.with:all?kinds#of&signs="),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_names_the_session_of_a_user(do, chats, memory, key):
    user_id, session_id = KEYS[key]
    do(chats, "add_message", key, user("a"))
    assert [(message.user_id, message.session_id) for message in memory.get_all()] == [(user_id, session_id)]
    assert DynamiqMemory(memory, session_id, user_id).get_all() == [user("a")]
    [key] = do(chats, "get_keys")
    assert do(chats, "get_messages", key) == [user("a")]


ids = st.one_of(
    st.sampled_from(["a", "/", "//", "%", "%2F", "a/b", "a%2Fb", "%25", " ", "ä"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6),
)


def test_every_session_has_a_key_of_its_own():
    @hypothesis.given(st.sets(st.tuples(st.none() | ids, ids), min_size=1, max_size=6))
    @hypothesis.settings(max_examples=40)
    def check(sessions: set[tuple[str | None, str]]) -> None:
        memory = Memory(backend=InMemory())
        for user_id, session_id in sessions:
            memory.add("user", json.dumps([user_id, session_id]), {"user_id": user_id, "session_id": session_id})
        chats = DynamiqChatStore(memory)
        keys = chats.get_keys()
        assert len(set(keys)) == len(sessions)
        read = [texts(chats.get_messages(key)) for key in keys]
        assert {tuple(json.loads(only)) for (only,) in read} == sessions

    check()


def test_the_most_recently_used_key_comes_first(do, chats):
    for key in ("a", "u/b", "c", "a"):
        do(chats, "add_message", key, user("x"))
    assert do(chats, "get_keys") == ["a", "c", "u/b"]


def test_messages_without_a_session_have_no_key(do, chats, memory):
    memory.add("user", "x", {"user_id": "ann"})
    memory.add("user", "x")
    assert do(chats, "get_keys") == []


def test_the_keys_of_a_memory_of_one_user_are_sessions(do, store):
    chats = DynamiqChatStore(Memory(backend=store, filters={"user_id": "ann"}))
    DynamiqChatStore(Memory(backend=store)).add_message("bea/s", user("secret"))
    for key in ("s", "/a/b"):
        do(chats, "add_message", key, user(key))
    assert do(chats, "get_keys") == ["/a/b", "s"]
    assert [texts(do(chats, "get_messages", key)) for key in do(chats, "get_keys")] == [["/a/b"], ["s"]]
    assert {message.user_id for message in store.get_all()} == {"ann", "bea"}


def test_the_memorys_default_filters_hold(do, store):
    memory = Memory(backend=store, filters={"topic": "x"})
    chats = DynamiqChatStore(memory)
    DynamiqChatStore(Memory(backend=store, filters={"topic": "y"})).add_message("s", user("other"))
    do(chats, "add_message", "s", user("a"))
    assert do(chats, "get_messages", "s") == [user("a")]
    do(chats, "set_messages", "s", [user("b")])
    assert do(chats, "get_messages", "s") == [user("b")]
    other = DynamiqAsyncChatStore(memory)
    asyncio.run(other.set_messages("s", [user("c")]))
    assert asyncio.run(other.get_messages("s")) == [user("c")]
    do(chats, "delete_messages", "s")
    assert [message.text for message in store.get_all()] == ["other"]


@pytest.mark.parametrize(
    "key", ["", "/", None, 5, "ann/", b"s", ["s"], "%61nn/s", "a%6en/s", "ann%/s", "a%2fb/s", "/s"]
)
def test_what_is_no_key_is_refused(do, chats, key):
    chats.add_message("ann/s", user("a"))
    for method in ("get_messages", "delete_messages", "delete_last_message"):
        with pytest.raises(InvalidArgumentError):
            do(chats, method, key)
    assert chats.get_messages("ann/s") == [user("a")]


class DeletesMeanwhile(InMemory):
    """Another process deletes the last message each time one is read, so many times."""

    times = 2

    def _read(self, *arguments: Any) -> list[Message]:
        read = super()._read(*arguments)
        if read and self.times:
            self.times -= 1
            super()._delete(parse({"message_id": read[-1].id}))
        return read


def test_the_last_message_is_deleted_while_others_delete(do):
    chats = DynamiqChatStore(Memory(backend=DeletesMeanwhile()))
    chats.set_messages("s", numbered(4))
    assert do(chats, "delete_last_message", "s") == user("1")
    assert texts(chats.get_messages("s")) == ["0"]


def test_a_message_that_somebody_else_deletes_is_not_told_of(do):
    chats = DynamiqChatStore(Memory(backend=DeletesMeanwhile()))
    chats.set_messages("s", numbered(3))
    assert do(chats, "delete_message", "s", 2) is None
    assert texts(chats.get_messages("s")) == ["0", "1"]


@pytest.mark.parametrize("filters", [{"tenant": ["A", "B"]}, {"timestamp": {"lt": 5}}], ids=str)
def test_what_would_not_be_found_again_is_refused(do, store, filters):
    memory = Memory(backend=store, filters=filters)
    chats, own = DynamiqChatStore(memory), DynamiqAsyncChatStore(memory)
    with pytest.raises(MessageError, match="found again"):
        do(chats, "add_message", "s", user("a"))
    with pytest.raises(MessageError, match="found again"):
        do(chats, "set_messages", "s", [user("a")])
    for put in (own.add_message("s", user("a")), own.set_messages("s", [user("a")])):
        with pytest.raises(MessageError, match="found again"):
            asyncio.run(put)
    with pytest.raises(MessageError, match="found again"):
        DynamiqMemory(memory, "s").put(user("a"))
    assert store.is_empty()


@pytest.mark.parametrize("filters", [{"user_id": None}, {"user_id": None, "session_id": "s"}], ids=str)
def test_a_memory_of_nobody_leads_to_nobody_else(do, store, filters):
    DynamiqChatStore(Memory(backend=store)).add_message("ann/s", user("secret"))
    chats = DynamiqChatStore(Memory(backend=store, filters=filters))
    for method in ("get_messages", "delete_messages"):
        with pytest.raises(InvalidArgumentError, match="is outside"):
            do(chats, method, "ann/s")
    assert do(chats, "get_messages", "s") == []
    assert store.count() == 1


def test_what_is_set_stands_behind_a_message_of_another_clock(do, chats, memory):
    memory.add("user", "ahead", {"session_id": "s", "timestamp": time.time() + 3600})
    given = [*do(chats, "get_messages", "s"), assistant("b"), user("c")]
    do(chats, "set_messages", "s", given)
    assert texts(do(chats, "get_messages", "s")) == ["ahead", "b", "c"]


# --- copies, wrong arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda chats: chats.model_copy(deep=True),
        lambda chats: pickle.loads(pickle.dumps(chats)),
        lambda chats: type(chats).from_dict(json.loads(json.dumps(chats.to_dict()))),
        lambda chats: type(chats).model_validate(chats.model_dump()),
        lambda chats: type(chats).model_validate_json(chats.model_dump_json()),
        lambda chats: load_chat_store(chats.to_dict()),
    ],
)
def test_a_copy_shares_the_store(chats, copied):
    chats.add_message("s", user("a"))
    other = copied(chats)
    assert type(other) is DynamiqChatStore
    other.add_message("s", user("b"))
    assert texts(chats.get_messages("s")) == texts(other.get_messages("s")) == ["a", "b"]


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda chats: chats.model_copy(deep=True),
        lambda chats: pickle.loads(pickle.dumps(chats)),
        lambda chats: type(chats).model_validate(chats.model_dump()),
        lambda chats: type(chats).model_validate_json(chats.model_dump_json()),
    ],
)
def test_a_copy_of_the_asynchronous_store_shares_its_store(memory, copied):
    chats = DynamiqAsyncChatStore(memory)
    other = copied(chats)
    asyncio.run(chats.add_message("s", user("a")))
    asyncio.run(other.add_message("s", user("b")))
    assert texts(asyncio.run(chats.get_messages("s"))) == texts(asyncio.run(other.get_messages("s"))) == ["a", "b"]


@pytest.mark.parametrize("made", [DynamiqChatStore, DynamiqAsyncChatStore])
@pytest.mark.parametrize("wrong", [None, "sqlite:///x.db", Memory, InMemory(), {}])
def test_what_is_no_memory_is_refused(made, wrong):
    with pytest.raises(ConfigurationError, match=r"dynamiq_memory\.Memory"):
        made(wrong)


@pytest.mark.parametrize("made", [DynamiqChatStore, DynamiqAsyncChatStore])
def test_an_unknown_argument_is_refused(memory, made):
    with pytest.raises(TypeError, match="table_name"):
        made(memory, table_name="chats")


@pytest.mark.parametrize("wrong", ["x", None, {"role": "user"}, 5])
def test_what_is_no_message_is_refused(do, chats, wrong):
    chats.add_message("s", user("a"))
    with pytest.raises(MessageError):
        do(chats, "add_message", "s", wrong)
    with pytest.raises(MessageError):
        do(chats, "set_messages", "s", [user("fine"), wrong])
    assert chats.get_messages("s") == [user("a")]


@pytest.mark.parametrize("wrong", [None, "0", 0.5])
def test_a_place_that_is_no_number_is_refused(do, memory, wrong):
    chats = DynamiqChatStore(memory)
    chats.add_message("s", user("a"))
    with pytest.raises((DynamiqMemoryError, TypeError)):
        do(chats, "delete_message", "s", wrong)
    assert chats.get_messages("s") == [user("a")]


@pytest.mark.parametrize("method", ASYNCHRONOUS)
def test_a_closed_store_is_told_of(do, store, method):
    chats = DynamiqChatStore(Memory(backend=store))
    store.close()
    given = {"set_messages": [MESSAGES], "add_message": MESSAGES[:1], "delete_message": [0]}.get(method, [])
    with pytest.raises(BackendError, match="closed"):
        do(chats, method, *([] if method == "get_keys" else ["s"]), *given)


def test_no_warning_is_given(memory):
    async def run(chats: DynamiqAsyncChatStore) -> None:
        await chats.add_message("s", user("a"))
        await chats.set_messages("s", numbered(3))
        await chats.archive_oldest_messages("s", 1)
        await chats.delete_messages("s")
        await chats.get_keys()

    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        chats = DynamiqChatStore(memory)
        chats.add_message("s", user("a"))
        asyncio.run(chats.async_add_message("s", user("b")))
        chats.delete_last_message("s")
        load_chat_store(chats.to_dict())
        chats.model_dump_json()
        asyncio.run(run(DynamiqAsyncChatStore(memory)))
        DynamiqAsyncChatStore(memory).model_dump_json()
    assert [str(warning.message) for warning in given] == []


# --- ChatMemoryBuffer over it ------------------------------------------------------------------------------------


def test_a_chat_memory_buffer_keeps_its_messages_in_it(chats):
    buffer = ChatMemoryBuffer.from_defaults(
        chat_store=chats, chat_store_key="ann/s", token_limit=3, tokenizer_fn=str.split
    )
    for message in (user("a"), assistant("b"), user("c"), assistant("d")):
        buffer.put(message)
    asyncio.run(buffer.aput(user("e")))
    assert texts(buffer.get_all()) == texts(asyncio.run(buffer.aget_all())) == ["a", "b", "c", "d", "e"]
    assert texts(buffer.get()) == texts(asyncio.run(buffer.aget())) == ["c", "d", "e"]
    buffer.set([user("x")])
    assert chats.get_messages("ann/s") == [user("x")]
    asyncio.run(buffer.areset())
    assert chats.get_keys() == []


def test_a_chat_memory_buffer_comes_back_from_its_dict(chats):
    buffer = ChatMemoryBuffer.from_defaults(chat_store=chats, chat_store_key="ann/s", token_limit=100)
    buffer.put(user("a"))
    saved = json.loads(json.dumps(buffer.to_dict()))
    restored = ChatMemoryBuffer.from_dict(saved)
    assert type(restored.chat_store) is DynamiqChatStore
    restored.put(assistant("b"))
    assert texts(buffer.get_all()) == ["a", "b"]
    again = ChatMemoryBuffer.from_string(buffer.to_string())
    assert texts(again.get_all()) == ["a", "b"]
    assert '"a"' not in buffer.to_string()


OTHER_PROCESS = """
import asyncio, json, sys
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.llms import ChatMessage
from llama_index.storage.chat_store.dynamiq import DynamiqAsyncChatStore

buffer = ChatMemoryBuffer.from_dict(json.loads(sys.argv[1]))
print([str(message) for message in buffer.get()])
buffer.put(ChatMessage(role="assistant", content="from another process"))
chats = DynamiqAsyncChatStore.model_validate_json(sys.argv[2])
print([str(message) for message in asyncio.run(chats.get_messages("t"))])
"""


def test_another_process_gets_the_chat_stores_back(tmp_path, run_script):
    memory = Memory(backend=SQLite(tmp_path / "chats.db"))
    buffer = ChatMemoryBuffer.from_defaults(chat_store=DynamiqChatStore(memory), chat_store_key="s")
    buffer.put(user("hello"))
    chats = DynamiqAsyncChatStore(memory)
    asyncio.run(chats.add_messages("t", numbered(2)))
    done = run_script(OTHER_PROCESS, json.dumps(buffer.to_dict()), chats.model_dump_json())
    assert done.stdout.splitlines() == ["['user: hello']", "['user: 0', 'user: 1']"]
    assert texts(buffer.get_all()) == ["hello", "from another process"]
    memory.close()


# --- DynamiqAsyncChatStore ---------------------------------------------------------------------------------------


@pytest.fixture(params=["InMemory", "SQLite", "LlamaIndex's own"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AsyncDBChatStore]:
    """Our asynchronous chat store, and LlamaIndex's own as the reference."""
    if request.param == "LlamaIndex's own":
        url = f"sqlite+aiosqlite:///{tmp_path / 'reference.db'}"
        yield SQLAlchemyChatStore(table_name="messages", async_database_uri=url)
        return
    backend = InMemory() if request.param == "InMemory" else SQLite(tmp_path / "chats.db", synchronous="NORMAL")
    yield DynamiqAsyncChatStore(Memory(backend=backend))
    backend.close()


async def _closing(chats: AsyncDBChatStore, script: Callable[[Any], Awaitable[None]]) -> None:
    try:
        await script(chats)
    finally:
        engine = getattr(chats, "_async_engine", None)
        if engine is not None:
            await engine.dispose()


def play(chats: AsyncDBChatStore, script: Callable[[Any], Awaitable[None]]) -> None:
    asyncio.run(_closing(chats, script))


def test_the_asynchronous_store_is_one_of_llama_indexs(memory):
    chats = DynamiqAsyncChatStore(memory)
    assert isinstance(chats, AsyncDBChatStore)
    assert DynamiqAsyncChatStore.class_name() == "DynamiqAsyncChatStore"
    abstract = {name for name, value in vars(AsyncDBChatStore).items() if getattr(value, "__isabstractmethod__", False)}
    assert abstract <= set(vars(DynamiqAsyncChatStore))


def test_messages_have_a_status(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_message("s", user("0"))
        await chats.add_message("s", user("1"), ARCHIVED)
        await chats.add_messages("s", [user("2"), user("3")])
        await chats.add_messages("s", [user("4"), user("5")], ARCHIVED)
        await chats.add_message("t", user("other"))
        assert texts(await chats.get_messages("s")) == ["0", "2", "3"]
        assert texts(await chats.get_messages("s", ACTIVE)) == ["0", "2", "3"]
        assert texts(await chats.get_messages("s", ARCHIVED)) == ["1", "4", "5"]
        assert texts(await chats.get_messages("s", None)) == ["0", "1", "2", "3", "4", "5"]
        assert await chats.count_messages("s") == 3
        assert await chats.count_messages("s", ARCHIVED) == 3
        assert await chats.count_messages("s", None) == 6
        assert await chats.get_messages("none") == []
        assert await chats.count_messages("none", None) == 0
        assert sorted(await chats.get_keys()) == ["s", "t"]

    play(any_store, script)


@pytest.mark.parametrize("status", [ACTIVE, ARCHIVED, None])
def test_limit_and_offset_count_from_the_oldest(any_store, status):
    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_messages("s", numbered(6), ARCHIVED)
        await chats.add_messages("s", numbered(6, 6))
        said = texts(await chats.get_messages("s", status))
        for limit in (0, 1, 3, 20, None):
            for offset in (0, 1, 4, 20, None):
                if limit is None and offset and isinstance(chats, SQLAlchemyChatStore):
                    continue  # SQLite knows no OFFSET without a LIMIT
                end = None if limit is None else (offset or 0) + limit
                read = await chats.get_messages("s", status, limit=limit, offset=offset)
                assert texts(read) == said[offset or 0 : end]

    play(any_store, script)


def test_the_oldest_active_messages_are_archived(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_messages("s", numbered(6))
        await chats.add_message("t", user("other"))
        assert texts(await chats.archive_oldest_messages("s", 2)) == ["0", "1"]
        assert texts(await chats.get_messages("s")) == ["2", "3", "4", "5"]
        assert texts(await chats.archive_oldest_messages("s", 1)) == ["2"]
        assert texts(await chats.get_messages("s", ARCHIVED)) == ["0", "1", "2"]
        assert texts(await chats.get_messages("s", None)) == ["0", "1", "2", "3", "4", "5"]
        assert await chats.archive_oldest_messages("s", 0) == []
        assert texts(await chats.archive_oldest_messages("s", 99)) == ["3", "4", "5"]
        assert await chats.archive_oldest_messages("s", 1) == []
        assert await chats.archive_oldest_messages("none", 1) == []
        assert await chats.get_messages("s") == []
        await chats.add_message("s", user("6"))
        assert texts(await chats.get_messages("s")) == ["6"]
        assert await chats.count_messages("s", ARCHIVED) == 6
        assert texts(await chats.get_messages("t")) == ["other"]

    play(any_store, script)


def test_the_oldest_active_messages_are_deleted(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_messages("s", numbered(6))
        await chats.archive_oldest_messages("s", 2)
        assert texts(await chats.delete_oldest_messages("s", 2)) == ["2", "3"]
        assert texts(await chats.get_messages("s")) == ["4", "5"]
        assert texts(await chats.get_messages("s", None)) == ["0", "1", "4", "5"]
        assert await chats.delete_oldest_messages("s", 0) == []
        assert texts(await chats.delete_oldest_messages("s", 99)) == ["4", "5"]
        assert await chats.delete_oldest_messages("s", 1) == []
        assert texts(await chats.get_messages("s", ARCHIVED)) == ["0", "1"]

    play(any_store, script)


def test_messages_are_deleted_by_their_status(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        for status, left in ((ACTIVE, ["0", "1"]), (ARCHIVED, ["2", "3"]), (None, [])):
            await chats.set_messages("s", [])
            await chats.add_messages("s", numbered(2), ARCHIVED)
            await chats.add_messages("s", numbered(2, 2))
            await chats.add_message("t", user("other"))
            await chats.delete_messages("s", status)
            assert texts(await chats.get_messages("s", None)) == left
        assert texts(await chats.get_messages("t"))[:1] == ["other"]

    play(any_store, script)


def test_what_is_set_takes_the_place_of_all(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_messages("s", numbered(3), ARCHIVED)
        await chats.add_messages("s", numbered(3, 3))
        await chats.set_messages("s", [user("4"), user("new")])
        assert texts(await chats.get_messages("s")) == ["4", "new"]
        assert texts(await chats.get_messages("s", None)) == ["4", "new"]
        await chats.set_messages("s", [user("4"), user("new")], ARCHIVED)
        assert await chats.get_messages("s") == []
        assert texts(await chats.get_messages("s", ARCHIVED)) == ["4", "new"]
        await chats.set_messages("s", [user("front"), user("4"), user("between"), user("new")])
        assert texts(await chats.get_messages("s")) == ["front", "4", "between", "new"]

    play(any_store, script)


def test_what_is_set_behind_archived_messages_is_active(any_store):
    """A message that was the oldest when it was archived is active again if it is set."""

    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_messages("s", numbered(4))
        await chats.archive_oldest_messages("s", 2)
        await chats.set_messages("s", numbered(4))
        assert texts(await chats.get_messages("s")) == ["0", "1", "2", "3"]
        assert await chats.count_messages("s", ARCHIVED) == 0

    play(any_store, script)


def test_active_messages_before_archived_ones_are_found(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        await chats.add_messages("s", numbered(100))
        await chats.add_messages("s", numbered(100, 100), ARCHIVED)
        await chats.add_messages("s", numbered(100, 200))
        said = [*map(str, range(100)), *map(str, range(200, 300))]
        assert texts(await chats.get_messages("s")) == said
        assert await chats.count_messages("s") == 200
        assert texts(await chats.archive_oldest_messages("s", 150)) == said[:150]
        assert texts(await chats.get_messages("s")) == said[150:]
        assert texts(await chats.delete_oldest_messages("s", 10)) == said[150:160]
        assert texts(await chats.get_messages("s")) == said[160:]

    play(any_store, script)


def test_what_another_process_stored_before_an_archived_message_stays_active(memory):
    async def script() -> None:
        chats = DynamiqAsyncChatStore(memory)
        await chats.add_messages("s", numbered(400))
        await chats.archive_oldest_messages("s", 300)
        at = memory.scoped("s").get_all()[280].timestamp
        late = Message(role="user", content="late", timestamp=at, metadata={"session_id": "s"})
        memory.add_many([late])
        assert texts(await chats.get_messages("s"))[:2] == ["late", "300"]
        assert await chats.count_messages("s") == 101
        assert await chats.count_messages("s", ARCHIVED) == 300
        assert texts(await chats.archive_oldest_messages("s", 1)) == ["late"]
        assert texts(await chats.get_messages("s"))[:1] == ["300"]

    asyncio.run(script())


class Interrupted(InMemory):
    """Lets others do something just before the next operation of one kind."""

    def __init__(self, kind: type[Operation[Any]]) -> None:
        super().__init__()
        self.kind = kind
        self.others: Callable[[], Awaitable[Any]] | None = None

    async def _aperform(self, operation: Operation[Any]) -> Any:
        others = self.others
        if isinstance(operation, self.kind) and others is not None:
            self.others = None
            await others()
        return await super()._aperform(operation)


def test_what_is_added_while_something_later_is_archived_stays_active():
    async def script() -> None:
        backend = Interrupted(Write)
        chats = DynamiqAsyncChatStore(Memory(backend=backend))

        async def others() -> None:
            await chats.add_messages("s", [user("x1"), user("x2")])
            assert texts(await chats.archive_oldest_messages("s", 1)) == ["x1"]

        backend.others = others
        await chats.add_messages("s", numbered(300))
        assert texts(await chats.get_messages("s")) == ["x2", *map(str, range(300))]
        assert await chats.count_messages("s", ARCHIVED) == 1
        archived = []
        while part := await chats.archive_oldest_messages("s", 50):
            archived += texts(part)
        assert archived == ["x2", *map(str, range(300))]

    asyncio.run(script())


def test_what_is_added_before_something_that_is_being_archived_stays_active():
    async def script() -> None:
        backend = Interrupted(Update)
        memory = Memory(backend=backend)
        chats = DynamiqAsyncChatStore(memory)
        batch = [Message(role="user", content=f"{n}", metadata={"session_id": "s"}) for n in range(300)]
        await chats.add_messages("s", [user("x1"), user("x2")])
        backend.others = lambda: memory.aadd_many(batch)
        assert texts(await chats.archive_oldest_messages("s", 1)) == ["x1"]
        assert texts(await chats.get_messages("s")) == [*map(str, range(300)), "x2"]
        archived = []
        while part := await chats.archive_oldest_messages("s", 50):
            archived += texts(part)
        assert archived == [*map(str, range(300)), "x2"]

    asyncio.run(script())


def test_every_message_is_either_active_or_archived(memory):
    async def script() -> None:
        chats = DynamiqAsyncChatStore(memory)
        await chats.add_messages("s", numbered(200))
        await chats.archive_oldest_messages("s", 150)
        memory.add("user", "of long ago", {"session_id": "s", "timestamp": 5})
        active, archived = [await chats.get_messages("s", status) for status in (ACTIVE, ARCHIVED)]
        assert texts(archived) == ["of long ago", *map(str, range(150))]
        assert texts(active) == [f"{number}" for number in range(150, 200)]
        assert [await chats.count_messages("s", status) for status in (ACTIVE, ARCHIVED, None)] == [50, 151, 201]
        await chats.delete_messages("s", ARCHIVED)
        assert texts(await chats.get_messages("s", None)) == texts(active)

    asyncio.run(script())


def test_archiving_brings_nothing_back_that_is_deleted_meanwhile(store):
    async def script() -> None:
        memory = Memory(backend=store)
        chats = DynamiqAsyncChatStore(memory)
        await chats.add_messages("s", numbered(6))
        active = chats._active

        async def and_then_another_deletes(session: Memory) -> list[Message]:
            found = await active(session)
            await store.aclear({"message_id": found[1].id})
            return found

        chats.__dict__["_active"] = and_then_another_deletes
        assert texts(await chats.archive_oldest_messages("s", 3)) == ["0", "2"]
        assert texts(await chats.delete_oldest_messages("s", 2)) == ["3"]
        del chats.__dict__["_active"]
        assert texts(await chats.get_messages("s")) == ["5"]
        assert texts(await chats.get_messages("s", None)) == ["0", "2", "5"]

    asyncio.run(script())


@pytest.mark.parametrize("method", ["archive_oldest_messages", "delete_oldest_messages"])
def test_of_many_at_once_each_has_its_own_part(memory, method):
    async def script() -> None:
        await DynamiqAsyncChatStore(memory).add_messages("s", numbered(40))
        some = [getattr(DynamiqAsyncChatStore(memory), method)("s", 10) for _ in range(6)]
        moved = [text for part in await asyncio.gather(*some) for text in texts(part)]
        left = texts(await DynamiqAsyncChatStore(memory).get_messages("s"))
        assert len(moved) >= 10
        assert sorted([*moved, *left], key=int) == [f"{number}" for number in range(40)]

    asyncio.run(script())


commands = st.one_of(
    st.tuples(st.just("add_messages"), st.integers(0, 3), st.sampled_from([ACTIVE, ARCHIVED])),
    st.tuples(st.just("archive_oldest_messages"), st.integers(0, 4), st.none()),
    st.tuples(st.just("delete_oldest_messages"), st.integers(0, 4), st.none()),
    st.tuples(st.just("delete_messages"), st.just(0), st.sampled_from([ACTIVE, ARCHIVED, None])),
    st.tuples(st.just("set_messages"), st.integers(1, 4), st.sampled_from([ACTIVE, ARCHIVED])),
)


def test_any_commands_leave_what_they_would_leave_in_a_list(store, monkeypatch):
    monkeypatch.setattr("llama_index.storage.chat_store.dynamiq.async_store._PAGE", 2)

    @hypothesis.given(st.lists(commands, max_size=8))
    @hypothesis.settings(max_examples=40)
    def check(given: list[Any]) -> None:
        store.clear({})
        chats = DynamiqAsyncChatStore(Memory(backend=store))
        model: list[tuple[str, MessageStatus]] = []

        async def script() -> None:
            nonlocal model
            for step, (name, count, status) in enumerate(given):
                new = [f"{step} {number}" for number in range(count)]
                active = [text for text, of in model if of is ACTIVE][:count]
                if name == "add_messages":
                    await chats.add_messages("s", [user(text) for text in new], status)
                    model += [(text, status) for text in new]
                elif name == "set_messages":
                    await chats.set_messages("s", [user(text) for text in new], status)
                    model = [(text, status) for text in new]
                elif name == "delete_messages":
                    await chats.delete_messages("s", status)
                    model = [(text, of) for text, of in model if status is not None and of is not status]
                elif name == "archive_oldest_messages":
                    assert texts(await chats.archive_oldest_messages("s", count)) == active
                    model = [(text, ARCHIVED if text in active else of) for text, of in model]
                else:
                    assert texts(await chats.delete_oldest_messages("s", count)) == active
                    model = [(text, of) for text, of in model if text not in active]
                for wanted in (ACTIVE, ARCHIVED, None):
                    expected = [text for text, of in model if wanted in {of, None}]
                    assert texts(await chats.get_messages("s", wanted)) == expected
                    assert await chats.count_messages("s", wanted) == len(expected)

        asyncio.run(script())

    check()


def test_a_message_is_deleted_by_its_place_among_all(memory):
    async def script(chats: DynamiqAsyncChatStore) -> None:
        await chats.add_messages("s", numbered(4))
        await chats.archive_oldest_messages("s", 2)
        assert await chats.delete_message("s", 1) == user("1")
        assert await chats.delete_message("s", -1) == user("3")
        assert await chats.delete_message("s", 2) is None
        assert await chats.delete_message("s", -3) is None
        assert await chats.delete_message("none", 0) is None
        assert texts(await chats.get_messages("s", None)) == ["0", "2"]

    asyncio.run(script(DynamiqAsyncChatStore(memory)))


@pytest.mark.parametrize("key", ["s", "ann/s", "ann/a/b", "/a/b", "100%25/s"])
def test_keys_are_the_sessions_of_users(memory, key):
    async def script(chats: DynamiqAsyncChatStore) -> None:
        await chats.add_message(key, user("a"))
        assert await chats.get_keys() == [key]
        assert DynamiqChatStore(memory).get_messages(key) == [user("a")]

    asyncio.run(script(DynamiqAsyncChatStore(memory)))


def test_archiving_changes_neither_ids_nor_times_nor_what_others_read(memory):
    chats = DynamiqAsyncChatStore(memory)
    asyncio.run(chats.add_messages("s", MESSAGES))
    before = memory.scoped("s").get_all()
    asyncio.run(chats.archive_oldest_messages("s", 3))
    after = memory.scoped("s").get_all()
    assert [(m.id, m.timestamp, m.to_openai()) for m in after] == [(m.id, m.timestamp, m.to_openai()) for m in before]
    assert DynamiqMemory(memory, "s").get_all() == MESSAGES
    assert [message.text for message in memory.scoped("s").search("a")] == ["a"]


def test_messages_of_other_frameworks_are_active(memory):
    memory.scoped("s").add("user", "native")
    assert asyncio.run(DynamiqAsyncChatStore(memory).get_messages("s")) == [user("native")]


@pytest.mark.parametrize(
    "call",
    [
        lambda chats: chats.get_messages("s", limit=-1),
        lambda chats: chats.get_messages("s", offset=-1),
        lambda chats: chats.get_messages("s", limit="1"),
        lambda chats: chats.archive_oldest_messages("s", -1),
        lambda chats: chats.delete_oldest_messages("s", None),
        lambda chats: chats.get_messages(""),
        lambda chats: chats.add_message("s", "x"),
        lambda chats: chats.add_messages("s", [user("fine"), None]),
        lambda chats: chats.add_messages("s", user("x")),
        lambda chats: chats.set_messages("s", [5]),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_changed(memory, call):
    chats = DynamiqAsyncChatStore(memory)
    asyncio.run(chats.add_message("s", user("a")))
    with pytest.raises(InvalidArgumentError):
        asyncio.run(call(chats))
    assert texts(asyncio.run(chats.get_messages("s", None))) == ["a"]


@pytest.mark.parametrize("status", ["active", "archived"])
def test_a_status_given_as_a_text_is_that_status(memory, status):
    """`MessageStatus` is a str: a text that equals it is it."""
    chats = DynamiqAsyncChatStore(memory)
    asyncio.run(chats.add_message("s", user("0"), ACTIVE))
    asyncio.run(chats.add_message("s", user("1"), ARCHIVED))
    wanted = ["0"] if status == "active" else ["1"]
    assert texts(asyncio.run(chats.get_messages("s", status))) == wanted
    assert asyncio.run(chats.count_messages("s", status)) == 1
    asyncio.run(chats.delete_messages("s", status))
    assert wanted[0] not in texts(asyncio.run(chats.get_messages("s", None)))


def test_a_status_that_is_unknown_is_refused(memory):
    chats = DynamiqAsyncChatStore(memory)
    asyncio.run(chats.add_message("s", user("0")))
    given: list[tuple[str, Any]] = [("add_message", user("1")), ("set_messages", [user("1")]), ("get_messages", None)]
    for method, messages in [*given, ("count_messages", None), ("delete_messages", None)]:
        arguments = ["s", "gone"] if messages is None else ["s", messages, "gone"]
        with pytest.raises((DynamiqMemoryError, ValueError)):
            asyncio.run(getattr(chats, method)(*arguments))
    assert texts(asyncio.run(chats.get_messages("s", None))) == ["0"]


def test_eight_tasks_that_add_at_once_lose_nothing(memory):
    chats = DynamiqAsyncChatStore(memory)

    async def write(writer: int) -> None:
        for number in range(10):
            await chats.add_messages("s", [user(f"{writer} {number} q"), assistant(f"{writer} {number} a")])

    async def script() -> Any:
        await asyncio.gather(*map(write, range(8)))
        return await chats.get_messages("s")

    said = texts(asyncio.run(script()))
    assert len(said) == 160
    assert all(question.replace("q", "a") == answer for question, answer in zip(said[::2], said[1::2], strict=True))
    for writer in range(8):
        own = [text for text in said[::2] if text.startswith(f"{writer} ")]
        assert own == [f"{writer} {number} q" for number in range(10)]


# --- LlamaIndex's own Memory over it -----------------------------------------------------------------------------


class Collecting(BaseMemoryBlock[str]):
    """A block that remembers what the memory flushes to it."""

    name: str = "collected"
    flushed: list[ChatMessage] = Field(default_factory=list)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        return " ".join(texts(self.flushed))

    async def _aput(self, messages: list[ChatMessage]) -> None:
        self.flushed += messages


def words(text: str) -> list[str]:
    return text.split()


def own_memory(chats: AsyncDBChatStore, block: Collecting, session_id: str = "ann/s") -> LlamaIndexMemory:
    return LlamaIndexMemory.from_defaults(
        session_id=session_id,
        chat_store=chats,
        token_limit=40,
        chat_history_token_ratio=0.5,
        token_flush_size=6,
        tokenizer_fn=words,
        memory_blocks=[block],
    )


def conversation(turns: int) -> list[ChatMessage]:
    return [
        message
        for number in range(turns)
        for message in (user(f"question {number} ?"), assistant(f"answer {number} ."))
    ]


def test_llama_indexs_memory_flushes_to_its_blocks_and_nothing_is_lost(any_store):
    async def script(chats: AsyncDBChatStore) -> None:
        block = Collecting()
        memory = own_memory(chats, block)
        for message in conversation(20):
            await memory.aput(message)
        active = await chats.get_messages("ann/s")
        archived = await chats.get_messages("ann/s", ARCHIVED)
        assert active[0].role.value == "user"
        assert sum(len(words(text)) for text in texts(active)) <= 20
        assert texts([*archived, *active]) == texts(conversation(20))
        assert texts(block.flushed) == texts(archived)
        assert texts(await memory.aget_all()) == texts(conversation(20))
        got = await memory.aget()
        assert got[0].role.value == "system"
        assert "question 0 ?" in (got[0].content or "")
        assert texts(got[1:]) == texts(active)

    play(any_store, script)


def test_llama_indexs_memory_sets_and_resets(memory):
    chats = DynamiqAsyncChatStore(memory)
    own = LlamaIndexMemory.from_defaults(session_id="s", chat_store=chats, chat_history=MESSAGES)
    assert own.get() == own.get_all() == MESSAGES
    own.put(user("next"))
    own.set([user("a")])
    assert own.get_all() == [user("a")]
    own.reset()
    assert own.get_all() == []
    assert memory.count() == 0


class Counting(InMemory):
    """Counts the messages that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def _read(self, *arguments: Any) -> list[Message]:
        read = super()._read(*arguments)
        self.rows += len(read)
        return read


class CountingSQLite(SQLite):
    rows = 0

    def _perform(self, operation: Operation[Any]) -> Any:
        result = super()._perform(operation)
        if isinstance(operation, Read):
            self.rows += len(result)
        return result


@pytest.mark.parametrize("kind", [Counting, CountingSQLite])
def test_putting_costs_the_same_with_many_archived_messages_as_with_few(tmp_path, kind):
    backend = kind() if kind is Counting else kind(tmp_path / "chats.db", synchronous="NORMAL")
    memory = own_memory(DynamiqAsyncChatStore(Memory(backend=backend)), Collecting(accept_short_term_memory=False))
    costs: list[int] = []

    async def script(messages: Sequence[ChatMessage]) -> None:
        for message in messages:
            before = backend.rows
            await memory.aput(message)
            costs.append(backend.rows - before)

    asyncio.run(script(conversation(200)))
    assert backend.count() == 400
    few, many = costs[150:200], costs[-50:]
    assert max(many) <= max(few)
    assert sum(many) <= sum(few)
    backend.close()
