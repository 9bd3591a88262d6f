"""Rerankers order the best messages again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dynamiq_memory import BackendError, ConfigurationError, Memory, Message
from dynamiq_memory.ranking.reranking import RERANKED

SCOPE = {"user_id": "u", "session_id": "s"}
TEXTS = ["a pear", "a ripe pear", "pear, pear, pear", "no fruit at all"]


def memory_with(store, reranker, texts=TEXTS):
    memory = Memory(store, filters=SCOPE, reranker=reranker)
    memory.add_many([Message(role="user", content=text) for text in texts])
    return memory


def by_length(query, messages):
    assert query == "pear"
    return [len(message.text) for message in messages]


def search(memory, way, *arguments):
    return memory.search(*arguments) if way == "sync" else asyncio.run(memory.asearch(*arguments))


WAYS = pytest.mark.parametrize("way", ["sync", "async"])


@WAYS
def test_a_function_decides_the_order_of_what_matches(store, way):
    memory = memory_with(store, by_length)
    found = search(memory, way, "pear")
    assert [message.text for message in found] == ["pear, pear, pear", "a ripe pear", "a pear"]
    assert [message.score for message in found] == [16.0, 11.0, 6.0]
    # What the store alone would not have returned among so few may be the best.
    assert [message.text for message in search(memory, way, "pear", None, 1)] == ["pear, pear, pear"]
    assert len(search(memory, way, None, None, 2)) == 2
    assert search(memory, way, "plum") == []


@WAYS
def test_only_the_best_are_read(store, way):
    asked = []
    memory = memory_with(
        store, lambda _, messages: [-number for number in range(len(asked.append(len(messages)) or messages))],
        [f"pear {number}" for number in range(RERANKED + 10)],
    )  # fmt: skip
    found = search(memory, way, "pear")
    assert asked == [RERANKED]
    assert len(found) == RERANKED + 10
    scores = [message.score for message in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("strategy", ["relevant", "both"])
def test_what_an_agent_is_given_follows_it(store, strategy):
    memory = memory_with(store, by_length)
    memory.add("user", "And now?")
    given = memory.get_agent_conversation("pear", limit=2, strategy=strategy)
    assert "pear, pear, pear" in [message.text for message in given]
    plain = Memory(store, filters=SCOPE).get_agent_conversation("pear", limit=1, strategy="relevant")
    assert [message.text for message in plain] != ["a pear"]


def test_it_blocks_no_event_loop(store):
    threads = []
    memory = memory_with(store, lambda _, messages: threads.append(threading.get_ident()) or [0.0] * len(messages))
    asyncio.run(memory.asearch("pear"))
    assert threads != [threading.get_ident()]


@WAYS
def test_its_failures_are_named(store, way):
    def fail(query, messages):
        raise OSError("no model")

    with pytest.raises(BackendError, match="the reranker failed: OSError: no model"):
        search(memory_with(store, fail), way, "pear")
    for wrong in ([1.0], ["x"] * 3, [float("nan")] * 3, [float("inf")] * 3, [10**400] * 3):
        memory = Memory(store, filters=SCOPE, reranker=lambda _, __, wrong=wrong: wrong)
        with pytest.raises(ConfigurationError, match="3 numbers"):
            search(memory, way, "pear")


async def later(query, messages):
    return [0.0] * len(messages)


@pytest.mark.parametrize("wrong", [5, "bge", Memory, later])
def test_what_is_no_reranker_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="reranker must be"):
        Memory(reranker=wrong)


def test_a_reranker_of_langchain(store):
    documents = pytest.importorskip("langchain_core.documents.compressor")

    class Longest(documents.BaseDocumentCompressor):
        def compress_documents(self, documents, query, callbacks=None):
            return sorted(documents, key=lambda each: len(each.page_content), reverse=True)[:2]

    found = memory_with(store, Longest()).search("pear")
    assert [message.text for message in found] == ["pear, pear, pear", "a ripe pear", "a pear"]


def test_a_reranker_of_llama_index(store):
    types = pytest.importorskip("llama_index.core.postprocessor.types")

    class Longest(types.BaseNodePostprocessor):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            assert query_bundle.query_str == "pear"
            return sorted(nodes, key=lambda each: len(each.text), reverse=True)[:1]

    found = memory_with(store, Longest()).search("pear", limit=2)
    assert found[0].text == "pear, pear, pear"


def test_a_scoped_memory_has_it_too(store):
    found = memory_with(store, by_length).scoped("s", "u").search("pear")
    assert found[0].text == "pear, pear, pear"
