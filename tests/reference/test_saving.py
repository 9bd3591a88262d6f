"""Rows a, a2, a3, f of the reference's defects: saving, replacing, deleting."""

from __future__ import annotations

import pytest

from dynamiq_memory import Memory, Message, MessageRole

SCOPE = {"user_id": "u-1", "session_id": "s-1"}


def contents(memory):
    return [message.content for message in memory.get_all()]


def turn(number, scope=SCOPE):
    return [
        Message(role=MessageRole.USER, content=f"question {number}", metadata=dict(scope)),
        Message(role=MessageRole.ASSISTANT, content=f"answer {number}", metadata=dict(scope)),
    ]


def test_a_an_agent_with_a_short_memory_keeps_every_turn(store):
    memory = Memory(backend=store)
    for number in range(10):
        loaded = memory.get_agent_conversation(limit=4, filters=SCOPE)
        assert len(loaded) <= 4
        # The reference's agent can only save by replacing the session by its prompt: loaded + new.
        save = getattr(memory, "add_turn", None)
        if save is None:
            memory.replace_messages(SCOPE, [*loaded, *turn(number)])
        else:
            save(turn(number))
    assert contents(memory) == [f"{word} {number}" for number in range(10) for word in ("question", "answer")]


def test_a_saving_a_turn_leaves_ids_and_timestamps_of_the_others(store):
    memory = Memory(backend=store)
    memory.add_turn(turn(0))
    before = [(m.id, m.timestamp) for m in memory.get_all()]
    memory.add_turn(turn(1))
    assert [(m.id, m.timestamp) for m in memory.get_all()][:2] == before


def test_a_what_was_read_back_and_saved_again_keeps_id_timestamp_and_metadata(store):
    memory = Memory(backend=store)
    memory.add_many([*turn(0), *turn(1)])
    stored = memory.get_all()
    memory.replace_messages(SCOPE, stored[2:])
    assert memory.get_all() == stored[2:]
    assert "sequence" not in memory.get_all()[0].metadata


def test_a_a_replacement_without_loading_is_a_true_replacement(store):
    memory = Memory(backend=store)
    memory.add_many([*turn(0), *turn(1, {"user_id": "u-1", "session_id": "s-2"})])
    replaced = memory.replace_messages(SCOPE, turn(7))
    assert [m.content for m in replaced] == ["question 7", "answer 7"]
    assert sorted(contents(memory)) == ["answer 1", "answer 7", "question 1", "question 7"]
    assert memory.replace_messages(SCOPE, []) == []
    assert contents(memory) == ["question 1", "answer 1"]


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param({"unstorable": object()}, id="a value that JSON cannot hold"),
        pytest.param({"timestamp": float("nan")}, id="a time that is none"),
    ],
)
def test_a2_a_replacement_that_fails_on_the_way_changes_nothing(store, spoiled):
    memory = Memory(backend=store)
    for message in turn(0):
        memory.add(message.role, message.content, dict(message.metadata))
    before = memory.get_all()
    first, second = turn(1)
    second.metadata.update(spoiled)
    with pytest.raises(Exception, match=next(iter(spoiled))):
        memory.replace_messages(SCOPE, [first, second])
    assert memory.get_all() == before
    # And ranking knows no more and no less than before.
    assert [m.content for m in memory.search("question", SCOPE)] == ["question 0"]
    assert memory.search("1", SCOPE) == []


def test_a2_a_tokenizer_that_fails_on_the_way_changes_nothing(new_store):
    def tokenize(text):
        if "boom" in text:
            raise RuntimeError("no terms")
        return text.split()

    memory = Memory(backend=new_store(tokenizer=tokenize))
    memory.add_many(turn(0))
    before = memory.get_all()
    with pytest.raises(RuntimeError):
        memory.replace_messages(SCOPE, [*turn(1), Message(role="user", content="boom", metadata=SCOPE)])
    with pytest.raises(RuntimeError):
        memory.add_many([*turn(2), Message(role="user", content="boom", metadata=SCOPE)])
    assert memory.get_all() == before
    assert memory.count() == 2
    assert len(memory.search("question")) == 1


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ({"session_id": "s-1", "user_id": "u-1"}, ["u-1/s-2", "u-2/s-1"]),
        ({"user_id": "u-1"}, ["u-2/s-1"]),
        ({"session_id": "s-1"}, ["u-1/s-2"]),
    ],
)
def test_a3_delete_deletes_the_scope_and_returns_the_count(store, scope, left):
    memory = Memory(backend=store)
    for user, session in (("u-1", "s-1"), ("u-1", "s-2"), ("u-2", "s-1")):
        memory.add(MessageRole.USER, f"{user}/{session}", {"user_id": user, "session_id": session})
    assert memory.delete(**scope) == 3 - len(left)
    assert sorted(contents(memory)) == left
    assert sorted(m.content for m in memory.search("u s 1 2")) == left


def test_f_two_runs_of_one_session_at_once_are_both_kept(store):
    memory = Memory(backend=store)
    memory.add_turn(turn(0))
    in_first = memory.get_agent_conversation(filters=SCOPE)
    in_second = memory.get_agent_conversation(filters=SCOPE)
    assert in_first == in_second
    memory.add_turn(turn(1))
    memory.add_turn(turn(2))
    assert contents(memory) == [f"{word} {n}" for n in range(3) for word in ("question", "answer")]


def test_save_mode_input_output_keeps_the_input_and_the_final_answer(store):
    memory = Memory(backend=store, save_mode="input_output")
    call = {"id": "c-1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    memory.add_turn(
        [
            Message(role="system", content="be kind", metadata=SCOPE),
            Message(role="user", content="weather?", metadata=SCOPE),
            Message(role="assistant", content="I look", tool_calls=[call], metadata=SCOPE),
            Message(role="tool", content="sunny", tool_call_id="c-1", metadata=SCOPE),
            Message(role="assistant", content="Sunny.", metadata=SCOPE),
        ]
    )
    assert contents(memory) == ["weather?", "Sunny."]
