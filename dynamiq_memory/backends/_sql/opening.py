"""Creating the tables of a SQL store, and upgrading those that the dynamiq package wrote."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Table, column, inspect, select, table, text

from dynamiq_memory.backends._legacy import legacy_message
from dynamiq_memory.backends._sql.records import COLUMNS, from_rows
from dynamiq_memory.backends._sql.schema import DIMENSION_KEY, SCHEMA_VERSION, TOKENIZER_KEY, VERSION_KEY, Tables
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message, prepare
from dynamiq_memory.ranking.tokenizer import Tokenize, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Store = Callable[[Connection, Sequence[Message]], None]

logger = logging.getLogger(__name__)

_BATCH = 1_000
# PostgreSQL's.
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Legacy:
    """A table of the dynamiq package, as it wrote it to a store.

    Attributes:
        columns: Its columns: those of id, role, content, metadata and timestamp.
        metadata: The metadata as JSON text, in the store's SQL.
        order: What tells the order of arrival among equal times, in the store's SQL.
    """

    columns: tuple[str, str, str, str, str]
    metadata: ColumnElement[Any]
    order: ColumnElement[Any]


def has_table(connection: Connection, table: Table) -> bool:
    """Whether there is a table of a name, of whatever kind."""
    return inspect(connection).has_table(table.name, table.schema)


def is_ready(connection: Connection, tables: Tables, tokenize: Tokenize) -> bool:
    """Whether the tables are there as they should be, so that nothing must be written to open them."""
    for each in (tables.messages, tables.terms, tables.meta):
        if _columns(connection, each) != {c.name for c in each.columns}:
            return False
    meta = _meta(connection, tables)
    meta.pop(DIMENSION_KEY, None)
    return meta == {VERSION_KEY: SCHEMA_VERSION, TOKENIZER_KEY: signature_of(tokenize)}


def open_tables(
    connection: Connection,
    tables: Tables,
    tokenize: Tokenize,
    store: Store,
    insert: Any,
    legacy: Legacy,
    *,
    reindex: bool,
) -> None:
    """Make the tables ready: create them, upgrade them, or check what is there.

    Args:
        connection: A connection in a write transaction.
        tables: The tables as they should be.
        tokenize: The tokenizer that ranks.
        store: Writes prepared messages and their terms.
        insert: The dialect's INSERT, which knows ON CONFLICT.
        legacy: What a table of the dynamiq package looks like.
        reindex: Whether to write all terms anew where another tokenizer wrote them.

    Raises:
        ConfigurationError: The table is of another kind, of a newer version, or of another tokenizer.
    """
    signature = signature_of(tokenize)
    present = _columns(connection, tables.messages)
    for beside in (tables.terms, tables.meta):
        _check_columns(beside, _columns(connection, beside))
    if not present:
        tables.metadata.create_all(connection)
        # Terms that another's hands left behind when they dropped the messages.
        connection.execute(tables.terms.delete())
    elif present == set(legacy.columns):
        _upgrade_dynamiq(connection, tables, store, legacy)
    else:
        _check_columns(tables.messages, present)
        _check_meta(connection, tables, signature, store, reindex=reindex)
    statement = insert(tables.meta).on_conflict_do_nothing()
    connection.execute(
        statement,
        [{"key": VERSION_KEY, "value": SCHEMA_VERSION}, {"key": TOKENIZER_KEY, "value": signature}],
    )


def _columns(connection: Connection, expected: Table) -> set[str]:
    inspector = inspect(connection)
    if not inspector.has_table(expected.name, expected.schema):
        return set()
    return {c["name"] for c in inspector.get_columns(expected.name, expected.schema)}


def _meta(connection: Connection, tables: Tables) -> dict[str, str]:
    return {key: value for key, value in connection.execute(select(tables.meta)).fetchall()}  # noqa: C416 - rows


def _check_columns(expected: Table, present: set[str]) -> None:
    if present and present != {c.name for c in expected.columns}:
        raise ConfigurationError(
            f"the table {expected.name!r} exists and is not one of this package's (it has the columns "
            f"{', '.join(sorted(present))}): choose another name"
        )


def _check_meta(connection: Connection, tables: Tables, signature: str, store: Store, *, reindex: bool) -> None:
    tables.metadata.create_all(connection)
    meta = _meta(connection, tables)
    version = meta.get(VERSION_KEY, SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"the table {tables.messages.name!r} has version {version}, this package knows {SCHEMA_VERSION}: "
            "upgrade dynamiq-memory"
        )
    written_with = meta.get(TOKENIZER_KEY, signature)
    if written_with == signature:
        return
    if not reindex:
        raise ConfigurationError(
            f"the messages in {tables.messages.name!r} are indexed by the tokenizer {written_with!r}, not "
            f"{signature!r}: pass that tokenizer, or reindex=True to index them anew"
        )
    # Writers that have checked the tokenizer finish first.
    connection.execute(select(tables.meta.c.key).with_for_update()).fetchall()
    connection.execute(tables.meta.update().where(tables.meta.c.key == TOKENIZER_KEY).values(value=signature))
    _reindex(connection, tables, store)


def _reindex(connection: Connection, tables: Tables, store: Store) -> None:
    messages = tables.messages
    columns = [messages.c[name] for name in COLUMNS]
    last, done = -1, 0
    while True:
        statement = select(messages.c.seq, *columns).where(messages.c.seq > last).order_by(messages.c.seq)
        rows = connection.execute(statement.limit(_BATCH)).fetchall()
        if not rows:
            return
        store(connection, prepare(from_rows([row[1:] for row in rows])))
        last = rows[-1][0]
        done += len(rows)
        logger.info("indexed %d messages of %s anew", done, messages.name)


def _upgrade_dynamiq(connection: Connection, tables: Tables, store: Store, legacy: Legacy) -> None:
    """Move the rows of a table of the dynamiq package into one of ours, in the order in which it read them."""
    name = tables.messages.name
    preparer = connection.dialect.identifier_preparer
    aside = f"{name}_of_dynamiq"[-_LONGEST_NAME:]
    quoted = preparer.format_table(tables.messages)
    connection.execute(text(f"ALTER TABLE {quoted} RENAME TO {preparer.quote(aside)}".replace(":", "\\:")))
    tables.metadata.create_all(connection)
    old = table(aside, *(column(part) for part in legacy.columns), schema=tables.messages.schema)
    message_id, role, content, _, timestamp = (old.c[part] for part in legacy.columns)
    statement = select(message_id, role, content, legacy.metadata, timestamp).select_from(old)
    statement = statement.order_by(timestamp, legacy.order)
    total, last = 0, 0.0
    for rows in connection.execute(statement.execution_options(yield_per=_BATCH)).partitions():
        messages = []
        for row in rows:
            messages.append(_upgraded(name, row, last))
            last = messages[-1].timestamp or last
        store(connection, messages)
        total += len(rows)
        logger.info("upgrading %s: %d messages so far", name, total)
    connection.execute(text(f"DROP TABLE {preparer.format_table(old)}".replace(":", "\\:")))
    logger.warning(
        "upgraded %s, a table of the dynamiq package: %d messages. That package's own memory can no longer use it",
        name,
        total,
    )


def _upgraded(name: str, row: Sequence[Any], last: float) -> Message:
    """Read a row; a time that cannot be read becomes that of the row before it."""
    try:
        return prepare([legacy_message(*row, last=last)])[0]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"the message {row[0]!r} in the table {name!r} of the dynamiq package cannot be read ({error}): mend or "
            "delete that row; nothing has been changed"
        ) from error
