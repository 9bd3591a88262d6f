"""When the questions that an agent is given were asked."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamiq_memory import ConfigurationError, Memory, Message, count_tokens_approximately
from dynamiq_memory.backends import InMemory
from dynamiq_memory.conversation.dating import Dating, as_stored
from dynamiq_memory.integrations.references import reference_to
from dynamiq_memory.testing.providers import refusals
from tests.fakes.sessions import any_sessions, dumped, examples, whole_sessions

U_S = {"user_id": "u", "session_id": "s"}
NOON = 1_710_244_800.0  # 12 March 2024, 12:00 UTC
DAY = 86_400.0


def say(role, content, days=0.0, **metadata):
    return Message(role=role, content=content, timestamp=NOON + days * DAY, metadata={**U_S, **metadata})


def stored(memory):
    memory.add_many(
        [
            say("user", "I moved last week", 0),
            say("assistant", "Where to?", 0.01),
            say("user", "To Ghent", 0.02),
            say("assistant", "Lovely", 0.03),
            say("user", "The kitchen is green", 0.6),
            say("assistant", "RAL 6021?", 0.61),
        ]
    )
    return memory


def test_the_first_question_of_each_day_has_a_date():
    memory = stored(Memory(dates="turns"))
    expected = ["[12 Mar 2024]\n\nI moved last week", "Where to?", "To Ghent", "Lovely"]
    expected += ["[13 Mar 2024]\n\nThe kitchen is green", "RAL 6021?"]
    assert [message.text for message in memory.get_agent_conversation(filters=U_S)] == expected


def test_days_are_those_of_the_time_zone():
    texts = [m.text for m in stored(Memory(dates="turns", timezone="UTC-05:00")).get_agent_conversation(filters=U_S)]
    assert [text for text in texts if text.startswith("[")] == ["[12 Mar 2024]\n\nI moved last week"]


def test_sessions_are_named_where_the_filters_allow_several():
    memory = stored(Memory(dates="turns"))
    memory.add_many(
        [say("user", "Hello", 0.7, session_id='a" ]\nb'), say("assistant", "Hi", 0.71, session_id='a" ]\nb')]
    )
    texts = [message.text for message in memory.get_agent_conversation(filters={"user_id": "u"})]
    assert texts[0] == '[12 Mar 2024, session "s"]\n\nI moved last week'
    assert texts[-2] == r'[13 Mar 2024, session "a\" ]\nb"]' + "\n\nHello"


def test_nothing_but_what_is_given_has_dates():
    memory = stored(Memory(dates="turns"))
    explained = memory.explain_agent_conversation(filters=U_S)
    assert [pick.message for pick in explained] == memory.get_all()
    assert explained.conversation == explained.recent != memory.get_all()
    assert stored(Memory()).get_agent_conversation(filters=U_S)[0].text == "I moved last week"


def test_a_block_before_the_question_leaves_the_dates_of_the_others():
    memory = stored(Memory(dates="turns", placement="before_question"))
    memory.add_many([say("user", "And the kitchen?", 3)])
    *_, question = memory.get_agent_conversation("kitchen green", 3, U_S, "relevant")
    block, date, text = question.text.rpartition("[15 Mar 2024]\n\n")
    assert "The kitchen is green" in block
    assert "[13 Mar" not in block
    assert (date, text) == ("[15 Mar 2024]\n\n", "And the kitchen?")


def test_parts_get_a_part_and_results_stay_first():
    image = {"type": "image_url", "image_url": {"url": "https://x.y/z.png"}}
    dating = Dating(dt.UTC)
    (dated,) = dating.dated([say("user", [image])])
    assert dated.content == [{"type": "text", "text": "[12 Mar 2024]"}, image]
    result = {"type": "tool_result", "tool_use_id": "c", "content": "9"}
    for message in (say("user", [result, {"type": "text", "text": "And?"}]), say("assistant", "9")):
        assert dating.dated([message]) == [message]


def test_what_only_a_framework_can_send_is_left_alone():
    native = {"framework": "llama_index", "data": {"blocks": [{"block_type": "cache", "ttl": "5m"}]}, "digest": "0"}
    message = say("user", "Hi").model_copy(update={"native": native})
    assert Dating(dt.UTC).dated([message]) == [message]


@pytest.mark.parametrize("time", [-1e18, 1e18])
def test_times_that_no_calendar_has_are_left_out(time):
    message = Message(role="user", content="Hi", timestamp=time)
    assert Dating(dt.UTC).dated([message]) == [message]


@examples(40)
@given(any_sessions(), st.text(max_size=9), st.sampled_from(["user", "assistant"]))
def test_dates_can_be_told_from_what_is_stored(sessions, text, role):
    messages = [*sessions.messages, say(role, text), say("user", f"[12 Mar 2024]\n\n{text}")]
    for message in messages:
        for names_sessions in (False, True):
            dating = Dating(dt.UTC, names_sessions)
            dated = dating.longest(message)
            if dated is not message:
                assert as_stored(dated, [dating.label(message)]).content == message.content
            assert as_stored(message, ["[1 Jan 1990]"]) is message


@examples(40)
@given(
    whole_sessions(),
    st.sampled_from(["all", "relevant", "both"]),
    st.sampled_from([2, 4, 8, 1_000]),
    st.sampled_from([20, 40, 80, 160]),
    st.sampled_from(["chronological", "before_question"]),
)
def test_what_is_given_with_dates_is_accepted_and_fits(stored, strategy, limit, max_tokens, placement):
    with InMemory() as backend:
        backend.add_many(stored.messages)
        memory = Memory(backend, dates="turns", placement=placement)
        explained = memory.explain_agent_conversation("apple pear", limit, U_S, strategy, max_tokens)
        assert sum(map(count_tokens_approximately, explained.conversation)) == explained.tokens <= max_tokens
        sent = [*explained.conversation, Message(role="user", content="And now?")]
        for provider in stored.providers:
            assert refusals(sent, provider) == [], f"{provider} of\n{dumped(sent)}"


def test_a_memory_that_is_opened_again_keeps_its_dates():
    memory = stored(Memory(dates="turns", timezone="UTC-11:00"))
    again = Memory(memory.backend, **json.loads(json.dumps(reference_to(memory)))["settings"])
    assert again.to_dict() == memory.to_dict()
    assert again.get_agent_conversation() == memory.get_agent_conversation()


def test_another_word_is_refused():
    with pytest.raises(ConfigurationError, match="dates 'days' is unknown: use one of off, turns"):
        Memory(dates="days")
