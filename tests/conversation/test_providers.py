"""The model of providers' rules sees what providers refuse, and only that."""

from __future__ import annotations

import pytest

from dynamiq_memory import Message
from dynamiq_memory.testing.providers import RULES, Provider, refusals

EVERY = set(Provider)
# Their clients or APIs merge an assistant's messages, so that these may be answered together.
MERGING = {Provider.ANTHROPIC, Provider.GEMINI, Provider.OPENAI_RESPONSES}


def user(content="q"):
    return Message(role="user", content=content)


def answer(content="a"):
    return Message(role="assistant", content=content)


def system():
    return Message(role="system", content="be brief")


def calling(*ids, text=""):
    function = {"name": "look", "arguments": "{}"}
    return Message(
        role="assistant", content=text, tool_calls=[{"id": i, "type": "function", "function": function} for i in ids]
    )


def result(id_, name=None):
    return Message(role="tool", content="r", tool_call_id=id_, name=name)


def thought(*after):
    return Message(role="assistant", content=[{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, *after])


def refusing(*messages):
    return {provider for provider in Provider if refusals(messages, provider)}


@pytest.mark.parametrize(
    "messages",
    [
        [user()],
        [system(), user()],
        [user(), user()],
        [user(), answer(), answer(), user()],
        [user(), calling("1"), result("1")],
        [user(), calling("1", "2", text="wait"), result("2"), result("1"), answer(), user()],
        [user(), calling(None, None), result("look"), result("look")],
        [user(), calling(None), result("new", "look")],
        [user(), thought({"type": "text", "text": "yes"}), user()],
        [],
    ],
)
def test_everybody_accepts(messages):
    assert refusing(*messages) == set()


@pytest.mark.parametrize(
    ("messages", "providers"),
    [
        ([answer(), user()], {Provider.ANTHROPIC, Provider.GEMINI}),
        ([user(), answer()], EVERY - {Provider.OLLAMA, Provider.OPENAI, Provider.OPENAI_RESPONSES}),
        ([user(), calling("1"), answer(), user()], EVERY),
        ([user(), calling("1", "2"), result("1")], EVERY),
        ([user(), result("1")], EVERY),
        ([user(), calling("1"), result("1"), result("1")], EVERY),
        ([user(), calling("1"), result("2")], EVERY),
        ([user(), calling(None), result(None, "book")], EVERY),
        ([user(), calling("1"), user(), result("1")], EVERY),
        ([user(), calling("1"), calling("2"), result("1"), result("2")], EVERY - MERGING),
        ([user(""), answer(), user()], EVERY - {Provider.OLLAMA, Provider.OPENAI, Provider.OPENAI_RESPONSES}),
        ([user(), answer(" "), user()], EVERY - {Provider.OLLAMA, Provider.OPENAI, Provider.OPENAI_RESPONSES}),
        ([user(), thought(), user()], {Provider.OPENAI_RESPONSES} | EVERY - {Provider.OLLAMA, Provider.OPENAI}),
        (
            [user(), calling("1"), result("1"), answer(), user(), calling("1"), result("1")],
            {Provider.ANTHROPIC, Provider.OPENAI_RESPONSES},
        ),
        ([user(), answer(), system(), user()], {Provider.ANTHROPIC, Provider.MISTRAL}),
        ([user(), calling("1"), result("1"), user()], {Provider.COHERE, Provider.MISTRAL}),
    ],
)
def test_refusals(messages, providers):
    assert refusing(*messages) == providers


def test_a_refusal_names_the_rule_and_the_message():
    late = answer()
    assert refusals([late, user()], Provider.GEMINI) == [
        f"begins_with_a_question: the first message is the assistant message {late.id}"
    ]


def test_each_rule_has_a_source():
    assert RULES.keys() == set(Provider)
    for rules in RULES.values():
        assert all(rule.__doc__ and source.startswith("https://") for rule, source in rules.items())
