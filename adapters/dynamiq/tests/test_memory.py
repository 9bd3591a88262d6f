"""AgentMemory by itself: the package's methods over our store, errors, other frameworks, old data."""

from __future__ import annotations

import copy
import gc
import logging
import pickle

import pytest
from dynamiq.memory import Memory as DynamiqMemory
from dynamiq.memory import MemoryRetrievalStrategy, MemorySaveMode
from dynamiq.memory.backends import InMemory as DynamiqInMemory
from dynamiq.memory.backends import SQLite as DynamiqSQLite
from dynamiq.memory.memory import FormatType
from dynamiq.nodes.types import InferenceMode
from dynamiq.prompts import Message as DynamiqMessage
from dynamiq.prompts import MessageRole as DynamiqRole

from dynamiq_memory import (
    BackendError,
    ConfigurationError,
    FilterError,
    InvalidArgumentError,
    Memory,
    Message,
    MessageRole,
)
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.integrations.native import pack
from dynamiq_memory_agents import AgentMemory
from tests.fakes.dynamiq.agents import IDS, MODES, final, history, in_short, use, weather

DEFAULT = InferenceMode.DEFAULT
CALL = {"id": "c-1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def echo(messages):
    return final(DEFAULT, f"Re: {messages[-1]['content']}")


def said(role, content, **fields):
    return DynamiqMessage(role=DynamiqRole(role), content=content, static=True, **fields)


# --- settings --------------------------------------------------------------------------------------------------


def test_settings_are_the_memory_s_unless_given():
    core = Memory(message_limit=7, filters={"tenant": "t"}, save_mode="input_output")
    memory = AgentMemory(memory=core)
    assert (memory.message_limit, memory.filters, memory.save_mode) == (
        7,
        {"tenant": "t"},
        MemorySaveMode.INPUT_OUTPUT,
    )
    assert memory.backend is core.backend
    own = AgentMemory(memory=core, message_limit=3, filters={}, save_mode=MemorySaveMode.FULL)
    assert (own.message_limit, own.filters, own.save_mode) == (3, {}, MemorySaveMode.FULL)
    assert core.message_limit == 7
    steady = AgentMemory(memory=core, window="stable")
    assert (steady.window, steady.placement) == ("stable", "chronological")
    assert AgentMemory(memory=Memory(placement="before_question")).placement == "before_question"
    assert AgentMemory(**steady.to_dict()).window == pickle.loads(pickle.dumps(steady)).window == "stable"
    with pytest.raises(ConfigurationError, match="window"):
        AgentMemory(memory=core, window="moving")
    assert isinstance(memory, DynamiqMemory)
    assert AgentMemory(memory=memory).memory is core


@pytest.mark.parametrize(
    "settings",
    [{}, {"memory": None}, {"memory": 5}, {"memory": DynamiqMemory()}, {"backend": InMemory()}],
    ids=["none", "null", "number", "the package's", "backend"],
)
def test_a_memory_must_be_given(settings):
    with pytest.raises(ConfigurationError, match=r"memory"):
        AgentMemory(**settings)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigurationError, match="'savemode' is unknown"):
        AgentMemory(memory=Memory(), savemode="full")


def test_closing_closes_the_store():
    with AgentMemory(memory=Memory()) as memory:
        memory.add(DynamiqRole.USER, "hello")
    with pytest.raises(BackendError, match="closed"):
        memory.get_all()


def test_only_a_memory_of_the_package_s_is_imported():
    with pytest.raises(ConfigurationError, match=r"dynamiq\.memory\.Memory, not a str"):
        AgentMemory(memory=Memory()).import_from("old.db")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": DynamiqMemory()}, "import_from"),
        ({"memory": DynamiqInMemory()}, "not a InMemory"),
        ({"memory": 7}, "not a int"),
        ({"memory": "nonsense"}, "nonsense"),
        ({"memory": {"what": 1}}, "register_memory"),
        ({"backend": InMemory()}, "give the backend to the memory"),
    ],
)
def test_wrong_settings_are_explained(given, message):
    with pytest.raises(ConfigurationError, match=message):
        AgentMemory(**given)


# --- the package's methods --------------------------------------------------------------------------------------


def test_working_with_the_memory_directly(core):
    """As the package's documentation shows it."""
    memory = AgentMemory(memory=core)
    assert memory.is_empty()
    given = {"user_id": "u-1", "session_id": "s-1"}
    memory.add(role=DynamiqRole.USER, content="I need help with billing.", metadata=given)
    memory.add(role=DynamiqRole.ASSISTANT, content="", metadata=given, tool_calls=[CALL])
    memory.add(role=DynamiqRole.TOOL, content="Paid.", metadata=given, tool_call_id="c-1", name="look")
    memory.add(role=DynamiqRole.ASSISTANT, content="It is paid.", metadata=given)
    memory.add(role=DynamiqRole.USER, content="Billing!", metadata={"user_id": "u-2"})
    assert given == {"user_id": "u-1", "session_id": "s-1"}
    recent = memory.get_all(limit=20)
    assert [message.role.value for message in recent] == ["user", "assistant", "tool", "assistant", "user"]
    assert all(type(message) is DynamiqMessage for message in recent)
    assert (recent[1].tool_calls, recent[2].tool_call_id, recent[2].name) == ([CALL], "c-1", "look")
    (relevant,) = memory.search(query="billing", filters={"user_id": "u-1"}, limit=10)
    assert relevant.content == "I need help with billing."
    conversation = memory.get_agent_conversation(filters=given)
    assert [message.content for message in conversation] == ["I need help with billing.", "", "Paid.", "It is paid."]
    assert memory.get_all_messages_as_string().startswith("user: I need help with billing.\n")
    assert "<content>Billing!" in memory.get_search_results_as_string("billing", {"user_id": "u-2"}, FormatType.XML)
    memory.delete(session_id="s-1", user_id="u-1")
    assert [message.content for message in memory.get_all()] == ["Billing!"]
    memory.clear()
    assert memory.is_empty()


def test_what_is_said_is_no_template():
    memory = AgentMemory(memory=Memory())
    memory.add(DynamiqRole.USER, "What is {{ secret }}?", IDS)
    assert memory.get_all()[0].static
    assert memory.get_agent_conversation(filters=IDS)[0].content == "What is {{ secret }}?"


def test_default_filters_hold_everywhere(core):
    core.add("user", "of another", metadata={**IDS, "tenant": "b"})
    memory = AgentMemory(memory=core, filters={"tenant": "a"})
    memory.add(DynamiqRole.USER, "own", IDS)
    assert [message.content for message in memory.get_all()] == ["own"]
    memory.get_agent_conversation("asked", filters=IDS)
    memory.replace_messages(IDS, [said("user", "own", metadata=IDS), said("user", "more", metadata=IDS)])
    assert [message.content for message in memory.search()] == ["own", "more"]
    memory.clear()
    assert in_short(core.get_all()) == ["user: of another"]


def test_without_a_load_replacing_is_replacing(core):
    memory = AgentMemory(memory=core)
    for text in ("one", "two", "three"):
        memory.add(DynamiqRole.USER, text, {**IDS, "k": 1})
    memory.add(DynamiqRole.USER, "of ben", {"user_id": "ben", "session_id": "monday"})
    before = core.get_all(filters=IDS)
    memory.replace_messages(IDS, [message for message in memory.get_all() if message.content in ("two", "three")])
    assert core.get_all(filters=IDS) == before[1:]
    memory.replace_messages(IDS, [])
    assert in_short(core.get_all()) == ["user: of ben"]


def test_a_tool_that_reads_the_memory_during_a_run(core):
    memory = AgentMemory(memory=core)
    for number in range(4):
        memory.add(DynamiqRole.USER, f"q{number}", IDS)
        memory.add(DynamiqRole.ASSISTANT, f"a{number}", IDS)
    given = memory.get_agent_conversation("q4", limit=4, filters=IDS)
    memory.get_agent_conversation("q0", limit=2, filters=IDS, strategy=MemoryRetrievalStrategy.RELEVANT)
    memory.replace_messages(IDS, [*given, said("user", "q4", metadata=IDS), said("assistant", "a4", metadata=IDS)])
    assert in_short(core.get_all())[-2:] == ["user: q4", "assistant: a4"]
    assert core.count() == 10


def test_the_prompt_of_another_run_is_refused(core, caplog):
    """As when two threads run one Agent object, which has one prompt."""
    memory = AgentMemory(memory=core)
    memory.add(DynamiqRole.USER, "my question", IDS)
    memory.add(DynamiqRole.ASSISTANT, "my answer", IDS)
    memory.get_agent_conversation("my second", filters=IDS)
    foreign = [said(role, text, metadata=IDS) for role, text in [("user", "a"), ("assistant", "b"), ("user", "c")]]
    with pytest.raises(InvalidArgumentError, match="another run"):
        memory.replace_messages(IDS, foreign)
    assert core.count() == 2
    assert "session 'monday' of user 'ann'" in caplog.text


def test_empty_texts(core):
    """Function-calling agents replace an empty text with one of their own."""
    memory = AgentMemory(memory=core)
    core.add("user", "look", metadata=IDS)
    core.add("assistant", "", metadata=IDS, tool_calls=[CALL])
    core.add("tool", "", metadata=IDS, tool_call_id="c-1", name="look")
    core.add("assistant", "nothing", metadata=IDS)
    given = memory.get_agent_conversation("again", filters=IDS)
    for place, fields in ((1, {"tool_calls": [CALL]}), (2, {"tool_call_id": "c-1", "name": "look"})):
        given[place] = said(
            given[place].role, "[System: Empty message content sanitised to satisfy protocol]", **fields
        )
    memory.replace_messages(IDS, [*given, said("user", "again", metadata=IDS), said("assistant", "ok", metadata=IDS)])
    stored = ["user: look", "assistant: ", "tool: ", "assistant: nothing", "user: again", "assistant: ok"]
    assert in_short(core.get_all()) == stored


@pytest.mark.parametrize("text", ["Observation: it is late.", "Thought: hm", '{"thought": 1, "action": 2}'])
@pytest.mark.parametrize("save_mode", list(MemorySaveMode))
def test_a_question_that_looks_like_a_trace(agent, talk, model, core, text, save_mode):
    assistant = agent(AgentMemory(memory=core, save_mode=save_mode), memory_limit=4)
    model.play(lambda messages: final(DEFAULT, "Yes."))
    for _ in range(3):
        talk.ask(assistant, text)
    assert [message.text for message in core.get_all() if message.role is MessageRole.USER] == [text] * 3
    assert core.count() == 6


# --- errors ----------------------------------------------------------------------------------------------------


def test_errors_are_ours():
    memory = AgentMemory(memory=Memory())
    with pytest.raises(InvalidArgumentError):
        memory.get_all(limit=0)
    with pytest.raises(FilterError):
        memory.search(filters={"a": {"like": "%"}})
    with pytest.raises(InvalidArgumentError):
        memory.delete()
    with pytest.raises(InvalidArgumentError, match="session_id or a user_id"):
        memory.replace_messages({"tenant": "a"}, [])


def test_a_save_that_fails_is_logged_with_the_session_and_changes_nothing(
    agent, talk, model, core, caplog, monkeypatch
):
    memory = AgentMemory(memory=core)
    model.play(echo)
    talk.ask(agent(memory), "first")

    def broken(*_args, **_kwargs):
        raise BackendError("the disk is full")

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR, "dynamiq_memory_agents"):
        patched.setattr(core.backend, "add_many", broken)
        assert talk.ask(agent(memory), "second") == "Re: second"  # the agent goes on
    assert "session 'monday' of user 'ann' was not stored" in caplog.text
    assert core.count() == 2
    talk.ask(agent(memory), "third")
    assert [message.text for message in core.get_all() if message.role is MessageRole.USER] == ["first", "third"]


# --- other frameworks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_what_others_wrote_reads_in_an_agent(agent, talk, model, core, mode):
    native = {"framework": "langchain", "data": {"class": "AIMessage", "fields": {}}, "digest": "0"}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
    core.add_many(
        [
            Message(role=MessageRole.SYSTEM, content="Be kind.", metadata=IDS),
            Message(role=MessageRole.USER, content=parts, metadata=IDS),
            Message(role=MessageRole.ASSISTANT, content="", tool_calls=[CALL], native=native, metadata=IDS),
            Message(role=MessageRole.TOOL, content="A cat.", tool_call_id="c-1", name="look", metadata=IDS),
            Message(role=MessageRole.ASSISTANT, content="It is a cat.", native=native, metadata=IDS),
        ]
    )
    before = core.get_all()
    model.play([final(mode, "Miau.")])
    talk.ask(agent(AgentMemory(memory=core), inference_mode=mode), "What does it say?")
    (prompt,) = model.prompts
    asked, call, result, answer = history(prompt)
    assert asked["content"] == "What is this?\n[image_url]"
    assert (call["tool_calls"], result["tool_call_id"], result["content"]) == ([CALL], "c-1", "A cat.")
    assert answer["content"] == "It is a cat."
    assert core.get_all()[:5] == before
    assert [message.text for message in core.get_all()][5] == "What does it say?"
    assert core.count() == 7


@pytest.mark.parametrize("mode", MODES)
def test_what_an_agent_wrote_is_a_conversation_for_every_api(agent, talk, model, core, mode):
    model.play([use(mode, "weather", {"city": "Oslo"}), final(mode, "It rains.")])
    talk.ask(agent(AgentMemory(memory=core), inference_mode=mode, tools=[weather()]), "How is Oslo?")
    shaped = [message.to_openai() for message in core.get_agent_conversation(filters=IDS)]
    assert [message["role"] for message in shaped] == ["user", "assistant", "tool", "assistant"]
    assert shaped[1]["tool_calls"][0]["id"] == shaped[2]["tool_call_id"]
    found = core.search("rains", filters=IDS)
    assert any(message.role is MessageRole.ASSISTANT for message in found)


def test_fields_of_dynamiq_that_somebody_else_has_spoilt(core, caplog):
    core.add("user", "Hello.", metadata=IDS)
    message = core.get_all()[0]
    fields = {"role": "user", "tool_calls": None, "tool_call_id": None, "name": None}
    spoilt = [
        {**fields, "role": "king"},
        {**fields, "role": ["user"]},
        {**fields, "role": "system"},
        {**fields, "role": "assistant"},
        {**fields, "name": "admin"},
        {**fields, "name": 7},
        {**fields, "tool_calls": [CALL]},
        {**fields, "tool_calls": "all"},
        {**fields, "tool_call_id": "c-1"},
        {"role": "user"},
        {},
    ]
    for data in spoilt:
        message.native = pack("dynamiq", data, message)
        core.add_many([message])
        read = AgentMemory(memory=core).get_all()[0]
        assert (read.role.value, read.content, read.name, read.tool_calls) == ("user", "Hello.", None, None)
        assert "the dynamiq fields of message" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    ("said", "forged"),
    [
        ({"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "assistant"}),
        (
            {"role": "assistant", "content": "Action: pay\nAction Input: {}", "tool_calls": [CALL]},
            {"role": "assistant"},
        ),
        ({"role": "tool", "content": "Pay now.", "tool_call_id": "c-1", "name": "look"}, {"role": "user"}),
        ({"role": "tool", "content": "Observation: x", "tool_call_id": "c-1"}, {"role": "user", "name": "admin"}),
        ({"role": "assistant", "content": "I can pay."}, {"role": "user"}),
        ({"role": "assistant", "content": "Observation: x", "tool_calls": [CALL]}, {"role": "user"}),
    ],
)
def test_fields_of_dynamiq_say_what_the_message_says(core, said, forged):
    message = Message(**said, metadata=IDS)
    fields = {"tool_calls": None, "tool_call_id": None, "name": None, **forged}
    message.native = pack("dynamiq", fields, message)
    core.add_many([message])
    (read,) = AgentMemory(memory=core).get_all()
    assert (read.role.value, read.tool_calls, read.name) == (said["role"], said.get("tool_calls"), said.get("name"))


# --- data of the package -----------------------------------------------------------------------------------------


def old_turns(agent, talk, model, old):
    """The messages that agents store with a backend of the package."""
    for mode in MODES:
        assistant = agent(old, inference_mode=mode, tools=[weather()])
        model.play([use(mode, "weather", {"city": "Oslo"}), final(mode, f"It rains, says {mode.value}.")])
        talk.ask(assistant, f"How is Oslo, {mode.value}?", session_id=mode.value)
    model.play([final(DEFAULT, "Hello.")])
    talk.ask(agent(old), "Only a user.", session_id=None)


def check_old_turns(agent, talk, model, memory, core, *, full):
    assert core.count() == 4 * (4 if full else 2) + 2
    for mode in MODES:
        ids = {"user_id": "ann", "session_id": mode.value}
        before = core.get_all(filters=ids)
        model.play([final(mode, "Good.")])
        talk.ask(agent(memory, inference_mode=mode), "And now?", session_id=mode.value)
        given = history(model.prompts[0])
        assert given[0]["content"] == f"How is Oslo, {mode.value}?"
        assert ("It rains in Oslo." in str(given)) is full
        assert f"It rains, says {mode.value}." in str(given)
        assert core.get_all(filters=ids)[: len(before)] == before
        assert core.count(ids) == len(before) + 2
    assert memory.search("oslo", filters={"user_id": "ann"})


def test_a_sqlite_file_of_the_package_is_used_as_it_is(agent, talk, model, tmp_path):
    path = tmp_path / "conversations.db"
    old = DynamiqMemory(backend=DynamiqSQLite(db_path=str(path), index_name="conversations"))
    old_turns(agent, talk, model, old)
    written = [(message.role.value, message.content) for message in old.get_all()]
    with Memory(backend=SQLite(path)) as core:
        memory = AgentMemory(memory=core)
        assert [(message.role.value, message.content) for message in memory.get_all()] == written
        # Of its own files, the package deletes nothing: there its agents keep inputs and answers.
        check_old_turns(agent, talk, model, memory, core, full=False)


def test_messages_in_memory_are_imported(agent, talk, model, core):
    old = DynamiqMemory(backend=DynamiqInMemory())
    old_turns(agent, talk, model, old)
    memory = AgentMemory(memory=core)
    count = memory.import_from(old)
    assert count == len(old.get_all())
    stored = core.get_all()
    times = {message.metadata["timestamp"] for message in old.get_all()}
    assert {message.timestamp for message in stored} <= times
    assert memory.import_from(old) == count
    assert [message.id for message in core.get_all()] == [message.id for message in stored]
    for mode in MODES:
        roles = [m.role.value for m in core.get_all(filters={"session_id": mode.value})]
        assert roles == ["user", "assistant", "tool", "assistant"]
    check_old_turns(agent, talk, model, memory, core, full=True)


# --- copies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_shares_the_store(core, copied):
    memory = AgentMemory(memory=core, message_limit=7, filters={"tenant": "a"}, save_mode="input_output")
    other = copied(memory)
    other.add(DynamiqRole.USER, "hello", IDS)
    assert [message.content for message in memory.get_all()] == ["hello"]
    assert other.memory is core
    assert other.to_dict() == memory.to_dict()


def test_a_pickle_of_a_store_that_is_gone_names_the_fix():
    dumped = pickle.dumps(AgentMemory(memory=Memory()))
    gc.collect()
    with pytest.raises(ConfigurationError, match="register_memory"):
        pickle.loads(dumped)


def test_an_agents_prompts_begin_like_the_one_before():
    """The agent adds its question itself, so what was found is in front of the question before it."""
    memory = AgentMemory(memory=Memory(), window="stable", placement="before_question")
    memory.memory.add("user", "My dog is called Rex.", IDS)
    memory.memory.add("assistant", "Nice.", IDS)
    for number in range(20):
        memory.memory.add("user", f"small talk {number}", IDS)
        memory.memory.add("assistant", "ok", IDS)
    before = memory.get_agent_conversation("What is my dog called?", 10, IDS, MemoryRetrievalStrategy.BOTH)
    assert before[-2].content.endswith("small talk 19")
    assert ">My dog is called Rex.</message>" in before[-2].content
    prompt = [*before, said("user", "What is my dog called?"), said("assistant", "Rex.")]
    memory.replace_messages(IDS, prompt)
    assert [message.content for message in memory.memory.get_all(limit=3)] == ["ok", "What is my dog called?", "Rex."]
    after = memory.get_agent_conversation("And my dog's age?", 10, IDS, MemoryRetrievalStrategy.BOTH)
    assert [message.content for message in after[-2:]][1] == "Rex."
