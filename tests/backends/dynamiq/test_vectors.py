"""Ranking by words and meaning over the platform, in this process; and over a service, by its store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dynamiq_memory.backends import Dynamiq, InMemory
from dynamiq_memory.backends.dynamiq import search
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.exceptions import ConfigurationError
from tests.backends.vectors import ANN, RanksByMeaning, say, texts
from tests.fakes.dynamiq.platform import KEY, platform
from tests.fakes.embedders import NGrams, Scripted
from tests.service.serving import serving

OpenStore = Callable[..., Dynamiq]


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    opened: list[Dynamiq] = []
    with platform() as server:

        def open_it(**options: Any) -> Dynamiq:
            opened.append(Dynamiq(DynamiqConnection(url=server.url, api_key=KEY), "m", **options))
            return opened[-1]

        yield open_it
        for store in opened:
            store.close()


class TestPlatform:
    """Those tests of the search that need nothing else than the platform can do."""

    test_a_message_without_a_common_word = RanksByMeaning.test_a_message_without_a_common_word_is_found
    test_words_and_meaning = RanksByMeaning.test_words_and_meaning_count_together
    test_an_agent = RanksByMeaning.test_an_agent_recalls_by_meaning


def test_a_message_is_embedded_once(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Scripted()
    store = open_store(embedder=embedder)
    store.add_many([say("gardening"), say("gardening"), say("rain"), say("")])
    embedder.documents.clear()
    for _ in range(2):
        assert texts(store.search("gardens", ANN, 2)) == ["gardening", "gardening"]
    assert embedder.documents == [["gardening", "rain"]]
    store.add(say("gardener"))
    embedder.documents.clear()
    assert len(asyncio.run(store.asearch("gardens", ANN))) >= 3
    assert embedder.documents == [["gardener"]]
    monkeypatch.setattr(search, "_MOST_KEPT", 2)
    store.add(say("garden"))
    assert len(store.search("gardens", ANN)) >= 4


def test_a_service_ranks_by_the_meaning_of_its_store() -> None:
    with serving(InMemory(NGrams())) as service:
        connection = DynamiqConnection(url=service.url, api_key=None)
        with Dynamiq(connection, "m") as store:
            assert store.capabilities.hybrid
            store.add_many([say("gardening"), say("rain")])
            assert texts(store.search("gardenia", ANN, 1)) == ["gardening"]
        with pytest.raises(ConfigurationError, match="a service ranks with its own embedder"):
            Dynamiq(connection, "m", embedder=NGrams())
