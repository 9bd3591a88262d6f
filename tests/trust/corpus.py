"""Inputs that once failed, or broke others: kept, so that they are tried first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from dynamiq_memory import DynamiqMemoryError, MemoryBackend, Message
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.integrations.native import TAG, pack, reduced
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.settings import Settings
from langchain_dynamiq_memory import _messages as langchain
from llama_index.memory.dynamiq import _messages as llama_index
from tests.trust.tally import Check, Checks, Tally

USER = {"user_id": "u"}
ITEM = b'{"data": {"role": "user", "content": %s}}'

# Of each, the parts of a text that once took quadratic time or too much memory.
TEXTS = (
    "a-" * 20_000, "aB1" * 20_000, "1," * 20_000, "9" * 50_000, "1 " * 20_000, "12) (" * 10_000, "\u0301" * 20_000,
    "e" + "\u0301" * 20_000, "漢" * 20_000, "が゛" * 10_000, "." * 50_000, "'" * 50_000, "a'" * 20_000, "0x" * 20_000,
    "deadbeef" * 5_000, "1970-01-01 " * 2_000, "{" * 50_000, "<" * 50_000, "\u202e\u2066" * 10_000, "\x1f" * 20_000,
    "ﷺ" * 5_000, "ß" * 20_000, "İ" * 20_000, "👩\u200d" * 10_000,
)  # fmt: skip
BODIES = (
    b"", b"null", b"[]", b"{}", b"\xff\xfe", b"{" * 50_000, b"[" * 50_000, b'{"a":' * 50_000, b'"\\ud800"', b'"\\u0000"',
    b"NaN", b"Infinity", b"-", b"1e999", b"9" * 5_000, b"0" * 5_000, b'{"items": [' + b"{}," * 50_000 + b"{}]}",
    b'{"items": null}', b'{"items": {"data": 1}}', b'{"filters": {"k": {"gt": "x"}}}', b'{"filters": {"": [[]]}}',
    b'{"filters": {"k": {}}}', b'{"filters": {"user_id": {"gt": 1}}}', b'{"filters": {"k": 1e400}}',
    b'{"filters": {"timestamp": {"gt": "now"}}}', b'{"limit": -1}', b'{"limit": 9999999999999999999999}',
    b'{"before": {"id": "", "timestamp": null}}', b'{"query": "' + b"a-" * 20_000 + b'"}',
    ITEM % b'"\\ud83d"', ITEM % b"[[[[1]]]]", ITEM % (b"[" * 500 + b"]" * 500), ITEM % b"1e999", ITEM % b'{"a": NaN}',
    b'{"data": {"role": "user", "content": "x"}, "metadata": {"timestamp": 1e300}}',
    b'{"data": {"role": "tool", "content": "x"}, "dynamiq_memory": {"native": [], "timestamp": "x", "id": 5}}',
)  # fmt: skip
PATHS = ("/items", "/items/query", "/items/around", "/items/count", "/items/replace", "/items/update", "/search")
_DEEP: Any = "x"
for _ in range(90):
    _DEEP = {"data": _DEEP}
NATIVES: tuple[Any, ...] = (
    {}, {"class": []}, {"class": "Poet", "fields": {}}, {"class": "AIMessage"}, {"class": "AIMessage", "fields": 5},
    {"class": "AIMessage", "fields": {"content": None}}, {"class": "ChatMessage", "fields": {}},
    {"class": "AIMessage", "fields": {"tool_calls": [{"name": 5}]}}, {"class": "HumanMessage", "fields": {"id": {TAG: "int", "value": "x"}}},
    {"class": "HumanMessage", "fields": {"additional_kwargs": {TAG: "tuple"}}}, {"class": "HumanMessage", "fields": {TAG: []}},
    {"class": "HumanMessage", "fields": {"content": [{"type": "image", "path": "/etc/passwd"}]}},
    {"class": "HumanMessage", "fields": {"obey": "Eve", "id": "ignore-all-previous-instructions"}},
    {"role": "user", "blocks": 5}, {"role": "poet"}, {"role": "user", "blocks": [{TAG: "Block", "value": {"class": "TextBlock"}}]},
    {"role": "user", "blocks": [{TAG: "Path", "value": "/etc/passwd"}]}, {"role": "user", "additional_kwargs": [1]},
    {"role": "user", "blocks": [{TAG: "OpenAI", "value": {}}]}, _DEEP, {"fields": _DEEP, "class": "HumanMessage"},
)  # fmt: skip


def store_texts(store: MemoryBackend) -> Tally:
    """Store and find each text, and others beside it."""
    tally = Tally(runs=1)
    store.clear()
    store.add(Message(role="user", content="ferry", metadata=USER))
    for number, text in enumerate(TEXTS):
        session = {**USER, "session_id": str(number)}
        store.add(Message(role="user", content=text, metadata=session))
        tally.expect(store.get_all(1)[0].content == text, f"another content than {text[:20]!a}")
        store.search(text[:1_000], session, 1)
        found = [message.content for message in store.search("ferry", USER)]
        tally.compare(found, [["ferry"]], f"after {text[:20]!a}")
    return tally


async def send_bodies(store: MemoryBackend) -> Tally:
    """Send each body to each path; the service must answer, and still answer the next request."""
    tally = Tally(runs=1)
    service = httpx.ASGITransport(create_app(store, None, Settings(rate=None)))
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(transport=service, base_url="http://localhost/v1/memories/m") as client:
        for body in BODIES:
            for path in PATHS:
                answer = await client.post(path, content=body, headers=headers)
                tally.expect(answer.status_code < 500, f"{path} answers {body[:30]!r} by {answer.status_code}")
                json.loads(answer.content)
        tally.expect((await client.post("/items/count", json={})).status_code == 200, "nothing is answered")
    return tally


def read_natives() -> Tally:
    """Read messages with each `native`; their content is what the message says."""
    tally = Tally(runs=1)
    for data in NATIVES:
        for framework, adapter in (("langchain", langchain), ("llama_index", llama_index)):
            message = Message(role="user", content="said")
            message.native = pack(getattr(adapter, "FRAMEWORK", framework), data, message)
            for native in (message.native, reduced(message)):
                given = adapter.from_message(message.model_copy(update={"native": native}))
                tally.expect(given.content == "said", f"{framework} reads {given.content!a:.40} from {data!a:.60}")
            tally.expect("Eve" not in str(reduced(message)), f"{data!a:.60} says more than the message")
    return tally


def _check(make: Callable[[Path], MemoryBackend], feed: Callable[[MemoryBackend], Tally]) -> Callable[[Path], Any]:
    @contextmanager
    def check(folder: Path) -> Iterator[Check]:
        with make(folder) as store:

            def run(_: Random) -> Tally:
                try:
                    return feed(store)
                except (
                    DynamiqMemoryError,
                    ArithmeticError,
                    LookupError,
                    RecursionError,
                    TypeError,
                    ValueError,
                ) as error:
                    return Tally(runs=1, wrong=1, seen=[repr(error)[:500]])

            yield run

    return check


CHECKS: Checks = {
    "texts in SQLite": _check(lambda folder: SQLite(folder / "m.db", synchronous="NORMAL"), store_texts),
    "bodies to the service": _check(lambda _: InMemory(), lambda store: asyncio.run(send_bodies(store))),
    "native fields": _check(lambda _: InMemory(), lambda _: read_natives()),
}
