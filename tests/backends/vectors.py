"""Tests that stores with vectors of their own share: ranking by words and meaning, and embedding stored messages."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dynamiq_memory import Memory, MemoryBackend, Message
from dynamiq_memory.backends import InMemory, _labels
from dynamiq_memory.exceptions import ConfigurationError, EmbedderError
from tests.fakes.embedders import NGrams, Scripted

ANN = {"user_id": "ann", "session_id": "s"}
Open = Callable[..., MemoryBackend]
Count = Callable[[], int]


def say(text: str, **metadata: str) -> Message:
    return Message(role="user", content=text, metadata={**ANN, **metadata})


def texts(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages]


class Named(Scripted):
    """An embedder with a name, by which stores know it."""

    def __init__(self, name: str | None) -> None:
        super().__init__(dimension=512)
        self.name = name


def broken(_: list[list[float]]) -> Any:
    raise OSError("the model is not there")


class RanksByMeaning:
    """Tests of every store that ranks exactly. The fixture `open_store` opens an empty store with options."""

    def test_a_message_without_a_common_word_is_found(self, open_store: Open) -> None:
        store = open_store(embedder=NGrams())
        assert store.capabilities.hybrid
        store.add_many([say("gardening in spring"), say("the invoice of May"), say("")])
        store.add(say("gardens of Ben", user_id="ben"))
        assert texts(store.search("gardenia", ANN, 1)) == ["gardening in spring"]
        assert texts(asyncio.run(store.asearch("gardenia", ANN, 1))) == ["gardening in spring"]

    def test_words_and_meaning_count_together(self, open_store: Open) -> None:
        store = open_store(embedder=NGrams())
        store.add_many(
            [say("tulip tulips"), say("tulip bulbs from the market"), say("a tuliped tulipist"), say("rain")]
        )
        found = store.search("tulip bulbs", ANN)
        assert texts(found)[0] == "tulip bulbs from the market"
        scores = [message.score for message in found]
        assert all(score is not None and 0 < score <= 1 for score in scores)
        assert scores == sorted(scores, key=lambda score: -(score or 0))

    def test_filters_hold_before_the_ranking(self, open_store: Open) -> None:
        store = open_store(embedder=NGrams())
        store.add_many([say("garden", topic="a"), say("gardening", topic="b"), say("garden", user_id="ben", topic="b")])
        assert texts(store.search("garden", ANN | {"topic": "b"}, 5)) == ["gardening"]
        assert texts(store.search("garden", {"topic": "b"}, 5)) == ["garden", "gardening"]

    def test_results_are_those_of_an_exact_comparison(self, open_store: Open) -> None:
        parts, chosen = ["gard", "ening", "tulip", "bulb", "rain", "ing", "mark", "et"], random.Random(5)
        messages = [
            say(" ".join("".join(chosen.choices(parts, k=2)) for _ in range(6)), session_id=f"s{number % 3}")
            for number in range(60)
        ]
        messages += [say("12 34", session_id="s0"), say("", session_id="s1")]  # have no vector
        store, reference = open_store(embedder=NGrams()), InMemory(NGrams())
        for each in (store, reference):
            each.add_many(messages)
        for query in ("gardening in the rain", "tulips", "12 markets"):
            found, expected = store.search(query, {"user_id": "ann"}), reference.search(query, {"user_id": "ann"})
            scores = {message.id: message.score for message in found}
            assert scores == pytest.approx({message.id: message.score for message in expected}, abs=1e-5)

    @pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
    def test_a_changed_message_has_the_vector_of_its_new_text(self, open_store: Open, asynchronous: bool) -> None:
        store = open_store(embedder=NGrams())
        [message, other] = store.add_many([say("gardening"), say("rain")])
        changed = message.model_copy(update={"content": "invoicing"})
        if asynchronous:
            asyncio.run(store.aupdate([changed]))
        else:
            store.update([changed])
        assert texts(store.search("invoice", ANN, 1)) == ["invoicing"]
        assert texts(store.search("gardens", ANN)) == []
        store.add(other.model_copy(update={"content": " "}))
        assert texts(store.search("rains", ANN)) == []

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (broken, "the model is not there"),
            (lambda found: found[:-1], "1 vectors for 2 texts"),
            (lambda found: [[math.nan, *found[0][1:]], *found[1:]], "NaN"),
        ],
        ids=["raises", "too few", "NaN"],
    )
    @pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
    def test_an_embedder_that_fails_leaves_nothing(
        self, open_store: Open, change: Any, said: str, asynchronous: bool
    ) -> None:
        embedder = Scripted()
        store = open_store(embedder=embedder)
        store.add(say("before"))
        embedder.change = change
        messages = [say("one"), say("two")]

        async def replace() -> None:
            await store.areplace(ANN, messages)

        calls: list[Callable[[], object]] = [lambda: store.add_many(messages), lambda: store.replace(ANN, messages)]
        if asynchronous:
            calls = [lambda: asyncio.run(store.aadd_many(messages)), lambda: asyncio.run(replace())]
        for call in calls:
            with pytest.raises(EmbedderError, match=said):
                call()
        assert texts(store.get_all()) == ["before"]

    def test_an_agent_recalls_by_meaning(self, open_store: Open) -> None:
        memory = Memory(backend=open_store(embedder=NGrams()))
        memory.add("user", "I am gardening a lot", ANN)
        memory.add("assistant", "Nice!", ANN)
        for number in range(10):
            memory.add("user", f"What about invoice {number}?", ANN)
            memory.add("assistant", "Paid.", ANN)
        found = memory.get_agent_conversation("gardens", 6, ANN, strategy="both")
        assert texts(found)[0] == "I am gardening a lot"


class EmbedsAsynchronously:
    """Tests of stores that call the embedder's own asynchronous methods."""

    def test_asynchronous_calls_embed_asynchronously(self, open_store: Open) -> None:
        class OnlyAsync(NGrams):
            def embed_documents(self, texts: Any) -> Any:
                raise AssertionError("would hold up the event loop")

            def embed_query(self, text: str) -> Any:
                raise AssertionError("would hold up the event loop")

            async def aembed_documents(self, texts: Any) -> list[list[float]]:
                return [self._vector(text) for text in texts]

            async def aembed_query(self, text: str) -> list[float]:
                return self._vector(text)

        async def script(store: MemoryBackend) -> list[Message]:
            await store.aadd(say("gardening"))
            await store.areplace(ANN, [say(f"gardening {n}") for n in range(80)])  # so many go through a thread
            return await store.asearch("garden", ANN, 3)

        assert len(asyncio.run(script(open_store(embedder=OnlyAsync())))) == 3


class KeepsVectors(RanksByMeaning):
    """Tests of stores that outlive their objects. `open_store` opens the same store each time.

    The fixture `count_vectors` returns a function that counts the stored vectors.
    """

    @pytest.mark.parametrize("way", ["delete", "take", "replace", "clear", "blank"])
    def test_what_deletes_a_text_deletes_its_vector(self, open_store: Open, count_vectors: Count, way: str) -> None:
        store = open_store(embedder=NGrams())
        messages = store.add_many([say("one"), say("two")])
        assert count_vectors() == 2
        plain = open_store()
        ways: dict[str, Callable[[], object]] = {
            "delete": lambda: plain.delete("s", "ann"),
            "take": lambda: plain.take(ANN),
            "replace": lambda: plain.replace(ANN, []),
            "clear": plain.clear,
            "blank": lambda: store.update([message.model_copy(update={"content": " "}) for message in messages]),
        }
        ways[way]()
        assert count_vectors() == 0

    def test_a_store_without_an_embedder_leaves_no_vector_of_an_old_text(
        self, open_store: Open, count_vectors: Count
    ) -> None:
        before = open_store()  # opened before there were vectors
        store = open_store(embedder=NGrams())
        messages = store.add_many([say("gardening"), say("rain")])
        after = open_store()
        for plain, message in zip((before, after), messages, strict=True):
            plain.add(message.model_copy(update={"content": "invoicing"}))
        assert count_vectors() == 0
        assert texts(store.search("invoicing", ANN)) == ["invoicing", "invoicing"]

    def test_what_was_stored_without_an_embedder_is_embedded_on_demand(
        self, open_store: Open, count_vectors: Count, caplog: pytest.LogCaptureFixture
    ) -> None:
        open_store().add_many([say(f"gardening {n}") for n in range(3)] + [say("")])
        embedder = Scripted()
        with caplog.at_level(logging.INFO, "dynamiq_memory"):
            store = open_store(embedder=embedder)
            assert "reindex=True" in caplog.text
            assert store.search("gardenia", ANN) == []
            assert len(store.search("gardening", ANN)) == 3
            assert embedder.documents == []
            store = open_store(embedder=embedder, reindex=True)
            assert count_vectors() == 3
            assert len(store.search("gardenia", ANN)) == 3
            assert "embedded " in caplog.text
            caplog.clear()
            open_store(embedder=embedder)
            open_store(embedder=embedder, reindex=True)
        assert caplog.text == ""
        assert len(embedder.documents) == 1  # nothing twice

    def test_a_new_store_never_warns(self, open_store: Open, caplog: pytest.LogCaptureFixture) -> None:
        store = open_store(embedder=NGrams())
        store.add_many([say("gardening"), say("")])
        open_store(embedder=NGrams()).search("gardens")
        assert caplog.text == ""
        open_store().add(say("gardens"))
        open_store(embedder=NGrams()).search("gardens")
        assert "reindex=True" in caplog.text

    def test_what_is_stored_while_others_are_embedded_is_not_taken_for_embedded(
        self, open_store: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = open_store()
        _, blank = other.add_many([say("gardens"), say("")])
        embedder = Scripted()

        def another_writes(vectors: list[list[float]]) -> list[list[float]]:
            if embedder.documents and len(texts(other.search("tulips"))) == 0:
                other.take({"message_id": blank.id, **ANN})
                other.add(say("tulips"))  # maybe with the same number as the one deleted
            return vectors

        embedder.change = another_writes
        open_store(embedder=embedder, reindex=True)
        caplog.clear()
        if texts(open_store(embedder=NGrams(64)).search("tulipan", ANN, 1)) != ["tulips"]:
            assert "reindex=True" in caplog.text
        again = open_store(embedder=NGrams(64), reindex=True)
        assert texts(again.search("tulipan", ANN, 1)) == ["tulips"]

    def test_embedding_goes_on_where_it_was_interrupted(
        self, open_store: Open, count_vectors: Count, monkeypatch: pytest.MonkeyPatch, at_once: str
    ) -> None:
        monkeypatch.setattr(at_once, 3)
        open_store().add_many([say(f"gardening {n}") for n in range(10)])

        embedder = Scripted()

        def interrupted(vectors: list[list[float]]) -> Any:
            if len(embedder.documents) == 3:
                raise KeyboardInterrupt
            return vectors

        embedder.change = interrupted
        with pytest.raises(KeyboardInterrupt):
            open_store(embedder=embedder, reindex=True)
        assert count_vectors() == 6
        meanwhile = open_store(embedder=NGrams(64))
        assert len(meanwhile.search("gardenia", ANN)) == 6
        assert len(meanwhile.search("gardening", ANN)) == 10
        embedder = Scripted()
        assert len(open_store(embedder=embedder, reindex=True).search("gardenia", ANN)) == 10
        assert sum(map(len, embedder.documents)) == 4

    def test_a_store_that_was_opened_first_notices_the_embedder_of_another(self, open_store: Open) -> None:
        store = open_store(embedder=NGrams(256))
        assert store.search("gardens", ANN) == []
        open_store(embedder=NGrams(512)).add(say("gardening"))
        for call in (lambda: store.search("gardens", ANN), lambda: store.add(say("rain"))):
            with pytest.raises(ConfigurationError, match=r"have 256 numbers.*512"):
                call()
        assert store.count() == 1

    def test_another_dimension_is_refused_and_embedded_again_on_demand(self, open_store: Open) -> None:
        open_store(embedder=NGrams(512)).add(say("gardening"))
        with pytest.raises(ConfigurationError, match=r"have 256 numbers.*512.*reindex=True"):
            open_store(embedder=NGrams(256)).search("rain", ANN)
        renewed = open_store(embedder=NGrams(256), reindex=True)
        assert texts(renewed.search("gardens", ANN)) == ["gardening"]
        assert texts(open_store(embedder=NGrams(256)).search("gardens", ANN)) == ["gardening"]

    def test_another_embedder_is_refused_and_embeds_again_on_demand(
        self, open_store: Open, count_vectors: Count
    ) -> None:
        open_store(embedder=Named("first")).add_many([say("gardening"), say("rain")])
        with pytest.raises(ConfigurationError, match=r"'first', not of 'second'.*reindex=True"):
            open_store(embedder=Named("second"))
        assert count_vectors() == 2
        again = Named("second")
        assert texts(open_store(embedder=again, reindex=True).search("gardens", ANN)) == ["gardening"]
        assert again.documents == [["gardening", "rain"]]
        with pytest.raises(ConfigurationError, match=r"'second', not of 'first'"):
            open_store(embedder=Named("first"))
        assert texts(open_store(embedder=Named("second")).search("gardens", ANN)) == ["gardening"]
        assert texts(open_store(embedder=Named(None)).search("gardens", ANN)) == ["gardening"]

    def test_vectors_of_an_embedder_without_a_name_are_kept(self, open_store: Open, count_vectors: Count) -> None:
        open_store(embedder=Named(None)).add(say("gardening"))
        again = Named("new")
        assert texts(open_store(embedder=again, reindex=True).search("gardens", ANN)) == ["gardening"]
        assert again.documents == []
        with pytest.raises(ConfigurationError, match="'new', not of 'other'"):
            open_store(embedder=Named("other"))


class Turned(Scripted):
    """An embedder whose vectors are those of `Named`, in another direction: comparing both gives noise."""

    def __init__(self, name: str | None, dimension: int = 512) -> None:
        super().__init__(lambda vectors: [[*vector[1:], vector[0]] for vector in vectors], dimension)
        self.name = name


class LabelsVectors:
    """Tests of servers that store with each message whose vector it has. `open_store` opens the same store each time."""

    def test_another_embedder_is_refused_and_embeds_again_on_demand(self, open_store: Open) -> None:
        first = open_store(embedder=Named("first"))
        first.add_many([say("gardening"), say("rain"), say("")])
        with pytest.raises(ConfigurationError, match=r"'first', not of 'second'.*reindex=True"):
            open_store(embedder=Turned("second"))
        again = Turned("second")
        store = open_store(embedder=again, reindex=True)
        assert sorted(text for batch in again.documents for text in batch) == ["gardening", "rain"]
        assert texts(store.search("gardenia", ANN)) == ["gardening"]
        assert set(texts(first.search("gardenia", ANN))) <= {"gardening"}  # which it has just written, and no noise
        assert len(store.get_all()) == store.count() == 3
        with pytest.raises(ConfigurationError, match=r"'second', not of 'first'"):
            open_store(embedder=Named("first"))
        for embedder in (Turned("second"), Turned(None)):
            assert texts(open_store(embedder=embedder, reindex=True).search("gardenia", ANN)) == ["gardening"]
            assert embedder.documents == []  # they are there

    def test_embedding_goes_on_where_it_was_interrupted(
        self, open_store: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(_labels, "_AT_ONCE", 3)
        first = open_store(embedder=Named("first"))
        first.add_many([say(f"gardening {n}") for n in range(10)])
        second = Turned("second")
        turn = second.change

        def interrupted(vectors: list[list[float]]) -> Any:
            if len(second.documents) == 3:
                raise KeyboardInterrupt
            return turn(vectors)

        second.change = interrupted
        with pytest.raises(KeyboardInterrupt):
            open_store(embedder=second, reindex=True)
        meanwhile = open_store(embedder=Turned("second"))
        assert "reindex=True" in caplog.text
        assert len(meanwhile.search("gardenia", ANN)) == 6
        assert len(meanwhile.search("gardening", ANN)) == 10
        assert len(first.search("gardenia", ANN)) >= 4
        with caplog.at_level(logging.INFO, "dynamiq_memory"):
            second = Turned("second")
            assert len(open_store(embedder=second, reindex=True).search("gardenia", ANN)) == 10
        assert sum(map(len, second.documents)) == 4
        assert [record.args[0] for record in caplog.records if record.msg.startswith("embedded")] == [3, 4]  # type: ignore[index]
        first.add(say("tulips"))  # it has not noticed
        assert texts(open_store(embedder=Turned("second")).search("tulipan", ANN)) == []
        assert texts(open_store(embedder=Turned("second"), reindex=True).search("tulipan", ANN)) == ["tulips"]

    def test_what_changes_meanwhile_stays_as_it_is(self, open_store: Open) -> None:
        first = open_store(embedder=Named("first"))
        gone, changed, _ = first.add_many([say("gardens"), say("rain"), say("tulips")])
        second = Turned("second")
        turn = second.change

        def with_changes(vectors: list[list[float]]) -> Any:
            if len(second.documents) == 1:
                first.take({"message_id": gone.id, **ANN})
                first.add(changed.model_copy(update={"content": "invoices"}))
            return turn(vectors)

        second.change = with_changes
        store = open_store(embedder=second, reindex=True)
        assert texts(store.get_all()) == ["invoices", "tulips"]
        assert texts(store.search("gardenia", ANN)) == texts(store.search("rainy", ANN)) == []
        assert texts(store.search("invoicing", ANN)) == ["invoices"]
        assert texts(store.search("tulipan", ANN)) == ["tulips"]

    def test_vectors_of_an_embedder_without_a_name_are_kept(self, open_store: Open) -> None:
        open_store(embedder=Named(None)).add(say("gardening"))
        again = Named("new")
        assert texts(open_store(embedder=again, reindex=True).search("gardenia", ANN)) == ["gardening"]
        assert again.documents == []

    def test_another_dimension_is_refused(self, open_store: Open) -> None:
        open_store(embedder=NGrams(512)).add(say("gardening"))
        with pytest.raises(ConfigurationError, match=r"(?s)256.*512.*dynamiq-memory copy.*another'\)"):
            open_store(embedder=NGrams(256), reindex=True).search("gardenia", ANN)
        assert texts(open_store(embedder=NGrams(512)).search("gardenia", ANN)) == ["gardening"]
