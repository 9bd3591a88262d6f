"""Which messages of a turn are kept."""

from __future__ import annotations

import asyncio

import pytest

from dynamiq_memory import Memory, MemorySaveMode, Message, select_to_save


def said(script):
    """ "u1" is a user's message of content 1; "a", "s", "t" the others; "c" an assistant's tool call."""
    kinds = {"u": "user", "a": "assistant", "s": "system", "t": "tool", "c": "assistant"}
    messages = []
    for part in script.split():
        message = Message(role=kinds[part[0]], content=part)
        if part[0] == "c":
            message.tool_calls = [{"id": part}]
        elif part[0] == "t":
            message.tool_call_id = "c" + part[1:]
        messages.append(message)
    return messages


@pytest.mark.parametrize(
    ("script", "full", "short"),
    [
        ("", "", ""),
        ("s0", "", ""),
        ("s0 u1 a1", "u1 a1", "u1 a1"),
        ("s0 u1 c1 t1 a1", "u1 c1 t1 a1", "u1 a1"),
        ("u1 a1 c1 t1 a2 c2 t2 a3", "u1 a1 c1 t1 a2 c2 t2 a3", "u1 a3"),
        ("u1 a1 u2 a2", "u1 a1 u2 a2", "u1 a1 u2 a2"),
        # Ended without an answer: the input stays.
        ("u1", "u1", "u1"),
        ("u1 c1", "u1 c1", "u1"),
        ("u1 c1 t1", "u1 c1 t1", "u1"),
        ("u1 a1 c1", "u1 a1 c1", "u1"),
        ("u1 c1 t1 u2 a2", "u1 c1 t1 u2 a2", "u1 u2 a2"),
        ("u1 u2 a2", "u1 u2 a2", "u1 u2 a2"),
        ("a0 u1 a1 s1", "a0 u1 a1", "a0 u1 a1"),
    ],
)
@pytest.mark.parametrize("mode", MemorySaveMode)
def test_what_is_kept(store, script, full, short, mode):
    expected = (full if mode is MemorySaveMode.FULL else short).split()
    messages = said(script)
    assert [m.content for m in select_to_save(messages, mode)] == expected
    assert [m.content for m in select_to_save(iter(messages), mode)] == expected
    memory = Memory(backend=store, save_mode=mode)
    assert [m.content for m in memory.add_turn(messages)] == expected
    assert [m.content for m in memory.get_all()] == expected
    asyncio.run(memory.aadd_turn(messages))  # the same ids: nothing is doubled
    assert [m.content for m in memory.get_all()] == expected


def test_nothing_given_is_changed(store):
    messages = said("s0 u1 c1 t1 a1")
    before = [m.model_copy(deep=True) for m in messages]
    Memory(backend=store, filters={"user_id": "u"}).add_turn(messages)
    assert messages == before
