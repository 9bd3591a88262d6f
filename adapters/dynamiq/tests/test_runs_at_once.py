"""Runs at the same time, runs that summarise, break off, go on, or mask what is said."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from dynamiq import Workflow
from dynamiq.checkpoints.backends.filesystem import FileSystem
from dynamiq.checkpoints.config import CheckpointConfig
from dynamiq.flows import Flow
from dynamiq.memory import MemorySaveMode
from dynamiq.nodes.agents.hooks import RegexHook
from dynamiq.nodes.agents.utils import SummarizationConfig
from dynamiq.nodes.tools.function_tool import function_tool
from dynamiq.nodes.types import InferenceMode
from dynamiq.runnables import RunnableConfig
from dynamiq.types.cancellation import CanceledException, CancellationConfig, CancellationToken

from dynamiq_memory import Memory, MessageRole
from dynamiq_memory_agents import AgentMemory
from tests.fakes.dynamiq.agents import IDS, MODES, final, history, in_short, use, weather

DEFAULT = InferenceMode.DEFAULT


def echo(messages):
    return final(DEFAULT, f"Re: {messages[-1]['content']}")


def test_two_users_in_parallel_threads(agent, talk, model, core):
    model.play(echo)
    memory = AgentMemory(memory=core)

    def chat(user):
        assistant = agent(memory, memory_limit=4)
        for number in range(8):
            talk.ask(assistant, f"{user} asks {number}", user_id=user)

    with ThreadPoolExecutor() as pool:
        list(pool.map(chat, ["ann", "ben", "cem", "dora"]))
    for user in ["ann", "ben", "cem", "dora"]:
        asked = [f"{user} asks {number}" for number in range(8)]
        said = [line for text in asked for line in (f"user: {text}", f"assistant: Thought: Known.\nAnswer: Re: {text}")]
        assert in_short(core.get_all(filters={"user_id": user, "session_id": "monday"})) == said
    assert core.count() == 64
    for prompt in model.prompts:
        asker = prompt[-1]["content"].split()[0]
        assert all(f"{other} asks" not in str(prompt) for other in {"ann", "ben", "cem", "dora"} - {asker})


@pytest.mark.parametrize("limit", [3, 100])
def test_two_runs_of_one_session_keep_both_turns(agent, talk, model, core, limit):
    memory = AgentMemory(memory=core)
    model.play(echo)
    talk.ask(agent(memory), "first")
    together = threading.Barrier(2, timeout=120)

    def meet(messages):
        together.wait()  # both have loaded, neither has saved
        return echo(messages)

    model.play(meet)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda text: talk.ask(agent(memory, memory_limit=limit), text), ["left", "right"]))
    stored = in_short(core.get_all())
    assert stored[:2] == ["user: first", "assistant: Thought: Known.\nAnswer: Re: first"]
    turns = [stored[2:4], stored[4:6]]
    expected = [[f"user: {text}", f"assistant: Thought: Known.\nAnswer: Re: {text}"] for text in ["left", "right"]]
    assert sorted(turns) == expected
    assert len(stored) == 6


def test_many_runs_of_one_session(agent, talk, model, core):
    memory = AgentMemory(memory=core)
    model.play(echo)

    def chat(name):
        assistant = agent(memory, memory_limit=4)
        for number in range(6):
            talk.ask(assistant, f"{name}{number}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(chat, "abcd"))
    stored = in_short(core.get_all())
    assert sorted(stored[::2]) == sorted(f"user: {name}{number}" for name in "abcd" for number in range(6))
    for asked, said in zip(stored[::2], stored[1::2], strict=True):
        assert said.endswith(f"Re: {asked.removeprefix('user: ')}")


# --- summaries -------------------------------------------------------------------------------------------------


def summarising(mode, rounds, last):
    """A model that is also asked for summaries."""
    script = iter([use(mode, "weather", {"city": "Oslo"})] * rounds + [final(mode, last)])

    def speak(messages):
        if "A helpful assistant." not in str(messages[0]["content"]):
            return "They spoke of many things."
        return next(script)

    return speak


@pytest.mark.parametrize("save_mode", list(MemorySaveMode))
@pytest.mark.parametrize(("mode", "preserved"), [*[(mode, 40) for mode in MODES], (MODES[0], 0), (MODES[0], 100_000)])
def test_a_summarising_agent_forgets_nothing(agent, talk, model, mode, save_mode, preserved):
    core = Memory()
    memory = AgentMemory(memory=core, save_mode=save_mode)
    plain = agent(memory, inference_mode=mode)
    for number in range(4):
        model.play([final(mode, f"Answer {number}.")])
        talk.ask(plain, f"Question {number}?")
    before = core.get_all()
    assert len(before) == 8

    config = SummarizationConfig(enabled=True, max_token_context_length=1, max_preserved_tokens=preserved)
    assistant = agent(memory, inference_mode=mode, tools=[weather()], summarization_config=config)
    model.play(summarising(mode, 2, "It rains."))
    talk.ask(assistant, "How is Oslo?")
    assert any("A helpful assistant." not in str(prompt[0]["content"]) for prompt in model.prompts)
    stored = core.get_all()
    assert stored[:8] == before
    assert (stored[8].role, stored[8].text) == (MessageRole.USER, "How is Oslo?")
    assert stored[-1].role is MessageRole.ASSISTANT
    assert "It rains." in stored[-1].text
    assert [m.text for m in stored if m.role is MessageRole.USER] == [
        *(f"Question {number}?" for number in range(4)),
        "How is Oslo?",
    ]
    if save_mode is MemorySaveMode.INPUT_OUTPUT:
        assert len(stored) == 10

    model.play([final(mode, "Answer 5.")])
    talk.ask(agent(memory, inference_mode=mode), "Question 5?")
    assert core.get_all()[: len(stored)] == stored
    assert [m.text for m in core.get_all()][len(stored)] == "Question 5?"
    assert core.count() == len(stored) + 2


# --- runs that break off, and go on -----------------------------------------------------------------------------


def workflow_of(assistant, folder):
    checkpoint = CheckpointConfig(
        enabled=True, backend=FileSystem(base_path=str(folder)), checkpoint_mid_agent_loop_enabled=True
    )
    return Workflow(id="wf", flow=Flow(id="flow", nodes=[assistant], checkpoint=checkpoint))


@pytest.mark.parametrize("save_mode", list(MemorySaveMode))
@pytest.mark.parametrize(
    ("mode", "limit", "how"),
    [
        *[(mode, 3, how) for mode in MODES for how in ("fails", "is killed")],
        *[(MODES[0], limit, "fails, and another goes on") for limit in (3, 100)],
        (MODES[0], 100, "is killed"),
    ],
)
def test_a_run_that_goes_on_from_a_checkpoint(agent, talk, model, mode, save_mode, limit, how, tmp_path):
    core = Memory()
    memory = AgentMemory(memory=core, save_mode=save_mode)
    options = {"id": "node", "inference_mode": mode, "tools": [weather()], "memory_limit": limit}
    assistant = agent(memory, **options)
    for number in range(2):
        model.play([final(mode, f"Answer {number}.")])
        talk.ask(assistant, f"Question {number}?")
    before = core.get_all()

    model.play([use(mode, "weather", {"city": "Oslo"}), 400])
    workflow = workflow_of(assistant, tmp_path)
    result = workflow.run(input_data={"input": "How is Oslo?", **IDS})
    assert result.output["node"]["status"] == "failure"
    assert in_short(core.get_all()) == [*in_short(before), "user: How is Oslo?"]
    if how == "is killed":
        core.replace_messages(IDS, before)
    elif how == "fails, and another goes on":
        model.play([final(mode, "Hello.")])
        talk.ask(agent(memory, inference_mode=mode), "Hello?")
    stored = core.get_all()

    model.play([final(mode, "It rains.")])
    again = workflow_of(agent(memory, **options), tmp_path)
    kept = again.flow.checkpoint.backend.get_list_by_flow("flow", limit=100)
    found = next(one for one in kept if one.node_states and "node" not in one.completed_node_ids)
    config = RunnableConfig(checkpoint=CheckpointConfig(resume_from=found.id))
    result = again.run(input_data={"input": "How is Oslo?", **IDS}, config=config)
    assert result.output["node"]["status"] == "success", result.output["node"]
    assert result.output["node"]["output"]["content"] == "It rains."
    assert "It rains in Oslo." in str(model.prompts[0])
    assert core.get_all()[: len(stored)] == stored
    new = core.get_all()[len(stored) :]
    roles = ["user", "assistant", "tool", "assistant"] if save_mode is MemorySaveMode.FULL else ["user", "assistant"]
    assert [message.role.value for message in new] == (roles if how == "is killed" else roles[1:])
    assert "It rains." in new[-1].text


def test_a_run_that_is_canceled_keeps_what_it_did(agent, talk, model, core):
    token = CancellationToken()
    assistant = agent(AgentMemory(memory=core), tools=[weather()])

    def cancel(messages):
        if "Observation" in messages[-1]["content"]:
            token.cancel()
            return final(DEFAULT, "Never read.")
        return use(DEFAULT, "weather", {"city": "Oslo"})

    model.play(cancel)
    talk.run(assistant, "How is Oslo?", RunnableConfig(cancellation=CancellationConfig(token=token)))
    assert [message.role.value for message in core.get_all()][:3] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_is_canceled_in_a_tool_says_so(agent, talk, model, core, mode):
    token = CancellationToken()

    @function_tool
    def pay(city: str, **_):
        """Pays."""
        token.cancel()
        raise CanceledException

    memory = AgentMemory(memory=core)
    model.play([use(mode, "pay", {"city": "Oslo"}), final(mode, "Done.")])
    config = RunnableConfig(cancellation=CancellationConfig(token=token))
    talk.run(agent(memory, tools=[pay()], inference_mode=mode), "Pay for Oslo.", config)
    stored = core.get_all()
    called = mode is InferenceMode.FUNCTION_CALLING  # dynamiq itself adds a result that says so
    assert [(m.role.value, m.interrupted) for m in stored] == [
        ("user", False),
        ("assistant", not called),
        *([("tool", False)] if called else []),
    ]
    model.play([final(mode, "It was not paid.")])
    talk.ask(agent(memory, tools=[pay()], inference_mode=mode), "And?")
    given = history(model.prompts[-1])
    assert given[-1]["role"] == ("tool" if called else "assistant")
    assert "interrupted" in given[-1]["content"]
    assert core.get_all()[: len(stored)] == stored
    assert not any(m.interrupted for m in core.get_all()[len(stored) :])


# --- hooks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_mode", list(MemorySaveMode))
def test_what_a_hook_masks_is_not_stored(agent, talk, model, save_mode):
    core = Memory()
    hook = RegexHook(patterns=[r"\d{4}-\d{4}"], action="mask")
    memory = AgentMemory(memory=core, save_mode=save_mode)
    config = SummarizationConfig(enabled=True, max_token_context_length=1, max_preserved_tokens=0)
    for options in ({}, {"summarization_config": config, "tools": [weather()]}):
        model.play(summarising(DEFAULT, 1 if options else 0, "Thanks."))
        talk.ask(agent(memory, hooks=[hook], **options), "My card is 1234-5678.")
    # The raw input must not stand in for a masked one that was summarised away.
    assert core.count() >= 3
    assert "1234-5678" not in str(core.get_all())
