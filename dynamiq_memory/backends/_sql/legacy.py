"""Upgrading a table that the dynamiq package wrote, which is called a legacy table here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._legacy import legacy_message
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message, prepare

logger = logging.getLogger(__name__)

_BATCH = 1_000
# PostgreSQL cuts longer names.
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """A table of the dynamiq package in one kind of database.

    Attributes:
        columns: The names of its columns for id, role, content, metadata and timestamp.
        metadata: SQL for the metadata as JSON text.
        order: SQL for the order of arrival of messages with equal times.
    """

    columns: tuple[str, str, str, str, str]
    metadata: sa.ColumnElement[Any]
    order: sa.ColumnElement[Any]


def upgrade(
    connection: sa.Connection,
    tables: SQLTables,
    legacy: LegacyTable,
    store: Callable[[sa.Connection, Sequence[Message]], None],
) -> None:
    """Move the messages of a legacy table into tables of this package, in the order in which it read them.

    Args:
        connection: A connection in a transaction that writes.
        tables: The tables to create; the legacy table has the name of the table of messages.
        legacy: The legacy table.
        store: Writes prepared messages.

    Raises:
        ConfigurationError: A row cannot be read as a message.
    """
    name = tables.name
    preparer = connection.dialect.identifier_preparer
    renamed = f"{name}_of_dynamiq"[-_LONGEST_NAME:]
    current = preparer.format_table(tables.messages)
    connection.execute(_text(f"ALTER TABLE {current} RENAME TO {preparer.quote(renamed)}"))
    tables.metadata.create_all(connection)
    old = sa.table(renamed, *(sa.column(part) for part in legacy.columns), schema=tables.messages.schema)
    message_id, role, content, _, timestamp = (old.c[part] for part in legacy.columns)
    statement = sa.select(message_id, role, content, legacy.metadata, timestamp).select_from(old)
    statement = statement.order_by(timestamp, legacy.order)
    total, last = 0, 0.0
    for rows in connection.execute(statement.execution_options(yield_per=_BATCH)).partitions():
        messages = []
        for row in rows:
            messages.append(_read(name, row, last))
            last = messages[-1].timestamp or last
        store(connection, messages)
        total += len(rows)
        logger.info("upgrading %s: %d messages so far", name, total)
    connection.execute(_text(f"DROP TABLE {preparer.format_table(old)}"))
    logger.warning(
        "upgraded %s, a table of the dynamiq package: %d messages. That package's own memory can no longer use it",
        name,
        total,
    )


def _read(name: str, row: Sequence[Any], last: float) -> Message:
    """Read a row; if its time cannot be read, it gets the time of the row before."""
    try:
        return prepare([legacy_message(*row, last=last)])[0]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"the message {row[0]!r} in the table {name!r} of the dynamiq package cannot be read ({error}): correct or "
            "delete that row; nothing has been changed"
        ) from error


def _text(statement: str) -> sa.TextClause:
    # Otherwise SQLAlchemy would take what follows a colon for a parameter.
    return sa.text(statement.replace(":", "\\:"))
