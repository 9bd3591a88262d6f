"""The names of a message's metadata, ids, checks, and text for a prompt."""

from dynamiq_memory._ids import new_id
from dynamiq_memory.formatting import format_messages, quoted_message, quoted_messages
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, SUPERSEDED_KEY, TIMESTAMP_KEY, USER_KEY, prepare

__all__ = [
    "MESSAGE_ID_KEY",
    "SESSION_KEY",
    "SUPERSEDED_KEY",
    "TIMESTAMP_KEY",
    "USER_KEY",
    "format_messages",
    "new_id",
    "prepare",
    "quoted_message",
    "quoted_messages",
]
