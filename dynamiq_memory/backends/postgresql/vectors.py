"""Vectors in the type of the extension pgvector (https://github.com/pgvector/pgvector), which compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import UserDefinedType

from dynamiq_memory.backends._sql.vectors import VectorTable
from dynamiq_memory.exceptions import ConfigurationError

_CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"
_NEAR = "near"


class _Vector(UserDefinedType[str]):
    """The extension's type, of any dimension: the table of meta has the dimension of all vectors."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


class PostgreSQLVectors(VectorTable):
    """Vectors that the server compares. A foreign key deletes the vector of each message that is deleted."""

    kind = _Vector()

    def value(self, name: str) -> sa.ColumnElement[Any]:
        """A parameter that is a vector, as `encoded`."""
        return sa.cast(sa.bindparam(name, type_=sa.Text), _Vector)

    def encoded(self, vector: Sequence[float]) -> str:
        """Return a vector as the extension reads it."""
        return "[" + ",".join(map(repr, vector)) + "]"

    def ranked(self) -> sa.ColumnElement[Any]:
        """The cosine similarity to the vector of the query."""
        distance = self.table.c.embedding.op("<=>", return_type=sa.Double)(self.value(_NEAR))
        return sa.type_coerce(1 - distance, sa.Double)

    def parameters(self, query: Sequence[float]) -> Mapping[str, Any]:
        """Return the parameter that is the vector of the query."""
        return {_NEAR: self.encoded(query)}

    def similarities(self, read: Mapping[int, Any], query: Sequence[float]) -> Mapping[int, float]:  # noqa: ARG002
        """Return what the server has computed."""
        return read


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
