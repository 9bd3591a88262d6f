"""Vectors beside the messages in PostgreSQL, by the extension pgvector (https://github.com/pgvector/pgvector).

The vectors have a table of their own, which stores opened without an embedder do not have to know: what deletes a
message deletes its vector with it, by a foreign key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import UserDefinedType

from dynamiq_memory.backends._sql.prepared import Prepared
from dynamiq_memory.backends._sql.schema import DIMENSION_KEY, Tables
from dynamiq_memory.exceptions import ConfigurationError

NEAR = "near"
"""The parameter of a query's vector."""
_VECTOR = "vector"


class _Vector(UserDefinedType[str]):
    """The extension's type, of whatever dimension: the table of meta holds the dimension of all."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


class VectorTable:
    """The vectors of the messages of one store.

    Args:
        tables: The store's tables.
        dialect: The dialect that runs the statements.
    """

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        """Describe the table and compile the statements of a write."""
        messages, meta = tables.messages, tables.meta
        self.table = Table(
            f"{messages.name}_vectors",
            tables.metadata,
            Column("seq", BigInteger, ForeignKey(messages.c.seq, ondelete="CASCADE"), primary_key=True),
            Column("embedding", _Vector, nullable=False),
        )
        self._messages, self._meta = messages, meta
        own = select(messages.c.seq).where(
            messages.c.user_id == bindparam("of_user", type_=Text),
            messages.c.session_id == bindparam("of_session", type_=Text),
            messages.c.id == bindparam("of_id", type_=Text),
        )
        vector = _as_vector(bindparam(_VECTOR, type_=Text))
        put = insert(self.table).from_select(["seq", "embedding"], own.add_columns(vector))
        put = put.on_conflict_do_update(index_elements=["seq"], set_={"embedding": put.excluded.embedding})
        self._put = Prepared(put, dialect)
        self._drop = Prepared(delete(self.table).where(self.table.c.seq == own.scalar_subquery()), dialect)

    def write(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store the vectors of stored messages, and delete those of messages that have none now.

        Args:
            connection: A connection in a write transaction.
            rows: For each message of_user, of_session, of_id and the vector as text, or None.
        """
        with_vector = [row for row in rows if row[_VECTOR] is not None]
        if with_vector:
            self._put.run(connection, with_vector)
        self.drop(connection, [row for row in rows if row[_VECTOR] is None])

    def drop(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Delete the vectors of stored messages."""
        if rows:
            self._drop.run(connection, rows)

    def add_missing(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store vectors of messages, unless those have got one, have changed or are gone meanwhile.

        Args:
            connection: A connection in a write transaction.
            rows: For each message seq, its content and extra as they were embedded, and the vector as text.
        """
        messages = self._messages
        for row in rows:
            unchanged = (
                select(messages.c.seq, _as_vector(literal(row[_VECTOR], Text)))
                .where(
                    messages.c.seq == row["seq"],
                    messages.c.content.is_not_distinct_from(literal(row["content"], Text)),
                    messages.c.extra.is_not_distinct_from(literal(row["extra"], Text)),
                )
                # Who changes it at this moment goes first, or waits and then finds the vector to delete.
                .with_for_update(read=True)
            )
            put = insert(self.table).from_select(["seq", "embedding"], unchanged)
            connection.execute(put.on_conflict_do_nothing())

    def missing(self, connection: Connection, columns: Sequence[Any], after: int, most: int) -> Sequence[Any]:
        """Read messages without a vector, by number: that number, and some columns of theirs."""
        seq = self._messages.c.seq
        statement = select(seq, *columns).where(seq > after, ~exists().where(self.table.c.seq == seq))
        return connection.execute(statement.order_by(seq).limit(most)).fetchall()

    def with_nearness(self, statement: Select[Any], terms: Table) -> Select[Any]:
        """Add the cosine similarity of each message to the parameter `near`; NULL where it has no vector."""
        distance = self.table.c.embedding.op("<=>", return_type=Double)(_as_vector(bindparam(NEAR, type_=Text)))
        joined = statement.outerjoin(self.table, self.table.c.seq == terms.c.seq)
        return joined.add_columns(type_coerce(1 - distance, Double))

    def remember_dimension(self, connection: Connection, dimension: int) -> int:
        """Set the dimension of the store's vectors, unless another process has; tell what it is now."""
        # Writers that have seen none finish first: they would not delete the vector of a text that they change.
        connection.execute(select(self._meta.c.key).with_for_update()).fetchall()
        connection.execute(insert(self._meta).values(key=DIMENSION_KEY, value=str(dimension)).on_conflict_do_nothing())
        known = connection.execute(select(self._meta.c.value).where(self._meta.c.key == DIMENSION_KEY)).scalar_one()
        return int(known)

    def keep_only(self, connection: Connection, dimension: int) -> None:
        """Delete vectors of another dimension; the store's is this one from now on."""
        connection.execute(select(self._meta.c.key).with_for_update()).fetchall()
        connection.execute(delete(self.table).where(func.vector_dims(self.table.c.embedding) != dimension))
        connection.execute(
            insert(self._meta)
            .values(key=DIMENSION_KEY, value=str(dimension))
            .on_conflict_do_update(index_elements=["key"], set_={"value": str(dimension)})
        )


def as_text(vector: Sequence[float]) -> str:
    """A vector as the extension reads it."""
    return "[" + ",".join(map(repr, vector)) + "]"


def require_pgvector(connection: Connection) -> None:
    """Make sure that the database has the extension.

    Raises:
        ConfigurationError: It has not, and it cannot be created.
    """
    if _is_there(connection):
        return
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        raise ConfigurationError(
            f"ranking by vectors needs the extension pgvector ({str(error.orig).splitlines()[0]}): install it on the "
            "server and let an administrator run CREATE EXTENSION vector, or leave the embedder out"
        ) from error
    if not _is_there(connection):
        raise ConfigurationError(
            "the extension pgvector is in a schema outside of the search path: add that schema to search_path"
        )


def _is_there(connection: Connection) -> bool:
    return connection.execute(select(func.to_regtype("vector"))).scalar() is not None


def _as_vector(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(value, _Vector)
