"""Concurrency, interruptions, and changes by others."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from dynamiq_memory import BackendError, ConfigurationError, Memory, Message, MessageError, MessageRole
from dynamiq_memory.backends import InMemory, MemoryBackend, SQLite, create_backend
from dynamiq_memory.backends.in_memory.conversations import Conversation, Entry
from dynamiq_memory.backends.operations import Operation
from dynamiq_memory.ranking import Tokenizer

SCOPE = {"user_id": "u", "session_id": "s"}
Make = Callable[..., MemoryBackend]


def message(text: str, **fields: Any) -> Message:
    return Message(role=MessageRole.USER, content=text, **{"metadata": dict(SCOPE), **fields})


def texts(messages: list[Message]) -> list[Any]:
    return [each.content for each in messages]


@pytest.fixture(params=["InMemory", "SQLite(':memory:')", "SQLite(file)"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[MemoryBackend] = []

    def new(**options: Any) -> MemoryBackend:
        if request.param == "InMemory":
            made.append(InMemory(**options))
        else:
            made.append(SQLite(":memory:" if "memory" in request.param else tmp_path / "x.db", **options))
        return made[-1]

    yield new
    for backend in made:
        backend.close()


def test_closing_waits_for_those_at_work(make: Make) -> None:
    store = make()
    endings: list[Exception] = []

    def work() -> None:
        try:
            for number in itertools.count():
                store.add(message(f"word {number}"))
                store.search("word", SCOPE, 3)
        except Exception as error:  # noqa: BLE001 - looked at below
            endings.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    store.close()
    for thread in threads:
        thread.join()
    assert [type(ending) for ending in endings] == [BackendError] * 4, endings
    assert all("closed" in str(ending) for ending in endings)


def test_a_relative_path_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with SQLite("x.db") as store:
        store.add(message("mine"))
        monkeypatch.chdir(tmp_path / "two")
        threads = [threading.Thread(target=store.get_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.add(message("mine too"))
        assert texts(store.get_all()) == ["mine", "mine too"]
    assert list((tmp_path / "two").iterdir()) == []


# In a process of its own: Python drops an interrupt that falls into a callback of the garbage collector.
INTERRUPTED = """
import gc, signal
from dynamiq_memory import Message, MessageRole
from dynamiq_memory.backends import InMemory
from dynamiq_memory.backends.in_memory.conversations import Conversation, Entry

gc.disable()
scope = {"user_id": "u", "session_id": "s"}
store = InMemory()

def make(word):
    return [Message(role=MessageRole.USER, content=f"{word} {n}", metadata={**scope, "n": n}) for n in range(400)]

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
store.add_many(make("old"))
came = 0
for attempt in range(60):
    before = [m.content for m in store.get_all(filters=scope)]
    generation = make(f"new{attempt}")
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003 + attempt / 10_000)
        for _ in range(50):
            store.search("old", scope, 3)
            store.replace(scope, generation)
    except KeyboardInterrupt:
        came += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    after = [m.content for m in store.get_all(filters=scope)]
    assert after in (before, [m.content for m in generation]), (len(before), len(after))
    assert len(store.search(" ".join({text.split()[0] for text in after}), scope)) == store.count() == 400
print(came)
store.close()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
def test_interrupts_anywhere_leave_a_store_in_memory_whole(run_script: Any) -> None:
    done = run_script(INTERRUPTED)
    assert int(done.stdout) > 50


def test_an_interrupt_in_the_middle_of_a_replacement(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    store.add_many([message("old 1"), message("old 2")])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if isinstance(store, InMemory):
            patched.setattr(store._conversations, "put", interrupt)
        else:
            patched.setattr(cast("SQLite", store)._writer, "upsert", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.replace(SCOPE, [message("new")])
    assert texts(store.get_all()) == ["old 1", "old 2"]
    assert len(store.search("old", SCOPE)) == 2
    store.replace(SCOPE, [message("new")])
    assert texts(store.search("new")) == ["new"]


@pytest.mark.parametrize("wrong", [None, 7, [1, 2], [b"x"], [[]], "text"])
def test_a_tokenizer_that_returns_no_terms_stores_nothing(make: Make, wrong: Any) -> None:
    store = make(tokenizer=lambda text: wrong if text == "bad" else text.split())
    store.add(message("good"))
    with pytest.raises(ConfigurationError, match="tokenizer"):
        store.add_many([message("good too"), message("bad")])
    with pytest.raises(ConfigurationError, match="tokenizer"):
        store.replace(SCOPE, [message("bad")])
    assert texts(store.get_all()) == texts(store.search("good")) == ["good"]


def test_a_tokenizer_may_return_a_generator(make: Make) -> None:
    store = make(tokenizer=lambda text: (word for word in text.split()))
    store.add(message("one two"))
    assert texts(store.search("two")) == ["one two"]
    assert store.clear() == 1


def test_a_tokenizer_that_begins_to_fail_harms_nothing(make: Make) -> None:
    fails: list[str] = []

    def tokenize(text: str) -> list[str]:
        if text in fails:
            raise ConnectionError
        return text.split()

    store = make(tokenizer=tokenize)
    store.add_many([message(f"old{n}", metadata={**SCOPE, "topic": "x"}, id=f"{n}") for n in range(6)])
    fails.append("old3")
    store.replace({**SCOPE, "topic": "x"}, [message("new")])
    assert texts(store.get_all()) == ["new"]
    with pytest.raises(ConnectionError):
        store.add_many([message("first"), message("old3")])
    assert texts(store.get_all()) == ["new"]


def test_an_interrupt_while_another_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemory()
    store.add_many([message(f"old {n}") for n in range(5)])
    real, calls = Conversation.insert, iter(range(1_000))

    def insert(conversation: Conversation, entry: Entry) -> None:
        if next(calls) in {2, 5, 7}:
            raise KeyboardInterrupt
        real(conversation, entry)

    monkeypatch.setattr(Conversation, "insert", insert)
    with pytest.raises(KeyboardInterrupt):
        store.add_many([message("new") for _ in range(5)])
    assert texts(store.get_all()) == sorted(texts(store.search("old"))) == [f"old {n}" for n in range(5)]
    assert store.count() == 5
    store.add(message("new"))
    assert texts(store.search("new")) == ["new"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_threads_fork_at_once(make: Make) -> None:
    stores = [make(), InMemory(), InMemory()]
    stop = threading.Event()

    def write(store: MemoryBackend) -> None:
        while not stop.is_set():
            store.add(message("x"))
            time.sleep(0.001)

    def fork() -> None:
        for _ in range(2):
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)

    writers = [threading.Thread(target=write, args=(store,), daemon=True) for store in stores]
    forkers = [threading.Thread(target=fork, daemon=True) for _ in range(3)]
    for thread in (*writers, *forkers):
        thread.start()
    for thread in forkers:
        thread.join(timeout=120)
    stop.set()
    for thread in writers:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in (*writers, *forkers))


@pytest.mark.parametrize("cancels", [1, 2, 3])
def test_a_cancelled_write_does_not_come_late(make: Make, cancels: int) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def tokenize(text: str) -> list[str]:
        if text == "old":
            begun.set()
            go_on.wait(120)
        return text.split()

    store = make(tokenizer=tokenize)

    async def main() -> None:
        task = asyncio.create_task(store.aadd(message("old", id="a")))
        await asyncio.to_thread(begun.wait, 120)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.aadd(message("newer", id="a"))

    asyncio.run(main())
    assert texts(store.get_all()) == ["newer"]


@pytest.mark.parametrize("statement", ["DROP TABLE conversations", "DELETE FROM conversations"])
def test_terms_left_by_other_hands_lead_to_nobody_elses_message(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "x.db"
    with SQLite(path) as store:
        store.add(message("apples", metadata={"user_id": "alice"}))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with SQLite(path) as store:
        assert store.search("apples", {"user_id": "alice"}) == []
        store.add(message("my PIN is 1234", metadata={"user_id": "bob"}))
        assert store.search("apples", {"user_id": "alice"}) == []


def test_rankings_agree_between_the_backends() -> None:
    words = ["apple", "pear", "plum", "fig", "the", "quince"]
    messages = [
        message(" ".join(words[(n * k) % 6] for k in range(n % 9)), id=f"{n}", timestamp=float(n % 7))
        for n in range(300)
    ]
    with InMemory() as one, SQLite(":memory:") as two:
        one.add_many(messages)
        two.add_many(messages)
        for query in ("apple", "pear fig", "quince plum apple pear", "the"):
            for limit in (1, 10, None):
                found = [[(m.id, m.score) for m in store.search(query, SCOPE, limit)] for store in (one, two)]
                assert found[0] == found[1]
        assert one.sessions() == two.sessions()


def test_effort_grows_with_the_conversation_and_no_faster(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the operations, not the time: of a long turn, of a session without a user, under a budget of tokens."""
    store = make()
    memory = Memory(store, filters=SCOPE)
    memory.add("user", "start")
    memory.add_many([Message(role=MessageRole.ASSISTANT, content=f"apple {n}") for n in range(600)])
    operations = []
    perform = store._perform

    def counted(operation: Operation[Any]) -> Any:
        operations.append(operation)
        return perform(operation)

    monkeypatch.setattr(store, "_perform", counted)
    for strategy in ("all", "relevant", "both"):
        given = memory.get_agent_conversation("apple", strategy=strategy, max_tokens=500)
        assert texts(given)[0] == "start"
    # In process, an operation that is made of others counts these, too.
    assert 0 < len(operations) < 60


def test_hostile_text_is_split_in_reasonable_time() -> None:
    """A quadratic algorithm takes minutes for these."""
    tokenize = Tokenizer()
    assert tokenize("e" + "\u0301\u0323" * 200_000)
    assert tokenize("ay" * 400_000)
    before = len(tokenize._terms)
    tokenize(" ".join("x" * n for n in range(70, 200)))
    assert len(tokenize._terms) == before


@pytest.mark.parametrize(
    ("url", "named"),
    [("sqlite:///my#1.db", "%23"), ("sqlite:///a\n.db", "escaped"), ("sqlite://[/x", "not a URL"), (None, "not a URL")],
)
def test_odd_urls_are_refused(url: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        create_backend(url)


def test_a_message_id_in_the_metadata_is_not_dropped_silently(make: Make) -> None:
    store = make()
    with pytest.raises(MessageError, match="message_id"):
        store.add(message("x", metadata={"message_id": "slack-123"}))


def test_fields_of_a_subclass_are_not_dropped_silently(make: Make) -> None:
    class Rich(Message):
        colour: str = "red"

    with pytest.raises(MessageError, match="Rich"):
        make().add(Rich(role=MessageRole.USER, content="x"))


@pytest.mark.parametrize("count", [-1, 1.5, True, None])
def test_neighbours_are_counted_in_whole_numbers(make: Make, count: Any) -> None:
    store = make()
    stored = store.add(message("x"))
    for sides in ((count, 0), (0, count)):
        with pytest.raises(ValueError, match="neighbours"):
            store.around([stored], *sides)
    assert texts(store.around([stored], 10**30, 10**30)[0]) == ["x"]
