"""Embeddings in this process, by the ONNX models of `fastembed`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dynamiq_memory.embedders.base import ThreadedEmbedder
from dynamiq_memory.exceptions import MissingDependencyError

try:
    from fastembed import TextEmbedding
except ImportError as error:
    raise MissingDependencyError(
        "FastEmbedEmbedder needs the fastembed package: pip install 'dynamiq-memory[fastembed]'"
    ) from error


class FastEmbedEmbedder(ThreadedEmbedder):
    """Embeds by a model of `fastembed`, which is loaded (and the first time downloaded) when first used.

    The model cuts what is longer than it takes; what is stored is never cut.

    Args:
        model: The model's name, or a `fastembed.TextEmbedding`.
        batch_size: How many texts are computed at once.
        cache_dir: Where downloaded models are kept; by default where fastembed does.
        threads: How many threads compute; None for all cores.
    """

    def __init__(
        self,
        model: str | TextEmbedding = "BAAI/bge-small-en-v1.5",
        *,
        batch_size: int = 64,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
    ) -> None:
        """Keep the settings."""
        self.batch_size = batch_size
        self._name = model if isinstance(model, str) else str(model.model_name)
        self._settings = {"cache_dir": None if cache_dir is None else str(cache_dir), "threads": threads}
        self._loaded: Any = None if isinstance(model, str) else model
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Name the model."""
        return f"FastEmbedEmbedder({self._name!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are stored."""
        return _lists(self._model().passage_embed(texts, batch_size=self.batch_size))

    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for, with what the model puts before questions."""
        return _lists(self._model().query_embed(text))[0]

    def _model(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = TextEmbedding(self._name, **self._settings)
            return self._loaded


def _lists(vectors: Iterable[Any]) -> list[list[float]]:
    return [vector.tolist() for vector in vectors]
