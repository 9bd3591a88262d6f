"""`DynamiqMemory` used directly."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import json
import pickle
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.memory.types import BaseMemory
from llama_index.core.schema import QueryBundle
from pydantic import BaseModel

from dynamiq_memory import (
    BackendError,
    ConfigurationError,
    InvalidArgumentError,
    Memory,
    MemoryBackend,
    Message,
    MessageError,
    register_memory,
)
from dynamiq_memory.backends import InMemory, SQLite
from llama_index.memory.dynamiq import DynamiqMemory
from llama_index.memory.dynamiq._messages import to_message
from llama_index.storage.chat_store.dynamiq import DynamiqChatStore
from tests.fakes.counting import Counting
from tests.fakes.llama_index import ScriptedLLM, assert_valid, assistant, calls, in_short, result, texts, user

STRATEGIES = ["all", "relevant", "both"]


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store)


@pytest.fixture
def chat(memory: Memory) -> DynamiqMemory:
    return DynamiqMemory(memory, "s1", "ann")


class Way:
    """Calls a memory's methods synchronously or asynchronously, so that each test covers both."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def __call__(self, chat: DynamiqMemory, method: str, *arguments: Any, **options: Any) -> Any:
        if self.asynchronous:
            return asyncio.run(getattr(chat, f"a{method}")(*arguments, **options))
        return getattr(chat, method)(*arguments, **options)


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Way:
    return Way(asynchronous=request.param == "async")


def stored(memory: Memory, session_id: str = "s1", user_id: str | None = "ann") -> list[Message]:
    return memory.scoped(session_id, user_id).get_all()


# --- the interface of LlamaIndex's memories ----------------------------------------------------------------------


def test_it_is_a_memory_of_llama_indexs(chat):
    assert isinstance(chat, BaseMemory)
    assert DynamiqMemory.class_name() == "DynamiqMemory"
    assert (chat.session_id, chat.user_id, chat.strategy, chat.limit, chat.token_limit) == (
        "s1",
        "ann",
        "all",
        None,
        None,
    )


def test_every_method_has_an_asynchronous_twin_of_its_own():
    for name in ("get", "get_all", "put", "put_messages", "set", "reset"):
        assert getattr(DynamiqMemory, name) is not getattr(BaseMemory, name)
        assert getattr(DynamiqMemory, f"a{name}") is not getattr(BaseMemory, f"a{name}")


def test_what_is_put_is_got(do, chat):
    do(chat, "put", user("hello"))
    do(chat, "put", assistant("hi"))
    do(chat, "put_messages", [user("how are you?"), assistant("fine")])
    expected = [user("hello"), assistant("hi"), user("how are you?"), assistant("fine")]
    assert do(chat, "get") == do(chat, "get_all") == expected
    do(chat, "set", [user("new"), assistant("start")])
    assert do(chat, "get") == do(chat, "get_all") == [user("new"), assistant("start")]
    do(chat, "reset")
    assert do(chat, "get") == do(chat, "get_all") == []
    do(chat, "put", user("again"))
    assert do(chat, "get_all") == [user("again")]


def test_what_is_put_synchronously_is_got_asynchronously(chat):
    chat.put(user("a"))
    asyncio.run(chat.aput(assistant("b")))
    assert chat.get_all() == asyncio.run(chat.aget_all()) == [user("a"), assistant("b")]


def test_from_defaults_takes_the_arguments_of_the_class(memory):
    chat = DynamiqMemory.from_defaults(
        memory=memory,
        session_id="s1",
        user_id="ann",
        strategy="both",
        limit=7,
        token_limit=100,
        tokenizer_fn=str.split,
    )
    assert type(chat) is DynamiqMemory
    assert (chat.session_id, chat.user_id, chat.strategy, chat.limit, chat.token_limit) == (
        "s1",
        "ann",
        "both",
        7,
        100,
    )


def test_from_defaults_sets_the_history_that_it_is_given(memory):
    DynamiqMemory(memory, "s1").put(user("before"))
    assert DynamiqMemory.from_defaults(memory, "s1").get_all() == [user("before")]
    history = [user("a"), assistant("b")]
    assert DynamiqMemory.from_defaults(memory, "s1", chat_history=history).get_all() == history
    assert DynamiqMemory.from_defaults(memory, "s1", chat_history=[]).get_all() == []


def test_from_defaults_takes_three_quarters_of_a_models_window(memory):
    llm = ScriptedLLM([], window=1000)
    assert DynamiqMemory.from_defaults(memory, "s1", llm=llm).token_limit == 750
    assert DynamiqMemory.from_defaults(memory, "s1", llm=llm, token_limit=10).token_limit == 10
    assert DynamiqMemory.from_defaults(memory, "s1").token_limit is None


def test_an_empty_memory_is_true(chat):
    """LlamaIndex writes `memory or ChatMemoryBuffer(…)`."""
    assert chat.get_all() == []
    assert bool(chat) is True
    assert not hasattr(type(chat), "__len__")
    assert not hasattr(type(chat), "__bool__")


def test_messages_of_every_kind_come_back_as_they_were(do, chat):
    messages = [
        ChatMessage(role="user", blocks=[TextBlock(text="see"), ImageBlock(url="https://example.org/a.png")]),
        calls(("c1", "f", {"a": 1}), ("c2", "g", {})),
        result("c1", "1"),
        result("c2", "2"),
        ChatMessage(role="assistant", content="done", additional_kwargs={"usage": (1, {2})}),
    ]
    do(chat, "put_messages", messages)
    assert do(chat, "get") == do(chat, "get_all") == messages


def test_what_is_got_is_the_callers_own(do, chat):
    message = ChatMessage(role="user", blocks=[TextBlock(text="a")], additional_kwargs={"k": [1]})
    batch = [message]
    do(chat, "put_messages", batch)
    for method in ("get", "get_all"):
        got = do(chat, method)
        got[0].blocks[0].text = "changed"
        got[0].additional_kwargs["k"].append(2)
        got.append(user("more"))
    message.blocks[0].text = "changed too"
    expected = ChatMessage(role="user", blocks=[TextBlock(text="a")], additional_kwargs={"k": [1]})
    assert do(chat, "get") == do(chat, "get_all") == [expected]
    assert batch == [message]


def test_any_iterable_of_messages_is_put(do, chat):
    do(chat, "put_messages", (user("a"), assistant("b")))
    do(chat, "put_messages", iter([user("c")]))
    do(chat, "put_messages", [])
    assert texts(chat.get_all()) == ["a", "b", "c"]


def test_no_warning_is_given(memory):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        chat = DynamiqMemory.from_defaults(memory, "s", "u", limit=4, token_limit=100, tokenizer_fn=str.split)
        chat.put(user("a"))
        chat.put_messages([calls(("c", "f", {})), result("c", "1"), assistant("b")])
        asyncio.run(chat.aput(user("a")))
        asyncio.run(chat.aset(asyncio.run(chat.aget_all())))
        assert chat.get("a")
        assert asyncio.run(chat.aget("a"))
        for made in (copy.copy(chat), copy.deepcopy(chat), pickle.loads(pickle.dumps(chat))):
            assert made.get_all()
        DynamiqMemory.from_dict(chat.to_dict())
        DynamiqMemory.from_json(chat.to_json())
        chat.model_dump_json()
        repr(chat)
        chat.reset()
        asyncio.run(chat.areset())
        del made, chat
        gc.collect()
    assert [str(warning.message) for warning in given] == []


# --- what get picks ----------------------------------------------------------------------------------------------


def turn(number: int) -> list[ChatMessage]:
    return [user(f"question {number} about topic{number}"), assistant(f"answer {number}")]


def tool_turn(number: int) -> list[ChatMessage]:
    a, b = f"a{number}", f"b{number}"
    return [
        user(f"question {number} about topic{number}"),
        calls((a, "f", {"n": number}), (b, "g", {"n": number})),
        result(a, f"f of {number}"),
        result(b, f"g of {number}"),
        assistant(f"answer {number}"),
    ]


def test_without_a_limit_everything_is_got(do, chat):
    do(chat, "put_messages", [message for number in range(30) for message in tool_turn(number)])
    assert do(chat, "get") == do(chat, "get_all")


def test_the_memorys_message_limit_holds_by_default(do, store):
    chat = DynamiqMemory(Memory(backend=store, message_limit=4), "s")
    for number in range(5):
        do(chat, "put_messages", turn(number))
    assert do(chat, "get") == [*turn(3), *turn(4)]
    assert len(do(chat, "get_all")) == 10


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_window_of_any_size_is_a_conversation(memory, strategy):
    DynamiqMemory(memory, "s").put_messages([message for number in range(6) for message in tool_turn(number)])
    for limit in range(1, 32):
        chat = DynamiqMemory(memory, "s", strategy=strategy, limit=limit)
        for given in (None, "topic1", "nothing like it"):
            window = chat.get(given)
            # An answered question is not given without its answer.
            assert window or limit == 1
            assert len(window) <= limit
            if window:
                assert_valid(window)


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_an_old_turn_among_two_hundred_is_found(do, memory, strategy):
    chat = DynamiqMemory(memory, "s", strategy=strategy, limit=6)
    chat.put_messages([message for number in range(200) for message in turn(number)])
    for given in ("topic17", QueryBundle("topic17"), user("topic17"), assistant("topic17")):
        got = texts(do(chat, "get", given))
        assert "question 17 about topic17" in got
        assert "answer 17" in got
        if strategy == "both":
            assert got[-2:] == texts(turn(199))
    assert "question 17 about topic17" not in texts(do(DynamiqMemory(memory, "s", limit=6), "get", "topic17"))


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_without_input_the_open_question_is_what_is_looked_for(do, memory, strategy):
    chat = DynamiqMemory(memory, "s", strategy=strategy, limit=7)
    chat.put_messages([message for number in range(200) for message in turn(number)])
    chat.put(user("what about topic17?"))
    for given in (None, "", "  "):
        got = texts(do(chat, "get", given))
        assert "answer 17" in got
        assert got[-1] == "what about topic17?"
        assert got.count("what about topic17?") == 1


def test_other_arguments_of_callers_are_ignored(do, chat):
    chat.put(user("a"))
    assert do(chat, "get", input=None, initial_token_count=5, something="else") == [user("a")]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_open_question_is_always_the_last(do, memory, strategy):
    turns = [message for number in range(5) for message in tool_turn(number)]
    DynamiqMemory(memory, "s").put_messages([*turns, user("the open question")])
    for limit in (1, 2, 3, 5, 6, 7, 11, 25, 26, 27, None):
        chat = DynamiqMemory(memory, "s", strategy=strategy, limit=limit)
        for given in (None, "topic3", "nothing like it", "the open question"):
            got = do(chat, "get", given)
            assert got[-1] == user("the open question")
            assert limit is None or len(got) <= limit
            assert_valid(got)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_open_question_is_the_last_within_any_number_of_tokens(do, memory, strategy):
    DynamiqMemory(memory, "s").put_messages([*turn(0), *turn(1), user("the open question of eight words is this")])
    for token_limit in range(1, 40):
        chat = DynamiqMemory(memory, "s", strategy=strategy, token_limit=token_limit, tokenizer_fn=str.split)
        got = do(chat, "get", "topic0")
        assert got[-1] == user("the open question of eight words is this")
        assert sum(len(text.split()) for text in texts(got)) <= max(token_limit, 8)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_question_in_the_midst_of_its_tools_stays(do, memory, strategy):
    rounds = [message for n in range(4) for message in (calls((f"x{n}", "f", {"n": n})), result(f"x{n}", f"{n}"))]
    open_turn = [user("the open question"), *rounds]
    DynamiqMemory(memory, "s").put_messages([*turn(0), *turn(1), *open_turn])
    for limit in range(1, 16):
        got = do(DynamiqMemory(memory, "s", strategy=strategy, limit=limit), "get", "topic0")
        assert user("the open question") in got
        assert len(got) <= limit
        assert_valid(got)
        if limit >= len(open_turn):
            assert got[-len(open_turn) :] == open_turn
    assert do(DynamiqMemory(memory, "s", strategy=strategy), "get", "topic0")[-9:] == open_turn


def test_an_open_question_far_back_is_given(do, memory):
    rounds = [message for n in range(60) for message in (calls((f"x{n}", "f", {})), result(f"x{n}", f"{n}"))]
    chat = DynamiqMemory(memory, "s", limit=9)
    chat.put_messages([*turn(0), user("the open question"), *rounds])
    assert do(chat, "get") == [user("the open question"), *rounds[-8:]]


def test_questions_that_were_never_answered_stay_in_order(do, chat):
    do(chat, "put_messages", [user("a"), user("b"), user("c")])
    assert texts(do(chat, "get")) == ["a", "b", "c"]


def test_a_question_at_the_time_of_what_came_before_hides_nothing(do, memory):
    """As an import from elsewhere may have it, in whole seconds."""
    for role, text in (("user", "a"), ("assistant", "b"), ("user", "c")):
        memory.scoped("s").add(role, text, metadata={"timestamp": 1_700_000_000})
    assert texts(do(DynamiqMemory(memory, "s"), "get")) == ["a", "b", "c"]


def test_only_other_roles_give_no_question(do, chat):
    do(chat, "set", [ChatMessage(role="system", content="Be brief.")])
    assert do(chat, "get") == [ChatMessage(role="system", content="Be brief.")]
    do(chat, "put", user("a"))
    assert in_short(do(chat, "get")) == ["system: Be brief.", "user: a"]


# --- tokens ------------------------------------------------------------------------------------------------------


def test_the_tokenizer_counts_the_tokens(do, memory):
    chat = DynamiqMemory(memory, "s", token_limit=12, tokenizer_fn=str.split)
    for number in range(4):
        do(chat, "put_messages", turn(number))  # six words each
    assert do(chat, "get") == [*turn(2), *turn(3)]
    assert do(chat, "get", initial_token_count=1) == turn(3)
    assert do(chat, "get", initial_token_count=6) == turn(3)
    assert len(do(chat, "get_all")) == 8


def test_the_memorys_counter_counts_by_default(do, store):
    memory = Memory(backend=store, token_counter=lambda message: 100)
    chat = DynamiqMemory(memory, "s", token_limit=400)
    for number in range(4):
        do(chat, "put_messages", turn(number))
    assert do(chat, "get") == [*turn(2), *turn(3)]


def test_the_calls_of_tools_count(do, memory):
    chat = DynamiqMemory(memory, "s", token_limit=20, tokenizer_fn=list)
    message = ChatMessage(
        role="assistant", blocks=[ToolCallBlock(tool_call_id="c", tool_name="f", tool_kwargs={"text": "x" * 50})]
    )
    do(chat, "put_messages", [user("a"), assistant("b"), user("c"), message, result("c", "d"), assistant("e")])
    assert do(chat, "get") == [user("c"), assistant("e")]


@pytest.mark.parametrize(
    "block",
    [
        ImageBlock(url="https://example.org/ship.png"),
        ImageBlock(image=b"x" * 400_000),
        DocumentBlock(path="ticket.pdf"),
        DocumentBlock(data=b"x" * 400, title="ticket.pdf"),
        AudioBlock(audio=b"x" * 400),
    ],
    ids=["linked image", "image", "document by path", "document", "audio"],
)
def test_attachments_count_beside_the_texts_that_a_tokenizer_counts(do, memory, block):
    """An attachment of this size counts as 1,000 tokens, and the words beside it as the tokenizer counts them."""
    asked = ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), block])
    do(DynamiqMemory(memory, "s"), "put_messages", [asked, assistant("A ship."), *turn(1)])
    counted = 1_000 + 5 + 6
    for token_limit, expected in ((counted, [asked, assistant("A ship."), *turn(1)]), (counted - 1, turn(1))):
        chat = DynamiqMemory(memory, "s", token_limit=token_limit, tokenizer_fn=str.split)
        assert do(chat, "get") == expected


def test_the_tokenizer_does_not_become_the_memorys(memory):
    counter = memory.token_counter
    DynamiqMemory(memory, "s", token_limit=5, tokenizer_fn=str.split).get()
    assert memory.token_counter is counter


@pytest.mark.parametrize("initial", [11, 1000])
def test_a_prompt_that_exceeds_the_limit_is_refused(do, memory, initial):
    chat = DynamiqMemory(memory, "s", token_limit=10)
    with pytest.raises(InvalidArgumentError, match=f"initial_token_count={initial} exceeds token_limit=10"):
        do(chat, "get", initial_token_count=initial)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_prompt_that_leaves_nothing_still_asks_the_question(do, memory, strategy):
    """As LlamaIndex's `ChatMemoryBuffer`, which then gives the last message."""
    chat = DynamiqMemory(memory, "s", strategy=strategy, token_limit=10, tokenizer_fn=str.split)
    assert do(chat, "get", initial_token_count=10) == []
    do(chat, "put_messages", [*turn(1), user("and now?")])
    assert do(chat, "get", initial_token_count=10) == [user("and now?")]
    do(chat, "put_messages", [calls(("c", "f", {})), result("c", "found")])
    assert do(chat, "get", initial_token_count=10) == [user("and now?")], "a result alone is no conversation"
    do(chat, "put", assistant("this"))
    assert do(chat, "get", initial_token_count=10) == [], "an answer alone is none either"


# --- scope and save mode -----------------------------------------------------------------------------------------


def test_two_users_of_the_same_session_are_apart(do, memory):
    chats = [DynamiqMemory(memory, "s", name) for name in ("ann", "bea", None)]
    for number, chat in enumerate(chats):
        do(chat, "put", user(f"secret {number}"))
    assert [texts(do(chat, "get", "secret")) for chat in chats] == [["secret 0"], ["secret 1"], ["secret 2"]]
    do(chats[0], "set", [user("mine")])
    do(chats[1], "reset")
    assert [texts(do(chat, "get_all")) for chat in chats] == [["mine"], [], ["secret 2"]]


def test_the_memorys_default_filters_hold(do, store):
    memory = Memory(backend=store, filters={"user_id": "ann", "topic": "x"})
    chat = DynamiqMemory(memory, "s")
    assert chat.user_id == "ann"
    do(chat, "put", user("a"))
    do(DynamiqMemory(Memory(backend=store, filters={"topic": "y"}), "s", "ann"), "put", user("b"))
    assert texts(do(chat, "get_all")) == ["a"]
    do(chat, "set", [user("c")])
    assert texts(do(chat, "get_all")) == ["c"]
    do(chat, "reset")
    assert [message.text for message in Memory(backend=store).get_all()] == ["b"]


def test_the_session_may_come_from_the_memory(store):
    chat = DynamiqMemory(Memory(backend=store, filters={"session_id": "s1", "user_id": "ann"}))
    chat.put(user("a"))
    assert [(message.session_id, message.user_id) for message in store.get_all()] == [("s1", "ann")]


def test_full_keeps_all_but_instructions(do, store):
    chat = DynamiqMemory(Memory(backend=store, save_mode="full"), "s")
    with pytest.warns(UserWarning, match="system message was not stored"):
        do(chat, "put", ChatMessage(role="system", content="Be brief."))
    for message in tool_turn(1):
        do(chat, "put", message)
    do(chat, "put_messages", [ChatMessage(role="system", content="Be brief."), *tool_turn(2)])
    assert do(chat, "get_all") == [*tool_turn(1), *tool_turn(2)]


@pytest.mark.parametrize("mode", ["full", "input_output"])
@pytest.mark.parametrize("method", ["put", "put_messages"])
def test_instructions_that_are_not_stored_warn_once_for_each_memory(do, store, mode, method):
    instructions = ChatMessage(role="system", content="Be brief.")
    given = instructions if method == "put" else [user("a"), instructions]
    for _ in range(2):
        chat = DynamiqMemory(Memory(backend=store, save_mode=mode), "s")
        with pytest.warns(UserWarning, match=f"the save mode '{mode}' keeps none") as warned:
            do(chat, method, given)
        do(chat, method, given)  # another warning would be an error
        assert len(warned) == 1
        assert do.asynchronous or warned[0].filename == __file__


def test_nothing_warns_where_instructions_are_stored(do, chat):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        do(chat, "set", [ChatMessage(role="system", content="Be brief."), user("a")])
        do(chat, "put", assistant("b"))
    assert in_short(do(chat, "get_all")) == ["system: Be brief.", "user: a", "assistant: b"]


def test_input_output_keeps_questions_and_answers_only(do, store):
    chat = DynamiqMemory(Memory(backend=store, save_mode="input_output"), "s")
    for message in tool_turn(1):
        do(chat, "put", message)
    do(chat, "put_messages", tool_turn(2))
    do(chat, "put_messages", tool_turn(3)[1:4])
    assert do(chat, "get_all") == [*turn(1), *turn(2)]


def test_the_save_mode_does_not_cut_what_is_set(do, store):
    chat = DynamiqMemory(Memory(backend=store, save_mode="input_output"), "s")
    given = [ChatMessage(role="system", content="Be brief."), *tool_turn(1)]
    do(chat, "set", given)
    assert do(chat, "get_all") == given


# --- set ---------------------------------------------------------------------------------------------------------


def test_what_stays_keeps_its_id_and_time(do, chat, memory):
    do(chat, "put_messages", [user("a"), assistant("b"), user("c"), assistant("d")])
    before = {message.text: (message.id, message.timestamp) for message in stored(memory)}
    do(chat, "set", [user("a"), assistant("b"), user("new")])
    after = {message.text: (message.id, message.timestamp) for message in stored(memory)}
    assert {text: after[text] for text in ("a", "b")} == {text: before[text] for text in ("a", "b")}
    assert list(after) == ["a", "b", "new"]
    assert after["new"][0] not in [identity for identity, _ in before.values()]


@pytest.mark.parametrize(
    "given",
    ["xab", "axb", "abx", "xaxbx", "ba", "b", "a", "", "aab", "abab", "bxa", "xyz"],
)
def test_the_session_holds_just_what_was_set(do, chat, memory, given):
    do(chat, "put_messages", [user("a"), user("b")])
    do(chat, "set", [user(letter) for letter in given])
    assert "".join(texts(do(chat, "get_all"))) == given
    assert len({message.id for message in stored(memory)}) == len(given)


def test_any_two_lists_can_be_set_one_after_the_other(memory):
    conversations = st.lists(st.sampled_from([user("a"), user("b"), assistant("a"), result("c", "a")]), max_size=6)

    @hypothesis.given(st.lists(conversations, min_size=2, max_size=3))
    @hypothesis.settings(max_examples=60)
    def check(given: list[list[ChatMessage]]) -> None:
        chat = DynamiqMemory(memory, "s")
        chat.reset()
        for conversation in given:
            chat.set(conversation)
            assert chat.get_all() == conversation
        chat.put(user("next"))
        assert chat.get_all() == [*given[-1], user("next")]

    check()


def test_setting_what_is_set_changes_nothing(do, chat, memory):
    do(chat, "put_messages", tool_turn(1))
    before = stored(memory)
    do(chat, "set", do(chat, "get_all"))
    assert stored(memory) == before


def test_messages_of_other_frameworks_keep_their_place_when_set(do, chat, memory):
    memory.scoped("s1", "ann").add("user", "native", metadata={"topic": "x"})
    before = stored(memory)
    do(chat, "set", [*do(chat, "get_all"), assistant("b")])
    after = stored(memory)
    assert after[:1] == before
    assert texts(do(chat, "get_all")) == ["native", "b"]


# --- copies ------------------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[DynamiqMemory], DynamiqMemory]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda chat: chat.model_copy(),
    "model_copy deep": lambda chat: chat.model_copy(deep=True),
    "pickle": lambda chat: pickle.loads(pickle.dumps(chat)),
    "to_dict": lambda chat: DynamiqMemory.from_dict(chat.to_dict()),
    "json": lambda chat: DynamiqMemory.from_dict(json.loads(json.dumps(chat.to_dict()))),
    "to_json": lambda chat: DynamiqMemory.from_json(chat.to_json()),
    "model_dump": lambda chat: DynamiqMemory.model_validate(chat.model_dump()),
    "model_dump_json": lambda chat: DynamiqMemory.model_validate_json(chat.model_dump_json()),
    "within a copied dict": lambda chat: copy.deepcopy({"memory": [chat]})["memory"][0],
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_shares_the_store(memory, name):
    chat = DynamiqMemory(memory, "s1", "ann", strategy="both", limit=4, token_limit=1000)
    chat.put(user("a"))
    copied = COPIES[name](chat)
    assert type(copied) is DynamiqMemory
    assert copied is not chat
    copied.put(assistant("b"))
    asyncio.run(copied.aput(user("c")))
    assert texts(chat.get_all()) == texts(copied.get_all()) == ["a", "b", "c"]
    assert copied.model_dump() == chat.model_dump()
    assert (copied.strategy, copied.limit, copied.token_limit) == ("both", 4, 1000)


def test_a_changed_copy_reads_and_writes_where_it_says(memory):
    chat = DynamiqMemory(memory, "s1", "ann", limit=2)
    other = chat.model_copy(update={"session_id": "s2", "user_id": None, "strategy": "relevant"})
    other.put(user("a"))
    assert [(message.user_id, message.session_id) for message in memory.get_all()] == [(None, "s2")]
    assert (other.strategy, other.limit) == ("relevant", 2)
    elsewhere = Memory(backend=InMemory())
    moved = chat.model_copy(update={"memory": elsewhere})
    moved.put(user("b"))
    assert moved.model_copy(update={"store": chat.store}).get_all() == chat.get_all() == []
    assert elsewhere.count() == 1
    with pytest.raises(TypeError, match="session"):
        chat.model_copy(update={"session": "s3"})


@pytest.mark.parametrize("name", ["copy", "deepcopy", "model_copy", "model_copy deep"])
def test_a_copy_keeps_the_tokenizer(memory, name):
    chat = DynamiqMemory(memory, "s", token_limit=12, tokenizer_fn=str.split)
    chat.put_messages([message for number in range(4) for message in turn(number)])
    assert COPIES[name](chat).get() == [*turn(2), *turn(3)]


def test_a_copy_made_while_the_store_is_used_waits_for_nothing(chat):
    """Workflows copy what is in their context between steps."""
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait(120)
        for _ in range(20):
            copy.deepcopy(chat).put(user(f"{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(chat.get_all()) == 80


def test_it_can_be_a_field_of_a_models(chat):
    class State(BaseModel):
        memory: DynamiqMemory

    chat.put(user("a"))
    state = State(memory=chat)
    assert state.memory.get_all() == [user("a")]
    assert State.model_validate(state.model_dump()).memory.get_all() == [user("a")]
    assert State.model_validate_json(state.model_dump_json()).memory.get_all() == [user("a")]


def test_another_session_assigned_is_not_ignored(memory):
    """The object reads and writes the session that it shows, or refuses to be changed."""
    chat = DynamiqMemory(memory, "s1")
    try:
        chat.session_id = "s2"
    except (ValueError, AttributeError):
        return
    chat.put(user("a"))
    assert [message.session_id for message in memory.get_all()] == [chat.session_id]


class WithSecret(InMemory):
    """A store whose password nobody may read."""

    def __init__(self) -> None:
        super().__init__()
        self.password = "hunter2"


def test_no_secret_and_no_message_is_in_what_is_saved():
    chat = DynamiqMemory(Memory(backend=WithSecret()), "s1")
    chat.put(user("private words"))
    for saved in (json.dumps(chat.to_dict()), chat.to_json(), chat.model_dump_json(), repr(chat), str(chat)):
        assert "hunter2" not in saved
        assert "private words" not in saved
        assert "s1" in saved


IN_ANOTHER_PROCESS = """
import asyncio, json, sys
from dynamiq_memory import ConfigurationError, Memory, register_memory
from llama_index.core.base.llms.types import ChatMessage
from llama_index.memory.dynamiq import DynamiqMemory

on_disk, in_memory, registered, registered_later = map(json.loads, sys.argv[1:])

chat = DynamiqMemory.from_dict(on_disk)
print(json.dumps([str(message) for message in chat.get_all()]))
asyncio.run(chat.aput(ChatMessage(role="assistant", content="from another process")))
print(json.dumps([chat.session_id, chat.user_id, chat.strategy, chat.limit, chat._memory.save_mode]))

try:
    DynamiqMemory.from_dict(in_memory)
except ConfigurationError as error:
    print(error)

memories = [Memory(), Memory()]
for number, memory in enumerate(memories):
    memory.scoped("s1").add("user", f"number {number} of this process")
    register_memory(f"conversations {number}", memory)
for number, saved in enumerate((registered, registered_later)):
    chat = DynamiqMemory.from_dict(saved)
    print(chat.get_all()[0].content, chat._memory is memories[number])
"""


def test_another_process_gets_the_memory_back_from_its_store_or_by_its_name(tmp_path, run_script, known_memories):
    memory = Memory(backend=SQLite(tmp_path / "a b%.db"), save_mode="input_output")
    on_disk = DynamiqMemory(memory, "s/1", "ä", strategy="both", limit=5)
    on_disk.put(user("hello"))
    first, later = Memory(), Memory()
    register_memory("conversations 0", first)
    chats = [on_disk, DynamiqMemory(Memory(), "s1"), DynamiqMemory(first, "s1"), DynamiqMemory(later, "s1")]
    register_memory("conversations 1", later)  # after it was made, before it is saved
    read, settings, refusal, *found = run_script(
        IN_ANOTHER_PROCESS, *(json.dumps(chat.to_dict()) for chat in chats)
    ).stdout.splitlines()
    assert json.loads(read) == ["user: hello"]
    assert json.loads(settings) == ["s/1", "ä", "both", 5, "input_output"]
    assert texts(on_disk.get_all()) == ["hello", "from another process"]
    assert "register_memory" in refusal
    assert found == ["number 0 of this process True", "number 1 of this process True"]
    memory.close()


def test_a_memory_that_is_gone_is_told_of():
    chat = DynamiqMemory(Memory(), "s1")
    saved = chat.to_dict()
    del chat
    gc.collect()
    with pytest.raises(ConfigurationError, match="register_memory"):
        DynamiqMemory.from_dict(saved)


# --- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, ConfigurationError, "session_id"),
        ({"session_id": ""}, MessageError, "session_id"),
        ({"session_id": 5}, MessageError, "session_id"),
        ({"session_id": "s", "user_id": ""}, MessageError, "user_id"),
        ({"session_id": "s", "user_id": 5}, MessageError, "user_id"),
        ({"session_id": "s", "limit": 0}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": -1}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": True}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": "5"}, ConfigurationError, "limit"),
        ({"session_id": "s", "limit": 2.5}, ConfigurationError, "limit"),
        ({"session_id": "s", "token_limit": 0}, ConfigurationError, "token_limit"),
        ({"session_id": "s", "token_limit": "x"}, ConfigurationError, "token_limit"),
        ({"session_id": "s", "strategy": "nearest"}, ConfigurationError, "strategy"),
        ({"session_id": "s", "strategy": None}, ConfigurationError, "strategy"),
        ({"session_id": "s", "tokenizer_fn": 5}, ConfigurationError, "tokenizer_fn"),
    ],
)
@pytest.mark.parametrize("made", [DynamiqMemory, DynamiqMemory.from_defaults], ids=["class", "from_defaults"])
def test_wrong_arguments_are_refused(made, arguments, error, says):
    with pytest.raises(error, match=says):
        made(Memory(), **arguments)


@pytest.mark.parametrize("wrong", [None, "sqlite:///x.db", Memory, InMemory(), {}, object()])
def test_what_is_no_memory_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"dynamiq_memory\.Memory"):
        DynamiqMemory(wrong, "s")
    with pytest.raises(ConfigurationError, match=r"dynamiq_memory\.Memory"):
        DynamiqMemory.from_defaults(wrong, "s")


@pytest.mark.parametrize("wrong", ["x", None, 5, {"role": "user", "content": "x"}, [user("x")]])
def test_putting_what_is_no_message_is_refused(do, chat, wrong):
    with pytest.raises(MessageError):
        do(chat, "put", wrong)
    assert chat.get_all() == []


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        None,
        5,
        user("x"),
        {"role": "user", "content": "x"},
        [{"role": "user"}],
        [user("fine"), "x"],
        [user("fine"), ChatMessage(role="user", content="x", additional_kwargs={"k": object()})],
    ],
    ids=lambda wrong: f"{wrong!r:.30}",
)
@pytest.mark.parametrize("method", ["put_messages", "set"])
def test_wrong_messages_are_refused_and_nothing_is_changed(do, chat, method, wrong):
    chat.put(user("before"))
    with pytest.raises(MessageError):
        do(chat, method, wrong)
    assert chat.get_all() == [user("before")]


class Failing(InMemory):
    """A store that fails to write or to read."""

    driver_errors = (OSError,)
    fails = ""

    def _write(self, messages: Sequence[Message]) -> None:
        if self.fails == "write":
            raise OSError("the disk is full")
        super()._write(messages)

    def _replace(self, *arguments: Any) -> None:
        if self.fails == "write":
            raise OSError("the disk is full")
        super()._replace(*arguments)

    def _delete(self, *arguments: Any) -> int:
        if self.fails == "write":
            raise OSError("the disk is full")
        return super()._delete(*arguments)

    def _read(self, *arguments: Any) -> list[Message]:
        if self.fails == "read":
            raise OSError("the disk is gone")
        return super()._read(*arguments)


@pytest.mark.parametrize(
    ("method", "arguments", "fails"),
    [
        ("put", [user("x")], "write"),
        ("put_messages", [[user("x"), assistant("y")]], "write"),
        ("set", [[user("x")]], "write"),
        ("reset", [], "write"),
        ("get", [], "read"),
        ("get_all", [], "read"),
    ],
)
def test_a_failing_store_is_told_of_and_nothing_is_changed(do, method, arguments, fails):
    backend = Failing()
    chat = DynamiqMemory(Memory(backend=backend), "s")
    chat.put(user("before"))
    backend.fails = fails
    with pytest.raises(BackendError, match="the disk is"):
        do(chat, method, *arguments)
    backend.fails = ""
    assert chat.get_all() == [user("before")]


@pytest.mark.parametrize("method", ["get", "get_all", "put", "put_messages", "set", "reset"])
def test_a_closed_store_is_told_of(do, store, method):
    chat = DynamiqMemory(Memory(backend=store), "s")
    store.close()
    given = {"put": [user("x")], "put_messages": [[user("x")]], "set": [[user("x")]]}.get(method, [])
    with pytest.raises(BackendError, match="closed"):
        do(chat, method, *given)


# --- event loops and many at once --------------------------------------------------------------------------------


def test_one_object_serves_several_event_loops(chat):
    for number in range(3):
        asyncio.run(chat.aput(user(f"{number}")))
    assert texts(asyncio.run(chat.aget())) == ["0", "1", "2"]


def test_synchronous_calls_work_inside_of_a_running_loop(chat):
    async def run() -> Any:
        chat.put(user("a"))
        await chat.aput(assistant("b"))
        chat.set([*chat.get_all(), user("c")])
        return chat.get()

    assert texts(asyncio.run(run())) == ["a", "b", "c"]


WRITERS, PAIRS = 8, 12


def pairs_of(writer: int) -> list[list[ChatMessage]]:
    return [[user(f"{writer} {n} q"), assistant(f"{writer} {n} a")] for n in range(PAIRS)]


def assert_nothing_lost(messages: list[ChatMessage], *, together: bool) -> None:
    said = texts(messages)
    assert sorted(said) == sorted(str(message.content) for w in range(WRITERS) for p in pairs_of(w) for message in p)
    for writer in range(WRITERS):
        own = [text for text in said if text.startswith(f"{writer} ")]
        assert own == [message.content for pair in pairs_of(writer) for message in pair]
    if together:
        for question, answer in zip(said[::2], said[1::2], strict=True):
            assert question.replace("q", "a") == answer


@pytest.mark.parametrize("shared", [True, False], ids=["one memory", "a memory each"])
@pytest.mark.parametrize("together", [True, False], ids=["put_messages", "put"])
def test_threads_that_put_at_once_lose_nothing(memory, shared, together):
    one = DynamiqMemory(memory, "s")
    start = threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        chat = one if shared else DynamiqMemory(memory, "s")
        start.wait(120)
        for pair in pairs_of(writer):
            if together:
                chat.put_messages(pair)
            else:
                for message in pair:
                    chat.put(message)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert_nothing_lost(one.get_all(), together=together)


@pytest.mark.parametrize("shared", [True, False], ids=["one memory", "a memory each"])
@pytest.mark.parametrize("together", [True, False], ids=["put_messages", "put"])
def test_tasks_that_put_at_once_lose_nothing(memory, shared, together):
    one = DynamiqMemory(memory, "s")

    async def write(writer: int) -> None:
        chat = one if shared else DynamiqMemory(memory, "s")
        for pair in pairs_of(writer):
            if together:
                await chat.aput_messages(pair)
            else:
                for message in pair:
                    await chat.aput(message)

    async def run() -> Any:
        await asyncio.gather(*map(write, range(WRITERS)))
        return await one.aget_all()

    assert_nothing_lost(asyncio.run(run()), together=together)


# --- prompts that begin like the one before -----------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "limit", "tokens"), [("all", 50, None), ("both", None, 1_000)])
def test_a_stable_window_keeps_the_beginning_of_prompts(do, memory, limit, tokens, strategy):
    chat = DynamiqMemory(memory, "s1", "ann", strategy, limit, tokens, window="stable", placement="before_question")
    begins = []
    for number in range(80):
        do(chat, "put", user(f"question {number}"))
        given = do(chat, "get", f"question {number}")
        assert_valid(given)
        assert given[-1].content.endswith(f"question {number}")
        assert limit is None or len(given) <= limit
        begins.append(given[0].content)
        do(chat, "put", assistant(f"answer {number}"))
    moved = [one != two for one, two in itertools.pairwise(begins[30:])]
    assert sum(moved) <= 0.5 * len(moved)


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_older_messages_are_put_before_the_question(do, memory, strategy):
    chat = DynamiqMemory(memory, "s1", "ann", strategy, limit=8, placement="before_question")
    do(chat, "put_messages", [user("My dog is called Rex."), assistant("Nice.")])
    for number in range(10):
        do(chat, "put_messages", [user(f"small talk {number}"), assistant("ok")])
    picture = ImageBlock(url="https://example.org/a.png")
    question = ChatMessage(role="user", blocks=[TextBlock(text="Is this my dog?"), picture], additional_kwargs={"k": 1})
    do(chat, "put", question)
    given = do(chat, "get")
    assert len(given) == {"relevant": 1, "both": 5}[strategy]
    block, *rest = given[-1].blocks
    assert rest == question.blocks
    assert given[-1].additional_kwargs == {"k": 1}
    assert ">My dog is called Rex.</message>" in block.text
    assert_valid(given)
    assert stored(memory)[-1].content == to_message(question).content


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_where_an_engine_adds_the_question_itself(do, memory, strategy):
    chat = DynamiqMemory(memory, "s1", "ann", strategy, limit=8, placement="before_question")
    do(chat, "put_messages", [user("My dog is called Rex."), assistant("Nice.")])
    for number in range(10):
        do(chat, "put_messages", [user(f"small talk {number}"), assistant("ok")])
    given = do(chat, "get", "What is my dog called?")
    assert_valid(given)
    if strategy == "relevant":
        assert texts(given) == ["My dog is called Rex.", "Nice."]
    else:
        assert given[-1].content == "ok"
        assert ">My dog is called Rex.</message>" in given[-2].content
        assert given[-2].content.endswith("small talk 9")


@pytest.mark.parametrize("placement", ["chronological", "before_question"])
def test_what_was_given_with_dates_and_a_block_can_be_set(do, placement):
    memory = Memory(dates="turns", placement=placement)
    chat = DynamiqMemory(memory, "s1", "ann", "both", limit=4)
    picture = ImageBlock(url="https://example.org/a.png")
    for number in range(4):
        do(chat, "put_messages", [user(f"My dog is called Rex {number}."), assistant(f"Nice {number}.")])
    do(chat, "put", ChatMessage(role="user", blocks=[TextBlock(text="Is this my dog?"), picture]))
    before = memory.get_all()
    given = do(chat, "get")
    assert "[" in given[-1].blocks[0].text + given[0].blocks[0].text
    do(chat, "set", given)
    after = memory.get_all()
    assert len(after) == len(given)
    assert all(message in before for message in after)
    do(chat, "set", [user("[12 Mar 2024]\n\nA user's own line")])
    assert [message.text for message in memory.get_all()] == ["[12 Mar 2024]\n\nA user's own line"]


def test_dates_are_not_stored_where_messages_are_changed_or_moved(do):
    memory = Memory(dates="turns")
    chat = DynamiqMemory(memory, "s1", "ann")
    do(chat, "put_messages", [user("My dog is Rex."), assistant("Nice."), user("And my cat?"), assistant("Minka.")])
    given = do(chat, "get")
    assert given[0].content.startswith("[")
    given[0].blocks[0].text += " He barks."
    do(chat, "set", [*given[2:], *given[:2]])
    assert [message.text for message in memory.get_all()] == [
        "And my cat?",
        "Minka.",
        "My dog is Rex. He barks.",
        "Nice.",
    ]


def test_a_line_of_the_users_own_that_looks_like_a_date_stays(do):
    memory = Memory(filters={"user_id": "ann", "session_id": "s1"})
    memory.add("user", "minutes")
    do(DynamiqMemory(memory, "s1", "ann"), "set", [user("[12 Mar 2024]\n\nminutes")])
    assert [message.text for message in memory.get_all()] == ["[12 Mar 2024]\n\nminutes"]


def test_the_window_and_the_placement_come_back(memory):
    chat = DynamiqMemory.from_defaults(memory, "s1", "ann", window="stable", placement="before_question")
    for again in (DynamiqMemory.from_dict(chat.to_dict()), chat.model_copy(), pickle.loads(pickle.dumps(chat))):
        assert (again.window, again.placement) == ("stable", "before_question")
    assert DynamiqMemory(memory, "s1").window is None
    for name in ("window", "placement"):
        with pytest.raises(ConfigurationError, match=name):
            DynamiqMemory(memory, "s1", **{name: "moving"})


def test_each_call_asks_the_store_a_few_times_only() -> None:
    store = Counting()
    memory = Memory(backend=store)
    one, chats = DynamiqMemory(memory, "s"), DynamiqChatStore(memory)
    turn = [ChatMessage("q"), ChatMessage(role="assistant", content="a")]
    # What is read first shows whether a clock is ahead, and the question that has no answer yet.
    asked: list[tuple[Callable[[], Any], list[str]]] = [
        (lambda: one.put(turn[0]), ["Read", "Write"]),
        (lambda: one.put(turn[1]), ["Read", "Write"]),
        (lambda: one.get("q"), ["Read", "ReadPage"]),
        (lambda: one.put_messages(turn * 50), ["Read", "Write"]),
        (one.get_all, ["Read"]),
        (lambda: chats.add_message("t", turn[0]), ["Read", "Write"]),
        (lambda: chats.set_messages("t", turn), ["Read", "Replace"]),
        (lambda: chats.get_messages("t"), ["Read"]),
    ]
    for call, names in asked:
        assert store.counted(call) == names
