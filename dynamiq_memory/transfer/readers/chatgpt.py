"""`conversations.json` of ChatGPT's data export.

https://help.openai.com/en/articles/7260999 says how to get it; its format is not documented there. A conversation is a
tree: messages beside the path to `current_node` were replaced by an edited question or another answer, and are marked
as superseded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dynamiq_memory.exceptions import MessageError
from dynamiq_memory.messages import SUPERSEDED_KEY, Message
from dynamiq_memory.transfer.readers.base import Entry, Reader, entries_of, expect, json_in, message_of
from dynamiq_memory.transfer.streams import File


def _to_message(data: Any) -> Message:
    node, at, superseded = data
    author, content = node["author"], node["content"]
    if content is None:
        raise MessageError("the message has no content")
    metadata = {} if superseded is None else {SUPERSEDED_KEY: superseded}
    name = author.get("name")
    return message_of(author["role"], _content(content), id=node["id"], timestamp=at, name=name, metadata=metadata)


def _content(content: Mapping[str, Any]) -> str | list[dict[str, Any]]:
    parts = content.get("parts", [content.get("text")])
    if content["content_type"] in ("text", "code", "execution_output") and all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    if "parts" not in content:
        return [{**content, "type": content["content_type"]}]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {**part, "type": part.get("content_type", "unknown")}
        for part in parts
    ]


def _entries(file: File) -> Iterator[Entry]:
    conversations = json_in(file)
    is_list = isinstance(conversations, list) and all(isinstance(each, Mapping) for each in conversations)
    expect(is_list and all("mapping" in each for each in conversations), "chatgpt", "a list of conversations")
    yield from entries_of(conversations, "conversation", _listed)


def _listed(conversation: Mapping[str, Any], where: str, number: int) -> Iterator[Entry]:
    session = conversation.get("conversation_id") or conversation.get("id") or f"conversation-{number}"
    current, at = _current(conversation), conversation.get("create_time") or _first_time(conversation["mapping"])
    superseded = conversation.get("update_time") or at or 0.0
    for place, (name, node) in enumerate(_in_order(conversation["mapping"])):
        message = node.get("message")
        if message is None or not _says_anything(message):
            continue
        at = max((time for time in (at, message.get("create_time")) if time), default=at)
        data = (message, at, None if name in current else superseded)
        yield Entry(f"{where}, message {name}", str(place), data, session)


def _first_time(mapping: Mapping[str, Any]) -> float | None:
    """Return the earliest time of a message; None if no message has one, which then get that of their import."""
    times = ((node.get("message") or {}).get("create_time") for node in mapping.values())
    return min((time for time in times if time), default=None)


def _current(conversation: Mapping[str, Any]) -> set[str]:
    """Return the names of the nodes from the current one to the root; of all, if none is current."""
    mapping, name = conversation["mapping"], conversation.get("current_node")
    if name is None:
        return set(mapping)
    path: set[str] = set()
    while name in mapping and name not in path:
        path.add(name)
        name = mapping[name].get("parent")
    return path


def _in_order(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Sort nodes by time; those without a time come after their parents, as they are listed."""
    times: dict[str, float] = {}
    for name, node in mapping.items():
        time = (node.get("message") or {}).get("create_time")
        times[name] = times.get(node.get("parent"), 0.0) if time is None else time
    return sorted(mapping.items(), key=lambda item: times[item[0]])


def _says_anything(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if content is None:  # to be named, not left out in silence
        return True
    return any(content.get("parts", [content]))


READER = Reader(_entries, _to_message)
