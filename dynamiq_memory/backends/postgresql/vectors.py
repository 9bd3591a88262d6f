"""Vectors beside the messages, by the extension pgvector (https://github.com/pgvector/pgvector).

The vectors have a table of their own, which stores opened without an embedder do not need: a foreign key deletes the
vector of each message that is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import UserDefinedType

from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends._sql.writer import Row, message_key
from dynamiq_memory.exceptions import ConfigurationError

_CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"
NEAR = "near"
"""The parameter of a query's vector."""
VECTOR = "vector"
"""The vector of a message in its `Row`, as text, or None."""


class _Vector(UserDefinedType[str]):
    """The extension's type, of any dimension: the table of meta has the dimension of all vectors."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


class VectorTable:
    """The vectors of the messages of one store.

    Attributes:
        table: The table, apart from the others, since only a store with an embedder creates it.
        deletion: Deletes the vectors of messages, given their rows.
        insertion: Stores the vectors of messages, except those that have since got one, changed or been deleted. Its
            parameters are `seq`, `vector`, and the `content` and `extra` that were embedded.
    """

    def __init__(self, tables: SQLTables) -> None:
        """Describe the table and compile the statements of a write."""
        messages, self._tables = tables.messages, tables
        self.table = sa.Table(
            f"{messages.name}_vectors",
            sa.MetaData(schema=messages.schema),
            sa.Column("seq", sa.BigInteger, sa.ForeignKey(messages.c.seq, ondelete="CASCADE"), primary_key=True),
            sa.Column("embedding", _Vector, nullable=False),
        )
        seq = sa.select(messages.c.seq).where(*message_key(messages))
        vector = _as_vector(sa.bindparam(VECTOR, type_=sa.Text))
        insert, columns = tables.insert(self.table), ["seq", "embedding"]
        upsert = insert.from_select(columns, seq.add_columns(vector))
        upsert = upsert.on_conflict_do_update(index_elements=["seq"], set_={"embedding": upsert.excluded.embedding})
        self._upsert = tables.prepare(upsert)
        self.deletion = tables.prepare(sa.delete(self.table).where(self.table.c.seq == seq.scalar_subquery()))
        unchanged = sa.select(messages.c.seq, vector).where(
            messages.c.seq == sa.bindparam("seq", type_=sa.BigInteger),
            *(messages.c[n].is_not_distinct_from(sa.bindparam(n, type_=sa.Text)) for n in ("content", "extra")),
        )
        # A change at the same moment is either done already, or waits and then finds the vector to delete.
        unchanged = unchanged.with_for_update(read=True)
        self.insertion = tables.prepare(insert.from_select(columns, unchanged).on_conflict_do_nothing())

    def write(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Store the vectors of stored messages, and delete those of messages that now have none."""
        self._upsert.run(connection, [row for row in rows if row[VECTOR] is not None])
        self.deletion.run(connection, [row for row in rows if row[VECTOR] is None])

    def read_missing(self, connection: sa.Connection, after: int, limit: int) -> Sequence[Any]:
        """Read messages without a vector: the number of arrival of each, and its columns.

        Args:
            connection: A connection.
            after: Only messages with a larger number.
            limit: Maximum number of messages.
        """
        seq = self._tables.messages.c.seq
        statement = sa.select(seq, *self._tables.columns)
        statement = statement.where(seq > after, ~sa.exists().where(self.table.c.seq == seq))
        return connection.execute(statement.order_by(seq).limit(limit)).fetchall()

    def with_similarity(self, statement: sa.Select[Any], terms: sa.Table) -> sa.Select[Any]:
        """Add the cosine similarity of each message to the parameter `near`; NULL if it has no vector."""
        distance = self.table.c.embedding.op("<=>", return_type=sa.Double)(
            _as_vector(sa.bindparam(NEAR, type_=sa.Text))
        )
        joined = statement.outerjoin(self.table, self.table.c.seq == terms.c.seq)
        return joined.add_columns(sa.type_coerce(1 - distance, sa.Double))


def as_text(vector: Sequence[float]) -> str:
    """Write a vector as the extension reads it."""
    return "[" + ",".join(map(repr, vector)) + "]"


def require_pgvector(connection: sa.Connection) -> None:
    """Make sure that the database has the extension.

    Raises:
        ConfigurationError: It does not, and the extension cannot be created.
    """
    if _is_there(connection):
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.text(_CREATE_EXTENSION))
    except DBAPIError as error:
        raise ConfigurationError(
            f"ranking by vectors needs the extension pgvector ({str(error.orig).splitlines()[0]}): install it on the "
            "server and let an administrator run CREATE EXTENSION vector, or leave the embedder out"
        ) from error
    if not _is_there(connection):
        raise ConfigurationError(
            "the extension pgvector is in a schema outside of the search path: add that schema to search_path"
        )


def _is_there(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(sa.func.to_regtype("vector"))).scalar() is not None


def _as_vector(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(value, _Vector)
