"""Everything that is sent counts as tokens."""

from __future__ import annotations

import json

import pytest

from dynamiq_memory import ConfigurationError, Memory, Message, count_tokens_approximately, token_counter

SCOPE = {"user_id": "u", "session_id": "s"}


def assistant(*parts, **fields):
    return Message(role="assistant", content=list(parts), **fields)


@pytest.mark.parametrize(
    ("part", "least", "most"),
    [
        ({"type": "text", "text": "word " * 400}, 500, 510),
        ({"type": "thinking", "thinking": "word " * 400, "signature": "c2ln"}, 500, 520),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "word " * 400}]}, 500, 520),
        ({"type": "citation", "cited": {"text": "word " * 400}}, 500, 520),
        ({"type": "image_url", "image_url": {"url": "https://example.com/ship.png"}}, 1000, 1010),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}, 1000, 1010),
        ({"type": "document", "path": "ticket.pdf"}, 1000, 1010),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 400_000}}, 9_000, 11_000),
        ({"type": "video", "video": "A" * 4_000_000}, 90_000, 110_000),
        ({"type": "tool_result", "tool_use_id": "t", "content": "word " * 400}, 500, 520),
    ],
)
def test_every_kind_of_part_counts(part, least, most):
    assert least <= count_tokens_approximately(assistant(part)) <= most


def test_the_framework_s_own_blocks_count():
    blocks = [
        {"$native": "Block", "value": {"class": "ThinkingBlock", "fields": {"content": "word " * 400}}},
        {"$native": "Block", "value": {"class": "DocumentBlock", "fields": {"path": "ticket.pdf"}}},
        {"$native": "Block", "value": {"class": "TextBlock", "fields": {"text": "word " * 400}}},
    ]
    native = {"framework": "llama_index", "data": {"role": "assistant", "blocks": blocks}, "digest": "x"}
    message = Message(role="assistant", content="word " * 400, native=native)
    assert 2_000 <= count_tokens_approximately(message) <= 2_050


def test_calls_count_once():
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": json.dumps({"x": "word " * 400})}}
    alone = count_tokens_approximately(Message(role="assistant", tool_calls=[call]))
    block = {"type": "tool_use", "id": "c", "name": "look", "input": {"x": "word " * 400}}
    assert count_tokens_approximately(assistant(block, tool_calls=[call])) == alone


def test_a_counter_is_given_all_that_is_sent():
    given = []

    def count(message):
        given.append(message)
        return 1

    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]
    native = {"framework": "langchain", "data": {"class": "AIMessage", "fields": {"content": content}}, "digest": "x"}
    memory = Memory(filters=SCOPE, token_counter=count)
    memory.add("user", "q")
    memory.add_many([Message(role="assistant", content="yes", native=native)])
    assert memory.get_agent_conversation()[1].content == "yes"
    assert content in [message.content for message in given]


def test_a_default_bound_fits_any_current_model():
    memory = Memory(filters=SCOPE)
    for number in range(100):
        memory.add("user", f"question {number} " + "word " * 300)
        memory.add("assistant", "word " * 300)
    explained = memory.explain_agent_conversation()
    assert explained.tokens is not None
    assert 30_000 < explained.tokens <= 32_000
    assert explained.bounded_by == {"max_tokens"}
    assert len(memory.get_agent_conversation(max_tokens=10**6)) == 200
    unbounded = Memory(memory.backend, filters=SCOPE, max_tokens=None)
    assert len(unbounded.get_agent_conversation()) == 200
    assert memory.explain_agent_conversation(limit=4).bounded_by == {"limit"}
    with pytest.raises(ConfigurationError, match="max_tokens must be a whole number of 1 or more"):
        Memory(max_tokens=0)


class Encoding:
    def encode(self, text):
        return text.split()


class Model:
    def get_num_tokens(self, text):
        return len(text.split())


class Tokens:
    ids = (1, 2, 3)


@pytest.mark.parametrize("tokenizer", [str.split, Encoding(), Model()])
def test_counters_of_tokenizers(tokenizer):
    count = token_counter(tokenizer)
    assert count(Message(role="user", content="three little words")) == 4 + 3
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/ship.png"}}
    assert count(assistant({"type": "text", "text": "one"}, picture)) == 4 + 1 + 1000


def test_a_tokenizer_of_hugging_face():
    assert token_counter(lambda _: Tokens())(Message(role="user", content="x")) == 4 + 3


@pytest.mark.parametrize("tokenizer", [None, 5, "gpt-4o"])
def test_what_is_not_a_tokenizer(tokenizer):
    with pytest.raises(ConfigurationError, match="not a tokenizer"):
        token_counter(tokenizer)


def test_a_tokenizer_that_counts_nothing():
    with pytest.raises(ConfigurationError, match="must return a list of tokens"):
        token_counter(lambda _: None)(Message(role="user", content="x"))
