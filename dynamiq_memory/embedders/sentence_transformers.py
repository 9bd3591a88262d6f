"""Embeddings computed in this process by the models of `sentence-transformers`."""

from __future__ import annotations

import threading
from typing import Any

from dynamiq_memory._clients import LazyClient, leave_open
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
    """Embeds with a `sentence-transformers` model, which is loaded on first use (and downloaded if necessary).

    Texts that are too long for the model are truncated for embedding; stored messages never are. Vectors are normalised
    to length 1.

    Args:
        model: Model name or directory, or a `SentenceTransformer`.
        batch_size: Number of texts embedded at once.
        device: Device such as "cpu" or "cuda", or None to let the library choose.
    """

    def __init__(
        self,
        model: str | SentenceTransformer = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        """Create the embedder; the model is not loaded yet."""
        self.batch_size = batch_size
        self.name = model if isinstance(model, str) else None
        self._model: LazyClient[Any] = LazyClient(
            lambda: SentenceTransformer(model, device=device) if isinstance(model, str) else model, leave_open
        )
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Return the class and the model's name."""
        return f"SentenceTransformersEmbedder({self.name!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to store."""
        return self._encode(texts, "encode_document")

    def embed_query(self, text: str) -> list[float]:
        """Embed a search query, with the model's prompt for queries."""
        return self._encode([text], "encode_query")[0]

    def _encode(self, texts: list[str], method: str) -> list[list[float]]:
        with self._lock:  # one computation uses all cores; two at once would only need more memory
            model = self._model.get()
            # Versions before 5 have one method for documents and queries.
            encode = getattr(model, method, model.encode)
            vectors = encode(
                texts,
                batch_size=self.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return vectors.tolist()  # type: ignore[no-any-return]
