"""Ranking by words and meaning together, with vectors in the file."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamiq_memory.backends import SQLite, create_backend
from dynamiq_memory.exceptions import MissingDependencyError
from tests.backends.sqlite.conftest import OldFile, Record
from tests.backends.vectors import ANN, Count, EmbedsAsynchronously, KeepsVectors, Open, say
from tests.fakes.embedders import NGrams


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def open_store(file: Path) -> Iterator[Callable[..., SQLite]]:
    opened: list[SQLite] = []

    def open_it(**options: Any) -> SQLite:
        opened.append(SQLite(file, index_name='odd "name" %s :x', **options))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def execute(file: Path) -> Callable[[str], list[Any]]:
    def execute(statement: str) -> list[Any]:
        connection = sqlite3.connect(file)
        try:
            with connection:
                return connection.execute(statement.replace("{}", 'odd ""name"" %s :x')).fetchall()
        finally:
            connection.close()

    return execute


class TestVectors(KeepsVectors, EmbedsAsynchronously):
    at_once = pytest.fixture(lambda self: "dynamiq_memory.backends._sql.schema._EMBEDDED_AT_ONCE")

    @pytest.fixture
    def count_vectors(self, execute: Callable[[str], list[Any]]) -> Count:
        return lambda: int(execute('SELECT count(*) FROM "{}_vectors"')[0][0])


def test_without_an_embedder_there_is_no_table_of_vectors(
    open_store: Open, execute: Callable[[str], list[Any]]
) -> None:
    open_store().add(say("gardening"))
    assert execute("SELECT name FROM sqlite_master WHERE name LIKE '%vectors%'") == []


def test_a_deletion_by_another_program_deletes_the_vector(
    open_store: Open, execute: Callable[[str], list[Any]]
) -> None:
    store = open_store(embedder=NGrams())
    store.add(say("gardening"))
    execute('DELETE FROM "{}"')
    execute('DELETE FROM "{}_terms"')
    store.add(say("rain"))  # gets the number of the deleted message
    assert [message.text for message in store.search("gardens", ANN)] == []


def test_vectors_of_dropped_messages_are_dropped(open_store: Open, execute: Callable[[str], list[Any]]) -> None:
    open_store(embedder=NGrams(512)).add(say("gardening"))
    execute('DROP TABLE "{}"')
    store = open_store(embedder=NGrams(256))
    store.add(say("rain"))
    assert store.search("gardens", ANN) == []
    assert execute('SELECT count(*) FROM "{}_vectors"') == [(1,)]


def test_a_search_reads_the_vectors_of_its_scope_in_one_statement(open_store: Open, record: Record) -> None:
    store = open_store(embedder=NGrams(4))
    store.add_many([say(f"garden {n}") for n in range(20)])
    store.search("garden", ANN, 3)
    record.statements.clear()
    store.search("garden", ANN, 3)
    [ranking] = [(sql, values) for sql, values in record.selects() if "_vectors" in sql]
    assert "_terms" in ranking[0]
    assert ranking[1][-2:] == ("ann", "s")


def test_a_search_by_words_goes_on_after_another_store_has_begun_to_embed(open_store: Open, record: Record) -> None:
    words = open_store()
    words.add_many([say(f"garden {n}") for n in range(3)])
    found = {message.id for message in words.search("garden", ANN)}
    assert len(found) == 3
    open_store(embedder=NGrams(4)).add(say("elsewhere"))
    sent = []
    for _ in range(2):
        record.statements.clear()
        assert {message.id for message in words.search("garden", ANN)} == found
        sent.append(len(record.selects()))
    assert sent == [4, 2]  # first it checks what has changed, and asks again
    record.statements.clear()
    assert words.search("garden", {"user_id": "nobody"}) == []
    assert len(record.selects()) == 2


def test_a_missing_numpy_is_named(open_store: Open, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "dynamiq_memory.ranking.vectors", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dynamiq-memory\[vectors\]'"):
        open_store(embedder=NGrams())
    assert not file.exists()
    open_store().add(say("gardening"))


def test_a_url_names_the_embedder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    with create_backend(f"sqlite:///{file}?embedder=text-embedding-3-small") as store:
        assert store.capabilities.hybrid
        url = store.to_url()
    assert url is not None
    assert "embedder=text-embedding-3-small" in url
    with create_backend(url) as again:
        assert again.capabilities.hybrid
    with SQLite(file, embedder=NGrams()) as given:
        assert given.to_url() is None


def test_a_url_asks_to_embed_what_is_stored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamiq_memory.embedders.adapting._named", lambda _: NGrams())
    with SQLite(file) as store:
        store.add(say("gardening"))
    with create_backend(f"sqlite:///{file}?embedder=local&reindex=true") as store:
        assert [message.text for message in store.search("gardens", ANN)] == ["gardening"]


def test_a_file_of_the_dynamiq_package_is_upgraded_and_embedded(file: Path, old_file: type[OldFile]) -> None:
    old_file(file).add("1", "user", "gardening", ANN)
    with SQLite(file, embedder=NGrams(), reindex=True) as store:
        assert [message.text for message in store.search("gardens", ANN)] == ["gardening"]
