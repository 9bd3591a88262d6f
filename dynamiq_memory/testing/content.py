"""Messages are read back as they were written."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from dynamiq_memory.exceptions import MessageTooLargeError
from dynamiq_memory.messages import Message
from dynamiq_memory.testing.base import SCOPE, ConformanceBase, Twin, contents, say

TEXTS = (
    "",
    " ",
    "line\nbreaks\r\n\ttabs",
    "NUL \0 inside",
    "lone surrogate \ud800 here",
    "emoji 👩‍👩‍👧‍👦 and ünïcödé",
    "<script>alert('x')</script> & \"quotes\"",
    '{"json": [1, 2]}',
    "%s %(x)s {x} :x ? $1",
    "\ufeffbyte order mark",
)
VALUES: dict[str, Any] = {
    "text": "x",
    "empty": "",
    "nul": "a\0b",
    "surrogate": "\udfff",
    "integer": -(2**63),
    "fraction": 0.1 + 0.2,
    "tiny": 5e-324,
    "minus zero": -0.0,
    "yes": True,
    "null": None,
    "list": [1, "a", None, [2.5, {"deep": [True]}]],
    "dict": {"b": 1, "a": {"": 2, "x.y": 3}},
    "order": {"z": 1, "y": 2, "x": 3},
    "datetime": dt.datetime(2026, 11, 23, 4, 5, 6, 789, tzinfo=dt.UTC),
    "naive": dt.datetime(2026, 11, 23, 4, 5),  # noqa: DTZ001 - must come back as it is
    "date": dt.date(2026, 11, 23),
    "bytes": b"\x00\xff",
    "decimal": Decimal("1.10"),
    "uuid": UUID("01a20700-0000-7000-8000-000000000000"),
    "looks like a tag": {"$type": "datetime", "value": "2026-11-23"},
    "nested tag": [{"$type": {"$type": "dict", "value": 1}}],
}


class ContentConformance(ConformanceBase):
    """Tests of text, metadata, ids, timestamps and the other fields of a message."""

    def test_text_is_stored_whole(self, store: Twin) -> None:
        added = [store.add(say(text, k=text)) for text in TEXTS]
        found = store.get_all()
        assert found == added
        assert contents(found) == list(TEXTS)
        assert [message.metadata["k"] for message in found] == list(TEXTS)

    def test_metadata_comes_back_as_it_went_in(self, store: Twin) -> None:
        store.add_many([say(metadata={name: value, "inside": {"list": [value]}}) for name, value in VALUES.items()])
        for (name, value), message in zip(VALUES.items(), store.get_all(), strict=True):
            found = message.metadata
            assert found[name] == value
            assert type(found[name]) is type(value)
            assert repr(found[name]) == repr(value)  # distinguishes -0.0 from 0.0 and compares the order of keys
            assert found["inside"] == {"list": [value]}

    def test_odd_ids_are_kept(self, store: Twin) -> None:
        ids = ["a b", "%", "'", '"', "run-1/2", "ä" * 100, "x" * 400]
        store.add_many([say(id=message_id) for message_id in ids])
        assert [message.id for message in store.get_all()] == ids

    def test_every_field_comes_back(self, store: Twin) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.10}'}, "extra": [1.5]}
        native = {"langchain": {"type": "ai", "data": {"z": 1, "a": [None, True, 0.1]}}}
        messages = [
            say("", "assistant", tool_calls=[call], name="bot", native=native),
            say("42", "tool", tool_call_id="c1", name="f"),
            say(content=[{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x"}}]),
            say(content=[]),
            say("", "assistant", tool_calls=[]),
            say("be kind", "system"),
        ]
        store.add_many(messages)
        found = store.get_all()
        for message, back in zip(messages, found, strict=True):
            for field in ("id", "role", "content", "tool_calls", "tool_call_id", "name", "native", "score"):
                assert getattr(back, field) == getattr(message, field), field
            assert repr(back.native) == repr(message.native)

    def test_five_megabytes(self, store: Twin) -> None:
        # Few words, since this is about storing and not about indexing.
        text = f"begin {'. ' * (5 * 1024 * 1024 // 2)}end"
        if _is_stored_or_refused(store, [say("before"), say(text)], len(text)):
            assert store.get_all()[1].content == text

    def test_ten_thousand_metadata_keys(self, store: Twin) -> None:
        metadata = {f"key {number}": number for number in range(10_000)}
        if _is_stored_or_refused(store, [say(metadata=metadata)], len(repr(metadata))):
            assert store.get_all(filters={"key 9999": 9999})[0].metadata.items() >= metadata.items()

    def test_the_callers_message_is_left_alone(self, store: Twin) -> None:
        message = say("hello", k={"list": [1]}, when=None)
        snapshot = copy.deepcopy(message)
        stored = store.add(message)
        store.replace(SCOPE, [message])
        assert message == snapshot
        stored.metadata["k"]["list"].append(2)
        message.metadata["k"]["list"].append(3)
        assert store.get_all()[0].metadata["k"] == {"list": [1]}

    def test_what_is_read_can_be_changed(self, store: Twin) -> None:
        store.add(say("hello", tool_calls=[{"id": "a"}], native={"x": []}, k={"list": [1]}))
        reads: list[Callable[[], Any]] = [store.get_all, lambda: store.search("hello")]
        reads += [lambda: store.around(store.get_all(), 1, 1)[0]]
        for read in reads:
            message = read()[0]
            message.content = "changed"
            message.metadata["k"]["list"].append(2)
            message.metadata["user_id"] = "other"
            message.tool_calls[0]["id"] = "b"
            message.native["x"].append(1)
        again = store.get_all()[0]
        assert (again.content, again.metadata["k"], again.user_id) == ("hello", {"list": [1]}, SCOPE["user_id"])
        assert (again.tool_calls, again.native) == ([{"id": "a"}], {"x": []})

    def test_a_stored_message_can_be_stored_again(self, store: Twin) -> None:
        store.add_many([say("hello", k=1), say("there")])
        messages = store.search("hello") + store.get_all(limit=1)
        store.add_many(messages)
        assert contents(store.get_all()) == ["hello", "there"]
        assert store.get_all()[0].score is None


def _is_stored_or_refused(store: Twin, messages: list[Message], size: int) -> bool:
    try:
        store.add_many(messages)
    except MessageTooLargeError:
        assert store.target.capabilities.max_message_bytes < size
        assert store.is_empty()
        return False
    return True
