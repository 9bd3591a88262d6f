"""Writing to PostgreSQL, where many transactions write at the same time; and the vectors of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.writer import Row, SQLWriter
from dynamiq_memory.backends.postgresql.filters import filterable
from dynamiq_memory.backends.postgresql.meta import DIMENSION_KEY, PostgreSQLMeta
from dynamiq_memory.backends.postgresql.parts import PostgreSQLParts
from dynamiq_memory.backends.postgresql.vectors import VECTOR
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message


class PostgreSQLWriter(SQLWriter):
    """Writes the messages of a store, their terms and their vectors."""

    def __init__(self, parts: PostgreSQLParts) -> None:
        """Compile the statements of a write."""
        super().__init__(parts)
        self._meta: PostgreSQLMeta = parts.meta
        self._vectors, self._locks = parts.vectors, parts.locks

    def write(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Store messages in order, as one batch; rows without `VECTOR` come from a store without an embedder."""
        self._lock_batch(connection, rows)
        meta = self._meta.check_for_write(connection)
        self.upsert(connection, rows)
        if VECTOR not in rows[0]:
            if DIMENSION_KEY in meta:
                self._vectors.delete(connection, rows)
            return
        if any(row[VECTOR] is not None for row in rows):
            self._meta.settle_dimension(connection, meta)
        self._vectors.write(connection, rows)

    def replace(self, connection: sa.Connection, filter: Filter, rows: Sequence[Row]) -> None:
        """Replace matching messages."""
        self._locks.replacing(connection, filter)
        super().replace(connection, filter, rows)

    def update(
        self, connection: sa.Connection, filter: Filter, messages: Sequence[Message], rows: Sequence[Row]
    ) -> list[Message]:
        """Store new versions of messages of which a version is stored and matches; return those."""
        self._lock_batch(connection, rows)
        return super().update(connection, filter, messages, rows)

    def delete(self, connection: sa.Connection, filter: Filter) -> int:
        """Delete matching messages and return their number.

        It is one statement, so that no terms are lost or orphaned if a message is replaced at the same moment.
        """
        messages, terms = self._tables.messages, self._tables.terms
        key = ("user_id", "session_id", "seq")
        deletion = sa.delete(messages).where(*self._filters.clauses(filter))
        deleted = deletion.returning(*(messages.c[name] for name in key)).cte("deleted")
        same = sa.tuple_(*(terms.c[name] for name in key)).in_(sa.select(*(deleted.c[name] for name in key)))
        terms_deleted = sa.delete(terms).where(same).returning(terms.c.seq).cte("terms_deleted")
        counting = sa.select(sa.func.count()).select_from(deleted).add_cte(terms_deleted)
        return int(connection.execute(counting).scalar_one())

    def _row(self, message: Message) -> Row:
        metadata = {key: value for key, value in message.metadata.items() if key not in (USER_KEY, SESSION_KEY)}
        return super()._row(message) | {"filterable": filterable(metadata)}

    def _select(self, filter: Filter) -> sa.Select[Any]:
        """A SELECT of the messages that are to be changed, which others cannot change until this transaction ends."""
        return super()._select(filter).with_for_update()

    def _lock_batch(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            self._locks.batches(connection, {(row["user_id"], row["session_id"]) for row in rows})
