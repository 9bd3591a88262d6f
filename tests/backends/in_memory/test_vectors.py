"""Ranking by words and meaning together, in this process."""

from __future__ import annotations

import pytest

from dynamiq_memory.backends import InMemory, create_backend
from dynamiq_memory.exceptions import ConfigurationError
from tests.backends.vectors import Open, RanksByMeaning


class TestVectors(RanksByMeaning):
    @pytest.fixture
    def open_store(self) -> Open:
        return InMemory


def test_a_url_names_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    with create_backend("memory://?embedder=text-embedding-3-small") as store:
        assert store.capabilities.hybrid
    with create_backend("memory://") as store:
        assert not store.capabilities.hybrid
    with pytest.raises(ConfigurationError, match="no option 'colour'"):
        create_backend("memory://?colour=red")
