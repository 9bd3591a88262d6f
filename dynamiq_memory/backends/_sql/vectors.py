"""The vectors of the messages of a SQL store, in a table of their own that is created when it gets an embedder.

The table of meta has the name of the embedder and the dimension of its vectors, and whether all messages are embedded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.sql import ClauseElement

from dynamiq_memory.backends._embedding import MessageEmbedder

if TYPE_CHECKING:
    from dynamiq_memory.backends._sql.tables import SQLTables
    from dynamiq_memory.backends._sql.writer import Row

VECTOR = "vector"
"""The vector of a message in its `Row`, as the driver takes it, or None."""
DIMENSION_KEY = "dimension"
EMBEDDER_KEY = "embedder"
# Is there if every message with a text has a vector.
ALL_EMBEDDED_KEY = "all_embedded"
_READ_AT_ONCE = 1_000
KEYS = (DIMENSION_KEY, EMBEDDER_KEY, ALL_EMBEDDED_KEY)


class VectorTable(ABC):
    """The vectors of the messages of one store.

    Args:
        tables: The other tables.
        embedder: The embedder that ranks, or None. Stores opened without one do not read vectors. They delete those of
            messages that they change.

    Attributes:
        table: The table, apart from the others, since only a store with an embedder creates it.
        insertion: Stores the vectors of messages, except those that have since got one, changed or been deleted. Its
            parameters are `seq`, `vector`, and the `content` and `extra` that were embedded.
    """

    kind: ClassVar[sa.types.TypeEngine[Any]]
    """The type of a vector's column."""

    def __init__(self, tables: SQLTables, embedder: MessageEmbedder | None) -> None:
        """Describe the table and compile the statements of a write."""
        self._tables = tables
        self.embedder = embedder
        self.table = tables.once("vectors", self._describe)
        self._upsert = tables.prepared("upsert vectors", self._upserting)
        self._deletion = tables.prepared("delete vectors", self._deleting)
        self.insertion = tables.prepared("insert vectors", self._inserting)

    def _describe(self) -> sa.Table:
        messages = self._tables.messages
        return sa.Table(
            f"{messages.name}_vectors",
            sa.MetaData(schema=messages.schema),
            sa.Column("seq", messages.c.seq.type, sa.ForeignKey(messages.c.seq, ondelete="CASCADE"), primary_key=True),
            sa.Column("embedding", self.kind, nullable=False),
        )

    def _number(self) -> sa.Select[Any]:
        """The number of arrival of a message by its key."""
        messages = self._tables.messages
        key = [messages.c[name] == sa.bindparam(name, type_=sa.Text) for name in ("user_id", "session_id", "id")]
        return sa.select(messages.c.seq).where(*key)

    def _upserting(self) -> ClauseElement:
        insert = self._tables.insert(self.table)
        upsert = insert.from_select(["seq", "embedding"], self._number().add_columns(self.value(VECTOR)))
        changed = {"embedding": upsert.excluded.embedding}
        return upsert.on_conflict_do_update(index_elements=["seq"], set_=changed)  # type: ignore[no-any-return]

    def _deleting(self) -> ClauseElement:
        return sa.delete(self.table).where(self.table.c.seq == self._number().scalar_subquery())

    def _inserting(self) -> ClauseElement:
        messages = self._tables.messages
        unchanged = sa.select(messages.c.seq, self.value(VECTOR)).where(
            messages.c.seq == sa.bindparam("seq", type_=sa.BigInteger),
            *(messages.c[n].is_not_distinct_from(sa.bindparam(n, type_=sa.Text)) for n in ("content", "extra")),
        )
        # A change at the same moment is either done already, or waits and then finds the vector to delete.
        unchanged = unchanged.with_for_update(read=True)
        insert = self._tables.insert(self.table).from_select(["seq", "embedding"], unchanged)
        return insert.on_conflict_do_nothing()  # type: ignore[no-any-return]

    # --- what differs between databases ----------------------------------------------------------------------

    @abstractmethod
    def value(self, name: str) -> sa.ColumnElement[Any]:
        """A parameter that is a vector, as `encoded`."""

    @abstractmethod
    def encoded(self, vector: Sequence[float]) -> Any:
        """Return a vector as the driver takes it."""

    @abstractmethod
    def ranked(self) -> sa.ColumnElement[Any]:
        """The columns that a search reads of each message's vector."""

    @abstractmethod
    def similarities(self, read: Mapping[int, Any], query: Sequence[float]) -> Mapping[int, float]:
        """Return cosine similarities to the vector of a query, given what a search has read of each vector."""

    def parameters(self, query: Sequence[float]) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the parameters of `ranked`. By default, there are none."""
        return {}

    # --- the table -------------------------------------------------------------------------------------------

    def create(self, connection: sa.Connection) -> None:
        """Create the table if it does not exist."""
        if sa.inspect(connection).has_table(self.table.name, self.table.schema):
            return
        self.table.create(connection)
        self._unset(connection, KEYS)  # if somebody has dropped it
        self._tables.wait_for_writers(connection)
        if connection.execute(sa.select(self._tables.messages.c.seq).limit(1)).first() is None:
            self._set(connection, ALL_EMBEDDED_KEY, "true")

    def drop(self, connection: sa.Connection) -> None:
        """Drop the table if it exists: it is of messages that are no longer there."""
        self.table.drop(connection, checkfirst=True)
        self._unset(connection, KEYS)

    def check(self, meta: Mapping[str, str]) -> None:
        """Check that the stored vectors are of this store's embedder, if it has one.

        Args:
            meta: The table of meta.

        Raises:
            ConfigurationError: They are of another embedder.
        """
        if self.embedder is not None and DIMENSION_KEY in meta:
            self.embedder.check_stored(meta.get(EMBEDDER_KEY), int(meta[DIMENSION_KEY]))

    def check_query(self, vector: Sequence[float]) -> None:
        """Check the vector of a query, which may be older than the first vector of the store.

        Raises:
            ConfigurationError: It has another dimension.
        """
        if self.embedder is not None:
            self.embedder.check_dimension(len(vector))

    def joined(self, statement: sa.Select[Any], terms: sa.Table) -> sa.Select[Any]:
        """Add what a search reads of each vector; NULL for a message without one."""
        return statement.outerjoin(self.table, self.table.c.seq == terms.c.seq).add_columns(self.ranked())

    # --- writing ---------------------------------------------------------------------------------------------

    def needs_only_insertions(self, rows: Sequence[Row], meta: Mapping[str, str]) -> bool:
        """Whether `write` would do nothing but store a vector for each message, or nothing at all.

        Args:
            rows: The messages, with `VECTOR` if there is an embedder.
            meta: The table of meta.
        """
        if self.embedder is None:
            return DIMENSION_KEY not in meta and ALL_EMBEDDED_KEY not in meta
        return DIMENSION_KEY in meta and all(row[VECTOR] is not None for row in rows)

    def write(self, connection: sa.Connection, rows: Sequence[Row], meta: Mapping[str, str]) -> None:
        """Store the vectors of messages that have just been stored, and delete those of messages that now have none.

        Args:
            connection: A connection in a transaction that writes.
            rows: The messages, with `VECTOR` if there is an embedder.
            meta: The table of meta, which other transactions cannot change.
        """
        if self.embedder is not None:
            embedded = [row for row in rows if row[VECTOR] is not None]
            if embedded and DIMENSION_KEY not in meta:
                self._settle(connection, self.embedder)
            self._upsert.run(connection, embedded)
            self._deletion.run(connection, [row for row in rows if row[VECTOR] is None])
            return
        if DIMENSION_KEY in meta:
            self._deletion.run(connection, rows)
        if ALL_EMBEDDED_KEY in meta:
            self._unset(connection, [ALL_EMBEDDED_KEY])

    def _settle(self, connection: sa.Connection, embedder: MessageEmbedder) -> None:
        """Make the embedder the one of the store, unless another process has set one.

        Raises:
            ConfigurationError: Another process has set another embedder.
        """
        # Otherwise a writer that has seen no dimension would not delete the old vector of a text that it changes.
        self._tables.wait_for_writers(connection)
        rows = [{"key": key, "value": value} for key, value in _described(embedder).items()]
        connection.execute(self._tables.insert(self._tables.meta).on_conflict_do_nothing(), rows)
        self._tables.check_meta(connection)

    # --- embedding stored messages ---------------------------------------------------------------------------

    def replace_embedder(self, connection: sa.Connection, embedder: MessageEmbedder, dimension: int) -> None:
        """Make the embedder the one of the store, and delete the vectors of another one.

        Args:
            connection: A connection in a transaction that writes.
            embedder: The embedder.
            dimension: The dimension of its vectors.
        """
        self._tables.wait_for_writers(connection)
        meta = self._tables.read_meta(connection)
        embedder.dimension = dimension
        is_same = meta.get(DIMENSION_KEY) == str(dimension) and not embedder.differs_from(meta.get(EMBEDDER_KEY))
        if not is_same and DIMENSION_KEY in meta:
            connection.execute(self.table.delete())
            self._unset(connection, KEYS)
        for key, value in _described(embedder).items():
            self._set(connection, key, value)

    def read_missing(self, connection: sa.Connection, after: int, limit: int) -> Sequence[Any]:
        """Read messages without a vector: the number of arrival of each, and its columns.

        Args:
            connection: A connection.
            after: Only messages with a larger number.
            limit: Maximum number of messages.
        """
        seq = self._tables.messages.c.seq
        statement = sa.select(seq, *self._tables.columns).where(seq > after, self._is_missing())
        return connection.execute(statement.order_by(seq).limit(limit)).fetchall()

    def count_missing(self, connection: sa.Connection) -> int:
        """Count the messages without a vector."""
        statement = sa.select(sa.func.count()).select_from(self._tables.messages).where(self._is_missing())
        return int(connection.execute(statement).scalar_one())

    def insert_missing(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store the vectors of messages that had none; see `insertion`."""
        self._tables.check_meta(connection, write=True)
        self.insertion.run(connection, rows)

    def end_embedding(self, connection: sa.Connection, without: Collection[int]) -> None:
        """Note that all messages are embedded, if the embedder has seen those without a vector.

        Args:
            connection: A connection in a transaction that writes.
            without: The messages that the embedder gave no vector for, as `hash_of` their rows. Their numbers of
                arrival are not enough: SQLite may give these to others.
        """
        self._tables.wait_for_writers(connection)
        self._tables.check_meta(connection)
        last = -1
        while rows := self.read_missing(connection, last, _READ_AT_ONCE):
            if any(hash_of(row) not in without for row in rows):
                return
            last = rows[-1][0]
        self._set(connection, ALL_EMBEDDED_KEY, "true")

    def may_miss_some(self, connection: sa.Connection) -> bool:
        """Whether there are messages without a vector that an embedder might give one."""
        if ALL_EMBEDDED_KEY in self._tables.check_meta(connection):
            return False
        return bool(self.read_missing(connection, after=-1, limit=1))

    def _is_missing(self) -> sa.ColumnElement[bool]:
        return ~sa.exists().where(self.table.c.seq == self._tables.messages.c.seq)

    # --- the table of meta -----------------------------------------------------------------------------------

    def _set(self, connection: sa.Connection, key: str, value: str) -> None:
        statement = self._tables.insert(self._tables.meta)
        upsert = statement.on_conflict_do_update(index_elements=["key"], set_={"value": value})
        connection.execute(upsert, {"key": key, "value": value})

    def _unset(self, connection: sa.Connection, keys: Sequence[str]) -> None:
        meta = self._tables.meta
        connection.execute(meta.delete().where(meta.c.key.in_(keys)))


def hash_of(row: Sequence[Any]) -> int:
    """Return a hash of a message's row, the same in this process only."""
    return hash(tuple(row))


def _described(embedder: MessageEmbedder) -> dict[str, str]:
    name = {} if embedder.name is None else {EMBEDDER_KEY: embedder.name}
    return {DIMENSION_KEY: str(embedder.dimension), **name}
