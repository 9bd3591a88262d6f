"""`Memory`: defaults, merging of filters, and an error for each bad argument."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import json
import re
import sys

import pytest

from dynamiq_memory import (
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    FilterError,
    FormatType,
    InvalidArgumentError,
    Memory,
    MemoryRetrievalStrategy,
    MemorySaveMode,
    Message,
    MessageError,
    MessageRole,
)
from dynamiq_memory.backends import InMemory, SQLite

SCOPE = {"user_id": "u", "session_id": "s"}


def contents(messages):
    return [m.content for m in messages]


# --- settings --------------------------------------------------------------------------------------------------


def test_defaults():
    memory = Memory()
    assert isinstance(memory.backend, InMemory)
    assert (memory.message_limit, memory.filters, memory.save_mode) == (1000, {}, MemorySaveMode.FULL)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backend": "sqlite:///x.db"}, ConfigurationError, "create_backend"),
        ({"backend": InMemory}, ConfigurationError, "backend"),
        ({"backend": object()}, ConfigurationError, "builtins.object"),
        ({"message_limit": 0}, ConfigurationError, "message_limit"),
        ({"message_limit": -1}, ConfigurationError, "message_limit"),
        ({"message_limit": True}, ConfigurationError, "message_limit"),
        ({"message_limit": 1.5}, ConfigurationError, "message_limit"),
        ({"message_limit": "5"}, ConfigurationError, "message_limit"),
        ({"message_limit": None}, ConfigurationError, "message_limit"),
        ({"filters": "user"}, FilterError, "dict"),
        ({"filters": {"k": {"$gt": 1}}}, FilterError, r"\$gt"),
        ({"filters": {"user_id": 7}}, FilterError, "user_id"),
        ({"save_mode": "everything"}, ConfigurationError, "full, input_output"),
        ({"save_mode": None}, ConfigurationError, "save_mode"),
        ({"recent_share": -0.1}, ConfigurationError, "recent_share"),
        ({"recent_share": 1.1}, ConfigurationError, "recent_share"),
        ({"score_cutoff": 1.1}, ConfigurationError, "score_cutoff"),
        ({"recent_share": float("nan")}, ConfigurationError, "recent_share"),
    ],
    ids=lambda v: re.sub(" at 0x.*?>", ">", str(v)) if isinstance(v, dict) else "",
)
def test_wrong_settings(options, error, said):
    with pytest.raises(error, match=said):
        Memory(**options)


@pytest.mark.parametrize("options", [{"recent_share": "half"}, {"recent_share": None}, {"token_counter": 5}], ids=str)
def test_settings_of_the_wrong_type(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Memory(**options)


def test_a_string_names_a_save_mode():
    assert Memory(save_mode="input_output").save_mode is MemorySaveMode.INPUT_OUTPUT


# --- arguments of calls ------------------------------------------------------------------------------------------

READS = {
    "get_all": lambda m, **options: m.get_all(**options),
    "search": lambda m, **options: m.search("hello", **options),
    "search without a query": lambda m, **options: m.search(**options),
    "all": lambda m, **options: m.get_agent_conversation(**options),
    "relevant": lambda m, **options: m.get_agent_conversation("hello", strategy="relevant", **options),
    "both": lambda m, **options: m.explain_agent_conversation("hello", strategy="both", **options),
    "backend": lambda m, **options: m.backend.get_all(**options),
    "backend's search": lambda m, **options: m.backend.search("hello", **options),
    "async": lambda m, **options: asyncio.run(m.aget_all(**options)),
    "async search": lambda m, **options: asyncio.run(m.asearch("hello", **options)),
    "async agent": lambda m, **options: asyncio.run(m.aget_agent_conversation("hello", **options)),
}


@pytest.mark.parametrize("limit", [0, -1, True, False, 1.5, 1.0, "5"])
def test_a_limit_is_a_whole_number_of_1_or_more(store, limit):
    memory = Memory(backend=store)
    memory.add("user", "hello")
    for read in READS.values():
        with pytest.raises(InvalidArgumentError, match=rf"limit must be.*{limit}"):
            read(memory, limit=limit)


@pytest.mark.parametrize("limit", [1, sys.maxsize, 2**63, 10**30])
def test_any_whole_number_of_1_or_more_is_a_limit(store, limit):
    memory = Memory(backend=store)
    memory.add("user", "hello")
    for name, read in READS.items():
        assert len(read(memory, limit=limit)) == 1, name


def test_filters_are_checked_in_every_read(store):
    memory = Memory(backend=store)
    memory.add("user", "hello")
    for name, read in READS.items():
        assert read(memory, filters={"k": []}) == [], name
        assert len(read(memory, filters={"k": None})) == 1, name
        for wrong in ({"k": {"like": "x"}}, [("k", 1)]):
            with pytest.raises(FilterError):
                read(memory, filters=wrong)


@pytest.mark.parametrize("tokens", [0, -1, True, 1.5, "5"])
def test_max_tokens_is_a_whole_number_of_1_or_more(store, tokens):
    memory = Memory(backend=store)
    memory.add("user", "hello")
    with pytest.raises(InvalidArgumentError, match=rf"max_tokens must be.*{tokens}"):
        memory.get_agent_conversation(max_tokens=tokens)


@pytest.mark.parametrize("strategy", ["hybrid", "ALL", None, 5])
def test_an_unknown_strategy(store, strategy):
    with pytest.raises(InvalidArgumentError, match=r"strategy.*all, relevant, both"):
        Memory(backend=store).get_agent_conversation(strategy=strategy)
    assert Memory(backend=store).get_agent_conversation(strategy=MemoryRetrievalStrategy.BOTH) == []


@pytest.mark.parametrize("query", [5, b"hello", ["hello"]])
def test_a_query_that_is_not_text(store, query):
    memory = Memory(backend=store)
    memory.add("user", "hello")
    for ask in (
        lambda: memory.search(query),
        lambda: memory.get_agent_conversation(query, strategy="relevant"),
        lambda: memory.get_agent_conversation(query, strategy="both"),
    ):
        with pytest.raises(InvalidArgumentError, match="query must be a string"):
            ask()


@pytest.mark.parametrize("role", ["boss", "", "User", None, 5, []])
def test_an_unknown_role(store, role):
    memory = Memory(backend=store)
    with pytest.raises(MessageError, match=r"role.*unknown.*user, system, assistant, tool"):
        memory.add(role, "x")
    assert memory.is_empty()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"content": 5}, "content"),
        ({"content": ["x"]}, "content"),
        ({"content": {"type": "text"}}, "content"),
        ({"tool_calls": "x"}, "tool_calls"),
        ({"tool_calls": ["x"]}, "tool_calls"),
        ({"tool_call_id": 5}, "tool_call_id"),
        ({"name": 5}, "name"),
        ({"metadata": {1: "x"}}, "metadata"),
        ({"metadata": {"user_id": 5}}, "user_id"),
        ({"metadata": {"session_id": True}}, "session_id"),
        ({"metadata": {"user_id": ""}}, "user_id"),
        ({"metadata": {"user_id": "a\0"}}, "user_id"),
        ({"metadata": {"session_id": "\ud800"}}, "session_id"),
        ({"metadata": {"timestamp": "soon"}}, "timestamp"),
        ({"metadata": {"timestamp": float("nan")}}, "timestamp"),
        ({"metadata": {"timestamp": [1]}}, "timestamp"),
        ({"metadata": {"k": object()}}, "'k'"),
        ({"metadata": "user_id=u"}, "metadata"),
        ({"metadata": 5}, "metadata"),
        ({"tool_calls": [{"id": "c", "function": {"arguments": {1, 2}}}]}, "tool_calls"),
        ({"content": [{"type": "image", "data": object()}]}, "content"),
    ],
    ids=lambda v: re.sub(" at 0x.*?>", ">", repr(v)) if isinstance(v, dict) else "",
)
def test_a_message_that_cannot_be_stored(store, options, said):
    memory = Memory(backend=store)
    with pytest.raises(MessageError, match=said) as caught:
        memory.add("user", **{"content": "x", **options})
    assert "role" not in str(caught.value), "the role was right"
    assert memory.is_empty()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", 5),
        ("id", "a\0"),
        ("id", None),
        ("timestamp", float("inf")),
        ("timestamp", "soon"),
        ("role", "boss"),
        ("content", 5),
        ("content", ["x"]),
        ("tool_calls", "x"),
        ("tool_calls", {"id": "c"}),
        ("tool_call_id", 5),
        ("name", 5),
        ("native", ["x"]),
        ("metadata", ["x"]),
    ],
)
def test_a_message_spoiled_after_it_was_made_is_refused_and_not_stored(store, field, value):
    """Otherwise it would be written, and every later read of its session would fail."""
    good = store.add(Message(role="user", content="good", metadata=SCOPE))
    message = Message(role="user", content="spoiled", metadata=SCOPE)
    setattr(message, field, value)
    with pytest.raises(MessageError, match=field):
        store.add_many([Message(role="user", content="before it", metadata=SCOPE), message])
    assert store.get_all() == [good]


@pytest.mark.parametrize("messages", [Message(role="user"), "text", {"role": "user"}], ids=["one", "text", "dict"])
def test_messages_that_are_not_a_list(store, messages):
    with pytest.raises(InvalidArgumentError, match="list of Message"):
        Memory(backend=store).add_many(messages)


def test_a_list_of_something_else(store):
    memory = Memory(backend=store, filters={"user_id": "u"})
    with pytest.raises(MessageError, match=r"messages\[1\] is a dict"):
        memory.add_many([Message(role="user", content="x"), {"role": "user", "content": "y"}])
    assert memory.is_empty()


@pytest.mark.parametrize("filters", [{}, {"user_id": "u"}], ids=["no defaults", "default filters"])
def test_messages_from_an_iterator_are_not_lost(store, filters):
    memory = Memory(backend=store, filters=filters)
    stored = memory.add_many(Message(role="user", content=str(n)) for n in range(3))
    assert contents(stored) == ["0", "1", "2"]
    assert contents(memory.get_all()) == ["0", "1", "2"]


def test_an_empty_batch(store):
    assert Memory(backend=store).add_many([]) == []
    assert Memory(backend=store).add_turn([]) == []


# --- replacing and deleting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [{}, None])
def test_replacing_without_filters(store, filters):
    memory = Memory(backend=store)
    memory.add("user", "x", SCOPE)
    with pytest.raises(InvalidArgumentError, match=r"user_id, session_id"):
        memory.replace_messages(filters, [])
    assert memory.count() == 1


@pytest.mark.parametrize(
    "filters", [{"topic": "x"}, {"user_id": None}, {"user_id": ["a", "b"]}, {"session_id": []}], ids=str
)
def test_replacing_without_a_scope(store, filters):
    memory = Memory(backend=store)
    memory.add("user", "x", {"topic": "x"})
    with pytest.raises(InvalidArgumentError, match=r"user_id or session_id"):
        memory.replace_messages(filters, [])
    assert memory.count() == 1


def test_replacing_with_another_users_message(store):
    memory = Memory(backend=store)
    memory.add("user", "x", SCOPE)
    for other in ({"user_id": "v"}, {"session_id": "t"}):
        with pytest.raises(InvalidArgumentError, match=rf"{next(iter(other))}.*outside"):
            memory.replace_messages(SCOPE, [Message(role="user", content="y", metadata=other)])
    assert contents(memory.get_all()) == ["x"]


def test_a_replacement_gets_the_scope_that_it_lacks(store):
    memory = Memory(backend=store, filters={"user_id": "u"})
    memory.add("user", "old", {"session_id": "s"})
    memory.add("user", "kept", {"session_id": "t"})
    (stored,) = memory.replace_messages({"session_id": "s"}, [Message(role="user", content="new")])
    assert (stored.user_id, stored.session_id) == ("u", "s")
    assert sorted(contents(memory.get_all())) == ["kept", "new"]


def test_a_replacement_within_other_conditions_leaves_what_does_not_match(store):
    memory = Memory(backend=store)
    for topic in ("a", "b"):
        memory.add("user", topic, {**SCOPE, "topic": topic})
    memory.replace_messages({**SCOPE, "topic": "a"}, [Message(role="user", content="c")])
    assert sorted(contents(memory.get_all())) == ["b", "c"]


def test_deleting_needs_a_scope(store):
    memory = Memory(backend=store, filters={"user_id": "u"})
    memory.add("user", "x")
    with pytest.raises(InvalidArgumentError, match=r"session_id, user_id or both"):
        memory.delete()
    for wrong in ({"user_id": ""}, {"session_id": 5}):
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
            memory.delete(**wrong)
    assert memory.count() == 1


# --- default filters -----------------------------------------------------------------------------------------------


def test_default_filters_give_new_messages_their_scope(store):
    memory = Memory(backend=store, filters={**SCOPE, "topic": "x"})
    message = memory.add("user", "hello", {"user_id": None, "topic": "x"})
    assert message.metadata["user_id"] == "u"
    assert message.session_id == "s"
    other = memory.add("user", "of somebody else", {"user_id": "v"})
    assert other.user_id == "v"
    assert contents(memory.get_all()) == ["hello"]


@pytest.mark.parametrize(
    ("filters", "metadata"),
    [
        ({"user_id": ["a", "b"]}, {"user_id": "b"}),
        ({"topic": ["x", 1]}, {"topic": 1}),
        ({"age": {"gte": 3}}, {"age": 3}),
        ({"timestamp": {"lt": 7}}, {"timestamp": 6.5}),
        ({"timestamp": 7}, {"timestamp": 7}),
    ],
    ids=str,
)
def test_what_would_not_be_found_again_is_refused(store, filters, metadata):
    memory = Memory(backend=store, filters=filters)
    (key,) = filters
    with pytest.raises(MessageError, match=f"{key}=.* would not be found again: .* require {key}="):
        memory.add_many([Message(role="user", content="y", metadata=metadata), Message(role="user", content="x")])
    assert store.is_empty()
    memory.add("user", "y", metadata)
    assert contents(memory.get_all()) == ["y"]


@pytest.mark.parametrize("filters", [{"topic": None}, {"timestamp": {"gt": 7}}, {"user_id": None}], ids=str)
def test_what_the_default_filters_let_through_is_stored(store, filters):
    memory = Memory(backend=store, filters=filters)
    memory.add("user", "x")
    assert contents(memory.get_all()) == ["x"]


def test_a_null_of_the_authors_own_is_kept(store):
    memory = Memory(backend=store, filters={"tenant": "A"})
    assert memory.add("user", "x", {"note": None, "tenant": None}).metadata.items() >= {("note", None), ("tenant", "A")}


def test_a_time_of_its_own_outside_of_the_default_filters(store):
    memory = Memory(backend=store, filters={"timestamp": {"gte": 100}})
    with pytest.raises(MessageError, match=r"timestamp=99\.0"):
        memory.add_many([Message(role="user", content="x", timestamp=99.0)])
    memory.add("user", "y", {"timestamp": 100})
    assert contents(memory.get_all()) == ["y"]


def test_a_calls_filter_takes_the_place_of_the_default_on_its_key(store):
    memory = Memory(backend=store, filters={"user_id": "u", "topic": "x"})
    for user in ("u", "v"):
        for topic in ("x", "y"):
            memory.add("user", f"{user}{topic}", {"user_id": user, "topic": topic})
    assert contents(memory.get_all()) == ["ux"]
    assert contents(memory.get_all(filters={"topic": "y"})) == ["uy"]
    assert contents(memory.search(filters={"user_id": "v"})) == ["vx"]
    assert memory.count({"user_id": ["u", "v"]}) == 2
    assert contents(memory.get_agent_conversation(filters={"topic": {"gte": 1}})) == []
    assert memory.delete(user_id="v") == 1
    assert memory.clear() == 1
    assert sorted(contents(store.get_all())) == ["uy", "vy"]


def test_the_filters_are_the_memorys_own_copy():
    given = {"user_id": "u"}
    memory = Memory(filters=given)
    given["user_id"] = "v"
    assert memory.filters == {"user_id": "u"}


def test_message_limit_is_the_default_limit(store):
    memory = Memory(backend=store, message_limit=2)
    for number in range(4):
        memory.add("user", f"hello {number}", {"session_id": f"s{number}"})
    for read in (memory.get_all, memory.search, memory.get_agent_conversation, lambda: memory.search("hello")):
        assert len(read()) == 2
        assert {m.content for m in read()} == {"hello 2", "hello 3"}
    assert len(memory.get_all(limit=3)) == 3


def test_sessions(store):
    memory = Memory(backend=store)
    for time, (user, session) in enumerate([("u", "s"), ("v", "s"), ("u", None), ("u", "s"), (None, None)]):
        memory.add("user", "x", {"user_id": user, "session_id": session, "timestamp": float(time)})
    listed = [(s.user_id, s.session_id, s.messages, s.first, s.last) for s in memory.sessions()]
    assert listed == [
        (None, None, 1, 4.0, 4.0),
        ("u", "s", 2, 0.0, 3.0),
        ("u", None, 1, 2.0, 2.0),
        ("v", "s", 1, 1.0, 1.0),
    ]
    assert [s.session_id for s in memory.sessions("u")] == ["s", None]
    assert memory.sessions("nobody") == []
    assert [s.user_id for s in Memory(backend=store, filters={"session_id": "s"}).sessions()] == ["u", "v"]
    assert asyncio.run(memory.asessions("v")) == memory.sessions("v")


# --- messages --------------------------------------------------------------------------------------------------------


def test_what_is_stored_is_returned(store):
    memory = Memory(backend=store)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    stored = [
        memory.add(
            MessageRole.USER, [{"type": "text", "text": "hi"}, {"type": "x", "n": [1, None]}], {**SCOPE, "k": 1}
        ),
        memory.add("assistant", None, SCOPE, tool_calls=[call]),
        memory.add("tool", "ok", SCOPE, tool_call_id="c", name="f"),
        memory.backend.add(Message(role="user", content="", native={"framework": {"a": [1.5]}}, metadata=SCOPE)),
    ]
    assert memory.get_all() == stored
    assert stored[1].content == ""
    for message in stored:
        assert message.metadata["message_id"] == message.id
        assert message.metadata["timestamp"] == message.timestamp
    json.dumps([m.model_dump(mode="json") for m in memory.get_all()])


def test_the_same_id_again_replaces_and_keeps_its_place(store):
    first, second = store.add_many(
        [Message(role="user", content=text, timestamp=5.0, metadata=SCOPE) for text in ("a", "b")]
    )
    store.add(first.model_copy(update={"content": "A"}))
    assert contents(store.get_all()) == ["A", "b"]
    # The id is unique within its user and session only.
    store.add(second.model_copy(update={"metadata": {"user_id": "v"}, "content": "other"}))
    assert sorted(contents(store.get_all())) == ["A", "b", "other"]
    store.add_many([first.model_copy(update={"content": text}) for text in ("x", "y")])
    assert contents(store.get_all(filters=SCOPE)) == ["y", "b"]
    assert contents(store.search("y", SCOPE)) == ["y"]
    assert store.search("A x", SCOPE) == []


def test_a_dict_used_twice_gives_two_times(store):
    metadata = {"user_id": "u"}
    memory = Memory(backend=store)
    first = memory.add("user", "one", metadata)
    second = memory.add("user", "two", metadata)
    assert metadata == {"user_id": "u"}
    assert first.timestamp < second.timestamp


def test_metadata_of_a_stored_message_can_be_used_for_another(store):
    memory = Memory(backend=store)
    first = memory.add("user", "one", {"user_id": "u"})
    second = memory.add("user", "two", first.metadata)
    assert second.id != first.id
    assert second.timestamp > first.timestamp
    assert contents(memory.get_all()) == ["one", "two"]


@pytest.mark.parametrize(
    "value", [1000.5, 1000, "1000.5", "1970-01-01T00:16:40.500000+00:00", dt.datetime.fromtimestamp(1000.5, dt.UTC)]
)
def test_a_timestamp_in_the_metadata_is_the_messages_time(store, value):
    memory = Memory(backend=store)
    memory.add("user", "now")
    memory.add("user", "then", {"timestamp": value})
    found = memory.get_all()
    assert contents(found) == ["then", "now"]
    assert found[0].timestamp == found[0].metadata["timestamp"] == pytest.approx(1000.25, abs=0.25)
    assert isinstance(found[0].timestamp, float)


def test_a_batch_without_times_keeps_its_order_before_earlier_times(store):
    store.add_many(
        [
            Message(role="user", content="1"),
            Message(role="user", content="2", timestamp=1000.0),
            Message(role="user", content="3"),
        ]
    )
    assert contents(store.get_all()) == ["1", "2", "3"]


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filters",
    [{}, {"user_id": "u", "k": [1, "a"], "r": {"gte": 1}, "n": None}, {"k": ("a", "b")}, {"k": {"a", "b"}}],
    ids=["none", "some", "a tuple", "a set"],
)
def test_to_dict_is_json(store, filters):
    memory = Memory(backend=store, filters=filters, save_mode="input_output", message_limit=7)
    memory.add("user", "a secret message", {"k": "a", "r": 1})
    described = json.loads(json.dumps(memory.to_dict()))
    assert described["message_limit"] == 7
    assert described["save_mode"] == "input_output"
    assert described["backend"]["name"] == type(store).__name__
    assert "secret" not in json.dumps(described)
    assert "secret" not in repr(memory)
    assert type(store).__name__ in repr(memory)


def test_a_context_manager_closes(new_store):
    for use_async in (False, True):
        store = new_store()
        if use_async:

            async def use(store=store):
                async with Memory(backend=store) as memory:
                    await memory.aadd("user", "x")

            asyncio.run(use())
        else:
            with Memory(backend=store) as memory:
                memory.add("user", "x")
        with pytest.raises(BackendError, match="closed"):
            store.count()
        with pytest.raises(BackendError, match="closed"):
            asyncio.run(store.acount())


def test_every_public_method_has_an_async_twin_with_the_same_arguments():
    for kind in (Memory, SQLite, InMemory):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if name.startswith("_") or name in {"scoped", "to_dict", "to_url"}:  # these do no I/O
                continue
            twin = name[1:] if inspect.iscoroutinefunction(method) else f"a{name}"
            assert hasattr(kind, twin), f"{kind.__name__}.{name}"
            other = getattr(kind, twin)
            assert inspect.iscoroutinefunction(other) != inspect.iscoroutinefunction(method)
            assert inspect.signature(method).parameters.keys() == inspect.signature(other).parameters.keys()


def test_one_name_catches_all_errors(store):
    memory = Memory(backend=store)
    for wrong in (
        lambda: memory.get_all(limit=0),
        lambda: memory.get_all(filters={"k": {}}),
        lambda: memory.add("boss", "x"),
        memory.delete,
        lambda: Memory(message_limit=0),
        lambda: memory.get_all_messages_as_string("html"),
    ):
        with pytest.raises(DynamiqMemoryError) as caught:
            wrong()
        assert isinstance(caught.value, ValueError)
    assert FormatType("xml") is FormatType.XML
