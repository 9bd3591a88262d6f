"""Sessions of openai-agents: the file of its `SQLiteSession`.

https://openai.github.io/openai-agents-python/sessions describes them. The table `agent_messages` has a row for each
item of the Responses API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dynamiq_memory.messages import Message
from dynamiq_memory.transfer.readers.base import Entry, Reader, message_of, parsed, seconds_of
from dynamiq_memory.transfer.readers.tables import rows_of
from dynamiq_memory.transfer.streams import File

_COLUMNS = ("id", "session_id", "message_data", "created_at")


def _to_message(row: Any) -> Message:
    item, at = parsed(row[0]), seconds_of(str(row[1]) if row[1] is not None else None)
    kind = item.get("type", "message")
    kept = {"openai-agents": item}
    if kind == "message":
        content = item["content"]
        if isinstance(content, list) and all(part.keys() >= {"type", "text"} for part in content):
            content = "\n".join(part["text"] for part in content)
        return message_of(
            item["role"], content, timestamp=at, native=kept if item.keys() > {"role", "content"} else None
        )
    if kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        calls = [{"id": item["call_id"], "type": "function", "function": function}]
        return message_of("assistant", "", tool_calls=calls, timestamp=at, native=kept)
    if kind == "function_call_output":
        return message_of("tool", item["output"], tool_call_id=item["call_id"], timestamp=at)
    return message_of("assistant", [item], timestamp=at)  # reasoning, built-in tools, …


def _entries(file: File) -> Iterator[Entry]:
    for number, session, *data in rows_of(file, "agent_messages", _COLUMNS):
        yield Entry(f"row {number} of agent_messages", str(number), data, session)


READER = Reader(_entries, _to_message)
