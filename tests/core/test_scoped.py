"""A memory of one session, and the metadata that default filters add to messages."""

from __future__ import annotations

import pytest

from dynamiq_memory import ConfigurationError, Memory, MemoryBackend, Message, MessageError, MessageRole


def test_a_scoped_memory_stays_within_its_session(store: MemoryBackend) -> None:
    memory = Memory(backend=store, message_limit=7, save_mode="input_output")
    mine = memory.scoped("s", "u")
    for scope in (("s", "u"), ("s", "v"), ("t", "u"), ("s", None)):
        memory.scoped(*scope).add("user", f"in {scope}")
    assert [message.text for message in mine.get_all()] == ["in ('s', 'u')"]
    assert [message.text for message in memory.scoped("s").get_all()] == ["in ('s', None)"]
    assert [message.text for message in mine.search("in")] == ["in ('s', 'u')"]
    assert (mine.message_limit, mine.save_mode) == (7, memory.save_mode)
    assert memory.scoped("s").clear() == 1
    assert mine.clear() == 1
    assert memory.count() == 2
    assert memory.filters == {}


def test_scoping_keeps_the_default_filters(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters={"user_id": "u", "tenant": "acme"})
    session = memory.scoped("s")
    session.add("user", "hello")
    assert [message.metadata["tenant"] for message in memory.get_all()] == ["acme"]
    assert session.filters == {"user_id": "u", "session_id": "s", "tenant": "acme"}
    assert Memory(backend=store, filters={"session_id": "s"}).scoped(user_id="u").count() == 1


def test_scoping_makes_an_object_of_the_same_class(store: MemoryBackend) -> None:
    class Mine(Memory):
        extra = 1

    assert type(Mine(backend=store).scoped("s")) is Mine


@pytest.mark.parametrize("wrong", ["", 7, "a\0b", b"s"])
@pytest.mark.parametrize("name", ["session_id", "user_id"])
def test_an_id_that_is_not_text_is_refused(name: str, wrong: object) -> None:
    with pytest.raises(MessageError, match=name):
        Memory().scoped(**{"session_id": "s", name: wrong})  # type: ignore[arg-type]


def test_a_scope_that_is_not_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="session_id"):
        Memory().scoped(user_id="u")
    with pytest.raises(ConfigurationError, match="user_id"):
        Memory(filters={"user_id": ["u", "v"]}).scoped("s")


def test_messages_get_what_the_default_filters_fix(store: MemoryBackend) -> None:
    filters = {"user_id": "u", "stars": 5, "open": True, "topic": None, "timestamp": {"gte": 7.0}}
    memory = Memory(backend=store, filters=filters)
    metadata = memory.add("user", "one", {"stars": 4}).metadata
    assert metadata.items() >= {"user_id": "u", "stars": 4, "open": True}.items()
    assert "topic" not in metadata


def test_what_replaces_messages_gets_the_default_filters_too(store: MemoryBackend) -> None:
    memory = Memory(backend=store, filters={"user_id": "u", "session_id": "s", "topic": "x"})
    memory.add("user", "old")
    memory.replace_messages({"topic": "x"}, [Message(role=MessageRole.USER, content="new", metadata={"topic": "x"})])
    memory.replace_messages({"timestamp": {"gte": 0}}, [Message(role=MessageRole.USER, content="newer")])
    assert [message.text for message in memory.get_all()] == ["newer"]
    memory.replace_messages({"user_id": "v"}, [Message(role=MessageRole.USER, content="for v")])
    assert [message.text for message in memory.get_all(filters={"user_id": "v"})] == ["for v"]


@pytest.mark.parametrize(
    ("filters", "session_id", "user_id"),
    [
        ({"user_id": "u"}, "s", "v"),
        ({"session_id": "s", "user_id": "u"}, "t", None),
        ({"user_id": ["u", "w"]}, "s", "v"),
    ],
)
def test_a_session_outside_of_the_default_filters_is_refused(filters, session_id, user_id):
    with pytest.raises(ConfigurationError, match="is outside of the memory's default filter"):
        Memory(filters=filters).scoped(session_id, user_id)


def test_one_of_several_that_the_default_filters_allow():
    assert Memory(filters={"user_id": ["u", "w"]}).scoped("s", "w").filters == {"session_id": "s", "user_id": "w"}
