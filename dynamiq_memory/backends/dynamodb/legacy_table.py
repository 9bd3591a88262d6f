"""Copying the messages of a table that the dynamiq package wrote: an item each, found only by a scan."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dynamiq_memory.backends._legacy import legacy_message
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.dynamodb.schema import check_legacy_table
from dynamiq_memory.backends.operations import Operation
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import MESSAGE_ID_KEY, TIMESTAMP_KEY, Message


@dataclass(frozen=True, slots=True)
class CopyLegacyTable(Operation[int]):
    """Copy the messages of a legacy table into a backend; the result is their number.

    Attributes:
        client: Returns a client of DynamoDB.
        table_name: The table.
    """

    client: Callable[[], Any]
    table_name: str

    def perform(self, backend: MemoryBackend) -> int:
        """Copy the messages, page by page."""
        client = self.client()
        check_legacy_table(client, self.table_name)
        return sum(len(backend.add_many(messages)) for messages in _pages(client, self.table_name))


def _pages(client: Any, table: str) -> Iterator[list[Message]]:
    """Read the messages of a table page by page, each in the order of time."""
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        yield sorted((_message(table, item) for item in page["Items"]), key=lambda message: message.timestamp or 0.0)


def _message(table: str, item: dict[str, Any]) -> Message:
    values = {name: _plain(value) for name, value in item.items()}
    metadata = values.get("metadata")
    if isinstance(metadata, dict):
        # It repeats the keys of the item.
        metadata = {key: value for key, value in metadata.items() if key not in (MESSAGE_ID_KEY, TIMESTAMP_KEY)}
    try:
        timestamp = float(values[TIMESTAMP_KEY])
        return legacy_message(
            values[MESSAGE_ID_KEY],
            values.get("role", "user"),
            values.get("content", ""),
            json.dumps({} if metadata is None else metadata),
            timestamp,
            last=timestamp,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"the message {values.get(MESSAGE_ID_KEY)!r} in the table {table!r} of the dynamiq package cannot be read "
            f"({error}): correct or delete that item, then copy again, which doubles nothing"
        ) from error


def _plain(value: dict[str, Any]) -> Any:
    """Convert a value of the service's types to one of JSON's."""
    ((kind, content),) = value.items()
    if kind == "N":
        return int(content) if content.lstrip("-").isdecimal() else float(content)
    if kind == "M":
        return {name: _plain(each) for name, each in content.items()}
    if kind == "L":
        return [_plain(each) for each in content]
    if kind == "B":
        return base64.b64encode(content).decode()
    if kind in ("SS", "NS", "BS"):
        return [_plain({kind[0]: each}) for each in content]
    return None if kind == "NULL" else content
