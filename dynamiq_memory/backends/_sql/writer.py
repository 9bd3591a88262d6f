"""Writing, replacing, updating and deleting messages, within a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import ClauseElement

from dynamiq_memory.backends._order import version_filters, with_stored_version
from dynamiq_memory.backends._sql.off_the_loop import messages_of
from dynamiq_memory.backends._sql.records import to_row
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import USER_KEY, Message
from dynamiq_memory.ranking import packed_terms
from dynamiq_memory.ranking.tokenizer import terms_of

Row = dict[str, Any]
"""A message to store: the columns of the table of messages, `length` and `terms` of the table of terms, and with
an embedder `VECTOR`."""


class SQLWriter:
    """Writes the messages of a store, their terms and their vectors."""

    def __init__(self, tables: SQLTables) -> None:
        """Compile the statements of a write."""
        self._tables = tables
        self._upsert_messages = tables.prepared("upsert messages", lambda: _upsert_messages(tables))
        self._upsert_terms = tables.prepared("upsert terms", lambda: _upsert_terms(tables))

    def rows(self, messages: Sequence[Message]) -> list[Row]:
        """Make the rows of messages, before the transaction begins."""
        return [self._row(message) for message in messages]

    def write(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Store messages in order, as one batch."""
        meta = self._tables.check_meta(connection, write=True)
        self.upsert(connection, rows)
        self._tables.vectors.write(connection, rows, meta)

    def fits_at_once(self, rows: Sequence[Row]) -> bool:  # noqa: ARG002
        """Whether `write_at_once` may store messages. By default it may not, since a transaction is as cheap."""
        return False

    def write_at_once(self, connection: sa.Connection, rows: Sequence[Row]) -> bool:
        """Store messages in order by one statement; False if only a transaction can, and nothing was stored."""
        raise NotImplementedError

    def upsert(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Insert messages and their terms, or replace the versions that are stored."""
        self._upsert_messages.run(connection, rows)
        self._upsert_terms.run(connection, rows)

    def index(self, connection: sa.Connection, messages: Sequence[Message]) -> None:
        """Make the terms of stored messages again."""
        self._upsert_terms.run(connection, self.rows(messages))

    def delete(self, connection: sa.Connection, filter: Filter) -> int:
        """Delete matching messages and return their number."""
        messages, terms = self._tables.messages, self._tables.terms
        clauses = self._tables.filters.clauses(filter)
        if filter.beyond_scope or filter.scope(USER_KEY) is None:
            matching = sa.select(messages.c.user_id, messages.c.session_id, messages.c.seq).where(*clauses)
            connection.execute(sa.delete(terms).where(sa.tuple_(*terms.primary_key).in_(matching)))
        else:
            connection.execute(sa.delete(terms).where(*self._tables.filters.scope(filter, terms)))
        return connection.execute(sa.delete(messages).where(*clauses)).rowcount

    def replace(self, connection: sa.Connection, filter: Filter, rows: Sequence[Row]) -> None:
        """Replace matching messages."""
        self.delete(connection, filter)
        if rows:
            self.write(connection, rows)

    def update(
        self, connection: sa.Connection, filter: Filter, messages: Sequence[Message], rows: Sequence[Row]
    ) -> list[Message]:
        """Store new versions of messages of which a version is stored and matches; return those."""
        stored = chain.from_iterable(self._read(connection, versions) for versions in version_filters(messages, filter))
        present = with_stored_version(messages, stored)
        if present:
            chosen = set(map(id, present))
            self.write(connection, [row for row, message in zip(rows, messages, strict=True) if id(message) in chosen])
        return present

    def take(self, connection: sa.Connection, filter: Filter) -> list[Message]:
        """Delete matching messages and return them in order."""
        taken = self._read(connection, filter)
        for versions in version_filters(taken):
            self.delete(connection, versions)
        return taken

    def _row(self, message: Message) -> Row:
        terms = terms_of(self._tables.tokenize, message.text)
        return to_row(message) | {"length": len(terms), "terms": packed_terms.encode(terms)}

    def _read(self, connection: sa.Connection, filter: Filter) -> list[Message]:
        """Read the messages that are to be changed, which others cannot change until this transaction ends."""
        columns = self._tables.messages.c
        statement = sa.select(*self._tables.columns).where(*self._tables.filters.clauses(filter))
        statement = statement.order_by(columns.timestamp, columns.seq).with_for_update()
        return messages_of(connection, connection.execute(statement).fetchall())


def _upsert_messages(tables: SQLTables) -> ClauseElement:
    messages = tables.messages
    key = ("user_id", "session_id", "id")
    columns = [column for column in messages.c if column is not messages.c.seq]
    insert = tables.insert(messages).values({c.name: sa.bindparam(c.name, type_=c.type) for c in columns})
    return insert.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=list(key), set_={c.name: insert.excluded[c.name] for c in columns if c.name not in key}
    )


def _upsert_terms(tables: SQLTables) -> ClauseElement:
    """Insert or replace the terms of a message that is in its table already."""
    messages, terms = tables.messages, tables.terms
    columns = [messages.c[name] for name in ("user_id", "session_id", "seq", "timestamp")]
    values = (sa.bindparam("length", type_=sa.Integer), sa.bindparam("terms", type_=sa.LargeBinary))
    stored = sa.select(*columns, *values).where(*message_key(messages))
    insert = tables.insert(terms).from_select([column.name for column in terms.columns], stored)
    return insert.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=[column.name for column in terms.primary_key],
        set_={column: insert.excluded[column] for column in ("timestamp", "length", "terms")},
    )


def message_key(messages: sa.Table) -> list[sa.ColumnElement[bool]]:
    """Whether a message is that of a row."""
    return [messages.c[name] == sa.bindparam(name, type_=sa.Text) for name in ("user_id", "session_id", "id")]
