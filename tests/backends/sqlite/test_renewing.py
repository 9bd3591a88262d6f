"""A file that version 1 of the default tokenizer indexed is indexed again when it is opened."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dynamiq_memory import ConfigurationError, Message
from dynamiq_memory.backends import SQLite
from dynamiq_memory.backends._sql import schema
from dynamiq_memory.backends._sql.writer import SQLWriter
from dynamiq_memory.ranking import Tokenizer

SCOPE = {"user_id": "u", "session_id": "s"}
VERSION_1 = "words-1/english/7a2a7537"
FILE = Path(__file__).parents[1] / "data" / "conversations.db"


class Earlier:
    """Stands for version 1."""

    signature = VERSION_1

    def __call__(self, text: str) -> list[str]:
        return text.lower().split()


def meta(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM conversations_meta"))


def terms(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM conversations_terms ORDER BY seq").fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


@pytest.fixture
def _batches_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_BATCH", 10)


def fill(path: Path, count: int = 35) -> list[Message]:
    with SQLite(path, tokenizer=Earlier()) as store:
        store.add_many([Message(role="user", content=f"I bought camelCase{n}", metadata=SCOPE) for n in range(count)])
        return store.get_all()


def test_a_file_of_version_1(path: Path, tmp_path: Path) -> None:
    shutil.copy(FILE, path)
    assert meta(path)["tokenizer"] == VERSION_1
    with SQLite(path) as store, SQLite(tmp_path / "fresh.db") as fresh:
        fresh.add_many(store.get_all())
    # The order of arrival differs, not the terms.
    assert sorted(row[3:] for row in terms(path)) == sorted(row[3:] for row in terms(tmp_path / "fresh.db"))
    assert meta(path) == meta(tmp_path / "fresh.db")


@pytest.mark.usefixtures("_batches_of_ten")
def test_it_is_done_in_batches_and_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages = fill(path)
    with caplog.at_level(logging.INFO), SQLite(path) as store:
        assert store.get_all() == messages
        assert len(store.search("buy")) == len(store.search("camel case")) == 35
    assert [record.getMessage() for record in caplog.records if "re-indexed" in record.getMessage()] == [
        f"re-indexed conversations up to its message number {n}" for n in (10, 20, 30, 35)
    ]


@pytest.mark.usefixtures("_batches_of_ten")
def test_a_process_that_is_killed_loses_one_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = fill(path)
    renew, calls = schema.SQLSchema.renew_terms, []

    def killed(self: schema.SQLSchema, connection: Any) -> bool:
        calls.append(renew(self, connection))
        if len(calls) == 3:
            raise KeyboardInterrupt  # before the commit of the third batch
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(schema.SQLSchema, "renew_terms", killed)
        with pytest.raises(KeyboardInterrupt):
            SQLite(path)
    assert meta(path)["renewed_up_to"] == "20"

    indexed: list[str] = []
    index = SQLWriter.index

    def counted(self: Any, connection: Any, batch: Any) -> None:
        indexed.extend(message.text for message in batch)
        index(self, connection, batch)

    monkeypatch.setattr(SQLWriter, "index", counted)
    with SQLite(path) as store:
        assert store.get_all() == messages
        assert len(store.search("buy")) == 35
    assert indexed == [message.text for message in messages[20:]]
    assert "renewed_up_to" not in meta(path)


@pytest.mark.usefixtures("_batches_of_ten")
def test_a_process_of_version_1_reads_meanwhile_and_is_refused_to_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = fill(path)
    old = SQLite(path, tokenizer=Earlier())
    renew, refused = schema.SQLSchema.renew_terms, []

    def watched(self: schema.SQLSchema, connection: Any) -> bool:
        assert old.get_all() == messages
        with pytest.raises(ConfigurationError, match=r"re-indexed by the tokenizer 'words-2"):
            old.search("bought")
        refused.append(True)
        return renew(self, connection)

    monkeypatch.setattr(schema.SQLSchema, "renew_terms", watched)
    with old, SQLite(path) as store:
        with pytest.raises(ConfigurationError, match=r"re-indexed by the tokenizer 'words-2"):
            old.add(Message(role="user", content="late", metadata=SCOPE))
        assert store.get_all() == messages
    assert len(refused) == 5


@pytest.mark.usefixtures("_batches_of_ten")
def test_it_stops_when_a_process_of_version_1_indexes_all_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    before = terms(path)
    ask = SQLite._ask
    opened: list[int] = []

    def between(self: SQLite, request: Any) -> Any:
        result = ask(self, request)
        if getattr(request.work, "__name__", None) == "renew_terms" and not opened:
            opened.append(1)
            SQLite(path, tokenizer=Earlier(), reindex=True).close()
        return result

    monkeypatch.setattr(SQLite, "_ask", between)
    with pytest.raises(ConfigurationError, match=r"re-indexed by the tokenizer 'words-1"):
        SQLite(path)
    assert terms(path) == before
    with SQLite(path) as store:
        assert len(store.search("buy")) == 35
    assert meta(path) == {"schema_version": "1", "tokenizer": Tokenizer().signature, "by_owner": "1"}


@pytest.mark.usefixtures("_batches_of_ten")
def test_two_processes_share_the_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    index = SQLWriter.index
    indexed: list[str] = []
    opened: list[bool] = []

    def counted(self: Any, connection: Any, batch: Any) -> None:
        indexed.extend(message.text for message in batch)
        index(self, connection, batch)

    monkeypatch.setattr(SQLWriter, "index", counted)
    ask = SQLite._ask

    def between(self: SQLite, request: Any) -> Any:
        result = ask(self, request)
        if len(indexed) == 20 and not opened:
            opened.append(True)
            with SQLite(path) as second:
                assert len(second.search("buy")) == 35
        return result

    monkeypatch.setattr(SQLite, "_ask", between)
    with SQLite(path) as store:
        assert len(store.search("buy")) == 35
    assert opened
    assert len(indexed) == len(set(indexed)) == 35


def test_messages_deleted_meanwhile_stay_deleted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    old = SQLite(path, tokenizer=Earlier())
    ask = SQLite._ask
    deleted: list[int] = []

    def between(self: SQLite, request: Any) -> Any:
        result = ask(self, request)
        if result is True and not deleted:
            deleted.append(old.delete(user_id="u"))
        return result

    monkeypatch.setattr(SQLite, "_ask", between)
    with old, SQLite(path) as store:
        assert store.get_all() == []
    assert deleted
    assert terms(path) == []


@pytest.mark.parametrize("tokenizer", [Tokenizer("german"), Tokenizer(stop_words=())], ids=["german", "stop words"])
def test_another_tokenizer_is_not_a_later_version(path: Path, tokenizer: Tokenizer) -> None:
    fill(path, 1)
    before = terms(path)
    with pytest.raises(ConfigurationError, match=r"words-1/english.*reindex=True"):
        SQLite(path, tokenizer=tokenizer)
    assert (meta(path)["tokenizer"], terms(path)) == (VERSION_1, before)


def test_nothing_is_to_be_done_in_a_file_that_is_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLite(path) as store:
        store.add(Message(role="user", content="hello", metadata=SCOPE))
    monkeypatch.setattr(schema.SQLSchema, "renew_terms", None)
    with SQLite(path) as store:
        assert store.count() == 1
