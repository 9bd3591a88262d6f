"""Conversations in the format of OpenAI's chat API: JSON lines with `messages`, as for fine-tuning.

https://platform.openai.com/docs/guides/supervised-fine-tuning describes the lines. Each is a session: "line-1", …
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dynamiq_memory.exceptions import MessageError
from dynamiq_memory.messages import Message
from dynamiq_memory.transfer.readers.base import Entry, Reader, expect, message_of, parsed
from dynamiq_memory.transfer.streams import File, numbered_lines, opened


def to_message(data: Any) -> Message:
    """Make a message of one in the format of the API."""
    content, calls = data.get("content"), data.get("tool_calls")
    if data.get("refusal") and not content:
        content = [{"type": "refusal", "refusal": data["refusal"]}]
    if data.get("function_call"):  # before tools
        calls = [{"id": data["function_call"]["name"], "type": "function", "function": data["function_call"]}]
    answered = data.get("tool_call_id") or (data["name"] if data.get("role") == "function" else None)
    return message_of(data.get("role"), content, tool_calls=calls, tool_call_id=answered, name=data.get("name"))


def _entries(file: File) -> Iterator[Entry]:
    fits = False
    with opened(file) as stream:
        for number, line in numbered_lines(stream):
            where, session = f"line {number}", f"line-{number}"
            if isinstance(line, MessageError):
                yield Entry(where, "", line, session)
                continue
            if not line.strip():
                continue
            try:
                conversation = parsed(line)
            except MessageError as error:
                yield Entry(where, "", error, session)
                continue
            messages = conversation.get("messages") if isinstance(conversation, Mapping) else None
            if not isinstance(messages, list):
                expect(fits, "openai-chat", f"a list of messages in each line, unlike line {number}")
                yield Entry(where, "", MessageError("this line has no list of messages"), session)
                continue
            fits = True
            for place, message in enumerate(messages):
                yield Entry(f"{where}, message {place + 1}", str(place), message, session)


READER = Reader(_entries, to_message)
