"""Embeddings computed in this process by the ONNX models of `fastembed`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dynamiq_memory._clients import LazyClient, leave_open
from dynamiq_memory.embedders.base import ThreadedEmbedder
from dynamiq_memory.exceptions import EmbedderError, MissingDependencyError

try:
    from fastembed import TextEmbedding
except ImportError as error:
    raise MissingDependencyError(
        "a local embedder needs the fastembed package: pip install 'dynamiq-memory[local]'"
    ) from error


logger = logging.getLogger(__name__)


class FastEmbedEmbedder(ThreadedEmbedder):
    """Embeds with a `fastembed` model, which is loaded on first use (and downloaded if necessary).

    Every backend that takes an embedder also takes `embedder="local"` for one with the default model.

    Texts that are too long for the model are truncated for embedding; stored messages never are.

    Args:
        model: Model name, or a `fastembed.TextEmbedding`.
        batch_size: Number of texts embedded at once.
        cache_dir: Directory for downloaded models. Defaults to fastembed's: `FASTEMBED_CACHE_PATH`, or a temporary one.
        threads: Number of threads, or None for one per core.
    """

    def __init__(
        self,
        model: str | TextEmbedding = "BAAI/bge-small-en-v1.5",
        *,
        batch_size: int = 64,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
    ) -> None:
        """Create the embedder; the model is not loaded yet."""
        self.batch_size = batch_size
        self.name = model if isinstance(model, str) else str(model.model_name)
        settings: Any = {"cache_dir": None if cache_dir is None else str(cache_dir), "threads": threads}
        self._model = LazyClient(lambda: _loaded(model, settings) if isinstance(model, str) else model, leave_open)

    def __repr__(self) -> str:
        """Return the class and the model's name."""
        return f"FastEmbedEmbedder({self.name!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store.

        Raises:
            EmbedderError: The model cannot be loaded.
        """
        return _lists(self._model.get().passage_embed(texts, batch_size=self.batch_size))

    def embed_query(self, text: str) -> list[float]:
        """Embed a search query, with the model's prefix for queries."""
        return _lists(self._model.get().query_embed(text))[0]


def _loaded(name: str, settings: dict[str, Any]) -> TextEmbedding:
    logger.info("loading the embedding model %s, which is downloaded if it is not in the cache of fastembed", name)
    try:
        return TextEmbedding(name, **settings)
    except Exception as error:
        raise EmbedderError(
            f"the embedding model {name!r} cannot be loaded ({error}): let this machine download it once, or copy "
            "fastembed's cache from a machine that has it and set FASTEMBED_CACHE_PATH"
        ) from error


def _lists(vectors: Iterable[Any]) -> list[list[float]]:
    return [vector.tolist() for vector in vectors]
