"""The tables in PostgreSQL, where messages have a column for filters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql import ClauseElement

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.tables import Prepared, SQLTables
from dynamiq_memory.backends.postgresql.filters import PostgreSQLFilters
from dynamiq_memory.backends.postgresql.vectors import PostgreSQLVectors
from dynamiq_memory.ranking import Tokenize

# A parameter that is an array, as SQLAlchemy writes it for psycopg.
_ARRAY = re.compile(r"%\((\w+)\)s(?=::[A-Z ]+\[\])")


class PostgreSQLTables(SQLTables):
    """The tables of one store.

    Args:
        name: The name of the table of messages.
        schema: The database schema, or None for the first of the search path.
        dialect: The SQL dialect.
        tokenize: Splits texts into terms.
        embedder: The embedder that ranks, or None.
    """

    def __init__(
        self, name: str, schema: str | None, dialect: sa.Dialect, tokenize: Tokenize, embedder: MessageEmbedder | None
    ) -> None:
        """Describe the tables."""
        super().__init__(name, dialect, insert, PostgreSQLFilters, tokenize, PostgreSQLVectors, embedder, schema=schema)

    def _more(self) -> Sequence[SchemaItem]:
        """The column for filters, and its index."""
        operators = {"filterable": "jsonb_path_ops"}
        by_filter = sa.Index(f"{self.name}_by_filter", "filterable", postgresql_using="gin", postgresql_ops=operators)
        return (sa.Column("filterable", JSONB, nullable=False), by_filter)

    def prepare(self, statement: ClauseElement) -> Prepared:
        """Compile a statement. Its arrays are sent in the binary format, where nothing is escaped.

        As text, the arrays of a batch take both sides about as long as all the rest of sending it.
        """
        prepared = super().prepare(statement)
        prepared.sql = _ARRAY.sub(r"%(\1)b", prepared.sql)
        return prepared

    def present(self, connection: sa.Connection) -> set[str]:
        """Return which of the tables exist, by their names."""
        tables = (self.messages, self.terms, self.meta, self.vectors.table)
        is_there = [sa.func.to_regclass(_quoted(table)).is_not(None) for table in tables]
        found = connection.execute(sa.select(*is_there)).one()
        return {table.name for table, exists in zip(tables, found, strict=True) if exists}

    def has_meta(self) -> sa.ColumnElement[bool]:
        """Whether the checked part of the table of meta is that of `meta_parameter`."""
        meta = self.meta.c
        stored = sa.select(sa.func.jsonb_object_agg(meta.key, meta.value, type_=JSONB))
        stored = stored.where(sa.or_(*(meta.key == constant(key) for key in self.checked_keys)))
        either = sa.func.coalesce(stored.scalar_subquery(), sa.cast(constant("{}"), JSONB), type_=JSONB)
        return either == sa.cast(sa.bindparam("meta", type_=sa.Text), JSONB)

    def meta_parameter(self, meta: Mapping[str, str]) -> dict[str, str]:
        """Return the parameter of `has_meta`."""
        return {"meta": json.dumps(meta, ensure_ascii=False)}

    def among_writers(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Lock the table of messages as each change of it does: writers do not wait for each other."""
        messages = self.messages
        return statement.add_cte(sa.update(messages).values(role=messages.c.role).where(sa.false()).cte("locking"))

    def wait_for_writers(self, connection: sa.Connection) -> None:
        """Wait for the transactions that write, and let no other begin.

        A statement that writes locks the table of messages before it sees the state that it works on. So it ends
        before this one goes on, or sees what this transaction has changed.
        """
        # Earlier versions of this package lock these rows instead.
        connection.execute(sa.select(self.meta.c.key).with_for_update()).fetchall()
        table = self._dialect.identifier_preparer.format_table(self.messages)
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")


def _quoted(table: sa.Table) -> str:
    """The name of a table as a value: SQLAlchemy's own quoting doubles percent signs."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in (table.schema, table.name) if name is not None)


def constant(text: str) -> sa.ColumnElement[str]:
    """Return a text that is part of a statement: unlike a parameter, it is not sent each time.

    Args:
        text: The text, which is ours.
    """
    return sa.literal_column(f"'{text}'", sa.Text)
