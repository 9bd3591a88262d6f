"""Interrupts (Ctrl-C) at random moments: a store goes on, for all threads, with every write whole or not there."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

# In a process of its own: Python drops an interrupt that falls into a callback of the garbage collector.
SCRIPT = """
import gc, random, signal, sys, threading, time
from dynamiq_memory import Message
from dynamiq_memory.backends import create_backend

url, wanted = sys.argv[1], int(sys.argv[2])
gc.disable()
chance = random.Random(7)
store = create_backend(url)
scope = {"user_id": "u", "session_id": "s"}
armed = stopped = False

def interrupt(*_):
    if armed:
        raise KeyboardInterrupt

def messages(text, count, session="s"):
    fields = {"user_id": "u", "session_id": session}
    return [Message(role="user", content=f"{text} {n}", metadata={**fields, "odd": n % 2}) for n in range(count)]

def texts(found):
    return [message.content for message in found]

def beside():
    while not stopped:
        written.extend(store.add_many(messages("beside", 2, "other")))
        assert store.get_all(filters={"session_id": "other", "odd": 1}, limit=1)[0].content == "beside 1"
        time.sleep(0.005)

signal.signal(signal.SIGALRM, interrupt)
written = []
store.add_many(messages("old", 6))
thread = threading.Thread(target=beside, daemon=True)
thread.start()
held = []  # what a traceback holds must not matter
came = 0
while came < wanted:
    before = texts(store.get_all(filters=scope))
    new, more = messages(f"new{came}", 6), messages("more", 2)
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.001))
        match chance.randrange(5):
            case 0: store.replace(scope, new)
            case 1: store.add_many(more)
            case 2: assert len(store.get_all(filters={**scope, "odd": 1})) * 2 == len(before)
            case 3: assert len(store.search("old new", scope, 5)) <= 5
            case 4: assert store.count({"odd": 1, **scope}) * 2 == len(before)
        armed = False
    except KeyboardInterrupt as error:
        came += 1
        held = [error, *held[:3]]
    armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    after = texts(store.get_all(filters=scope))
    assert after in (before, texts(new), before + texts(more)), (before, after)
    if len(after) > 8:
        store.replace(scope, messages("old", 6))
stopped = True
thread.join(60)
assert not thread.is_alive(), "a thread hangs"
assert store.count({"session_id": "other"}) == len(written) > 0
with store:
    store.add_many(messages("last", 2))
"""

# Qdrant's local mode keeps lists of the same length, which an interrupt must not leave half changed.
LOCAL_QDRANT = """
import gc, random, signal, sys
from dynamiq_memory.backends import Qdrant
from dynamiq_memory.testing import say

folder, wanted = sys.argv[1], int(sys.argv[2])
gc.disable()
chance = random.Random(7)
armed = False

def interrupt(*_):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
came, kept, known = 0, 0, set()
with Qdrant(folder) if folder == ":memory:" else Qdrant(path=folder) as store:
    while came < wanted:
        batch = [say(f"{kept}.{n}") for n in range(4)]
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.006))
            store.add_many(batch)
            known |= {message.id for message in batch}
            store.search("4", limit=3)
            armed = False
        except KeyboardInterrupt:
            came += 1
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        kept += 1
        assert known <= {message.id for message in store.get_all()}
        if kept % 20 == 0:
            store.clear()
            known = set()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
class TestInterrupts:
    def test_a_file(self, run_script: Any, tmp_path: Path) -> None:
        run_script(SCRIPT, f"sqlite:///{tmp_path}/memory.db?synchronous=NORMAL", 100, timeout=120)
        # The log is removed with the last connection: nothing holds one, or a lock.
        assert [file.name for file in tmp_path.iterdir()] == ["memory.db"]

    def test_in_memory(self, run_script: Any) -> None:
        run_script(SCRIPT, "sqlite:///:memory:", 100, timeout=120)

    def test_postgresql(self, run_script: Any, postgresql_url: str, postgresql_table: str) -> None:
        mark = "&" if "?" in postgresql_url else "?"
        url = f"{postgresql_url}{mark}table_name={postgresql_table}&pool_size=2&pool_timeout=30"
        run_script(SCRIPT, url, 50, timeout=180)

    def test_qdrant_in_this_process(self, run_script: Any, tmp_path: Path) -> None:
        run_script(LOCAL_QDRANT, ":memory:", 30, timeout=180)
        run_script(LOCAL_QDRANT, tmp_path / "folder", 10, timeout=180)
