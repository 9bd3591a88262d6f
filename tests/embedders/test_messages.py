"""Shared parts of the vector stores: messages and queries become checked vectors, or nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.exceptions import BackendError, ConfigurationError, EmbedderError
from dynamiq_memory.messages import Message
from dynamiq_memory.testing import say
from tests.fakes.embedders import Scripted

Vectors = list[list[float]]


class Both:
    """Calls the synchronous or the asynchronous methods."""

    def __init__(self, glue: MessageEmbedder, twin: bool) -> None:
        self.glue = glue
        self.twin = twin

    def embed(self, messages: list[Message]) -> list[list[float] | None]:
        return asyncio.run(self.glue.aembed(messages)) if self.twin else self.glue.embed(messages)

    def embed_query(self, query: str) -> list[float] | None:
        return asyncio.run(self.glue.aembed_query(query)) if self.twin else self.glue.embed_query(query)


@pytest.fixture(params=["sync", "async"])
def over(request: pytest.FixtureRequest) -> Callable[..., Both]:
    return lambda *given, **named: Both(MessageEmbedder(*given, **named), request.param == "async")


def test_each_message_gets_its_vector_and_blank_ones_none(over: Callable[..., Both]) -> None:
    embedder = Scripted()
    glue = over(embedder)
    parts: list[dict[str, Any]] = [{"type": "text", "text": "pear"}, {"type": "image_url", "image_url": {"url": "x"}}]
    vectors = glue.embed([say("apple"), say(""), say(" \n"), say(content=parts), say(content=[])])
    assert embedder.documents == [["apple", "pear"]]
    assert vectors == [embedder._vector("apple"), None, None, embedder._vector("pear"), None]
    assert glue.glue.dimension == 64
    assert glue.embed([say("")]) == [None]
    assert embedder.documents == [["apple", "pear"]]


def test_a_vector_without_direction_becomes_none(over: Callable[..., Both]) -> None:
    glue = over(Scripted())
    assert glue.embed([say("apple"), say("東京")])[1] is None
    assert glue.embed_query("?!") is None


def test_lone_surrogates_do_not_reach_the_embedder(over: Callable[..., Both]) -> None:
    embedder = Scripted()
    glue = over(embedder)
    glue.embed([say("apple \ud800 pie")])
    glue.embed_query("\udfff apple")
    assert embedder.documents == [["apple \ufffd pie"]]
    assert embedder.queries == ["\ufffd apple"]


def test_a_repeated_query_is_remembered(over: Callable[..., Both]) -> None:
    embedder = Scripted()
    glue = over(embedder)
    first = glue.embed_query("apple")
    assert glue.embed_query("apple ") == first
    assert embedder.queries == ["apple"]
    for number in range(256):
        glue.embed_query(f"pear {number}")
    glue.embed_query("apple")
    assert embedder.queries.count("apple") == 2
    assert glue.embed_query("  ") is None


def test_arrays_are_vectors_too(over: Callable[..., Both]) -> None:
    glue = over(Scripted(np.array))
    (vector,) = glue.embed([say("apple")])
    assert vector is not None
    assert all(type(number) is float for number in vector)
    assert glue.embed_query("apple") == vector


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda vectors: vectors[:-1], "1 vectors for 2 texts"),
        (lambda vectors: [*vectors, vectors[0]], "3 vectors for 2 texts"),
        (lambda _: None, "NoneType"),
        (lambda vectors: [vectors[0], None], "not a vector"),
        (lambda vectors: [vectors[0], ["x"]], "not a vector"),
        (lambda vectors: [vectors[0], []], "empty vector"),
        (lambda vectors: [vectors[0], [math.nan] * 64], "NaN"),
        (lambda vectors: [vectors[0], [math.inf] * 64], "infinity"),
    ],
    ids=["too few", "too many", "None", "one None", "words", "empty", "NaN", "infinity"],
)
def test_anything_but_a_vector_for_each_text_is_refused(
    over: Callable[..., Both], change: Callable[[Vectors], Any], says: str
) -> None:
    with pytest.raises(EmbedderError, match=says):
        over(Scripted(change)).embed([say("apple"), say("pear")])


def test_a_query_with_nan_is_refused_and_not_remembered(over: Callable[..., Both]) -> None:
    glue = over(Scripted(lambda _: [[math.nan]]))
    for _ in range(2):
        with pytest.raises(EmbedderError, match="NaN"):
            glue.embed_query("apple")


def test_another_dimension_is_refused_and_both_are_named(over: Callable[..., Both]) -> None:
    glue = over(Scripted(), dimension=1536, location="collection 'x'")
    for call in (lambda: glue.embed([say("apple")]), lambda: glue.embed_query("apple")):
        with pytest.raises(ConfigurationError, match=r"have 64 numbers, those of collection 'x' have 1536"):
            call()


def test_vectors_of_several_dimensions_are_refused(over: Callable[..., Both]) -> None:
    glue = over(Scripted(lambda vectors: [vectors[0], vectors[1][:32]]))
    with pytest.raises(ConfigurationError, match="32 numbers"):
        glue.embed([say("apple"), say("pear")])


def test_errors_of_embedders_are_translated(over: Callable[..., Both]) -> None:
    def fail(_: Vectors) -> Vectors:
        raise RuntimeError("out of memory")

    glue = over(Scripted(fail))
    for call in (lambda: glue.embed([say("apple")]), lambda: glue.embed_query("apple")):
        with pytest.raises(EmbedderError, match="RuntimeError: out of memory") as caught:
            call()
        assert isinstance(caught.value, BackendError)
        assert isinstance(caught.value.__cause__, RuntimeError)
