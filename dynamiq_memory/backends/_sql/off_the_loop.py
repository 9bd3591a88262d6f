"""Computing within a transaction, without holding up the event loop that waits for the transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.util import await_only

from dynamiq_memory.backends._sql.records import from_rows
from dynamiq_memory.backends._threads import in_thread
from dynamiq_memory.backends._weights import LARGE, weigh
from dynamiq_memory.messages import Message

T = TypeVar("T")


def off_the_loop(connection: sa.Connection, compute: Callable[[], T], rows: Sequence[Any]) -> T:
    """Call a function on rows that have been read; in a thread if there are many and an event loop would wait for it.

    Args:
        connection: The transaction's connection, which the function must not use.
        compute: The function.
        rows: The rows for the function.
    """
    # The transaction of an asynchronous connection runs in the event loop's thread.
    if connection.dialect.is_async and weigh(rows) >= LARGE:
        return await_only(in_thread(compute))
    return compute()


def messages_of(connection: sa.Connection, rows: Sequence[Sequence[Any]]) -> list[Message]:
    """Build messages from rows of `COLUMNS`."""
    return off_the_loop(connection, lambda: from_rows(rows), rows)
