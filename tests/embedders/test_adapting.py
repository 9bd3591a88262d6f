"""Embedders of other packages can be used directly."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from llama_index.core.base.embeddings.base import BaseEmbedding

from dynamiq_memory.embedders import Embedder, as_embedder
from dynamiq_memory.embedders.adapting import name_of
from dynamiq_memory.exceptions import ConfigurationError
from tests.fakes.embedders import NGrams

TEXTS = ["a red apple", "a green pear"]
BY_NGRAMS = NGrams(64)


class LlamaIndexNGrams(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return BY_NGRAMS.embed_query(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return BY_NGRAMS.embed_query(f"query {query}")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return BY_NGRAMS.embed_query(f"query {query}")


def check(embedder: Embedder, documents: list[list[float]], query: list[float]) -> None:
    assert isinstance(embedder, Embedder)
    assert embedder.embed_documents(TEXTS) == documents
    assert embedder.embed_query("apple") == query
    assert asyncio.run(embedder.aembed_documents(TEXTS)) == documents
    assert asyncio.run(embedder.aembed_query("apple")) == query


def test_ours_is_taken_as_it_is() -> None:
    assert as_embedder(BY_NGRAMS) is BY_NGRAMS


def test_one_of_langchain_is_taken_as_it_is() -> None:
    given = DeterministicFakeEmbedding(size=8)
    assert as_embedder(given) is given
    check(given, given.embed_documents(TEXTS), given.embed_query("apple"))


def test_one_of_llama_index() -> None:
    check(as_embedder(LlamaIndexNGrams()), BY_NGRAMS.embed_documents(TEXTS), BY_NGRAMS.embed_query("query apple"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (NGrams(), None),
        (LlamaIndexNGrams(), None),  # its model_name is "unknown"
        (LlamaIndexNGrams(model_name="m-1"), "m-1"),
        (SimpleNamespace(model="m-2", embed_documents=list, embed_query=list), "m-2"),
        (SimpleNamespace(name="mine", model="m-2", embed_documents=list, embed_query=list), "mine"),
        (SimpleNamespace(model=object(), embed_documents=list, embed_query=list), None),
    ],
)
def test_a_name_is_that_of_the_model_unless_the_user_sets_one(given: Any, name: str | None) -> None:
    assert name_of(as_embedder(given)) == name


def test_a_text_names_an_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    assert name_of(as_embedder("text-embedding-3-small")) == "text-embedding-3-small"


def test_one_without_twins_runs_in_a_thread() -> None:
    threads = set()

    class Synchronous:
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            threads.add(threading.current_thread())
            return BY_NGRAMS.embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            threads.add(threading.current_thread())
            return BY_NGRAMS.embed_query(text)

    embedder = as_embedder(Synchronous())
    asyncio.run(embedder.aembed_documents(TEXTS))
    assert threading.main_thread() not in threads
    check(embedder, BY_NGRAMS.embed_documents(TEXTS), BY_NGRAMS.embed_query("apple"))


class Document:
    """What dynamiq's components take: documents of its own."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.embedding: list[float] | None = None


class Component:
    """The methods of dynamiq's embedder components (dynamiq 0.69, components/embedders/base.py)."""

    __module__ = "dynamiq.components.embedders.openai"

    def embed_text(self, text: str) -> dict[str, Any]:
        return {"embedding": BY_NGRAMS.embed_query(f"query {text}"), "meta": {}}

    def embed_documents(self, documents: list[Document]) -> dict[str, Any]:
        for document in documents:
            assert isinstance(document, Document)
            document.embedding = BY_NGRAMS.embed_query(document.content)
        return {"documents": documents, "meta": {}}


class AsyncComponent(Component):
    __module__ = Component.__module__

    async def embed_text_async(self, text: str) -> dict[str, Any]:
        return self.embed_text(text)

    async def embed_documents_async(self, documents: list[Document]) -> dict[str, Any]:
        return self.embed_documents(documents)


@pytest.fixture
def dynamiq(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one name of the dynamiq package that is asked for; adapters/dynamiq tests the package itself."""
    types = ModuleType("dynamiq.types")
    types.Document = Document  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dynamiq", ModuleType("dynamiq"))
    monkeypatch.setitem(sys.modules, "dynamiq.types", types)


@pytest.mark.parametrize("kind", [Component, AsyncComponent])
@pytest.mark.parametrize("part", ["document_embedder", "text_embedder", None])
def test_components_and_nodes_of_dynamiq(dynamiq: None, kind: type[Component], part: str | None) -> None:
    given = kind() if part is None else SimpleNamespace(**{part: kind()})
    check(as_embedder(given), BY_NGRAMS.embed_documents(TEXTS), BY_NGRAMS.embed_query("query apple"))


def test_a_node_of_dynamiq_that_has_not_run_yet_makes_its_component(dynamiq: None) -> None:
    class Node:
        document_embedder: Component | None = None

        def init_components(self) -> None:
            self.document_embedder = Component()

    check(as_embedder(Node()), BY_NGRAMS.embed_documents(TEXTS), BY_NGRAMS.embed_query("query apple"))


@pytest.mark.parametrize("given", [None, object(), NGrams])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(ConfigurationError, match="embedder must"):
        as_embedder(given)
