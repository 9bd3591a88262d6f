"""`conversations.json` of Claude's data export.

https://support.claude.com/en/articles/9450526 says how to get it; its format is not documented there. A conversation
has `chat_messages` with blocks of Anthropic's API. Extracted texts of attachments become parts of the content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dynamiq_memory.messages import Message
from dynamiq_memory.transfer.readers.base import Entry, Reader, entries_of, expect, json_in, message_of, seconds_of
from dynamiq_memory.transfer.streams import File


def _to_message(data: Any) -> Message:
    blocks = [dict(block) for block in data.get("content") or ()]
    attached = [{**each, "type": "attachment"} for each in data.get("attachments") or ()]
    attached += [{**each, "type": "file"} for each in data.get("files") or ()]
    texts = [{"type": "text", "text": each["extracted_content"]} for each in attached if each.get("extracted_content")]
    said = {block["type"] for block in blocks}
    content: Any = blocks or data.get("text", "")
    if said == {"text"} and len(blocks) == 1:
        content = blocks[0]["text"]
    if attached:
        content = [*([{"type": "text", "text": content}] if isinstance(content, str) else content), *texts, *attached]
    return message_of(data["sender"], content, id=data["uuid"], timestamp=seconds_of(data.get("created_at")))


def _entries(file: File) -> Iterator[Entry]:
    conversations = json_in(file)
    is_list = isinstance(conversations, list) and all(isinstance(each, Mapping) for each in conversations)
    expect(is_list and all("chat_messages" in each for each in conversations), "claude", "a list with chat_messages")
    yield from entries_of(conversations, "conversation", _listed)


def _listed(conversation: Mapping[str, Any], where: str, number: int) -> Iterator[Entry]:
    for place, message in enumerate(conversation["chat_messages"], 1):
        session = conversation.get("uuid") or f"conversation-{number}"
        yield Entry(f"{where}, message {place}", str(place), message, session)


READER = Reader(_entries, _to_message)
