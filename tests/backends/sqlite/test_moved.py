"""A file that is moved, deleted or replaced while it is open; backups; files that can only be read."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
from contextlib import closing

import pytest
from typer.testing import CliRunner

from dynamiq_memory import BackendError, ConfigurationError, Message
from dynamiq_memory.backends import SQLite
from dynamiq_memory.cli import app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there, an open file cannot be moved or deleted")

SCOPE = {"user_id": "u", "session_id": "s"}


def message(content):
    return Message(role="user", content=content, metadata=SCOPE)


def texts(store):
    return [message.content for message in store.get_all()]


def beside(path, suffix):
    return path.with_name(path.name + suffix)


@pytest.fixture
def store(path):
    with SQLite(path) as opened:
        opened.add(message("before"))
        yield opened


def check_refused(store, *, reads=True):
    calls = [lambda: store.add(message("never")), lambda: store.delete(user_id="u"), lambda: store.take(SCOPE)]
    if reads:
        calls += [store.get_all, store.count, lambda: store.search("before")]
    for call in calls:
        with pytest.raises(
            BackendError, match=r"moved, deleted or replaced.*move it back.*backup.*close every program"
        ):
            call()


def test_a_deleted_file_is_noticed_and_what_it_had_is_saved(path, store, tmp_path):
    for file in (path, beside(path, "-wal"), beside(path, "-shm")):
        file.unlink()
    check_refused(store)
    assert not path.exists(), "a new file would have been begun"
    store.backup(tmp_path / "saved.db")
    with SQLite(tmp_path / "saved.db") as saved:
        assert texts(saved) == ["before"]


def test_a_moved_file_works_again_when_it_is_back(path, store):
    files = [path, beside(path, "-wal"), beside(path, "-shm")]
    for file in files:
        file.rename(file.with_name("away-" + file.name))
    check_refused(store)
    for file in files:
        file.with_name("away-" + file.name).rename(file)
    store.add(message("after"))
    assert texts(store) == ["before", "after"]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_deleted_log_is_noticed_before_a_write_is_acknowledged(path, store, suffix):
    beside(path, suffix).unlink()
    check_refused(store, reads=False)
    with pytest.raises(BackendError, match="whose newest messages are in its -wal file"):
        store.add(message("lost"))
    assert texts(store) == ["before"]
    store.backup(path.with_name("saved.db"))
    with SQLite(path.with_name("saved.db")) as saved:
        assert texts(saved) == ["before"]


def test_a_backup_that_is_put_in_place_is_not_written(path, store, tmp_path):
    store.backup(tmp_path / "backup.db")
    store.add(message("later"))
    kept = (tmp_path / "backup.db").read_bytes()
    (tmp_path / "backup.db").rename(path)
    check_refused(store)
    store.close()
    assert path.read_bytes() == kept
    for suffix in ("-wal", "-shm"):
        beside(path, suffix).unlink(missing_ok=True)
    with SQLite(path) as restored:
        assert texts(restored) == ["before"]
        restored.add(message("after"))


def test_a_replaced_file_is_noticed_by_new_connections_too(path, store, tmp_path):
    store.backup(tmp_path / "backup.db")
    for suffix in ("-wal", "-shm"):
        beside(path, suffix).unlink()
    (tmp_path / "backup.db").rename(path)
    store._client._idle.clear()  # as if other transactions had the connections
    check_refused(store)


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path):
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "data" / "one.db")
    with SQLite(link) as store:
        store.add(message("before"))
        store.add(message("again"))
        link.unlink()
        link.symlink_to(tmp_path / "data" / "two.db")
        check_refused(store)


# --- backups -------------------------------------------------------------------------------------------------


def test_a_backup_is_one_state_while_others_write(path, tmp_path):
    with SQLite(path) as store:
        store.add_many([message(f"{n} " + "x" * 2_000) for n in range(2_500)])
        seen = []

        def progress(copied, pages):
            seen.append((copied, pages))
            store.add(message("meanwhile"))

        store.backup(tmp_path / "copy.db", progress)
        assert len(seen) > 1
        assert all(copied <= pages for copied, pages in seen)
        assert seen[-1][0] == seen[-1][1]
        with SQLite(tmp_path / "copy.db") as copy:
            assert copy.count() == 2_500
            assert len(copy.search("7")) == 1
        assert store.count() == 2_500 + len(seen)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", path.name]


def test_a_backup_of_a_store_in_memory(tmp_path):
    with SQLite(":memory:") as store:
        store.add(message("kept"))
        asyncio.run(store.abackup(tmp_path / "copy.db"))
    with SQLite(tmp_path / "copy.db") as copy:
        assert texts(copy) == ["kept"]


def test_a_backup_overwrites_nothing(store, tmp_path):
    copy = tmp_path / "copy.db"
    copy.write_text("precious")
    with pytest.raises(ConfigurationError, match=r"copy.db' exists"):
        store.backup(copy)
    assert copy.read_text() == "precious"
    with pytest.raises(ConfigurationError, match=r"folder '.*nowhere'"):
        store.backup(tmp_path / "nowhere" / "copy.db")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk full"), KeyboardInterrupt()])
def test_a_backup_that_fails_leaves_nothing(store, tmp_path, error):
    def fail(*_):
        raise error

    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else BackendError):
        store.backup(tmp_path / "copy.db", fail)
    assert not list(tmp_path.glob("copy*"))
    store.add(message("after"))
    store.backup(tmp_path / "copy.db")


def test_a_backup_of_a_damaged_file_is_refused(path, tmp_path):
    with SQLite(path) as store:
        store.add_many([message(f"text {n} " + "x" * 500) for n in range(300)])
    with path.open("r+b") as file:
        file.seek(40_000)
        file.write(b"\xa5" * 20_000)
    done = CliRunner().invoke(app, ["backup", str(path), str(tmp_path / "copy.db")])
    assert done.exit_code == 1
    assert "damaged" in done.output
    assert not list(tmp_path.glob("copy*"))


def test_the_command_copies_a_store_in_use_and_changes_nothing(path, store, old_file, tmp_path):
    copy = tmp_path / "copy.db"
    for given in (str(path), f"sqlite:///{path}?timeout=2"):
        done = CliRunner().invoke(app, ["backup", given, str(copy)])
        assert done.exit_code == 0, done.output
        with SQLite(copy) as opened:
            assert texts(opened) == ["before"]
        copy.unlink()
    legacy = tmp_path / "legacy.db"
    old = old_file(legacy)
    old.add("id", "user", "old", {})
    before = old.schema()
    assert CliRunner().invoke(app, ["backup", str(legacy), str(copy)]).exit_code == 0
    assert old.schema() == before
    assert type(old)(copy).rows() == old.rows()


@pytest.mark.parametrize(
    ("given", "named", "code"),
    [
        ("missing.db", "no SQLite file", 1),
        ("postgresql://host/db", "postgresql://", 2),
        ("sqlite://host/x.db", "slashes", 2),
    ],
)
def test_the_command_says_what_it_cannot_copy(tmp_path, monkeypatch, given, named, code):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["backup", given, "copy.db"])
    assert done.exit_code == code
    assert named in done.output
    assert list(tmp_path.iterdir()) == []


# --- reading only --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
@pytest.mark.parametrize("writable", ["file", "folder", "nothing"])
def test_a_file_that_can_only_be_read(run_script, writable):
    """If the tests run as root, permissions stop nothing, so a child gives up its rights first."""
    run_script(
        """
import os, shutil, sys, tempfile
from dynamiq_memory import BackendError, Message
from dynamiq_memory.backends import SQLite
folder, writable = tempfile.mkdtemp(), sys.argv[1]
file = os.path.join(folder, "x.db")
try:
    with SQLite(file) as store:
        store.add_many([Message(role="user", content=f"before {n}", metadata={"n": n}) for n in range(3)])
    before = open(file, "rb").read()
    os.chmod(file, 0o666 if writable == "file" else 0o444)
    os.chmod(folder, 0o777 if writable == "folder" else 0o555)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            with SQLite(file) as store:
                assert store.count() == 3
                assert [m.content for m in store.get_all(filters={"n": {"gte": 1}})] == ["before 1", "before 2"]
                assert [m.content for m in store.search("2")] == ["before 2"]
                for write in (lambda: store.add(Message(role="user", content="never")), store.clear):
                    try:
                        write()
                    except BackendError as error:
                        assert "read-only" in str(error), error
                    else:
                        raise AssertionError("a write came through")
                assert store.count() == 3
                store.backup(tempfile.mkdtemp() + "/copy.db")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert open(file, "rb").read() == before
finally:
    os.chmod(folder, 0o755)
    shutil.rmtree(folder)
""",
        writable,
    )


def test_a_file_with_a_log_that_cannot_be_read_is_not_read_without_it(path, monkeypatch, tmp_path):
    """Otherwise acknowledged messages would be missing."""
    copied = tmp_path / "copied.db"
    with SQLite(path) as store:
        store.add(message("in the log"))
        for suffix in ("", "-wal"):
            shutil.copy(beside(path, suffix), beside(copied, suffix))
    connect = sqlite3.connect

    class Unwritable(sqlite3.Connection):
        def execute(self, sql, *parameters):
            error = sqlite3.OperationalError("attempt to write a readonly database")
            error.sqlite_errorname = "SQLITE_READONLY_DIRECTORY"
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", lambda name, **options: connect(name, **options | {"factory": Unwritable}))
        with pytest.raises(BackendError, match="read-only"):
            SQLite(copied)
    with closing(sqlite3.connect(copied)) as connection:
        assert connection.execute("SELECT content FROM conversations").fetchall() == [("in the log",)]
