"""Writing to PostgreSQL, where many transactions write at the same time.

Order is kept by advisory locks, each held until the end of the transaction
(https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.writer import Row, SQLWriter
from dynamiq_memory.backends.postgresql.filters import filterable
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message

_BATCH_LOCKS = 256


class PostgreSQLWriter(SQLWriter):
    """Writes the messages of a store, their terms and their vectors."""

    _tables: PostgreSQLTables

    def write(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Store messages in order, as one batch."""
        self._lock_batch(connection, rows)
        super().write(connection, rows)

    def replace(self, connection: sa.Connection, filter: Filter, rows: Sequence[Row]) -> None:
        """Replace matching messages."""
        self._lock_scope(connection, filter)
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
        deletion = sa.delete(messages).where(*self._tables.filters.clauses(filter))
        deleted = deletion.returning(*(messages.c[name] for name in key)).cte("deleted")
        same = sa.tuple_(*(terms.c[name] for name in key)).in_(sa.select(*(deleted.c[name] for name in key)))
        terms_deleted = sa.delete(terms).where(same).returning(terms.c.seq).cte("terms_deleted")
        counting = sa.select(sa.func.count()).select_from(deleted).add_cte(terms_deleted)
        return int(connection.execute(counting).scalar_one())

    def lock_tables(self, connection: sa.Connection) -> None:
        """Let one process at a time create and upgrade the tables."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._number("open"))))

    def _row(self, message: Message) -> Row:
        metadata = {key: value for key, value in message.metadata.items() if key not in (USER_KEY, SESSION_KEY)}
        return super()._row(message) | {"filterable": filterable(metadata)}

    def _lock_batch(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Let one batch at a time change each session: two that change the same messages could deadlock."""
        if len(rows) < 2:
            return
        # The server has room for some thousands of locks.
        sessions = {(row["user_id"], row["session_id"]) for row in rows}
        numbers = sorted({self._hash("batch", *session) % _BATCH_LOCKS for session in sessions})
        table = self._hash("batches") % 2**31
        each = sa.func.unnest(sa.literal(numbers, sa.ARRAY(sa.Integer))).column_valued("number")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(table, sa.Integer), each)))

    def _lock_scope(self, connection: sa.Connection, filter: Filter) -> None:
        """Let one replacement at a time change the same messages: the next must see the messages that it wrote.

        The smallest scope that contains all that is replaced is locked, the larger ones around it are shared.
        """
        scope: list[str] = []
        locks = [self._number("replace")]
        for key in (USER_KEY, SESSION_KEY):
            allowed = filter.scope(key)
            if allowed is None or len(allowed) != 1:
                break
            scope.append(allowed[0] or "")
            locks.append(self._number("replace", *scope))
        *shared, smallest = locks
        functions = [*map(sa.func.pg_advisory_xact_lock_shared, shared), sa.func.pg_advisory_xact_lock(smallest)]
        connection.execute(sa.select(*functions))

    def _number(self, purpose: str, *scope: str) -> Any:
        return sa.literal(self._hash(purpose, *scope) - 2**63, sa.BigInteger)

    def _hash(self, purpose: str, *scope: str) -> int:
        names = (purpose, self._tables.messages.schema or "", self._tables.name, *scope)
        return int.from_bytes(hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest(), "big")
