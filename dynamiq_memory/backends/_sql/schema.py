"""The tables of a SQL store.

`{name}` holds the messages, one row each. `{name}_terms` holds the terms of each message for keyword ranking,
laid out so that those of one session lie together. `{name}_meta` says what made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.schema import SchemaItem

SCHEMA_VERSION = "1"
VERSION_KEY = "schema_version"
TOKENIZER_KEY = "tokenizer"
# How many numbers the vectors of the messages have, where a store has vectors.
DIMENSION_KEY = "dimension"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one store."""

    metadata: MetaData
    messages: Table
    terms: Table
    meta: Table


def make_tables(name: str, schema: str | None = None, more: Sequence[SchemaItem] = ()) -> Tables:
    """Describe the tables of a store.

    Args:
        name: The name of the table of messages; the others begin with it.
        schema: The database schema that they are in, or None for the default one.
        more: Columns and indexes that a store adds to the table of messages.
    """
    metadata = MetaData(schema=schema)
    # SQLite numbers rows itself only where the type is exactly INTEGER.
    sequence = BigInteger().with_variant(Integer, "sqlite")
    messages = Table(
        name,
        metadata,
        # The order of arrival.
        Column("seq", sequence, primary_key=True),
        # The empty string stands for none: it is no valid id, and NULLs would not be unique.
        Column("user_id", Text, nullable=False),
        Column("session_id", Text, nullable=False),
        Column("id", Text, nullable=False),
        Column("timestamp", Double, nullable=False),
        Column("role", Text, nullable=False),
        # NULL where the content is no plain text; it is in `extra` then.
        Column("content", Text),
        Column("metadata", Text, nullable=False),
        Column("extra", Text),
        Index(f"{name}_by_id", "user_id", "session_id", "id", unique=True),
        # Each way to read has an index in reading order: of a session, a user, a session's name, everything.
        Index(f"{name}_by_scope", "user_id", "session_id", "timestamp", "seq"),
        Index(f"{name}_by_user", "user_id", "timestamp", "seq"),
        Index(f"{name}_by_session", "session_id", "timestamp", "seq"),
        Index(f"{name}_by_time", "timestamp", "seq"),
        *more,
    )
    terms = Table(
        f"{name}_terms",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("session_id", Text, primary_key=True),
        Column("seq", sequence, primary_key=True, autoincrement=False),
        Column("timestamp", Double, nullable=False),
        Column("length", Integer, nullable=False),
        Column("terms", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    meta = Table(
        f"{name}_meta",
        metadata,
        Column("key", Text, primary_key=True),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    return Tables(metadata, messages, terms, meta)
