"""Files of each format, with each of their values replaced by one that is wrong."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dynamiq_memory.backends import InMemory
from dynamiq_memory.transfer import TransferError, import_from

BAD = {"$type": "dict", "value": 5}
WRONG: tuple[Any, ...] = (None, 5, -1e400, True, "x", "", [], [5], ["u"], {}, {"type": 5}, BAD, {"$type": "datetime"})
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def _chatgpt(name: str) -> dict[str, Any]:
    content = {"content_type": "text", "parts": ["Hi", {"content_type": "image"}]}
    message = {"id": name, "author": {"role": "user", "name": "n"}, "create_time": 2.0, "content": content}
    mapping = {"root": {"parent": None, "message": None}, name: {"parent": "root", "message": message}}
    return {"conversation_id": name, "create_time": 1.0, "update_time": 3.0, "current_node": name, "mapping": mapping}


def _claude(name: str) -> dict[str, Any]:
    blocks = [{"type": "text", "text": "Hi"}, {"type": "thinking", "thinking": "hm"}]
    attached = [{"file_name": "a", "extracted_content": "9:40"}]
    message = {"uuid": name, "sender": "human", "created_at": "2026-11-30T18:00:00Z", "text": "Hi", "content": blocks}
    return {"uuid": name, "chat_messages": [{**message, "attachments": attached, "files": attached}]}


def _mem0(name: str) -> dict[str, Any]:
    times = {"created_at": "2026-11-30T18:00:00Z", "metadata": {"k": "v"}}
    return {"id": name, "memory": "Hi", "user_id": "u", "run_id": "s", "categories": ["c"], **times}


def _openai(name: str) -> dict[str, Any]:
    called = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "Hi"}]
    more = [{"role": "function", "name": "f", "content": "7"}, {"role": "tool", "tool_call_id": "c", "content": "7"}]
    asked, calling = {"role": "user", "content": parts, "name": name}, {"role": "assistant", "tool_calls": [CALL]}
    return {"messages": [asked, calling, called, *more]}


def _own(name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "user_id": "u",
        "session_id": "s",
        "k": 1,
        "tagged": {"$type": "bytes", "value": "MQ=="},
    }
    metadata["wrapped"] = {"$type": "dict", "value": {"$type": "decimal", "text": "1"}}
    fields = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "id": name, "timestamp": 1.0}
    return {**fields, "metadata": metadata, "tool_calls": [CALL], "name": "n", "native": {"k": [1]}}


def _lines(*objects: Any) -> str:
    return "\n".join(map(json.dumps, objects))


HEADER = {"format": "dynamiq-memory", "version": 1}
FORMATS: dict[str, tuple[Any, Any]] = {
    "chatgpt": (_chatgpt, lambda *each: json.dumps(each)),
    "claude": (_claude, lambda *each: json.dumps(each)),
    "mem0": (_mem0, lambda *each: json.dumps({"results": each})),
    "openai-chat": (_openai, _lines),
    "dynamiq-memory": (_own, lambda *each: _lines(HEADER, *each)),
}


def _mutants(value: Any) -> Iterator[Any]:
    """Yields copies of a value in which one value within is wrong or missing."""
    if not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        for wrong in WRONG:
            mutant = copy.copy(value)
            mutant[key] = wrong
            yield mutant
        mutant = copy.copy(value)
        del mutant[key]
        yield mutant
        for inner in _mutants(value[key]):
            mutant = copy.copy(value)
            mutant[key] = inner
            yield mutant


@pytest.mark.parametrize("format", FORMATS)
def test_a_wrong_value_is_an_error_of_ours_and_costs_no_good_entry(format: str) -> None:  # noqa: A002
    make, write = FORMATS[format]
    good, tried, refused = make("good"), 0, 0
    for mutant in _mutants(make("bad")):
        data, target = write(mutant, good).encode(), InMemory()
        skipped: list[str] = []
        options: dict[str, Any] = {"format": format, "on_conflict": "skip"}
        whole = ""
        try:
            import_from(io.BytesIO(data), target, **options, on_error="skip", report=skipped.append)
        except TransferError as error:
            whole = str(error)
        kept = [each for each in target.get_all() if "good" in (each.id, each.name)]
        # Either the file as a whole is of another format, or what is good is stored.
        assert bool(kept) != ("which has" in whole), (mutant, whole, skipped)
        tried += 1
        refused += bool(skipped)
        if skipped:
            with pytest.raises(TransferError):
                import_from(io.BytesIO(data), InMemory(), **options)
    assert refused > tried / 10


@pytest.mark.parametrize("wrong", [{**HEADER, "k": each} for each in WRONG] + [*WRONG, {**HEADER, "version": "1"}])
def test_a_wrong_header_is_refused(wrong: Any) -> None:
    data = _lines(wrong, _own("good")).encode()
    if isinstance(wrong, dict) and "k" in wrong and wrong["k"] not in (BAD, {"$type": "datetime"}):
        assert import_from(io.BytesIO(data), InMemory()).written == 1
    else:
        with pytest.raises(TransferError, match="line 1"):
            import_from(io.BytesIO(data), InMemory())
