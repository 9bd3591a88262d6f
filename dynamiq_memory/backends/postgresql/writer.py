"""Writing to PostgreSQL, where many transactions write at the same time; and the vectors of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, tuple_

from dynamiq_memory.backends._sql.schema import Tables
from dynamiq_memory.backends._sql.writer import Row, SQLWriter
from dynamiq_memory.backends.postgresql.filters import PostgreSQLFilters, filterable
from dynamiq_memory.backends.postgresql.locks import Locks
from dynamiq_memory.backends.postgresql.meta import DIMENSION_KEY, PostgreSQLMeta
from dynamiq_memory.backends.postgresql.vectors import VECTOR, VectorTable
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message
from dynamiq_memory.ranking import Tokenize


class PostgreSQLWriter(SQLWriter):
    """Writes the messages of a store, their terms and their vectors.

    Args:
        tables: The tables of the store.
        filters: Translates filters.
        meta: Checks the table of meta.
        tokenize: Splits texts into terms.
        vectors: The table of vectors.
        locks: Locks for the store's tables.
    """

    _meta: PostgreSQLMeta

    def __init__(
        self,
        tables: Tables,
        filters: PostgreSQLFilters,
        meta: PostgreSQLMeta,
        tokenize: Tokenize,
        vectors: VectorTable,
        locks: Locks,
    ) -> None:
        """Compile the statements of a write."""
        super().__init__(tables, filters, meta, tokenize)
        self._vectors = vectors
        self._locks = locks

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
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

    def replace(self, connection: Connection, filter: Filter, rows: Sequence[Row]) -> None:
        """Replace matching messages."""
        self._locks.replacing(connection, filter)
        super().replace(connection, filter, rows)

    def update(
        self, connection: Connection, filter: Filter, messages: Sequence[Message], rows: Sequence[Row]
    ) -> list[Message]:
        """Store new versions of messages of which a version is stored and matches; return those."""
        self._lock_batch(connection, rows)
        return super().update(connection, filter, messages, rows)

    def delete(self, connection: Connection, filter: Filter) -> int:
        """Delete matching messages and return their number.

        It is one statement, so that a message that is replaced at the same moment neither loses its terms nor leaves
        them behind.
        """
        messages, terms = self._tables.messages, self._tables.terms
        key = ("user_id", "session_id", "seq")
        deletion = delete(messages).where(*self._filters.clauses(filter))
        deleted = deletion.returning(*(messages.c[name] for name in key)).cte("deleted")
        same = tuple_(*(terms.c[name] for name in key)).in_(select(*(deleted.c[name] for name in key)))
        terms_deleted = delete(terms).where(same).returning(terms.c.seq).cte("terms_deleted")
        counting = select(func.count()).select_from(deleted).add_cte(terms_deleted)
        return int(connection.execute(counting).scalar_one())

    def _row(self, message: Message) -> Row:
        metadata = {key: value for key, value in message.metadata.items() if key not in (USER_KEY, SESSION_KEY)}
        return super()._row(message) | {"filterable": filterable(metadata)}

    def _select(self, filter: Filter) -> Select[Any]:
        """A SELECT of the messages that are to be changed, which others cannot change until this transaction ends."""
        return super()._select(filter).with_for_update()

    def _lock_batch(self, connection: Connection, rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            self._locks.batches(connection, {(row["user_id"], row["session_id"]) for row in rows})
