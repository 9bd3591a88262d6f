"""The tables of a SQL store.

`{name}` has a row for each message. `{name}_terms` has the terms of each message for keyword ranking, laid out so that
the terms of a session are stored together. `{name}_meta` has the version and the tokenizer that wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import SchemaItem


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one store.

    Attributes:
        dialect: The SQL dialect of the database.
        insert: The dialect's INSERT, which has ON CONFLICT.
    """

    dialect: sa.Dialect
    insert: Any
    metadata: sa.MetaData
    messages: sa.Table
    terms: sa.Table
    meta: sa.Table


def make_tables(
    name: str, dialect: sa.Dialect, insert: Any, schema: str | None = None, more: Sequence[SchemaItem] = ()
) -> Tables:
    """Describe the tables of a store.

    Args:
        name: The name of the table of messages; the others' begin with it.
        dialect: The SQL dialect of the database.
        insert: The dialect's INSERT, which has ON CONFLICT.
        schema: The database schema of the tables, or None for the default one.
        more: Additional columns and indexes of the table of messages.
    """
    metadata = sa.MetaData(schema=schema)
    # SQLite numbers rows itself only if the type is exactly INTEGER.
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    messages = sa.Table(
        name,
        metadata,
        # The order of arrival.
        sa.Column("seq", sequence, primary_key=True),
        # The empty string means none: it is not a valid id, and NULLs would not be unique.
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("timestamp", sa.Double, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        # NULL if the content is not plain text; then it is in `extra`.
        sa.Column("content", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("extra", sa.Text),
        sa.Index(f"{name}_by_id", "user_id", "session_id", "id", unique=True),
        # Each way to read has an index in reading order: of a session, a user, a session's name, everything.
        sa.Index(f"{name}_by_scope", "user_id", "session_id", "timestamp", "seq"),
        sa.Index(f"{name}_by_user", "user_id", "timestamp", "seq"),
        sa.Index(f"{name}_by_session", "session_id", "timestamp", "seq"),
        sa.Index(f"{name}_by_time", "timestamp", "seq"),
        *more,
    )
    terms = sa.Table(
        f"{name}_terms",
        metadata,
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("seq", sequence, primary_key=True, autoincrement=False),
        sa.Column("timestamp", sa.Double, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("terms", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    meta = sa.Table(
        f"{name}_meta",
        metadata,
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    return Tables(dialect, insert, metadata, messages, terms, meta)
