"""Reading a table that the dynamiq package wrote: an item each, found only by a scan."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from dynamiq_memory.backends._legacy import legacy_message
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import MESSAGE_ID_KEY, TIMESTAMP_KEY, Message

_ROLE, _CONTENT, _METADATA = "role", "content", "metadata"


def pages_of_messages(client: Any, table: str) -> Iterator[list[Message]]:
    """The messages of a table, page by page, each page in order of time.

    Args:
        client: A client of DynamoDB.
        table: The table's name.

    Raises:
        ConfigurationError: An item is no message.
    """
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        yield sorted((_message(table, item) for item in page["Items"]), key=lambda message: message.timestamp or 0.0)


def _message(table: str, item: dict[str, Any]) -> Message:
    plain = {name: _plain(value) for name, value in item.items()}
    given = plain.get(_METADATA)
    if isinstance(given, dict):
        # It repeats the keys of the item.
        given = {key: value for key, value in given.items() if key not in (MESSAGE_ID_KEY, TIMESTAMP_KEY)}
    try:
        moment = float(plain[TIMESTAMP_KEY])
        return legacy_message(
            plain[MESSAGE_ID_KEY],
            plain.get(_ROLE, "user"),
            plain.get(_CONTENT, ""),
            json.dumps({} if given is None else given),
            moment,
            last=moment,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"the message {plain.get(MESSAGE_ID_KEY)!r} in the table {table!r} of the dynamiq package cannot be read "
            f"({error}): mend or delete that item, then copy again, which doubles nothing"
        ) from error


def _plain(value: dict[str, Any]) -> Any:
    """A value of the service's as JSON has it."""
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
