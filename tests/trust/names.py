"""Hostile names, as ids, keys, values and filters: nobody sees what belongs to another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage

from dynamiq_memory import InvalidArgumentError, Memory, MemoryBackend, Message, MessageRole
from dynamiq_memory.testing import say
from langchain_dynamiq_memory import DynamiqChatMessageHistory
from llama_index.storage.chat_store.dynamiq import DynamiqChatStore
from tests.trust.stores import STORES, opened
from tests.trust.tally import Checks, Opened, Tally

# What would be special to a language of queries, to a key, to a format, or to the eye.
# ruff: noqa: RUF001 - they look alike on purpose
NAMES = (
    "alice", "Alice", "ALICE", "alice ", " alice", "alice\t", "alice\n", "\u00a0alice", "alice\u200b", "ali\u00adce",
    "аlice", "alicé", "alice\u0301", "ａｌｉｃｅ", "ALİCE", "alıce", "ſ", "s", "ß", "ss", "SS", "ﬁ", "fi",
    "\u202ealice", "\u202dalice\u202c", "\u2066alice\u2069", "أليس", "אליס", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "👩", "😀", "\U0010ffff",
    "%", "_", "a%", "a_ice", "%%", "\\%", "\\", "\\\\", "'", "''", '"', '""', "`", "a'b", 'a"b', "--", "/*", "*/",
    "' OR '1'='1", "' OR 1=1 --", '" OR ""="', "'); DROP TABLE conversations; --", "alice'/*", "\\' OR 1=1",
    "*", "?", "a*", "[a-z]", "^alice$", ".*", "(alice)", "{alice}", "$alice", "$", "$memory", "$$memory", "$ne", "$or",
    '{"$ne": null}', '{"user_id": "alice"}', "[]", "[1]", "{}", "null", "None", "true", "True", "1", "1.0", "01",
    "1e0", "NaN", "0", "-0", "alice/bob", "alice:bob", "alice#bob", "alice|bob", "alice,bob", "alice;bob", "alice.bob",
    "alice&bob", "alice=bob", "alice?b=c", "../alice", "..", ".", "/", "//", "#", "&", "=", "+", "a+b", "a b", "a%20b",
    "%61lice", "%00", "\x01", "\x1f", "\x7f", "\x1e", "\ufeffalice", "\uffff", "user_id", "session_id", "message_id",
    "timestamp", "__proto__", "constructor", "<script>", "&lt;", "${alice}", "{{alice}}", "alice" * 100,
    "alice" * 99 + "Alice",
)  # fmt: skip
# These have no meaning as keys of metadata: they are fields of a message.
_RESERVED = {"user_id", "session_id", "message_id", "timestamp"}
# A run asks in so many names. All others are there, too.
_ASKED = 12
REFUSED = ("", "\x00", "alice\x00", "\x00alice", "\ud800", "alice\udfff")


def ask(store: MemoryBackend, random: Random) -> Tally:
    """Store a message in every name, then ask, change and delete in the names of some."""
    tally = Tally(runs=1)
    store.clear()
    kept = {name: _own(name) for name in random.sample(NAMES, len(NAMES))}
    store.add_many(list(kept.values()))
    asked: dict[str, Callable[[str], dict[str, Any]]] = {
        "user_id": lambda name: {"user_id": name},
        "session_id": lambda name: {"session_id": name},
        "both": lambda name: {"user_id": name, "session_id": name},
        "value": lambda name: {"name": name},
        "key": lambda name: {_key(name): 1},
        "id": lambda name: {"message_id": name},
    }
    for name in random.sample(NAMES, _ASKED):
        for what, filters in asked.items():
            found = [m.content for m in store.get_all(filters=filters(name))]
            tally.expect(found == [f"plum {name}"], f"{what} {name!r} finds {found}", "leaked")
        found = [m.content for m in store.search("plum", {"user_id": name})]
        tally.expect(found == [f"plum {name}"], f"a search of {name!r} finds {found}", "leaked")
    _change(store, random, tally, kept)
    for refused in REFUSED:
        tally.expect(_is_refused(store, refused), f"{refused!r} is not refused")
    return tally


def _own(name: str) -> Message:
    return say(f"plum {name}", user=name, session=name, id=name, metadata={_key(name): 1, "name": name})


def _key(name: str) -> str:
    return f"{name}'s" if name in _RESERVED else name


def _change(store: MemoryBackend, random: Random, tally: Tally, kept: dict[str, Message]) -> None:
    """Replace, take and delete in the names of some: all others keep what they have."""
    left = {name: f"plum {name}" for name in kept}
    for name in random.sample(NAMES, 8):
        scope = {"user_id": name, "session_id": name}
        what = random.choice(["replace", "take", "delete", "user"])
        if what == "replace":
            store.replace(scope, [Message(role=MessageRole.USER, content="plum again", id=name)])
            left[name] = "plum again"
        elif what == "take":
            tally.expect(len(store.take({_key(name): 1})) == 1, f"take {name!r}", "leaked")
            del left[name]
        else:
            deleted = store.delete(name if what == "delete" else None, name)
            tally.expect(deleted == 1, f"{what} {name!r} deletes {deleted}", "leaked")
            del left[name]
        now = {str(m.user_id): m.content for m in store.get_all()}
        changed = sorted(other for other in {*now, *left} if now.get(other) != left.get(other))
        tally.expect(not changed, f"{what} {name!r} changes {changed}", "leaked")


def _is_refused(store: MemoryBackend, name: str) -> bool:
    """Whether nothing can be stored in a name, and nothing is found."""
    calls: list[Callable[[], Any]] = [
        lambda: store.add_many([say("plum", user=name)]),
        lambda: store.add_many([say("plum", session=name)]),
        lambda: store.get_all(filters={"user_id": name}),
        lambda: store.search("plum", {"session_id": [name]}),
        lambda: store.take({"user_id": name}),
        lambda: store.delete(session_id=name),
    ]
    for call in calls:
        try:
            found = call()
        except InvalidArgumentError:
            continue
        if found:
            return False
    return True


def ask_adapters(store: MemoryBackend, random: Random) -> Tally:
    """Some names as sessions and users of LangChain's history and of LlamaIndex's chat store."""
    tally = Tally(runs=1)
    store.clear()
    memory = Memory(store)
    names = random.sample(NAMES, _ASKED)
    for name in names:
        DynamiqChatMessageHistory(memory, name, "langchain").add_messages([HumanMessage(f"plum {name}")])
        DynamiqChatMessageHistory(memory, "langchain", name).add_messages([HumanMessage(f"plum {name}")])
        DynamiqChatStore(memory).add_message(_key_of_chat(name), ChatMessage(f"plum {name}"))
    for name in names:
        for session, user in ((name, "langchain"), ("langchain", name)):
            found = [m.content for m in DynamiqChatMessageHistory(memory, session, user).messages]
            tally.expect(found == [f"plum {name}"], f"history {session!r} of {user!r}: {found}", "leaked")
        chat = [m.content for m in DynamiqChatStore(memory).get_messages(_key_of_chat(name))]
        tally.expect(chat == [f"plum {name}"], f"chat store {name!r}: {chat}", "leaked")
    for name in names[:3]:
        DynamiqChatMessageHistory(memory, name, "langchain").clear()
        DynamiqChatStore(memory).delete_messages(_key_of_chat(name))
        tally.expect(store.count() == 3 * len(names) - 2, f"clearing {name!r} leaves {store.count()}", "leaked")
        DynamiqChatMessageHistory(memory, name, "langchain").add_messages([HumanMessage(f"plum {name}")])
        DynamiqChatStore(memory).add_message(_key_of_chat(name), ChatMessage(f"plum {name}"))
    return tally


def _key_of_chat(user: str) -> str:
    return user.replace("%", "%25").replace("/", "%2F") + "/llama"


def _check(store: str, asking: Callable[[MemoryBackend, Random], Tally]) -> Callable[[Path], Any]:
    @contextmanager
    def check(folder: Path) -> Opened:
        with opened(store, folder) as backend:
            yield partial(asking, backend)

    return check


CHECKS: Checks = {name: _check(name, ask) for name in (*STORES, "service over PostgreSQL")} | {
    f"{name}, adapters": _check(name, ask_adapters) for name in ("SQLite", "PostgreSQL", "service over SQLite")
}
