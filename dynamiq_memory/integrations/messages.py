"""The names of a message's metadata, ids, checks, text for a prompt and excerpts, the parts that count as tokens."""

from dynamiq_memory._ids import new_id
from dynamiq_memory.conversation.tokens import parts_of
from dynamiq_memory.formatting import format_messages, quoted_message, quoted_messages
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, SUPERSEDED_KEY, TIMESTAMP_KEY, USER_KEY, prepare
from dynamiq_memory.ranking.places import place_of

__all__ = [
    "MESSAGE_ID_KEY",
    "SESSION_KEY",
    "SUPERSEDED_KEY",
    "TIMESTAMP_KEY",
    "USER_KEY",
    "format_messages",
    "new_id",
    "parts_of",
    "place_of",
    "prepare",
    "quoted_message",
    "quoted_messages",
]
