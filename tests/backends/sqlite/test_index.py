"""The terms for ranking: made by one tokenizer, and made again on demand."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from dynamiq_memory import BackendError, ConfigurationError, Message
from dynamiq_memory.backends import SQLite
from dynamiq_memory.backends._sql import schema
from dynamiq_memory.ranking import BM25, Tokenizer
from tests.fakes.embedders import NGrams

SCOPE = {"user_id": "u", "session_id": "s"}


def by_letter(text):
    return list(text.replace(" ", ""))


def fill(store):
    store.add_many(
        [
            Message(role="user", content=text, metadata=SCOPE)
            for text in ("running shoes", "he runs", "a pair of shoes", "Läufe")
        ]
    )


def terms(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM conversations_terms ORDER BY seq").fetchall()


@pytest.mark.parametrize(
    "other",
    [Tokenizer(None), Tokenizer("german"), Tokenizer(stop_words=["shoes"]), by_letter],
    ids=["no language", "german", "stop words", "function"],
)
def test_another_tokenizer_is_refused_until_reindexing(path, tmp_path, other):
    with SQLite(path) as store:
        fill(store)
        messages = store.get_all()
    before = terms(path)
    with pytest.raises(ConfigurationError, match=r"tokenizer.*reindex=True") as caught:
        SQLite(path, tokenizer=other)
    assert Tokenizer().signature in str(caught.value)
    assert terms(path) == before

    with SQLite(path, tokenizer=other, reindex=True) as store, SQLite(tmp_path / "fresh.db", tokenizer=other) as fresh:
        fresh.add_many(messages)
        assert store.get_all() == messages
        for query in ("running", "runs", "shoes", "laufe", "e"):
            assert store.search(query, SCOPE) == fresh.search(query, SCOPE)
    assert [row[3:] for row in terms(path)] == [row[3:] for row in terms(tmp_path / "fresh.db")]
    # From now on it is the other one.
    with pytest.raises(ConfigurationError, match="reindex=True"):
        SQLite(path)
    with SQLite(path, tokenizer=other) as store:
        assert store.count() == 4


def test_more_messages_than_a_batch_are_reindexed_and_keep_their_order(path):
    with SQLite(path) as store:
        store.add_many(
            [Message(role="user", content=f"number {n}", timestamp=float(n % 7), metadata=SCOPE) for n in range(2_100)]
        )
        before = store.get_all()
    with SQLite(path, tokenizer=by_letter, reindex=True) as store:
        assert store.get_all() == before
        assert len(store.search("z")) == 0
        assert len(store.search("n")) == 2_100


def test_reindex_with_the_same_tokenizer_does_nothing(path):
    with SQLite(path) as store:
        fill(store)
    before = terms(path)
    with SQLite(path, reindex=True) as store:
        assert len(store.search("shoes")) == 2
    assert terms(path) == before


def test_an_equal_tokenizer_is_the_same(path):
    with SQLite(path, tokenizer=Tokenizer("german", {"und", "der"})) as store:
        fill(store)
    with SQLite(path, tokenizer=Tokenizer("german", ["der", "UND"])) as store:
        assert store.count() == 4


def test_other_parameters_of_the_formula_need_no_new_terms(path):
    with SQLite(path) as store:
        fill(store)
        (first, *_) = store.search("shoes")
    with SQLite(path, bm25=BM25(k1=2.0, b=0.9)) as store:
        (second, *_) = store.search("shoes")
    assert first.score != second.score


def test_terms_follow_the_message(path):
    with SQLite(path) as store:
        stored = store.add(Message(role="user", content="apples", metadata=SCOPE))
        store.add(stored.model_copy(update={"content": "pears"}))
        assert store.search("apples") == []
        assert [m.content for m in store.search("pears")] == ["pears"]
        assert len(terms(path)) == 1
        store.delete(user_id="u")
        assert terms(path) == []
        fill(store)
        store.delete(session_id="s")
        assert terms(path) == []
        fill(store)
        store.clear({"message_id": store.get_all()[0].id})
        assert len(terms(path)) == 3
        store.replace(SCOPE, [Message(role="user", content="one")])
        assert len(terms(path)) == 1


@pytest.mark.parametrize("missing", [["terms"], ["meta"], ["terms", "meta"], ["vectors"]])
def test_a_table_that_is_gone_is_made_again_from_the_messages(path, monkeypatch, caplog, missing):
    monkeypatch.setattr(schema, "_BATCH", 3)
    with SQLite(path, embedder=NGrams()) as store:
        fill(store)
        found = [(message.content, message.score) for message in store.search("running shoes")]
        with closing(sqlite3.connect(path)) as connection, connection:
            for name in missing:
                connection.execute(f"DROP TABLE conversations_{name}")
        with pytest.raises(BackendError, match="open the store again"):
            store.search("running shoes")
    with SQLite(path, embedder=NGrams(), reindex="vectors" in missing) as store:
        assert ("indexed again" in caplog.text) == ("vectors" not in missing)
        assert [(message.content, message.score) for message in store.search("running shoes")] == found
        assert store.count() == 4


def test_vectors_that_are_gone_are_missed(path, caplog):
    with SQLite(path, embedder=NGrams()) as store:
        fill(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE conversations_vectors")
    with SQLite(path, embedder=NGrams()) as store:
        assert "reindex=True" in caplog.text
        assert store.search("running shoes")
