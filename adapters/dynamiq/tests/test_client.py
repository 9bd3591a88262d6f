"""The dynamiq package's own backend for its platform, as a client of our service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from dynamiq.connections import Dynamiq as TheirConnection
from dynamiq.memory import Memory as TheirMemory
from dynamiq.memory.backends import Dynamiq as TheirBackend
from dynamiq.memory.backends.dynamiq import DynamiqMemoryError
from dynamiq.prompts import Message as TheirMessage
from dynamiq.prompts import MessageRole as TheirRole

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import Dynamiq, SQLite
from dynamiq_memory.server.keys import KeyStore
from tests.service.serving import Service, serving

IDS = {"user_id": "alex", "session_id": "monday"}


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore(tmp_path / "keys.db") as store:
        yield store


@pytest.fixture
def service(tmp_path: Path, keys: KeyStore) -> Iterator[Service]:
    with SQLite(tmp_path / "memory.db", synchronous="NORMAL") as store, serving(store, keys) as service:
        yield service


@pytest.fixture
def connection(service: Service, keys: KeyStore) -> TheirConnection:
    _, text = keys.create(["m"])
    return TheirConnection(url=service.url, api_key=text)


@pytest.fixture
def theirs(connection: TheirConnection) -> TheirBackend:
    return TheirBackend(connection=connection, memory_id="m", **IDS)


def test_their_backend_works_unchanged(theirs: TheirBackend) -> None:
    assert theirs.is_empty()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    theirs.add(TheirMessage(role=TheirRole.USER, content="my dog is called Rex", metadata={"topic": "dogs", "n": 7}))
    theirs.add(TheirMessage(role=TheirRole.ASSISTANT, content="", tool_calls=[call]))
    theirs.add(TheirMessage(role=TheirRole.TOOL, content="42", tool_call_id="c", name="f"))
    found = theirs.get_all()
    assert [message.content for message in found] == ["my dog is called Rex", "", "42"]
    assert [message.role for message in found] == [TheirRole.USER, TheirRole.ASSISTANT, TheirRole.TOOL]
    assert found[1].tool_calls == [call]
    assert (found[2].tool_call_id, found[2].name) == ("c", "f")
    assert found[0].metadata.items() >= {**IDS, "topic": "dogs", "n": 7}.items()
    assert not theirs.is_empty()
    assert [message.content for message in theirs.get_all(limit=1)] == ["42"]
    assert [message.content for message in theirs.search("rex")] == ["my dog is called Rex"]
    for filters, count in (
        ({"topic": "dogs"}, 1),
        ({"topic": "cats"}, 0),
        ({"n": 7}, 1),
        ({"topic": ["x", "dogs"]}, 1),
    ):
        assert len(theirs.search(filters=filters)) == count


def test_their_memory_keeps_the_order_of_what_is_said_at_once(theirs: TheirBackend) -> None:
    memory = TheirMemory(backend=theirs)
    for number in range(30):
        memory.add(TheirRole.USER if number % 2 == 0 else TheirRole.ASSISTANT, f"{number}", metadata=dict(IDS))
    given = memory.get_agent_conversation(limit=10, filters=IDS)
    assert [message.content for message in given] == [f"{number}" for number in range(20, 30)]
    memory.replace_messages(IDS, given[:4])
    assert [message.content for message in theirs.get_all()] == ["20", "21", "22", "23"]


def test_they_delete_their_sessions_alone(theirs: TheirBackend) -> None:
    other = {"user_id": "alex", "session_id": "tuesday"}
    for scope in (IDS, other):
        theirs.add(TheirMessage(role=TheirRole.USER, content="hello", metadata=dict(scope)))
    theirs.delete(session_id="monday")
    assert theirs.get_all() == []
    assert len(theirs.search(filters=other)) == 1


def test_both_see_what_the_other_wrote(theirs: TheirBackend, connection: TheirConnection) -> None:
    with Memory(backend=Dynamiq(connection, "m"), filters=IDS) as ours:
        assert isinstance(ours.backend, Dynamiq)
        assert ours.backend.is_service
        theirs.add(TheirMessage(role=TheirRole.USER, content="by them"))
        stored = ours.add_many(
            [Message(role="assistant", content="by us", native={"x": {"a": [1.0]}}, metadata={"k": 1})]
        )
        assert [message.content for message in theirs.get_all()] == ["by them", "by us"]
        assert [message.content for message in ours.get_all()] == ["by them", "by us"]
        assert ours.get_all()[-1] == stored[0]
        # A message that they read and write again is a new one, and does not change ours.
        copied = theirs.get_all()[-1]
        theirs.add(TheirMessage(role=TheirRole.USER, content="copied", metadata=copied.metadata))
        assert [message.content for message in ours.get_all()] == ["by them", "by us", "copied"]


def test_a_wrong_key_is_refused(service: Service, keys: KeyStore) -> None:
    _, other = keys.create(["other"])
    for key, status in (("wrong", "401"), (other, "403")):
        backend = TheirBackend(connection=TheirConnection(url=service.url, api_key=key), memory_id="m", **IDS)
        with pytest.raises(DynamiqMemoryError, match=status):
            backend.get_all()
