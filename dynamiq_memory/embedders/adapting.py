"""Embedders of other packages, told by their methods: none of these packages is imported here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from dynamiq_memory.embedders.base import Embedder, ThreadedEmbedder
from dynamiq_memory.exceptions import ConfigurationError

_OWN = ("embed_documents", "embed_query")
_OWN_TWINS = ("aembed_documents", "aembed_query")
_LLAMA_INDEX = ("get_text_embedding_batch", "get_query_embedding")
_DYNAMIQ = ("embed_documents", "embed_text")
_DYNAMIQ_PARTS = ("document_embedder", "text_embedder")


def as_embedder(given: Any) -> Embedder:
    """Take an embedder of ours or of another package.

    Args:
        given: An object with the methods of `Embedder` (LangChain's `Embeddings` have them), or with the two
            synchronous ones, which then run in a thread for asynchronous callers; a `BaseEmbedding` of LlamaIndex; an
            embedder node or component of the `dynamiq` package.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(given, type):
        raise ConfigurationError(
            f"embedder must be an object, not the class {given.__name__}: write {given.__name__}(…)"
        )
    if _has(given, _OWN):
        return given if _has(given, _OWN_TWINS) else _Twinned(given)
    if _has(given, _LLAMA_INDEX):
        return _LlamaIndexEmbedder(given)
    if _has(given, _DYNAMIQ):
        return _DynamiqEmbedder(given)
    if any(hasattr(given, name) for name in _DYNAMIQ_PARTS):
        return _DynamiqEmbedder(_component(given))
    raise ConfigurationError(
        f"embedder must have embed_documents and embed_query, which {type(given).__name__} has not: give one of "
        "dynamiq_memory.embedders, an Embeddings of LangChain, a BaseEmbedding of LlamaIndex, or an embedder of dynamiq"
    )


def _has(given: Any, methods: Sequence[str]) -> bool:
    return all(callable(getattr(given, name, None)) for name in methods)


class _Twinned(ThreadedEmbedder):
    """An object with the two synchronous methods alone."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._given.embed_documents(texts)  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self._given.embed_query(text)  # type: ignore[no-any-return]


class _LlamaIndexEmbedder:
    """A `BaseEmbedding` of LlamaIndex; it makes batches of its own."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.get_text_embedding_batch(texts)  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self._model.get_query_embedding(text)  # type: ignore[no-any-return]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await self._model.aget_text_embedding_batch(texts)  # type: ignore[no-any-return]

    async def aembed_query(self, text: str) -> list[float]:
        return await self._model.aget_query_embedding(text)  # type: ignore[no-any-return]


def _component(node: Any) -> Any:
    """The component of one of dynamiq's embedder nodes, which a workflow would make when it starts."""
    for name in _DYNAMIQ_PARTS:
        if hasattr(node, name):
            if getattr(node, name) is None:
                node.init_components()
            return getattr(node, name)
    raise AssertionError(node)


class _DynamiqEmbedder:
    """An embedder component of dynamiq; it cuts its input and makes batches of its own."""

    def __init__(self, component: Any) -> None:
        self._component = component

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return _vectors(self._component.embed_documents(_documents(self._component, texts)))

    def embed_query(self, text: str) -> list[float]:
        return self._component.embed_text(text)["embedding"]  # type: ignore[no-any-return]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        if not _has(self._component, ["embed_documents_async"]):
            return await asyncio.to_thread(self.embed_documents, texts)
        return _vectors(await self._component.embed_documents_async(_documents(self._component, texts)))

    async def aembed_query(self, text: str) -> list[float]:
        if not _has(self._component, ["embed_text_async"]):
            return await asyncio.to_thread(self.embed_query, text)
        return (await self._component.embed_text_async(text))["embedding"]  # type: ignore[no-any-return]


def _documents(component: Any, texts: list[str]) -> list[Any]:
    # It takes documents of its own package, which is imported where there is such a component.
    if any(kind.__module__.partition(".")[0] == "dynamiq" for kind in type(component).__mro__):
        document = import_module("dynamiq.types").Document
        return [document(content=text) for text in texts]
    raise ConfigurationError(
        f"embedder {type(component).__name__} has embed_text, but is no component of dynamiq: give it embed_query"
    )


def _vectors(output: dict[str, Any]) -> list[list[float]]:
    return [document.embedding for document in output["documents"]]
