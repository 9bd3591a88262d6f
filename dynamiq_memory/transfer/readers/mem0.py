"""Memories of mem0, as its `get_all` returns them: `{"results": [{"id": …, "memory": …, "user_id": …}, …]}`.

https://docs.mem0.ai/cookbooks/essentials/exporting-memories describes them. Each memory becomes a message of the user,
in the session of its `run_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.transfer.readers.base import Entry, Reader, expect, json_in, message_of, seconds_of
from dynamiq_memory.transfer.streams import File

_KEPT = ("agent_id", "app_id", "categories", "updated_at")


def _to_message(data: Any) -> Message:
    metadata = {key: value for key, value in (data.get("metadata") or {}).items() if key not in (USER_KEY, SESSION_KEY)}
    metadata |= {key: data[key] for key in _KEPT if data.get(key) is not None}
    timestamp = seconds_of(data.get("created_at"))
    return message_of("user", data["memory"], id=data["id"], timestamp=timestamp, metadata=metadata)


def _entries(file: File) -> Iterator[Entry]:
    found = json_in(file)
    memories = found.get("results", found.get("memories")) if isinstance(found, Mapping) else found
    is_list = isinstance(memories, list) and all(isinstance(each, Mapping) for each in memories)
    expect(is_list and all("memory" in each for each in memories), "mem0", "a list of results with memory")
    for number, memory in enumerate(memories, 1):
        yield Entry(f"memory {number}", str(number), memory, memory.get("run_id"), memory.get("user_id"))


READER = Reader(_entries, _to_message)
