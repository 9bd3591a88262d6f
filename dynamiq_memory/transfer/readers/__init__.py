"""Readers of conversations that other programs stored.

A reader lists the entries of a file and makes a message of each. Other packages add readers with an entry point in the
group `dynamiq_memory.readers`: the format's name, and a `Reader`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, MessageError, TransferError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.transfer.lines import MALFORMED
from dynamiq_memory.transfer.readers import chatgpt, claude, mem0, openai_agents, openai_chat
from dynamiq_memory.transfer.readers.base import Entry, Reader
from dynamiq_memory.transfer.streams import File

ENTRY_POINT_GROUP = "dynamiq_memory.readers"
READERS: dict[str, Reader] = {
    "chatgpt": chatgpt.READER,
    "claude": claude.READER,
    "mem0": mem0.READER,
    "openai-agents": openai_agents.READER,
    "openai-chat": openai_chat.READER,
}
_IN_ADAPTERS = {"langchain-sql": "langchain-dynamiq-memory", "llama-index": "llama-index-memory-dynamiq"}


def known_formats() -> list[str]:
    """Return the names of formats, also of those whose package is not installed."""
    return sorted({*READERS, *_IN_ADAPTERS, *entry_points(group=ENTRY_POINT_GROUP).names})


def reader_of(format: str) -> Reader:  # noqa: A002 - the field's term
    """Return the reader of a format.

    Raises:
        ConfigurationError: The format is unknown, or its reader is in a package that is not installed.
    """
    if format in READERS:
        return READERS[format]
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=format):
        reader: Reader = entry_point.load()
        return reader
    if format in _IN_ADAPTERS:
        raise ConfigurationError(f"the format {format} needs a package: pip install {_IN_ADAPTERS[format]}")
    raise ConfigurationError(f"the format {format!r} is unknown: use one of {', '.join(known_formats())}")


def messages_in(
    file: File,
    format: str,  # noqa: A002 - the field's term
    user_id: str | None,
    session_id: str | None,
    refuse: Callable[[str, MessageError], None],
) -> Iterator[tuple[Message, str]]:
    """Read messages, each with its location.

    A message without an id gets one that depends on its place, so that it is the same when it is read again.

    Args:
        file: The file.
        format: Its format.
        user_id: The user of messages without one.
        session_id: The session of messages without one.
        refuse: Is called with the location of an entry that cannot be read, and the error.

    Raises:
        ConfigurationError: The format is unknown.
        TransferError: The file cannot be read at all.
    """
    reader = reader_of(format)
    for entry in _entries(reader, file, format):
        try:
            message = _message(reader, entry.data)
        except MessageError as error:
            refuse(entry.location, error)
            continue
        except MALFORMED as error:
            refuse(entry.location, MessageError(_unlike(format, error)))
            continue
        scope = {USER_KEY: entry.user_id or user_id, SESSION_KEY: entry.session_id or session_id}
        message.metadata |= {key: value for key, value in scope.items() if value is not None}
        if "id" not in message.model_fields_set:
            message.id = str(uuid5(NAMESPACE_URL, f"{format}/{entry.session_id}/{entry.key}"))
        yield message, entry.location


def _entries(reader: Reader, file: File, format: str) -> Iterator[Entry]:  # noqa: A002
    """List the entries of a file.

    Raises:
        TransferError: What follows an entry is of an unexpected form, so that no further entry can be found.
    """
    last = "the beginning"
    try:
        for entry in reader.entries(file):
            last = entry.location
            yield entry
    except DynamiqMemoryError:
        raise
    except MALFORMED as error:
        raise TransferError(f"after {last}: {_unlike(format, error)}") from error


def _unlike(format: str, error: Exception) -> str:  # noqa: A002
    return f"this is not of the format {format} ({type(error).__name__}: {error})"


def _message(reader: Reader, data: Any) -> Message:
    if isinstance(data, Exception):
        raise data
    return reader.to_message(data)


__all__ = ["READERS", "Entry", "Reader", "known_formats", "messages_in", "reader_of"]
