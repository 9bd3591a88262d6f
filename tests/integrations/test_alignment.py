"""Which messages of a conversation that a framework hands over are stored already."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamiq_memory import Memory, MemoryBackend, Message, MessageRole
from dynamiq_memory.integrations.alignment import Alignment, Transcript, _common, _longest, align, stored_since
from dynamiq_memory.integrations.plans import run

ROLES = {"u": MessageRole.USER, "a": MessageRole.ASSISTANT, "t": MessageRole.TOOL}


def said(*texts: str) -> list[Message]:
    """Messages from texts such as "u1": the role's letter and a number; the text is also the id."""
    return [
        Message(role=ROLES[text.strip()[0]], content=text, id=text, tool_call_id="c" if text[0] == "t" else None)
        for text in texts
    ]


def again(*texts: str) -> list[Message]:
    """The same with new ids, as of a client that keeps none."""
    return [message.model_copy(update={"id": f"new-{place}"}) for place, message in enumerate(said(*texts))]


class ListTranscript(Transcript):
    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.looked_at: set[int] = set()

    def __len__(self) -> int:
        return len(self.messages)

    def id(self, position: int) -> str:
        self.looked_at.add(position)
        return self.messages[position].id

    def is_question(self, position: int) -> bool:
        return self.messages[position].role is MessageRole.USER

    def message(self, position: int) -> Message:
        self.looked_at.add(position)
        return self.messages[position]


@pytest.fixture
def memory(store: MemoryBackend) -> Memory:
    return Memory(backend=store).scoped("s", "u")


def new_from(memory: Memory, *parts: list[Message]) -> int:
    return run(memory, align(ListTranscript([message for part in parts for message in part]))).new_from


def recall_before(memory: Memory, *parts: list[Message]) -> str | None:
    found = run(memory, align(ListTranscript([message for part in parts for message in part]))).recall_before
    return None if found is None else found.text


def test_nothing_is_stored(memory: Memory) -> None:
    assert run(memory, align(ListTranscript([]))) == Alignment(0)
    assert run(memory, align(ListTranscript(said("u1", "a1", "u2")))) == Alignment(0)


def test_stored_messages_are_known_by_their_ids(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert new_from(memory, said("u1", "a1", "u2")) == 2
    assert recall_before(memory, said("u1", "a1", "u2")) == "u1"


def test_what_the_framework_has_left_out_does_not_matter(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert new_from(memory, said("u0", "u1", "a1", "u2")) == 3
    assert new_from(memory, said("u9", "a1", "u2")) == 2


def test_only_messages_of_this_session_count(memory: Memory, store: MemoryBackend) -> None:
    Memory(backend=store).scoped("s", "v").add_many(said("u1", "a1"))
    assert new_from(memory, said("u1", "a1", "u2")) == 0


def test_a_long_unknown_end_is_read_back_to_what_is_known(memory: Memory) -> None:
    old = [f"u{n}" for n in range(100)]
    memory.add_many(said(*old))
    transcript = said(*old, *(f"a{n}" for n in range(500)))
    assert new_from(memory, transcript) == 100
    assert recall_before(memory, transcript) == "u0"


def test_of_a_long_conversation_only_the_ends_are_looked_at(memory: Memory) -> None:
    old = [f"{kind}{n}" for n in range(1000) for kind in "ua"]
    memory.add_many(said(*old))
    transcript = ListTranscript(said(*old, "u-new"))
    assert run(memory, align(transcript)).new_from == 2000
    assert len(transcript.looked_at) < 100


# --- a client that sends the conversation again --------------------------------------------------------------


def test_what_was_said_is_compared(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "t1", "a1"))
    assert new_from(memory, again("u1", "a1", "u2")) == 2
    assert recall_before(memory, again("u1", "a1", "u2")) == "u1"
    assert new_from(memory, again("u0", "a0", "u1", "a1", "u2")) == 4


def test_a_question_alone_is_new(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1"))
    assert new_from(memory, again("u1")) == 0


def test_a_repeated_question_is_new(memory: Memory) -> None:
    repeated = [message.model_copy(update={"id": f"old-{message.id}"}) for message in again("u0", "a1")]
    memory.add_many([*said("u0", "a0"), *repeated])
    assert new_from(memory, again("u0", "a0", "u0", "a1", "u0")) == 4


def test_a_question_asked_again_after_a_failure_is_the_same(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1"))
    assert new_from(memory, again("u0", "a0", "u1")) == 3


def test_an_answer_generated_again_follows_the_first(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert new_from(memory, again("u0", "a0", "u1")) == 3


def test_an_edited_question_is_new(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert new_from(memory, again("u0", "a0", "u-edited")) == 2
    memory.add_many([*said("u-edited"), *said("a-edited")])
    assert new_from(memory, again("u0", "a0", "u-edited", "a-edited", "u2")) == 4


@pytest.mark.parametrize("wording", ["a0", "  a0 ", "a-in other words"])
def test_a_client_s_wording_of_an_answer_is_not_stored_again(memory: Memory, wording: str) -> None:
    memory.add_many(said("u0", "t0", "a0"))
    assert new_from(memory, again("u0"), again(wording, "u1")) == 2
    assert new_from(memory, said("u0"), again(wording, "u1")) == 2


def test_an_answer_that_is_not_stored_is_new(memory: Memory) -> None:
    memory.add_many(said("u0"))
    assert new_from(memory, said("u0"), again("a0", "u1")) == 1


def test_examples_before_the_question_are_stored_once(memory: Memory) -> None:
    memory.add_many(said("u-example", "a-example", "u0", "a0"))
    assert new_from(memory, again("u-example", "a-example", "u1")) == 2


def test_parts_and_text_compare_by_their_text(memory: Memory) -> None:
    memory.add_many(said("u0", "a0"))
    parts = Message(role=MessageRole.USER, content=[{"type": "text", "text": "u0"}])
    assert new_from(memory, [parts], again("a0", "u1")) == 2


def test_a_conversation_of_another_course_is_new(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1"))
    assert new_from(memory, again("u7", "a7", "u8")) == 0


@pytest.mark.parametrize("words", [("a-other",), ("a-other", "a-more"), ("a0",), ("u0", "a0")])
def test_what_follows_a_known_answer_is_new_whatever_it_says(memory: Memory, words: tuple[str, ...]) -> None:
    """A supervisor, another node or a second agent may have said it, in the words of a stored message."""
    memory.add_many(said("u0", "a0"))
    assert new_from(memory, said("u0", "a0"), again(*words, "u1")) == 2


@settings(max_examples=25)
@given(st.data(), st.integers(1, 220), st.booleans(), st.booleans())
def test_a_client_that_goes_back_has_nothing_stored_twice(
    data: st.DataObject, turns: int, has_ids: bool, edits: bool
) -> None:
    kept = 2 * data.draw(st.integers(1, turns), label="turns kept")
    memory = Memory().scoped("s", "u")
    texts = [text for turn in range(turns) for text in (f"u{turn} when ships leave", f"a{turn}")]
    memory.add_many(said(*texts))
    question = f"u{kept // 2} when ships arrive" if edits else "u-another matter"
    sent = again(*texts[:kept], question)
    transcript = [*said(*texts[:kept]), sent[-1]] if has_ids else sent
    found = run(memory, align(ListTranscript(transcript)))
    assert found.new_from == kept
    assert [message.text for message in found.replaced] == (texts[kept:] if edits else [])
    assert found.known[kept - 1].text == texts[kept - 1]


def test_a_text_far_back_that_is_equal_by_chance_does_not_hide_what_is_new(memory: Memory) -> None:
    memory.add_many(said("u0", "a0", *(f"{kind}{turn}" for turn in range(1, 100) for kind in "ua")))
    assert new_from(memory, again("u-other", "a0", "u-new")) == 0
    assert new_from(memory, again("u0", "a-other", "u-new")) == 0


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_equal_ends_are_paired_as_the_whole_comparison_would(texts: list[str], stored: list[str]) -> None:
    def spoken(words: list[str]) -> list[tuple[MessageRole, str]]:
        return [(MessageRole.USER, word) for word in words]

    assert _common(spoken(texts), spoken(stored)) == _longest(spoken(texts), spoken(stored))


def test_a_repeated_conversation_is_described_once(memory: Memory) -> None:
    old = [f"{kind}{n}" for n in range(500) for kind in "ua"]
    memory.add_many(said(*old))

    class Counting(ListTranscript):
        outlined = 0

        def outline(self, position: int) -> Message:
            self.outlined += 1
            return self.messages[position]

    transcript = Counting(again(*old, "u-new"))
    found = run(memory, align(transcript))
    assert found.new_from == 1000
    assert transcript.outlined <= 1001 + 64  # the last ones also to find that ids do not matter


@pytest.mark.parametrize(
    ("stored", "message", "since"),
    [
        (["u0", "u1", "a1"], 0, ["u1", "a1"]),  # another client has asked since
        (["u0", "t0", "u1"], 1, ["u1"]),
        (["u0", "a0", "u1"], 0, []),  # the turn has gone on
        (["u0", "a0", "u1"], 1, []),  # an answer waits for nothing
        (["u0"], 0, []),
        (["u0", *(f"u{n}" for n in range(1, 100))], 0, [f"u{n}" for n in range(1, 100)]),
    ],
)
def test_what_was_stored_since_a_message_that_waits_for_its_answer(
    memory: Memory, stored: list[str], message: int, since: list[str]
) -> None:
    memory.add_many(said(*stored))
    found = run(memory, stored_since(memory.get_all()[message]))
    assert [each.text for each in found] == since


@pytest.mark.parametrize(
    ("held", "lacking"),
    [
        (["u1", "a1", "t1", "a2", "t2"], []),
        (["t1", "a2", "t2"], ["u1", "a1"]),  # the last messages
        (["u0", "a2", "t2"], ["u1", "a1", "t1"]),  # the first and the last
        (["u0", "a0", "u1", "a2", "t2"], ["a1", "t1"]),
        (["u1", "a1", "t1", "a2", "t2", "u2"], []),  # another turn begins
    ],
)
def test_what_a_transcript_lacks_of_the_turn_that_goes_on(memory: Memory, held: list[str], lacking: list[str]) -> None:
    memory.add_many(said("u0", "a0", "u1", "a1", "t1"))
    found = run(memory, align(ListTranscript(said(*held))))
    assert found.lacking_ids == {*lacking}
    assert [message.text for message in found.running if message.id in lacking] == lacking
