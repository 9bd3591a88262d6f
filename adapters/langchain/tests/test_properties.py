"""For any stored session and any state of an agent: what the model is given is right, and the state gets stored."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool

from dynamiq_memory import Memory, Message
from dynamiq_memory.conversation.calls import is_question, results_of
from dynamiq_memory.testing.providers import Provider, refusals
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware
from langchain_dynamiq_memory._messages import from_message, to_message
from tests.fakes.langchain import Talker, calls
from tests.fakes.sessions import Written, any_sessions, examples, whole_sessions

CONFIG = {"configurable": {"user_id": "u", "session_id": "s"}}
AS_STORED = ("ids_are_unique", "results_are_answered_before_the_next_question")
NOW = Message(role="user", content="And now?")
SUMMARY = HumanMessage("They talked.", id="note", additional_kwargs={"lc_source": "summarization"})


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [f"{message.type}: {message.text}" for message in messages]


# --- histories --------------------------------------------------------------------------------------------------------


def window(memory: Memory, limit: int | None, *, asynchronous: bool) -> list[BaseMessage]:
    history = DynamiqChatMessageHistory(memory, "s", "u", limit=limit)
    return asyncio.run(history.aget_messages()) if asynchronous else history.messages


def write(written: Written) -> Memory:
    memory = Memory(max_tokens=None)
    DynamiqChatMessageHistory(memory, "s", "u").add_messages([from_message(message) for message in written.messages])
    return memory


@examples(25)
@given(whole_sessions(), st.integers(1, 12), st.booleans())
def test_a_window_of_finished_turns_is_accepted_by_every_provider(
    written: Written, limit: int, asynchronous: bool
) -> None:
    memory = write(written)
    sent = [to_message(message) for message in window(memory, limit, asynchronous=asynchronous)]
    assert len(sent) <= limit
    for provider in written.providers:
        assert refusals([*sent, NOW], provider) == []


@examples(25)
@given(any_sessions(), st.integers(1, 12), st.booleans())
def test_a_window_is_accepted_except_for_what_is_stored_so(written: Written, limit: int, asynchronous: bool) -> None:
    memory = write(written)
    given_now = window(memory, limit, asynchronous=asynchronous)
    sent = [to_message(message) for message in given_now]
    for provider in written.providers:
        assert [fault for fault in refusals([*sent, NOW], provider) if not fault.startswith(AS_STORED)] == []
    ends = [
        before
        for before, after in itertools.pairwise(window(memory, 100_000, asynchronous=False))
        if is_question(to_message(after))
    ]
    for before, after in itertools.pairwise(given_now):
        assert before in ends or not results_of(to_message(before)) or not is_question(to_message(after))


@examples(25)
@given(any_sessions())
def test_a_history_without_a_limit_has_everything(written: Written) -> None:
    messages = [from_message(message) for message in written.messages]
    assert window(write(written), None, asynchronous=False) == messages


# --- agents -----------------------------------------------------------------------------------------------------------


@tool
def look(port: str) -> str:
    """Look up a port."""
    return f"found {port}"


class Turn(NamedTuple):
    """A turn of a conversation: how many rounds of calls it has, and whether another device asks."""

    rounds: int
    calls: int
    elsewhere: bool


class Held(NamedTuple):
    """What of the conversation an agent's state has when the next question is asked."""

    shape: str
    first: int
    last: int


TURNS = st.lists(
    st.sampled_from([Turn(r, c, e) for r in (0, 0, 1, 2) for c in (1, 2) for e in (False, False, False, True)]),
    min_size=1,
    max_size=4,
)
HELD = st.sampled_from(
    [
        Held(shape, first, last)
        for shape in ("everything", "nothing", "suffix", "first and last", "summary", "edited")
        for first in (1, 2)
        for last in (1, 2, 3, 5)
    ]
)
ASKED = st.sampled_from(
    [(strategy, limit) for strategy in ("all", "relevant", "both") for limit in (1, 2, 3, 5, 8, 1_000)]
)


class Conversation:
    """An agent with a memory, whose state a client holds, and the same on another device."""

    def __init__(self, strategy: str, limit: int, *, asynchronous: bool) -> None:
        self.memory = Memory()
        middleware = DynamiqMemoryMiddleware(self.memory, strategy=strategy, limit=limit)
        self.talker = Talker(asynchronous=asynchronous)
        self.model, self.agent = self.talker.agent(self._next, [middleware], [look])
        self.said: list[AIMessage | str] = []
        self.state: list[BaseMessage] = []
        self.turns = 0

    def _next(self, _: list[BaseMessage]) -> AIMessage | str:
        return self.said.pop(0)

    def ask(self, turn: Turn, held: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Ask a question, with texts and ids that no other turn has; return the state after it."""
        self.turns += 1
        name = f"turn {self.turns}"
        self.said = []
        for number in range(turn.rounds):
            said = calls(*[("look", {"port": f"{name}.{number}.{call}"}) for call in range(turn.calls)])
            for call in said.tool_calls:
                call["id"] = f"{call['id']}-{name}-{number}"
            self.said.append(said)
        self.said.append(f"answer of {name}")
        question = HumanMessage(f"question of {name}", id=f"q-{self.turns}")
        after: list[BaseMessage] = self.talker.invoke(self.agent, {"messages": [*held, question]}, CONFIG)["messages"]
        return after

    def talk(self, turns: Sequence[Turn]) -> None:
        """Have a conversation; what is asked elsewhere is not in the state."""
        elsewhere: list[BaseMessage] = []
        for turn in turns:
            if turn.elsewhere:
                elsewhere = self.ask(turn, elsewhere)
            else:
                self.state = self.ask(turn, self.state)

    def stored(self) -> list[BaseMessage]:
        return DynamiqChatMessageHistory(self.memory, "s", "u").messages


def begin_of_turn(state: Sequence[BaseMessage], start: int) -> int:
    """Move a cut to the question before it; see the tests that are expected to fail for other cuts."""
    return next((place for place in range(start, -1, -1) if isinstance(state[place], HumanMessage)), 0)


def hold(state: list[BaseMessage], held: Held) -> list[BaseMessage]:
    """What a client, or a node that trims, leaves of a state."""
    start = begin_of_turn(state, max(0, len(state) - held.last)) if state else 0
    if held.shape == "nothing":
        return []
    if held.shape == "suffix":
        return state[start:]
    if held.shape == "first and last":
        questions = [place for place, message in enumerate(state) if isinstance(message, HumanMessage)]
        first = (questions + [len(state)] * 3)[held.first]
        return [*state[: min(first, start)], *state[start:]]
    if held.shape == "summary":
        return [SUMMARY, *state[start:]]
    if held.shape == "edited":
        return state[: begin_of_turn(state, len(state) - 1)] if state else []
    return state


def check_stored(conversation: Conversation, state: Sequence[BaseMessage]) -> None:
    """What is in the state and not in the store gets stored, always."""
    wanted = Counter(texts([message for message in state if message.id != SUMMARY.id]))
    assert not wanted - Counter(texts(conversation.stored()))


@examples(25)
@given(TURNS, HELD, st.sampled_from([0, 1]), ASKED, st.sampled_from([False, False, True]))
def test_whatever_a_state_holds_the_prompt_is_right(
    turns: Sequence[Turn], held: Held, rounds: int, asked: tuple[str, int], asynchronous: bool
) -> None:
    conversation = Conversation(*asked, asynchronous=asynchronous)
    conversation.talk(turns)
    state = conversation.ask(Turn(rounds, 2, False), hold(conversation.state, held))
    stored = [message for message in texts(conversation.stored()) if message.startswith(("human", "ai: answer"))]
    for prompt in conversation.model.prompts[-1 - rounds :]:
        sent = [to_message(message) for message in prompt]
        for provider in Provider:
            assert refusals(sent, provider) == [], f"{provider}: {texts(prompt)}"
        spoken = [text for text in texts(prompt) if text in stored]
        assert len(set(spoken)) == len(spoken), f"a message twice: {texts(prompt)}"
        if held.shape != "edited":
            assert spoken == [text for text in stored if text in spoken], f"out of order: {texts(prompt)}"
    check_stored(conversation, state)


# --- states that are cut within a turn ----------------------------------------------------------------------------------

PLAIN, CALLING = Turn(0, 1, elsewhere=False), Turn(1, 1, elsewhere=False)


def last_prompt(strategy: str, limit: int, turns: Sequence[Turn], keep: Callable[..., list[BaseMessage]]) -> Any:
    """Talk, leave a part of the state, and ask once more; return the conversation, and the prompt as our messages."""
    conversation = Conversation(strategy, limit, asynchronous=False)
    conversation.talk(turns)
    conversation.ask(PLAIN, keep(conversation.state))
    return conversation, conversation.model.prompts[-1]


def test_an_answer_without_its_question_between_the_first_and_the_last_is_known() -> None:
    conversation, prompt = last_prompt("all", 1_000, [PLAIN, PLAIN], lambda state: [*state[:2], *state[3:]])
    assert texts(prompt) == [
        "human: question of turn 1",
        "ai: answer of turn 1",
        "human: question of turn 2",
        "ai: answer of turn 2",
        "human: question of turn 3",
    ]
    assert len(conversation.stored()) == 6


def test_a_state_that_begins_with_an_answer_is_not_given_so() -> None:
    elsewhere = Turn(0, 1, elsewhere=True)
    _, prompt = last_prompt("all", 3, [Turn(2, 2, elsewhere=False), elsewhere], lambda state: state[-1:])
    assert refusals([to_message(message) for message in prompt], Provider.ANTHROPIC) == []


def test_a_summary_does_not_come_between_a_result_and_its_answer() -> None:
    _, prompt = last_prompt("relevant", 5, [CALLING], lambda state: [SUMMARY, *state[-1:]])
    assert refusals([to_message(message) for message in prompt], Provider.MISTRAL) == []


# --- what others put into a state -----------------------------------------------------------------------------------


@examples(30)
@given(TURNS, st.sampled_from(["an answer", "a question", "both"]), ASKED, st.sampled_from([False, False, True]))
def test_what_others_put_into_a_state_gets_stored(
    turns: Sequence[Turn], put: str, asked: tuple[str, int], asynchronous: bool
) -> None:
    conversation = Conversation(*asked, asynchronous=asynchronous)
    conversation.talk(turns)
    notes: list[BaseMessage] = []
    if put != "an answer":
        notes.append(HumanMessage("question of another node", id="other-q"))
    if put != "a question":
        notes.append(AIMessage("answer of another node", id="other-a"))
    state = conversation.ask(Turn(0, 1, False), [*conversation.state, *notes])
    check_stored(conversation, state)
