"""Which messages of a conversation that a framework holds are stored already."""

from __future__ import annotations

import pytest

from dynamiq_memory import Memory, MemoryBackend, Message, MessageRole
from dynamiq_memory.alignment import Alignment, align
from dynamiq_memory.plans import run

ROLES = {"u": MessageRole.USER, "a": MessageRole.ASSISTANT, "t": MessageRole.TOOL}


def said(*texts: str, ids: bool = True) -> list[Message]:
    """Messages from texts such as "u1": the role's letter, and what tells it apart."""
    return [
        Message(role=ROLES[text[0]], content=text, tool_call_id="c" if text[0] == "t" else None)
        if not ids
        else Message(role=ROLES[text[0]], content=text, id=text, tool_call_id="c" if text[0] == "t" else None)
        for text in texts
    ]


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store).scoped("s", "u")


def aligned(memory: Memory, held: list[Message]) -> Alignment:
    return run(memory, align([message.id for message in held], held.__getitem__))


def test_nothing_is_stored(memory: Memory) -> None:
    assert aligned(memory, said("u1", "a1", "u2")) == Alignment(0)
    assert aligned(memory, []) == Alignment(0)


def test_stored_messages_are_known_by_their_ids(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    found = aligned(memory, said("u1", "a1", "u2"))
    assert found.stored == 2
    assert found.first is not None
    assert found.first.id == "u1"
    assert not found.taken


def test_what_the_framework_has_left_out_does_not_matter(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert aligned(memory, said("u0", "u1", "a1", "u2")).stored == 3
    assert aligned(memory, said("u9", "a1", "u2")).stored == 2


def test_only_messages_of_this_session_count(memory: Memory, store: MemoryBackend) -> None:
    Memory(backend=store).scoped("s", "v").add_many(said("u1", "a1"))
    assert aligned(memory, said("u1", "a1", "u2")) == Alignment(0)


def test_a_long_unknown_end_is_read_back_to_what_is_known(memory: Memory) -> None:
    old = [f"u{n}" for n in range(100)]
    memory.add_many(said(*old))
    found = aligned(memory, said(*old, *(f"a{n}" for n in range(500))))
    assert found.stored == 100
    assert found.first is not None
    assert found.first.id == "u0"


def test_an_id_that_an_older_message_has_is_another_message(memory: Memory) -> None:
    """Some models number every answer alike."""
    memory.add_many([*said("u1"), Message(role=MessageRole.ASSISTANT, content="yes", id="same")])
    memory.add_many(said("u2"))
    held = [*said("u2"), Message(role=MessageRole.ASSISTANT, content="no", id="same")]
    found = aligned(memory, held)
    assert found.stored == 1
    assert found.taken == {"same"}


def test_without_ids_what_was_said_is_compared(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "t1", "a1"))
    for known in (["u1", "a1"], ["u0", "a0", "u1", "a1"]):
        found = aligned(memory, said(*known, "u2", ids=False))
        assert found.stored == len(known)
        assert found.first is not None
        assert found.first.text == known[0]


def test_without_ids_a_question_alone_is_new(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1"))
    assert aligned(memory, said("u1", ids=False)).stored == 0


def test_without_ids_the_end_of_the_stored_conversation_must_fit(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert aligned(memory, said("u0", "a0", "u2", ids=False)).stored == 0


def test_without_ids_parts_and_text_compare_by_their_text(memory: Memory) -> None:
    memory.add_many(said("u0", "a0"))
    parts = Message(role=MessageRole.USER, content=[{"type": "text", "text": "u0"}])
    assert aligned(memory, [parts, *said("a0", "u1", ids=False)]).stored == 2
