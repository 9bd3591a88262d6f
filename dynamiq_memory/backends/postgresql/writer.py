"""Writing to PostgreSQL, where many transactions write at the same time.

Order is kept by advisory locks, each held until the end of the transaction
(https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from dynamiq_memory._batches import limited
from dynamiq_memory.backends._sql.filters import single_scope
from dynamiq_memory.backends._sql.tables import Prepared
from dynamiq_memory.backends._sql.vectors import VECTOR
from dynamiq_memory.backends._sql.writer import Row, SQLWriter
from dynamiq_memory.backends._weights import weigh
from dynamiq_memory.backends.postgresql.filters import filterable
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables, constant
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message

_BATCH_LOCKS = 256
# A statement's parameters must not exceed 1 GB each; it is parsed as a whole.
_MOST_ROWS = 1_000
_MOST_WEIGHT = 16 * 1024 * 1024


class PostgreSQLWriter(SQLWriter):
    """Writes the messages of a store, their terms and their vectors."""

    _tables: PostgreSQLTables

    def fits_at_once(self, rows: Sequence[Row]) -> bool:
        """Whether `write_at_once` may store messages.

        In one statement, no vector is deleted: it may have come after the state that the statement sees.
        """
        if not self._tables.vectors.needs_only_insertions(rows, self._tables.checked_meta):
            return False
        return len(rows) == 1 or (len(rows) <= _MOST_ROWS and weigh(rows, _MOST_WEIGHT) < _MOST_WEIGHT)

    def write_at_once(self, connection: sa.Connection, rows: Sequence[Row]) -> bool:
        """Store messages in order by one statement; False if only a transaction can, and nothing was stored."""
        meta = self._tables.checked_meta  # which another thread may replace
        if not self._tables.vectors.needs_only_insertions(rows, meta):
            return False
        return self._store(connection, rows, meta, vectors=VECTOR in rows[0])

    def write(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Store messages in order, as one batch."""
        if self.fits_at_once(rows) and self.write_at_once(connection, rows):
            return
        meta = self._tables.check_meta(connection, write=True)
        self._lock_batch(connection, rows)
        weights = ((row, weigh(row, _MOST_WEIGHT)) for row in rows)
        for some in limited(weights, _MOST_ROWS, _MOST_WEIGHT):
            self._store(connection, some, meta, vectors=False)
        self._tables.vectors.write(connection, rows, meta)

    def replace(self, connection: sa.Connection, filter: Filter, rows: Sequence[Row]) -> None:
        """Replace matching messages."""
        self._lock_scope(connection, filter)
        super().replace(connection, filter, rows)

    def update(
        self, connection: sa.Connection, filter: Filter, messages: Sequence[Message], rows: Sequence[Row]
    ) -> list[Message]:
        """Store new versions of messages of which a version is stored and matches; return those."""
        self._tables.check_meta(connection, write=True)
        self._lock_batch(connection, rows)
        return super().update(connection, filter, messages, rows)

    def delete(self, connection: sa.Connection, filter: Filter) -> int:
        """Delete matching messages and return their number.

        It is one statement, so that no terms are lost or orphaned if a message is replaced at the same moment.
        """
        scope = single_scope(filter)
        if not scope:
            return int(connection.execute(_deleting(self._tables, self._tables.filters.clauses(filter))).scalar_one())
        columns = self._tables.messages.c
        matching = [columns[key] == sa.bindparam(key, type_=sa.Text) for key in scope]
        statement = self._tables.prepared(("delete", *scope), lambda: _deleting(self._tables, matching))
        [[count]] = statement.fetch(connection, scope)
        return int(count)

    def lock_tables(self, connection: sa.Connection) -> None:
        """Let one process at a time create and upgrade the tables."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(self._lock("open"), sa.BigInteger))))

    def _row(self, message: Message) -> Row:
        metadata = {key: value for key, value in message.metadata.items() if key not in (USER_KEY, SESSION_KEY)}
        return super()._row(message) | {"filterable": filterable(metadata)}

    def _store(self, connection: sa.Connection, rows: Sequence[Row], meta: Mapping[str, str], *, vectors: bool) -> bool:
        """Store messages, their terms and, if wanted, their vectors, if the table of meta is as it is given."""
        several = len(rows) > 1
        build = partial(_storing, self._tables, several=several, vectors=vectors)
        statement, names = self._tables.once(("store", several, vectors), build)
        parameters: dict[str, Any] = {name: [row[name] for row in rows] for name in names} if several else dict(rows[0])
        if several:
            parameters |= self._batch_locks(rows)
        parameters |= self._tables.meta_parameter(meta)
        [[count]] = statement.fetch(connection, parameters)
        return bool(count)

    def _lock_batch(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Let one batch at a time change each session: two that change the same messages could deadlock."""
        if len(rows) > 1:
            connection.execute(_locking(), self._batch_locks(rows))

    def _batch_locks(self, rows: Sequence[Row]) -> dict[str, Any]:
        # The server has room for some thousands of locks.
        sessions = {(row["user_id"], row["session_id"]) for row in rows}
        numbers = sorted({self._hash("batch", *session) % _BATCH_LOCKS for session in sessions})
        return {"lock_of": self._hash("batches") % 2**31, "locks": numbers}

    def _lock_scope(self, connection: sa.Connection, filter: Filter) -> None:
        """Let one replacement at a time change the same messages: the next must see the messages that it wrote.

        The smallest scope that contains all that is replaced is locked, the larger ones around it are shared.
        """
        scope: list[str] = []
        locks = [self._lock("replace")]
        for key in (USER_KEY, SESSION_KEY):
            allowed = filter.scope(key)
            if allowed is None or len(allowed) != 1:
                break
            scope.append(allowed[0] or "")
            locks.append(self._lock("replace", *scope))
        count = len(locks)
        statement = self._tables.prepared(("lock scope", count), lambda: _locking_scope(count))
        statement.fetch(connection, {f"lock_{place}": lock for place, lock in enumerate(locks)})

    def _lock(self, purpose: str, *scope: str) -> int:
        return self._hash(purpose, *scope) - 2**63

    def _hash(self, purpose: str, *scope: str) -> int:
        names = (purpose, self._tables.messages.schema or "", self._tables.name, *scope)
        return int.from_bytes(hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest(), "big")


def _deleting(tables: PostgreSQLTables, matching: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Delete matching messages and their terms, and count the messages."""
    messages, terms, key = tables.messages, tables.terms, ("user_id", "session_id", "seq")
    deletion = sa.delete(messages).where(*matching)
    deleted = deletion.returning(*(messages.c[name] for name in key)).cte("deleted")
    same = sa.tuple_(*(terms.c[name] for name in key)).in_(sa.select(*(deleted.c[name] for name in key)))
    terms_deleted = sa.delete(terms).where(same).returning(terms.c.seq).cte("terms_deleted")
    return sa.select(sa.func.count()).select_from(deleted).add_cte(terms_deleted)


def _locking_scope(count: int) -> sa.Select[Any]:
    """Take the locks of a scope, which has the parameters `lock_0`, `lock_1` and so on: all but the last are shared."""
    *shared, smallest = (sa.bindparam(f"lock_{place}", type_=sa.BigInteger) for place in range(count))
    return sa.select(*map(sa.func.pg_advisory_xact_lock_shared, shared), sa.func.pg_advisory_xact_lock(smallest))


def _locking() -> sa.Select[Any]:
    """Take the locks of a batch, which has the parameters `lock_of` and `locks`."""
    each = sa.func.unnest(sa.bindparam("locks", type_=sa.ARRAY(sa.Integer))).column_valued("number")
    lock = sa.func.pg_advisory_xact_lock(sa.bindparam("lock_of", type_=sa.Integer), each)
    return sa.select(lock.label("locked"))


def _storing(tables: PostgreSQLTables, *, several: bool, vectors: bool) -> tuple[Prepared, Sequence[str]]:
    """Store one or several messages with their terms, and count them, if the table of meta is as expected.

    Args:
        tables: The tables.
        several: Whether each parameter is an array, in the order of the messages, and a batch takes its locks.
        vectors: Whether to store the vectors too.

    Returns:
        The statement, and the names of its parameters that describe messages. Another is `meta`: the checked part of
        the table of meta, in JSON.
    """
    messages, terms, key = tables.messages, tables.terms, ("user_id", "session_id", "id")
    kinds = {column.name: column.type for column in messages.c if column is not messages.c.seq}
    kinds |= {"filterable": sa.Text(), "length": sa.Integer(), "terms": sa.LargeBinary()}
    if vectors:
        kinds[VECTOR] = sa.Text()
    rows = _unnested(kinds) if several else None
    given = _parameters(kinds) if rows is None else rows.c
    values: dict[str, sa.ColumnElement[Any]] = {name: given[name] for name in kinds if name in messages.c}
    values["filterable"] = sa.cast(values["filterable"], JSONB)
    source = sa.select(*values.values()).where(_is_expected(tables))
    if rows is not None:
        locked = _locking().cte("locked").prefix_with("MATERIALIZED")
        is_locked = sa.select(sa.func.count()).select_from(locked).scalar_subquery() > 0
        source = source.where(is_locked).order_by(rows.c.place)
    insert = tables.insert(messages).from_select(list(values), source)
    upsert = insert.on_conflict_do_update(
        index_elements=key, set_={name: insert.excluded[name] for name in values if name not in key}
    )
    stored = upsert.returning(*(messages.c[name] for name in (*key, "seq", "timestamp"))).cte("stored")
    same = sa.and_(*(stored.c[name] == given[name] for name in key))
    both = stored if rows is None else stored.join(rows, same)
    columns = [
        *(stored.c[name] for name in ("user_id", "session_id", "seq", "timestamp")),
        given["length"],
        given["terms"],
    ]
    insert = tables.insert(terms).from_select(
        [column.name for column in terms.c], sa.select(*columns).select_from(both)
    )
    changed = {name: insert.excluded[name] for name in ("timestamp", "length", "terms")}
    counting = sa.select(sa.func.count()).select_from(stored)
    counting = counting.add_cte(
        insert.on_conflict_do_update(index_elements=terms.primary_key, set_=changed).cte("indexed")
    )
    if vectors:
        table, vector = tables.vectors.table, sa.cast(given[VECTOR], tables.vectors.kind)
        insert = tables.insert(table).from_select(
            ["seq", "embedding"], sa.select(stored.c.seq, vector).select_from(both)
        )
        changed = {"embedding": insert.excluded.embedding}
        counting = counting.add_cte(insert.on_conflict_do_update(index_elements=["seq"], set_=changed).cte("embedded"))
    return tables.prepare(counting), list(kinds)


def _parameters(kinds: Mapping[str, sa.types.TypeEngine[Any]]) -> Mapping[str, sa.ColumnElement[Any]]:
    """The parameters of one message."""
    return {name: sa.cast(sa.bindparam(name, type_=kind), kind) for name, kind in kinds.items()}


def _unnested(kinds: Mapping[str, sa.types.TypeEngine[Any]]) -> sa.CTE:
    """The parameters of several messages as a table."""
    arrays = [sa.bindparam(name, type_=sa.ARRAY(kind)) for name, kind in kinds.items()]
    columns = [sa.column(name, kind) for name, kind in kinds.items()]
    each = sa.func.unnest(*arrays).table_valued(*columns, with_ordinality="place", name="each").render_derived()
    return sa.select(each).cte("given")


def _is_expected(tables: PostgreSQLTables) -> sa.ColumnElement[bool]:
    """Whether the table of meta is as expected, and the statement sees what others have done before it locks."""
    isolation = sa.func.current_setting(constant("transaction_isolation"))
    return sa.and_(tables.has_meta(), isolation == constant("read committed"))
