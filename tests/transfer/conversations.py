"""Conversations with every kind of message."""

from __future__ import annotations

from dynamiq_memory import Message
from dynamiq_memory.testing.content import TEXTS, VALUES

CALL = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"at": "ferry"}'}}
PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
]


def conversations() -> list[Message]:
    """Three sessions of two users: all texts and values, calls and results, equal times, marks, native fields."""
    scopes: list[dict[str, str]] = [{"user_id": f"u-{n // 2}", "session_id": f"s-{n % 2}"} for n in range(3)]
    messages = [
        Message(role="user", content=text, id=f"text-{number}", timestamp=1.7e9 + number % 3, metadata=scopes[0])
        for number, text in enumerate(TEXTS)
    ]
    messages += [
        Message(role="user", content=PARTS, id="a", timestamp=5.5, metadata={**scopes[1], "superseded_at": 7.5}),
        Message(role="assistant", tool_calls=[CALL], id="b", timestamp=5.5, metadata={**scopes[1], **VALUES}),
        Message(
            role="tool", content="9:40", tool_call_id="call-1", name="look", id="c", timestamp=-1.5, metadata=scopes[1]
        ),
        Message(
            role="assistant", content="At 9:4", id="d", timestamp=6.25, metadata={**scopes[1], "interrupted": True}
        ),
        Message(
            role="system", content="Be brief.", id="a", timestamp=1e9, metadata=scopes[2], native={"kept": [1, None]}
        ),
    ]
    return messages


def plain(count: int, sessions: int = 1) -> list[Message]:
    """Short messages with ids and times, in sessions of equal length."""
    return [
        Message(
            role="user",
            content=f"message {number}",
            id=f"m-{number}",
            timestamp=1.7e9 + number,
            metadata={"user_id": "u", "session_id": f"s-{number * sessions // count}"},
        )
        for number in range(count)
    ]
