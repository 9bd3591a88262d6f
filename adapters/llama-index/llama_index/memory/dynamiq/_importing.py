"""Reads the file of LlamaIndex's `SimpleChatStore`, for `dynamiq-memory import --from llama-index`.

https://developers.llamaindex.ai/python/framework/module_guides/storing/chat_stores describes the store. Its `persist`
writes `{"store": {key: [message, …]}}`; a key `user/session` is a user and a session, as in `DynamiqChatStore`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from dynamiq_memory import InvalidArgumentError, Memory, Message, MessageError
from dynamiq_memory.integrations.readers import Entry, File, Reader, expect, json_in
from llama_index.memory.dynamiq._messages import to_message


def _entries(file: File) -> Iterator[Entry]:
    found = json_in(file)
    sessions = found.get("store") if isinstance(found, Mapping) else None
    expect(isinstance(sessions, Mapping), "llama-index", "an object with store")
    for key, messages in dict(sessions or {}).items():
        if not isinstance(messages, list):
            yield Entry(repr(key), "", MessageError(f"a list of messages is needed, not {messages!r:.100}"))
            continue
        scope, wrong = _scope_of(key)
        for place, message in enumerate(messages):
            where = f"message {place + 1} of {key!r}"
            yield Entry(where, str(place), wrong or message, scope.get("session_id"), scope.get("user_id"))


def _scope_of(key: str) -> tuple[dict[str, Any], MessageError | None]:
    """Return the session of a key, or the error of a wrong one."""
    from llama_index.storage.chat_store.dynamiq._keys import session_of  # noqa: PLC0415 - it imports this package

    try:
        return session_of(Memory(), key).filters, None
    except InvalidArgumentError as error:
        return {}, MessageError(str(error))


def _to_message(data: Any) -> Message:
    return to_message(ChatMessage.model_validate(data))


READER = Reader(_entries, _to_message)
