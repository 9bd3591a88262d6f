"""Files of other programs, made by hand after their formats."""

from __future__ import annotations

import io
import json
import sqlite3
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import InMemory
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.transfer import Totals, TransferError, import_from

CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def imported(data: Any, format: str, **options: Any) -> list[Message]:  # noqa: A002
    """Imports a file twice, which must be as once."""
    text = data if isinstance(data, str) else json.dumps(data)
    backend = InMemory()
    first = import_from(io.BytesIO(text.encode()), backend, format=format, **options)
    again = import_from(io.BytesIO(text.encode()), backend, format=format, **options)
    assert again == Totals(read=first.read, unchanged=first.written, skipped=first.skipped)
    return backend.get_all()


def test_openai_chat() -> None:
    lines = [
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "seen"},
                {"role": "assistant", "content": None, "refusal": "No."},
            ]
        },
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]},
        {"messages": [{"role": "function", "name": "f", "content": "7"}]},
    ]
    found = imported("\n".join(map(json.dumps, lines)), "openai-chat", user_id="u-1")
    assert [(each.role.value, each.session_id, each.user_id) for each in found] == [
        ("system", "line-1", "u-1"),
        ("user", "line-1", "u-1"),
        ("assistant", "line-1", "u-1"),
        ("tool", "line-1", "u-1"),
        ("assistant", "line-1", "u-1"),
        ("assistant", "line-2", "u-1"),
        ("tool", "line-3", "u-1"),
    ]
    assert found[2].tool_calls == [CALL]
    assert found[4].content == [{"type": "refusal", "refusal": "No."}]
    assert (found[5].tool_calls or [{}])[0]["id"] == found[6].tool_call_id == "f"


def test_chatgpt() -> None:
    def node(name: str, parent: str | None, role: str, said: str, at: float | None, **content: Any) -> dict[str, Any]:
        whole = content or {"content_type": "text", "parts": [said]}
        message = {"id": name, "author": {"role": role}, "create_time": at, "content": whole}
        return {"id": name, "parent": parent, "message": message}

    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    mapping = {
        "root": {"id": "root", "parent": None, "message": None},
        "system": node("system", "root", "system", "", None),
        "old": node("old", "system", "user", "Helo", 100.0),
        "new": node("new", "system", "user", "", 110.0, content_type="multimodal_text", parts=[image, "Hello"]),
        "answer": node("answer", "new", "assistant", "", 120.0, content_type="code", text="print(1)"),
        "result": node("result", "answer", "tool", "", None, content_type="execution_output", text="1"),
    }
    conversation = {"conversation_id": "c-1", "create_time": 90.0, "update_time": 130.0, "current_node": "result"}
    found = imported([{**conversation, "mapping": mapping}], "chatgpt", user_id="me")
    assert [(each.id, each.role.value, each.timestamp, each.superseded_at) for each in found] == [
        ("old", "user", 100.0, 130.0),
        ("new", "user", 110.0, None),
        ("answer", "assistant", 120.0, None),
        ("result", "tool", 120.0, None),
    ]
    assert found[1].content == [{**image, "type": "image_asset_pointer"}, {"type": "text", "text": "Hello"}]
    assert {each.session_id for each in found} == {"c-1"}
    backend = InMemory()
    backend.add_many(found)
    assert [each.id for each in Memory(backend).get_agent_conversation()] == ["new", "answer"]


def test_claude() -> None:
    def message(number: int, sender: str, **fields: Any) -> dict[str, Any]:
        return {"uuid": f"m-{number}", "sender": sender, "created_at": f"2026-11-30T18:00:0{number}Z", **fields}

    thinking = {"type": "thinking", "thinking": "hm"}
    attached = {"file_name": "a.txt", "extracted_content": "9:40"}
    messages = [
        message(1, "human", text="When?", content=[{"type": "text", "text": "When?"}], attachments=[attached]),
        message(2, "assistant", content=[thinking, {"type": "text", "text": "At 9:40."}]),
        message(3, "human", text="Thanks.", content=[]),
    ]
    found = imported([{"uuid": "c-1", "name": "Ferries", "chat_messages": messages}], "claude", user_id="me")
    assert [each.text for each in found] == ["When?\n9:40", "At 9:40.", "Thanks."]
    assert isinstance(found[0].content, list)
    assert found[0].content[2] == {**attached, "type": "attachment"}
    assert found[1].content == [thinking, {"type": "text", "text": "At 9:40."}]
    assert (found[1].timestamp, found[2].session_id) == (1796061602.0, "c-1")


@pytest.mark.parametrize("wrap", [lambda all_: {"results": all_}, lambda all_: {"memories": all_}, list])
def test_mem0(wrap: Any) -> None:
    memory: dict[str, Any] = {
        "id": "m-1",
        "memory": "Likes ferries",
        "user_id": "alex",
        "run_id": None,
        "categories": ["travel"],
    }
    memory |= {"created_at": "2026-11-30T10:00:00-08:00", "metadata": {"source": "chat", "user_id": "other"}}
    (found,) = imported(wrap([memory]), "mem0", user_id="nobody", session_id="facts")
    assert (found.text, found.id, found.user_id, found.session_id) == ("Likes ferries", "m-1", "alex", "facts")
    assert (found.metadata["source"], found.metadata["categories"]) == ("chat", ["travel"])
    assert found.timestamp == 1796061600.0


def test_openai_agents(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "When?"},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "id": "f"},
        {"type": "function_call_output", "call_id": "c", "output": "9:40"},
        {"type": "message", "role": "assistant", "id": "a", "content": [{"type": "output_text", "text": "At 9:40."}]},
    ]
    file = tmp_path / "sessions.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY)")
        database.execute(
            "CREATE TABLE agent_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, "
            "message_data TEXT NOT NULL, created_at TIMESTAMP DEFAULT '2026-11-30 18:00:00')"
        )
        for item in items:
            row = ("s-1", json.dumps(item))
            database.execute("INSERT INTO agent_messages (session_id, message_data) VALUES (?, ?)", row)
    database.close()
    backend = InMemory()
    assert import_from(file, backend, format="openai-agents", user_id="u-1").written == 5
    assert import_from(str(file), backend, format="openai-agents", user_id="u-1").unchanged == 5
    found = backend.get_all(filters={"user_id": "u-1", "session_id": "s-1"})
    assert [(each.role.value, each.text) for each in found] == [
        ("user", "When?"), ("assistant", ""), ("assistant", ""), ("tool", "9:40"), ("assistant", "At 9:40.")
    ]  # fmt: skip
    assert found[1].content == [items[1]]
    assert found[2].tool_calls == [CALL]
    assert found[4].native == {"openai-agents": items[4]}
    assert {each.timestamp for each in found} == {1796061600.0}
    given = [each.role.value for each in Memory(backend).get_agent_conversation()]
    assert given[0] == "user"
    assert given[-2:] == ["tool", "assistant"]
    with pytest.raises(TransferError, match="from a stream: give its path"):
        import_from(io.BytesIO(), backend, format="openai-agents")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://app:first@s3cr3t@127.0.0.1:1/app", ConfigurationError),
        ("postgresql://app:first@s3cr3t:1@127.0.0.1/app", ConfigurationError),
        ("postgresql://app/first:s3cr3t@127.0.0.1:1/app", ConfigurationError),
        ("mysql://app:first@s3cr3t@127.0.0.1:1/app", ConfigurationError),
        ("postgresql://app:s3cr3t", ConfigurationError),
        ("://s3cr3t", ConfigurationError),
        ("postgresql://app:s3cr3t@127.0.0.1:1/app", TransferError),
        ("postgresql://app:s3cr3t@127.0.0.1:1/app?no=s3cr3t", TransferError),
        ("word://app:s3cr3t@127.0.0.1/app", TransferError),
    ],
)
def test_no_error_shows_a_password(url: str, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        import_from(url, InMemory(), format="openai-agents")
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("format", ["chatgpt", "claude", "mem0"])
def test_a_file_of_another_format_is_refused(format: str) -> None:  # noqa: A002
    for data, error in (
        (b"{}", f"the file is not of the format {format}, which has"),
        (b'[{"title": "x"}]', f"the file is not of the format {format}, which has"),
        (b"[7]", f"the file is not of the format {format}, which has"),
        (b'[{"', "the file is not JSON in UTF-8, or not whole"),
        (b"\xff\xfe", "the file is not JSON in UTF-8"),
    ):
        with pytest.raises(TransferError, match=error):
            import_from(io.BytesIO(data), InMemory(), format=format)


def test_an_entry_that_cannot_be_read_is_named_and_skipped() -> None:
    data = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "bot"}, 7]}\n{"messages": [\n'
    backend = InMemory()
    with pytest.raises(TransferError, match="line 1, message 2: role 'bot' is unknown"):
        import_from(io.BytesIO(data), backend, format="openai-chat")
    assert backend.is_empty()
    skipped: list[str] = []
    totals = import_from(io.BytesIO(data), backend, format="openai-chat", on_error="skip", report=skipped.append)
    assert (totals.written, totals.skipped) == (1, 3)
    assert skipped[1].startswith("line 1, message 3: this is not of the format openai-chat")
    assert skipped[2].startswith("line 2: this is not JSON, or not whole")


def test_a_line_of_another_form_is_refused_by_itself() -> None:
    good, bad = b'{"messages": [{"role": "user", "content": "Hi"}]}\n', b'{"prompt": "Hi"}\n'
    with pytest.raises(TransferError, match="not of the format openai-chat"):
        import_from(io.BytesIO(bad + good), InMemory(), format="openai-chat", on_error="skip")
    skipped: list[str] = []
    data = io.BytesIO(good + bad + good)
    totals = import_from(data, InMemory(), format="openai-chat", on_error="skip", report=skipped.append)
    assert (totals.written, totals.skipped) == (2, 1)
    assert skipped == ["line 2: this line has no list of messages"]


def test_chatgpt_without_times_or_content() -> None:
    def message(name: str, content: object) -> dict[str, Any]:
        return {"message": {"id": name, "author": {"role": "user"}, "content": content}}

    mapping = {"a": message("a", {"content_type": "text", "parts": ["Hi"]}), "b": message("b", None)}
    before = time.time()
    skipped: list[str] = []
    (found,) = imported([{"mapping": mapping}], "chatgpt", on_error="skip", report=skipped.append)
    assert found.timestamp is not None
    assert found.timestamp >= before
    assert skipped == ["conversation 1, message b: the message has no content"] * 2
    # A message without a time comes before a later one that has one.
    mapping["b"] = message("b", {"content_type": "text", "parts": ["Ho"]})
    mapping["b"]["message"]["create_time"] = 100.0
    assert [(each.id, each.timestamp) for each in imported([{"mapping": mapping}], "chatgpt")] == [
        ("a", 100.0),
        ("b", 100.0),
    ]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'word' is unknown: use one of chatgpt, claude, langchain-sql, "):
        import_from(io.BytesIO(), InMemory(), format="word")
