"""Adapters for the embedders of other packages, recognised by their methods. None of these packages is imported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from dynamiq_memory.embedders.base import Embedder, ThreadedEmbedder
from dynamiq_memory.exceptions import ConfigurationError

_EMBEDDER = ("embed_documents", "embed_query")
_ASYNC_EMBEDDER = ("aembed_documents", "aembed_query")
_LLAMA_INDEX = ("get_text_embedding_batch", "get_query_embedding")
_DYNAMIQ = ("embed_documents", "embed_text")
_DYNAMIQ_PARTS = ("document_embedder", "text_embedder")


# Where embedders keep the name of their model. The first is for users: no package's embedder has it.
_NAMES = ("name", "model_name", "model")
# LlamaIndex's default for a model without a name.
_UNNAMED = "unknown"
LOCAL = "local"


def as_embedder(given: Any) -> Embedder:
    """Convert an embedder of this or another package to an `Embedder`.

    Args:
        given: One of:

            - "local" for `FastEmbedEmbedder` with its default model, or the name of a model of OpenAI, such as
              "text-embedding-3-small", with the key and the URL of the environment;
            - an object with the methods of `Embedder`, such as LangChain's `Embeddings`;
            - an object with only its synchronous methods, which are run in a thread for asynchronous callers;
            - a LlamaIndex `BaseEmbedding`;
            - an embedder node or component of the `dynamiq` package.

    Raises:
        ConfigurationError: The object is not an embedder.
        MissingDependencyError: The library of a named embedder is not installed.
    """
    if isinstance(given, str):
        return _named(given)
    if isinstance(given, type):
        raise ConfigurationError(
            f"embedder must be an object, not the class {given.__name__}: write {given.__name__}(…)"
        )
    if _has(given, _EMBEDDER):
        return given if _has(given, _ASYNC_EMBEDDER) else _SyncEmbedder(given)
    if _has(given, _LLAMA_INDEX):
        return _LlamaIndexEmbedder(given)
    if _has(given, _DYNAMIQ):
        return _DynamiqEmbedder(given)
    for name in _DYNAMIQ_PARTS:
        if hasattr(given, name):
            if getattr(given, name) is None:
                given.init_components()  # a workflow would do this when it starts
            return _DynamiqEmbedder(getattr(given, name))
    raise ConfigurationError(
        f"embedder must have embed_documents and embed_query, but {type(given).__name__} does not: use one of "
        "dynamiq_memory.embedders, LangChain's Embeddings, LlamaIndex's BaseEmbedding, or an embedder of dynamiq"
    )


def name_of(embedder: Any) -> str | None:
    """Return the name of an embedder's model, by which stores recognise the embedder of their vectors.

    It is the first text in its attributes `name`, `model_name` and `model`. None if it has none of them.
    """
    names = (getattr(embedder, attribute, None) for attribute in _NAMES)
    return next((name for name in names if isinstance(name, str) and name not in {"", _UNNAMED}), None)


def _named(name: str) -> Embedder:
    # Imported here, since their libraries are slow to import and may not be installed.
    if name == LOCAL:
        from dynamiq_memory.embedders.fastembed import FastEmbedEmbedder  # noqa: PLC0415

        return FastEmbedEmbedder()
    from dynamiq_memory.embedders.openai import OpenAIDocumentEmbedder  # noqa: PLC0415

    return OpenAIDocumentEmbedder(name)


def _has(embedder: Any, methods: Sequence[str]) -> bool:
    return all(callable(getattr(embedder, name, None)) for name in methods)


class _SyncEmbedder(ThreadedEmbedder):
    """Adapts an object with only the synchronous methods."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self.name = name_of(embedder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed_documents(texts)  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self._embedder.embed_query(text)  # type: ignore[no-any-return]


class _LlamaIndexEmbedder:
    """Adapts a LlamaIndex `BaseEmbedding`, which splits its input into batches itself."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.name = name_of(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.get_text_embedding_batch(texts)  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self._model.get_query_embedding(text)  # type: ignore[no-any-return]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await self._model.aget_text_embedding_batch(texts)  # type: ignore[no-any-return]

    async def aembed_query(self, text: str) -> list[float]:
        return await self._model.aget_query_embedding(text)  # type: ignore[no-any-return]


class _DynamiqEmbedder:
    """Adapts a dynamiq embedder component, which truncates its input and splits it into batches itself."""

    def __init__(self, component: Any) -> None:
        self._component = component
        self.name = name_of(component)

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
    # The component takes documents of its own package, which is already imported if such a component exists.
    if any(kind.__module__.partition(".")[0] == "dynamiq" for kind in type(component).__mro__):
        document = import_module("dynamiq.types").Document
        return [document(content=text) for text in texts]
    raise ConfigurationError(
        f"embedder {type(component).__name__} has embed_text but is not a component of dynamiq: add embed_query to it"
    )


def _vectors(output: dict[str, Any]) -> list[list[float]]:
    return [document.embedding for document in output["documents"]]
