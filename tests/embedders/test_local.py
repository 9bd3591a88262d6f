"""Embedders that compute in this process. Stand-ins with the used methods replace their large libraries."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

import dynamiq_memory.embedders
from dynamiq_memory.embedders import as_embedder
from dynamiq_memory.embedders.adapting import name_of
from dynamiq_memory.exceptions import EmbedderError, MissingDependencyError
from tests.fakes.embedders import NGrams

BY_NGRAMS = NGrams(64)
TEXTS = ["a red apple", "a green pear"]
LOCAL = {"FastEmbedEmbedder": "fastembed", "SentenceTransformersEmbedder": "sentence_transformers"}


class TextEmbedding:
    """The methods of fastembed's class (fastembed 0.7, text/text_embedding.py)."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, model_name: str, cache_dir: str | None = None, threads: int | None = None) -> None:
        self.model_name = model_name
        self.made.append({"model_name": model_name, "cache_dir": cache_dir, "threads": threads})

    def passage_embed(self, texts: list[str], batch_size: int = 256) -> Iterator[Any]:
        assert batch_size == 64
        return map(np.array, BY_NGRAMS.embed_documents(texts))

    def query_embed(self, query: str) -> Iterator[Any]:
        yield np.array(BY_NGRAMS.embed_query(f"query {query}"))


class OldSentenceTransformer:
    """The method of sentence-transformers' class before version 5."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, model_name: str, device: str | None = None) -> None:
        self.made.append({"model_name": model_name, "device": device})

    def encode(
        self,
        texts: list[str],
        *,
        batch_size: int,
        normalize_embeddings: bool,
        convert_to_numpy: bool,
        show_progress_bar: bool,
    ) -> Any:
        assert (batch_size, normalize_embeddings, convert_to_numpy, show_progress_bar) == (32, True, True, False)
        return np.array(BY_NGRAMS.embed_documents(texts))


class SentenceTransformer(OldSentenceTransformer):
    """The methods of sentence-transformers' class since version 5."""

    encode_document = OldSentenceTransformer.encode

    def encode_query(self, texts: list[str], **settings: Any) -> Any:
        return self.encode([f"query {text}" for text in texts], **settings)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (TextEmbedding, SentenceTransformer):
        monkeypatch.setattr(kind, "made", [])
    for name, content in (("fastembed", TextEmbedding), ("sentence_transformers", SentenceTransformer)):
        module = ModuleType(name)
        setattr(module, content.__name__, content)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delitem(sys.modules, f"dynamiq_memory.embedders.{name}", raising=False)


@pytest.mark.parametrize(("name", "library"), LOCAL.items(), ids=LOCAL.values())
def test_models_are_loaded_when_first_used_and_once(libraries: None, name: str, library: str) -> None:
    model: Any = {"fastembed": TextEmbedding, "sentence_transformers": SentenceTransformer}[library]
    embedder = getattr(dynamiq_memory.embedders, name)("some-model")
    assert model.made == []
    assert embedder.embed_documents(TEXTS) == BY_NGRAMS.embed_documents(TEXTS)
    assert embedder.embed_query("apple") == BY_NGRAMS.embed_query("query apple")
    assert asyncio.run(embedder.aembed_documents(TEXTS)) == BY_NGRAMS.embed_documents(TEXTS)
    assert asyncio.run(embedder.aembed_query("apple")) == BY_NGRAMS.embed_query("query apple")
    assert [made["model_name"] for made in model.made] == ["some-model"]
    assert repr(embedder) == f"{name}('some-model')"


def test_a_model_that_cannot_be_downloaded_is_an_error_with_the_fix(
    libraries: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ValueError("Could not load model from any source.")

    monkeypatch.setattr(TextEmbedding, "__init__", offline)
    embedder = as_embedder("local")
    with (
        caplog.at_level(logging.INFO, "dynamiq_memory"),
        pytest.raises(EmbedderError, match=r"bge-small.*any source.*set FASTEMBED_CACHE_PATH"),
    ):
        embedder.embed_query("apple")
    assert "downloaded if it is not in the cache" in caplog.text


def test_local_is_the_default_model(libraries: None) -> None:
    embedder = as_embedder("local")
    assert embedder.embed_documents(TEXTS) == BY_NGRAMS.embed_documents(TEXTS)
    assert [made["model_name"] for made in TextEmbedding.made] == ["BAAI/bge-small-en-v1.5"]
    assert name_of(embedder) == "BAAI/bge-small-en-v1.5"


def test_a_loaded_model_is_taken(libraries: None) -> None:
    embedder = dynamiq_memory.embedders.FastEmbedEmbedder(TextEmbedding("given"))
    assert embedder.embed_documents(TEXTS) == BY_NGRAMS.embed_documents(TEXTS)
    assert len(TextEmbedding.made) == 1


def test_sentence_transformers_before_version_5(libraries: None) -> None:
    embedder = dynamiq_memory.embedders.SentenceTransformersEmbedder(OldSentenceTransformer("given"))
    assert embedder.embed_query("apple") == BY_NGRAMS.embed_query("apple")


@pytest.mark.parametrize(("name", "library"), {**LOCAL, "OpenAIDocumentEmbedder": "openai"}.items(), ids=str)
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, name: str, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"dynamiq_memory.embedders.{library}", raising=False)
    extra = {"fastembed": "local"}.get(library, library.replace("_", "-"))
    with pytest.raises(MissingDependencyError, match=rf"dynamiq-memory\[{extra}\]"):
        getattr(dynamiq_memory.embedders, name)


def test_names() -> None:
    assert set(dir(dynamiq_memory.embedders)) >= {*LOCAL, "OpenAIDocumentEmbedder", "Embedder", "as_embedder"}
    with pytest.raises(AttributeError, match="Nothing"):
        dynamiq_memory.embedders.Nothing  # noqa: B018 - asking for it is the test
