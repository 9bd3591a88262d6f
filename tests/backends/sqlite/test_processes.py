"""Several processes on one file: creating, upgrading, appending, dying, forking.

Each script starts one process that imports the package and forks: as real as separate starts, and quicker.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing

import pytest

from dynamiq_memory.backends import SQLite

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

# children(n, work): n processes do `work(number)` from one moment on; a failure in one is a failure of all.
COMMON = """
import os, sys, time, traceback, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
from dynamiq_memory import Message
from dynamiq_memory.backends import InMemory, SQLite

path = sys.argv[1]

def message(content, user="u", session="s", **more):
    return Message(role="user", content=content, metadata={"user_id": user, "session_id": session}, **more)

def child(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)

def wait(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a child failed"

def children(count, work):
    start, go = os.pipe()
    def run(number):
        os.close(go)
        os.read(start, 1)
        work(number)
    pids = [child(lambda: run(number)) for number in range(count)]
    os.close(start)
    os.close(go)  # all see the end of the pipe at once
    for pid in pids:
        wait(pid)
"""


def contents(path, **scope):
    with SQLite(path) as store:
        return [message.content for message in store.get_all(filters=scope)]


def check_integrity(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        terms = connection.execute("SELECT count(*) FROM conversations_terms").fetchone()
        assert terms == connection.execute("SELECT count(*) FROM conversations").fetchone()


def test_ten_processes_create_the_tables_at_once(path, run_script):
    run_script(
        COMMON
        + """
def work(number):
    with SQLite(path, timeout=120) as store:
        store.add(message(f"hello {number}"))
        assert len(store.search(f"hello {number}")) >= 1
children(10, work)
""",
        path,
    )
    assert sorted(contents(path)) == [f"hello {number}" for number in range(10)]
    check_integrity(path)


def test_processes_upgrade_an_old_file_at_once(path, old_file, run_script):
    old = old_file(path)
    for number in range(200):
        old.add(f"id-{number}", "user", f"text {number}", {"user_id": "u", "timestamp": 1000.0 + number})
    run_script(
        COMMON
        + """
def work(number):
    with SQLite(path, timeout=120) as store:
        assert [m.id for m in store.get_all()][:200] == [f"id-{n}" for n in range(200)]
        store.add(message(f"new {number}"))
children(4, work)
""",
        path,
    )
    assert sorted(contents(path)) == sorted([f"text {n}" for n in range(200)] + [f"new {n}" for n in range(4)])
    check_integrity(path)


def test_eight_processes_append_to_one_session_and_nothing_is_lost(path, run_script):
    run_script(
        COMMON
        + """
def work(number):
    with SQLite(path, timeout=120) as store:
        for n in range(25):
            if n % 5:
                store.add(message(f"{number}/{n}"))
            else:
                store.add_many([message(f"{number}/{n}"), message(f"{number}/{n}+")])
children(8, work)
""",
        path,
    )
    stored = contents(path, user_id="u", session_id="s")
    own = [f"{n}{more}" for n in range(25) for more in (("",) if n % 5 else ("", "+"))]
    for number in range(8):
        assert [text.split("/")[1] for text in stored if text.startswith(f"{number}/")] == own
    assert len(stored) == 8 * len(own)
    check_integrity(path)


def test_a_fork_works_in_both_directions(path, run_script):
    run_script(
        COMMON
        + """
store = SQLite(path)
store.add(message("parent 1"))  # the connection is open
seen = lambda: [m.content for m in store.get_all()]
def first():
    assert seen() == ["parent 1"]
    store.add(message("child 1"))
    assert len(store.search("child")) == 1
wait(child(first))
assert seen() == ["parent 1", "child 1"]

# The parent writes while the child lives.
ready, go = os.pipe()
def second():
    os.close(go)
    os.read(ready, 1)
    assert seen() == ["parent 1", "child 1", "parent 2"], seen()
    store.add(message("child 2"))
    wait(child(lambda: store.add(message("grandchild"))))
    store.close()
pid = child(second)
store.add(message("parent 2"))
os.close(go)
wait(pid)
assert seen() == ["parent 1", "child 1", "parent 2", "child 2", "grandchild"]
store.close()
""",
        path,
    )
    assert contents(path) == ["parent 1", "child 1", "parent 2", "child 2", "grandchild"]
    check_integrity(path)


def test_no_connection_is_carried_into_a_child(path, run_script):
    """It would corrupt the file one day (https://www.sqlite.org/howtocorrupt.html, 2.6), and no test would see it."""
    run_script(
        COMMON
        + """
import sqlite3
connect, opened = sqlite3.connect, []
def counting(*arguments, **options):
    opened.append(os.getpid())
    return connect(*arguments, **options)
sqlite3.connect = counting
store = SQLite(path)
store.add(message("parent"))
assert opened == [os.getpid()]
def work():
    assert store.count() == 1
    assert opened[1:] == [os.getpid()], "the child went on with its parent's connection"
wait(child(work))
assert store.count() == 1
assert opened == [os.getpid()] * 2, "the parent kept a connection open while it forked"
store.close()
""",
        path,
    )


def test_a_fork_before_any_use_and_after_closing(path, run_script):
    run_script(
        COMMON
        + """
from dynamiq_memory import BackendError
store = SQLite(path)
wait(child(lambda: store.add(message("child"))))
assert [m.content for m in store.get_all()] == ["child"]
store.close()
def closed():
    try:
        store.count()
    except BackendError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError("a closed backend works")
    with SQLite(path) as own:
        assert own.count() == 1
wait(child(closed))
""",
        path,
    )


def test_a_fork_after_async_use(path, run_script):
    """The child has none of the parent's threads."""
    run_script(
        COMMON
        + """
import asyncio
for store in (SQLite(path), SQLite(":memory:"), InMemory()):
    asyncio.run(store.aadd(message("parent")))
    def work():
        async def use():
            assert await store.acount() == 1
            await store.aadd(message("child"))
            assert await store.acount() == 2
        asyncio.run(asyncio.wait_for(use(), 120))
    wait(child(work))
    asyncio.run(store.aadd(message("parent again")))
    assert store.count() == (3 if getattr(store, "db_path", "") == path else 2)
    store.close()
""",
        path,
    )


@pytest.mark.parametrize("kind", ["SQLite(':memory:')", "InMemory()"])
def test_a_fork_of_a_store_in_memory_gives_two_stores(run_script, kind):
    run_script(
        COMMON
        + f"""
store = {kind}
"""
        + """
store.add(message("before"))
def work():
    assert [m.content for m in store.get_all()] == ["before"]
    store.add(message("child"))
    assert [m.content for m in store.search("child")] == ["child"]
wait(child(work))
store.add(message("parent"))
assert [m.content for m in store.get_all()] == ["before", "parent"]
""",
        "unused",
    )


@pytest.mark.parametrize("kind", ["SQLite(path, timeout=120)", "SQLite(':memory:')", "InMemory()"])
def test_a_fork_while_threads_write_neither_hangs_nor_loses(path, run_script, kind):
    done = run_script(
        COMMON
        + f"""
store = {kind}
"""
        + """
import json, threading
stop = threading.Event()
written = []
def write(name):
    n = 0
    while not stop.is_set():
        store.add(message(f"{name} {n}"))
        written.append(f"{name} {n}")
        n += 1
threads = [threading.Thread(target=write, args=(f"thread{number}",)) for number in range(3)]
for thread in threads:
    thread.start()
def work():
    own = store.add(message("child"))
    held = store.get_all()
    assert own.id in {m.id for m in held}
    assert len(store.search("child")) >= 1
    store.replace({"user_id": "other"}, [message("x", user="other")])
for _ in range(3):
    while len(written) < 5:
        time.sleep(0.001)
    wait(child(work))
stop.set()
for thread in threads:
    thread.join()
held = [m.content for m in store.get_all(filters={"user_id": "u"})]
assert sorted(t for t in held if t != "child") == sorted(written)
print(json.dumps(held.count("child")))
store.close()
""",
        path,
    )
    assert json.loads(done.stdout) == (3 if "path" in kind else 0)
