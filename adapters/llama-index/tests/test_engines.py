"""LlamaIndex's chat engines with a `DynamiqMemory`, over SQLite in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage

from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite
from llama_index.memory.dynamiq import DynamiqMemory
from tests.fakes.llama_index import (
    ENGINES,
    WAYS,
    ScriptedLLM,
    ask,
    assistant,
    echo,
    engine_of,
    in_short,
    result,
    texts,
    user,
)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    made = Memory(backend=SQLite(tmp_path / "conversations.db", synchronous="NORMAL"))
    yield made
    made.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ENGINES)
def test_the_second_turn_sees_the_first(memory, kind, way):
    chat = DynamiqMemory(memory, "s", "ann")
    first, second = ScriptedLLM(["Hello Ann."]), ScriptedLLM(echo)
    assert ask(engine_of(kind, first, chat), way, "I am Ann.") == "Hello Ann."
    # Another engine, as on the next request to a server.
    answer = ask(engine_of(kind, second, DynamiqMemory(memory, "s", "ann")), way, "Who am I?")
    prompt = second.prompts[-1]
    assert [text for text in texts(prompt) if text in {"I am Ann.", "Hello Ann."}] == ["I am Ann.", "Hello Ann."]
    assert prompt[0].role.value == "system"
    assert "Be brief." in texts(prompt)[0]
    assert ("The sky is green." in texts(prompt)[0]) is (kind != "simple")
    if kind == "condense":
        assert "I am Ann." in texts(second.prompts[0])[0]  # the prompt that condenses the question
    assert in_short(chat.get_all()) == [
        "user: I am Ann.",
        "assistant: Hello Ann.",
        "user: Who am I?",
        f"assistant: {answer}",
    ]
    assert answer.startswith("answer to: ")


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_shows_sets_and_resets_its_history(memory, kind):
    chat = DynamiqMemory(memory, "s")
    engine = engine_of(kind, ScriptedLLM(lambda messages: "fine"), chat)
    engine.chat("How are you?")
    assert in_short(engine.chat_history) == ["user: How are you?", "assistant: fine"]
    engine.chat("And now?", chat_history=[user("a"), assistant("b")])
    assert texts(engine.chat_history) == ["a", "b", "And now?", "fine"]
    engine.reset()
    assert engine.chat_history == []
    assert memory.count() == 0


def test_a_question_whose_answer_failed_is_kept(memory):
    chat = DynamiqMemory(memory, "s")
    llm = ScriptedLLM([RuntimeError("overloaded"), RuntimeError("overloaded"), "fine"])
    engine = engine_of("simple", llm, chat)
    for way in ("chat", "achat"):
        with pytest.raises(RuntimeError, match="overloaded"):
            ask(engine, way, f"by {way}")
    assert ask(engine, "chat", "again") == "fine"
    assert texts(llm.prompts[-1]) == ["Be brief.", "by chat", "by achat", "again"]
    assert texts(chat.get_all()) == ["by chat", "by achat", "again", "fine"]


@pytest.mark.parametrize("way", ["chat", "achat"])
@pytest.mark.parametrize("kind", [kind for kind in ENGINES if kind != "simple"])
def test_engines_that_retrieve_store_the_question_with_the_answer(memory, kind, way):
    """They read the memory before, so `get` returns the conversation without the question."""
    chat = DynamiqMemory(memory, "s")
    with pytest.raises(RuntimeError, match="overloaded"):
        ask(engine_of(kind, ScriptedLLM([RuntimeError("overloaded")]), chat), way, "Who am I?")
    assert chat.get_all() == []


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_an_old_turn_is_found_for_the_question(memory, kind, strategy):
    chat = DynamiqMemory(memory, "s", strategy=strategy, limit=7)
    for number in range(100):
        chat.put_messages([user(f"My key number {number} is word{number}."), assistant("Noted.")])
    llm = ScriptedLLM(echo)
    ask(engine_of(kind, llm, chat), "chat", "What was word17 about?")
    prompt = texts(llm.prompts[-1])
    assert "My key number 17 is word17." in prompt
    assert len(prompt) <= 9  # with the instructions, and the question where the engine adds it


def test_users_are_apart(memory):
    for name in ("ann", "bea"):
        ask(engine_of("simple", ScriptedLLM(echo), DynamiqMemory(memory, "s", name)), "chat", f"I am {name}.")
    llm = ScriptedLLM(echo)
    ask(engine_of("simple", llm, DynamiqMemory(memory, "s", "bea")), "chat", "Who am I?")
    assert "ann" not in " ".join(texts(llm.prompts[0]))


def test_a_conversation_with_tools_of_others_is_given_to_the_model(memory):
    scoped = memory.scoped("s")
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    scoped.add("user", "What is f?")
    scoped.add("assistant", "", tool_calls=[call])
    scoped.add("tool", "7", tool_call_id="c1")
    scoped.add("assistant", "Seven.")
    llm = ScriptedLLM(echo)
    ask(engine_of("simple", llm, DynamiqMemory(memory, "s")), "chat", "Sure?")
    assert in_short(llm.prompts[0]) == [
        "system: Be brief.",
        "user: What is f?",
        "assistant: c1",
        "tool: 7",
        "assistant: Seven.",
        "user: Sure?",
    ]
    assert llm.prompts[0][3] == result("c1", "7")


CONTINUED = """
import json, sys
from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite
from llama_index.memory.dynamiq import DynamiqMemory
from tests.fakes.llama_index import ENGINES, WAYS, ScriptedLLM, ask, echo, engine_of, texts

with Memory(backend=SQLite(sys.argv[1])) as memory:
    for kind in ENGINES:
        for way in WAYS:
            llm = ScriptedLLM(echo)
            ask(engine_of(kind, llm, DynamiqMemory(memory, f"{kind} {way}", "ann")), way, "Who am I?")
            print(json.dumps(texts(llm.prompts[-1])))
"""


def test_another_process_continues_every_conversation(memory, tmp_path, run_script):
    sessions = [(kind, way) for kind in ENGINES for way in WAYS]
    for kind, way in sessions:
        chat = DynamiqMemory(memory, f"{kind} {way}", "ann")
        ask(engine_of(kind, ScriptedLLM([f"Hello, {kind} {way}."]), chat), way, f"I am {kind} {way}.")
    prompts = run_script(CONTINUED, tmp_path / "conversations.db").stdout.splitlines()
    for (kind, way), prompt in zip(sessions, map(json.loads, prompts), strict=True):
        assert prompt[1:3] == [f"I am {kind} {way}.", f"Hello, {kind} {way}."]
        history = DynamiqMemory(memory, f"{kind} {way}", "ann").get_all()
        assert [message.role.value for message in history] == ["user", "assistant", "user", "assistant"]
        assert history[2] == ChatMessage(role="user", content="Who am I?")
