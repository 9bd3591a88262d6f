"""The file: settings, locks, impossible paths, damage, URLs."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from dynamiq_memory import (
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    Memory,
    Message,
    MessageTooLargeError,
)
from dynamiq_memory.backends import SQLite, create_backend

SCOPE = {"user_id": "u", "session_id": "s"}


def message(content="hello", **more):
    return Message(role="user", content=content, metadata=SCOPE, **more)


# --- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("synchronous", "number"), [("FULL", 2), ("NORMAL", 1)])
def test_wal_and_synchronous_are_really_set(path, monkeypatch, synchronous, number):
    opened = []
    connect = sqlite3.connect

    def keeping(*arguments, **options):
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", keeping)
    with SQLite(path, synchronous=synchronous, timeout=1.5) as store:
        store.add(message())
        assert opened
        for connection in opened:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (number,)
            assert connection.execute("PRAGMA busy_timeout").fetchone() == (1500,)
    monkeypatch.undo()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_default_survives_a_power_cut():
    with SQLite(":memory:") as store:
        assert store.synchronous == "FULL"


def test_closing_leaves_one_file(path):
    with SQLite(path) as store:
        store.add(message())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"synchronous": "OFF"}, "synchronous"),
        ({"synchronous": "full"}, "synchronous"),
        ({"timeout": -1}, "timeout"),
        ({"index_name": ""}, "index_name"),
        ({"index_name": "sqlite_mine"}, "index_name"),
        ({"index_name": "a\0b"}, "index_name"),
        ({"index_name": 7}, "index_name"),
    ],
)
def test_wrong_settings_are_named_and_make_no_file(path, options, named):
    with pytest.raises(ConfigurationError, match=named):
        SQLite(path, **options)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": "5"}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"max_message_bytes": "1 MB"}, "max_message_bytes"),
    ],
)
def test_settings_of_the_wrong_type_are_named_too(path, options, named):
    with pytest.raises(ConfigurationError, match=named), SQLite(path, **options):
        pass
    assert not path.exists()


@pytest.mark.parametrize("db_path", ["", "a\0b"], ids=["empty", "NUL"])
def test_a_path_that_names_no_file_is_refused(db_path):
    """SQLite takes the empty path for a private temporary database of each connection: messages would vanish."""
    with pytest.raises(DynamiqMemoryError, match=r"path"), SQLite(db_path):
        pass


def test_a_path_object_and_a_string_are_the_same_file(path):
    with SQLite(path) as one, SQLite(str(path)) as two:
        one.add(message())
        assert two.count() == 1
        assert one.to_dict() == two.to_dict()
        assert json.loads(json.dumps(one.to_dict()))["db_path"] == str(path)


def test_in_memory_databases_are_apart():
    with SQLite(":memory:") as one, SQLite(":memory:") as two:
        one.add(message())
        assert (one.count(), two.count()) == (1, 0)
    assert not Path(":memory:").exists()


# --- locks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(path):
    """A file with one message, and the connection of somebody who writes to it."""
    with SQLite(path) as store:
        store.add(message("before"))
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


def test_a_locked_file_gives_an_error_after_the_timeout_and_works_again(path, locked):
    locked.execute("ROLLBACK")
    with SQLite(path, timeout=0.2) as store:
        locked.execute("BEGIN IMMEDIATE")
        for write in (
            lambda: store.add(message("never")),
            lambda: store.delete(user_id="u"),
            lambda: store.replace(SCOPE, [message("never")]),
        ):
            with pytest.raises(BackendError, match=r"locked.*0\.2 s.*timeout") as caught:
                write()
            assert isinstance(caught.value.__cause__, Exception)
        # Readers do not wait for a writer.
        assert [m.content for m in store.get_all()] == ["before"]
        locked.execute("ROLLBACK")
        store.add(message("after"))
        assert [m.content for m in store.get_all()] == ["before", "after"]


def test_opening_a_locked_file_gives_an_error_after_the_timeout(path, locked):
    with pytest.raises(BackendError, match=r"locked"):
        SQLite(path, "new", timeout=0.2)
    with SQLite(path, timeout=0.2) as store:  # nothing to create
        assert [m.content for m in store.get_all()] == ["before"]


def test_a_writer_that_is_done_in_time_is_waited_for(path, locked):
    locked.execute("ROLLBACK")
    with SQLite(path, timeout=120) as store:
        locked.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, locked.execute, ["ROLLBACK"])
        timer.start()
        store.add(message("after"))
        assert not locked.in_transaction, "the test's own lock did not hold"
        timer.join()
        assert store.count() == 2


# --- places --------------------------------------------------------------------------------------------------


def test_not_a_database(path):
    path.write_bytes(b"This is a text, and no database at all. " * 100)
    before = path.read_bytes()
    with pytest.raises(BackendConnectionError, match=r"not a SQLite database.*db_path") as caught:
        SQLite(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_empty_file_is_a_new_database(path):
    path.touch()
    with SQLite(path) as store:
        assert store.is_empty()


def test_a_folder(tmp_path):
    with pytest.raises(BackendConnectionError, match="it is a folder"):
        SQLite(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder(tmp_path):
    with pytest.raises(BackendConnectionError, match=r"folder .*nowhere.* does not exist; create it"):
        SQLite(tmp_path / "nowhere" / "x.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_place_where_even_root_cannot_write():
    with pytest.raises(BackendConnectionError, match=r"does not allow writing"):
        SQLite("/proc/memory.db")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_read_only_folder(path, run_script):
    """If the tests run as root, permissions stop nothing, so a child gives up its rights first."""
    run_script(
        """
import os, shutil, sys, tempfile
from dynamiq_memory import BackendError, Message
from dynamiq_memory.backends import SQLite
folder = tempfile.mkdtemp()
try:
    file = os.path.join(folder, "x.db")
    with SQLite(file) as store:
        store.add(Message(role="user", content="before"))
    before = open(file, "rb").read()
    os.chmod(file, 0o444)
    os.chmod(folder, 0o555)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            for name, index_name in (("new.db", "conversations"), ("x.db", "new")):
                try:
                    SQLite(os.path.join(folder, name), index_name)
                except BackendError as error:
                    assert os.path.join(folder, name) in str(error), error
                    assert "writ" in str(error), error
                else:
                    raise AssertionError(name)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert open(file, "rb").read() == before
    assert os.listdir(folder) == ["x.db"]
finally:
    os.chmod(folder, 0o755)
    shutil.rmtree(folder)
"""
    )


def test_a_table_of_another_kind(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE conversations (id INTEGER, price REAL)")
        connection.execute("INSERT INTO conversations VALUES (1, 2.5)")
    with pytest.raises(ConfigurationError, match=r"'conversations'.*id, price.*another name"):
        SQLite(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM conversations").fetchall() == [(1, 2.5)]
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
    with SQLite(path, "other") as store:
        store.add(message())
        assert store.count() == 1


def test_a_name_with_the_terms_table_of_another_store(path):
    """index_name "a" keeps its terms in "a_terms", which is here a table of messages."""
    with SQLite(path, "a_terms") as first:
        first.add(message("precious"))
        with pytest.raises(ConfigurationError, match="a_terms"), SQLite(path, "a"):
            pass
        assert [m.content for m in first.get_all()] == ["precious"]


def test_a_file_of_a_newer_version_of_the_package(path):
    with SQLite(path) as store:
        store.add(message())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE conversations_meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(ConfigurationError, match=r"version 99.*upgrade"):
        SQLite(path)


# --- damage, a full disk, a closed store ---------------------------------------------------------------------


def test_a_damaged_file_says_so(path):
    with SQLite(path) as store:
        store.add_many([message(f"text {n} " + "x" * 500) for n in range(300)])
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 2 * 4096))
    with pytest.raises(BackendError, match=r"damaged.*backup"), SQLite(path) as store:
        store.get_all()


def test_a_file_cut_short(path):
    with SQLite(path) as store:
        store.add_many([message(f"text {n} " + "x" * 500) for n in range(300)])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(BackendError, match=r"damaged.*backup"), SQLite(path) as store:
        store.get_all()


def test_a_full_disk_leaves_all_as_it_was(path, monkeypatch):
    connect = sqlite3.connect

    def small(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count=40")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with SQLite(path) as store:
        store.add(message("apple"))
        with pytest.raises(BackendError, match="disk is full"):
            store.add_many([message("small"), message("x" * 400_000)])
        with pytest.raises(BackendError, match="disk is full"):
            store.replace(SCOPE, [message("x" * 400_000)])
        assert [m.content for m in store.get_all()] == ["apple"]
        assert [m.content for m in store.search("apple")] == ["apple"]
        store.add(message("after"))
        assert store.count() == 2


def test_a_failure_within_the_transaction_leaves_all_as_it_was(path):
    with SQLite(path) as store:
        store.add(message("apple"))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "CREATE TRIGGER boom BEFORE INSERT ON conversations WHEN NEW.content = 'boom' "
                "BEGIN SELECT RAISE(ABORT, 'no way'); END"
            )
        for fail in (
            lambda: store.add_many([message("first"), message("boom"), message("third")]),
            lambda: store.replace(SCOPE, [message("first"), message("boom")]),
        ):
            with pytest.raises(BackendError, match="no way") as caught:
                fail()
            assert isinstance(caught.value.__cause__, Exception)
            assert [m.content for m in store.get_all()] == ["apple"]
            assert [m.content for m in store.search("first apple")] == ["apple"]
        store.add(message("after"))
        assert store.count() == 2


def test_closed(path):
    store = SQLite(path)
    memory = Memory(backend=store)
    memory.add("user", "x")
    memory.close()
    memory.close()
    for use in (
        lambda: memory.add("user", "y"),
        memory.get_all,
        memory.count,
        memory.sessions,
        memory.clear,
        lambda: memory.search("x"),
        lambda: memory.get_agent_conversation("x", strategy="both"),
        lambda: memory.delete(user_id="u"),
        lambda: memory.replace_messages(SCOPE, []),
    ):
        with pytest.raises(BackendError, match="closed"):
            use()
    with SQLite(path) as again:
        assert [m.content for m in again.get_all()] == ["x"]


# --- the largest message -------------------------------------------------------------------------------------


def test_max_message_bytes(path):
    with SQLite(path, max_message_bytes=1_000) as store:
        store.add(message("x" * 500))
        for large in (
            message("x" * 1_000),
            message("é" * 600),
            message(native={"dump": "x" * 1_000}),
            Message(role="user", metadata={"note": ["x" * 1_000]}),
        ):
            with pytest.raises(MessageTooLargeError, match=rf"{large.id}.*1,000.*split") as caught:
                store.add_many([message("fits"), large])
            assert isinstance(caught.value, ValueError)
            with pytest.raises(MessageTooLargeError):
                store.replace(SCOPE, [large.model_copy(update={"metadata": large.metadata | SCOPE})])
        assert [len(m.content) for m in store.get_all()] == [500]
        assert store.capabilities.max_message_bytes == 1_000


# --- URLs ----------------------------------------------------------------------------------------------------


def test_urls_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    for url, expected in (
        ("sqlite:///relative.db", "relative.db"),
        (f"sqlite:///{tmp_path}/absolute.db", f"{tmp_path}/absolute.db"),
        ("sqlite:///a%20folder/x%23.db", "a folder/x#.db"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite://", ":memory:"),
    ):
        for make in (SQLite.from_url, create_backend):
            with make(url) as store:
                assert isinstance(store, SQLite)
                assert store.db_path == expected
                store.add(message())
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.db")) == [
        "a folder/x#.db",
        "absolute.db",
        "relative.db",
    ]


def test_options_of_a_url(tmp_path):
    with SQLite.from_url(f"sqlite:///{tmp_path}/x.db?index_name=my%20table&timeout=0.5&synchronous=NORMAL") as store:
        assert (store.index_name, store.timeout, store.synchronous) == ("my table", 0.5, "NORMAL")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite://relative.db", "three slashes"),
        ("sqlite://host/x.db", "host"),
        ("sqlite:///x.db?mode=ro", "mode"),
        ("sqlite:///x.db?timeout=soon", "timeout"),
        ("sqlite:///x.db?timeout=-1", "timeout"),
        ("sqlite:///x.db?synchronous=OFF", "synchronous"),
        ("sqlite:///x.db?index_name=", "index_name"),
    ],
)
def test_wrong_urls(tmp_path, monkeypatch, url, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=named):
        SQLite.from_url(url)
    assert list(tmp_path.iterdir()) == []
