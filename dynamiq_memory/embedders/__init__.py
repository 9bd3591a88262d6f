"""Embedders convert texts to vectors, for stores that rank by meaning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dynamiq_memory.embedders.adapting import as_embedder
from dynamiq_memory.embedders.base import Embedder

if TYPE_CHECKING:
    from dynamiq_memory.embedders.fastembed import FastEmbedEmbedder
    from dynamiq_memory.embedders.openai import OpenAIDocumentEmbedder
    from dynamiq_memory.embedders.sentence_transformers import SentenceTransformersEmbedder

__all__ = [
    "Embedder",
    "FastEmbedEmbedder",
    "OpenAIDocumentEmbedder",
    "SentenceTransformersEmbedder",
    "as_embedder",
]

# Imported on first use, since their libraries are slow to import and may not be installed.
_MODULES = {
    "FastEmbedEmbedder": "fastembed",
    "OpenAIDocumentEmbedder": "openai",
    "SentenceTransformersEmbedder": "sentence_transformers",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
