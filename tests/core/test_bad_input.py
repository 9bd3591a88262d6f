"""Input that breaks careless stores: it works, or a clear error leaves the store as it was."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamiq_memory import DynamiqMemoryError, Memory, Message, MessageError
from dynamiq_memory.backends import InMemory, SQLite

SCOPE = {"user_id": "u", "session_id": "s"}
UNCLEAN = ["a\0b", "\0", "lone \ud800", "\udfff lone", "both \0\ud800", "é\0漢"]


def works_or_is_refused(memory, **options):
    """Add a message and return it as stored, or None if it is refused with an error and nothing has changed."""
    before = memory.get_all()
    try:
        stored = memory.add(**options)
    except MessageError:
        assert memory.get_all() == before
        return None
    assert memory.get_all() == [*before, stored]
    return stored


@pytest.mark.parametrize("text", UNCLEAN, ids=ascii)
def test_nul_and_lone_surrogates_in_the_content(store, text):
    memory = Memory(backend=store)
    memory.add("user", "apple", SCOPE)
    for content in (text, [{"type": "text", "text": text}], f"{text} zebra"):
        stored = works_or_is_refused(memory, role="user", content=content, metadata=SCOPE)
        if stored is not None:
            assert stored.content == content
    assert [m.content for m in memory.search("apple", SCOPE)] == ["apple"]
    for found in memory.search("zebra", SCOPE):
        assert found.content == f"{text} zebra"
    memory.search(text, SCOPE)
    memory.get_agent_conversation(text, filters=SCOPE, strategy="both")
    memory.get_all_messages_as_string("xml").encode()


@pytest.mark.parametrize("text", UNCLEAN, ids=ascii)
def test_nul_and_lone_surrogates_everywhere_else(store, text):
    memory = Memory(backend=store)
    memory.add("user", "apple", SCOPE)
    for options in (
        {"metadata": {**SCOPE, "k": text}},
        {"metadata": {**SCOPE, text: "v"}},
        {"metadata": {**SCOPE, "deep": {text: [text]}}},
        {"tool_calls": [{"id": text, "function": {"arguments": text}}]},
        {"tool_call_id": text},
        {"name": text},
    ):
        stored = works_or_is_refused(memory, role="assistant", content="x", **options)
        if stored is not None:
            for field, value in options.items():
                held = getattr(stored, field)
                assert ({**held, **value} if field == "metadata" else value) == held
    # As ids they are refused: keys of a store must be exact.
    for options in ({"metadata": {"user_id": text}}, {"metadata": {"session_id": text}}):
        assert works_or_is_refused(memory, role="user", content="x", **options) is None
    with pytest.raises(DynamiqMemoryError):
        memory.get_all(filters={"k": text})
    with pytest.raises(DynamiqMemoryError):
        memory.delete(user_id=text)


def test_the_same_is_refused_on_both_backends():
    """What one backend takes the other takes too."""
    for text in UNCLEAN:
        outcomes = []
        for kind in (InMemory, lambda: SQLite(":memory:")):
            with Memory(backend=kind()) as memory:
                outcomes.append(
                    [
                        works_or_is_refused(memory, role="user", **options) is None
                        for options in (
                            {"content": text},
                            {"content": "x", "metadata": {"k": text}},
                            {"content": "x", "metadata": {text: "k"}},
                            {"content": "x", "name": text},
                        )
                    ]
                )
        assert outcomes[0] == outcomes[1]


def test_a_message_of_five_megabytes():
    memory = Memory()  # the conformance suite stores as much in each store
    text = "".join(f"word{number % 5_000} " for number in range(600_000))
    text = f"giraffe {text} 漢字"
    assert len(text) > 5_000_000
    memory.add("user", text, SCOPE)
    memory.add("user", "something short", SCOPE)
    assert memory.get_all(limit=2)[0].content == text
    assert memory.search("giraffe", SCOPE)[0].content == text
    assert len(memory.get_agent_conversation("giraffe", filters=SCOPE, strategy="relevant", max_tokens=100)) == 1


def test_ten_thousand_keys_of_metadata(store):
    memory = Memory(backend=store)
    metadata = {f"key.{number} ü'\"": number for number in range(10_000)}
    stored = memory.add("user", "x", {**SCOPE, **metadata})
    memory.add("user", "y", SCOPE)
    assert memory.get_all()[0].metadata == stored.metadata
    assert len(stored.metadata) == 10_004
    assert memory.count({"key.9999 ü'\"": 9_999}) == 1
    assert memory.count({"key.9999 ü'\"": 9_998}) == 0
    assert memory.count({"key.1 ü'\"": None}) == 1


@pytest.mark.parametrize("length", [10_000, 1_000_000])
def test_long_names(store, length):
    memory = Memory(backend=store)
    scope = {"user_id": "u" * length, "session_id": "é" * length}
    memory.add("user", "x", {**scope, "k" * length: "v" * length})
    memory.add("user", "y", {**scope, "user_id": "u" * (length - 1)})
    assert memory.count({**scope, "k" * length: "v" * length}) == 1
    assert memory.delete(**scope) == 1
    assert memory.count() == 1


def test_names_that_look_alike_are_apart(store):
    memory = Memory(backend=store)
    names = [
        "u",
        "U",
        "u ",
        " u",
        "ü",
        "u\u0308",
        "u\n",
        "u/s",
        "u|s",
        "u:s",
        "None",
        "null",
        "u%",
        "u_",
        "'",
        '"',
        "\\",
    ]
    for name in names:
        memory.add("user", name, {"user_id": name, "session_id": name})
    for name in names:
        for scope in ({"user_id": name}, {"session_id": name}, {"user_id": name, "session_id": name}):
            assert [m.content for m in memory.get_all(filters=scope)] == [name]
    for number, name in enumerate(names, 1):
        assert memory.delete(user_id=name, session_id=name) == 1
        assert memory.count() == len(names) - number


@pytest.mark.parametrize("time", [-1.0, 0.0, -0.0, 5e-324, -1e10, 1_700_000_000.123456789, 2.5e11])
def test_times_of_long_ago_and_to_come(store, time):
    memory = Memory(backend=store)
    stored = store.add(Message(role="user", content="x", timestamp=time))
    memory.add("user", "now")
    assert stored.timestamp == time
    (found,) = memory.get_all(filters={"message_id": stored.id})
    assert found.timestamp == time
    assert [m.content for m in memory.get_all()] == (["x", "now"] if time < 2e9 else ["now", "x"])


@pytest.mark.parametrize("time", [1e300, 2**70, -1e15, 1_700_000_000_000])
def test_times_that_no_calendar_has_are_kept_or_refused(store, time):
    message = Message(role="user", content="x", timestamp=time)
    try:
        stored = [store.add(message)]
    except MessageError:
        stored = []
        with pytest.raises(MessageError, match="timestamp"):
            store.add(message)
    assert [m.timestamp for m in store.get_all()] == [m.timestamp for m in stored] == [time] * len(stored)


@pytest.mark.parametrize(
    "when",
    [dt.datetime(2024, 1, 1, tzinfo=dt.UTC).replace(tzinfo=None), "2024-01-01T00:00:00", "2024-01-01", True, {"t": 1}],
    ids=str,
)
def test_a_time_without_a_zone_or_sense_is_refused_and_named(store, when):
    memory = Memory(backend=store)
    with pytest.raises(MessageError, match=r"timestamp.*(POSIX|zone)"):
        memory.add("user", "x", {"timestamp": when})
    assert memory.is_empty()


def test_the_last_of_a_batch_that_is_wrong_leaves_nothing(store):
    memory = Memory(backend=store)
    memory.add("user", "apple", SCOPE)
    batch = [Message(role="user", content=f"n {n}", metadata=SCOPE) for n in range(50)]
    batch.append(Message(role="user", content="x", metadata={**SCOPE, "k": {1, 2}}))
    for add in (
        lambda: memory.add_many(batch),
        lambda: asyncio.run(memory.aadd_many(batch)),
        lambda: memory.add_turn(batch),
        lambda: memory.replace_messages(SCOPE, batch),
        lambda: asyncio.run(memory.areplace_messages(SCOPE, batch)),
    ):
        with pytest.raises(MessageError, match="'k'"):
            add()
        assert [m.content for m in memory.get_all()] == ["apple"]
        assert [m.content for m in memory.search("apple n")] == ["apple"]


def test_threads_and_tasks_lose_nothing(store):
    memory = Memory(backend=store)
    barrier = threading.Barrier(6)

    def thread(letter):
        barrier.wait()
        for n in range(25):
            memory.add("user", f"t{letter} {n}", SCOPE)
            memory.search(f"t{letter}", SCOPE, 3)
            memory.get_agent_conversation(f"t{letter}", 5, SCOPE, "both")

    async def tasks():
        async def task(number):
            for n in range(10):
                await memory.aadd("user", f"a{number} {n}", SCOPE)

        await asyncio.gather(*(task(number) for number in range(8)))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(thread, "abcdef"))
    asyncio.run(tasks())
    held = [m.content for m in memory.get_all(filters=SCOPE)]
    for who, count in [*((f"t{letter}", 25) for letter in "abcdef"), *((f"a{n}", 10) for n in range(8))]:
        assert [text for text in held if text.startswith(f"{who} ")] == [f"{who} {n}" for n in range(count)]
    assert len(held) == 6 * 25 + 8 * 10
    assert len(memory.search("ta", SCOPE)) == 25


def test_a_replacement_is_never_seen_in_part(store):
    memory = Memory(backend=store)
    memory.replace_messages(SCOPE, [Message(role="user", content="g0") for _ in range(20)])
    done = threading.Event()

    def replace():
        try:
            for generation in range(1, 40):
                memory.replace_messages(SCOPE, [Message(role="user", content=f"g{generation}") for _ in range(20)])
        finally:
            done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen = set()
    while not done.is_set():
        for read in (memory.get_all(filters=SCOPE), memory.backend.search("g0 g1", SCOPE)):
            held = [m.content for m in read]
            assert len(held) in (0, 20)
            assert len(set(held)) <= 1
            seen.update(held)
        assert memory.count(SCOPE) == 20
    writer.join()
    assert {m.content for m in memory.get_all()} == {"g39"}
