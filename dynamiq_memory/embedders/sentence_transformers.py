"""Embeddings in this process, by the models of `sentence-transformers`."""

from __future__ import annotations

import threading
from typing import Any

from dynamiq_memory.embedders.base import ThreadedEmbedder
from dynamiq_memory.exceptions import MissingDependencyError

try:
    from sentence_transformers import SentenceTransformer
except ImportError as error:
    raise MissingDependencyError(
        "SentenceTransformersEmbedder needs the sentence-transformers package: "
        "pip install 'dynamiq-memory[sentence-transformers]'"
    ) from error


class SentenceTransformersEmbedder(ThreadedEmbedder):
    """Embeds by a model of `sentence-transformers`, which is loaded (and the first time downloaded) when first used.

    The model cuts what is longer than it takes; what is stored is never cut. Vectors have the length 1.

    Args:
        model: The model's name or folder, or a `SentenceTransformer`.
        batch_size: How many texts are computed at once.
        device: Where it computes, such as "cpu" or "cuda"; None to let the library choose.
    """

    def __init__(
        self,
        model: str | SentenceTransformer = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        """Keep the settings."""
        self.batch_size = batch_size
        self._name = model if isinstance(model, str) else type(model).__name__
        self._device = device
        self._loaded: Any = None if isinstance(model, str) else model
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Name the model."""
        return f"SentenceTransformersEmbedder({self._name!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are stored."""
        return self._encode(texts, "encode_document")

    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for, with what the model puts before questions."""
        return self._encode([text], "encode_query")[0]

    def _encode(self, texts: list[str], method: str) -> list[list[float]]:
        with self._lock:  # one computation has all cores; two at once would only take more memory
            if self._loaded is None:
                self._loaded = SentenceTransformer(self._name, device=self._device)
            # Before version 5 there is one method for both.
            encode = getattr(self._loaded, method, self._loaded.encode)
            vectors = encode(
                texts,
                batch_size=self.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return vectors.tolist()  # type: ignore[no-any-return]
