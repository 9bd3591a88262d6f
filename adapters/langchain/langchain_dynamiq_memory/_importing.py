"""Reads the table of LangChain's `SQLChatMessageHistory`, for `dynamiq-memory import --from langchain-sql`.

https://docs.langchain.com/oss/python/integrations/chat_message_histories describes the histories. The table
`message_store` has `id`, `session_id` and `message`, the JSON of `message_to_dict`; rows of the same session are in the
order of `id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import messages_from_dict

from dynamiq_memory import Message
from dynamiq_memory.integrations.readers import Entry, File, Reader, parsed, rows_of
from langchain_dynamiq_memory._messages import to_message

_COLUMNS = ("id", "session_id", "message")


def _entries(file: File) -> Iterator[Entry]:
    for number, session, text in rows_of(file, "message_store", _COLUMNS):
        yield Entry(f"row {number} of message_store", str(number), text, session)


def _to_message(text: Any) -> Message:
    (message,) = messages_from_dict([parsed(text)])
    return to_message(message)


SQL_READER = Reader(_entries, _to_message)
