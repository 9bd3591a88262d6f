"""Vectors as bytes, compared in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.vectors import VectorTable


class SQLiteVectors(VectorTable):
    """Vectors of 4 bytes for each number. A trigger deletes the vector of each message that is deleted.

    SQLite observes foreign keys only on connections that ask for it, and triggers on all.
    """

    kind = sa.LargeBinary()

    def create(self, connection: sa.Connection) -> None:
        """Create the table and its trigger if they do not exist."""
        super().create(connection)
        quote = connection.dialect.identifier_preparer.quote
        messages, vectors = quote(self._tables.messages.name), quote(self.table.name)
        trigger = quote(f"{self.table.name}_of_deleted")
        connection.exec_driver_sql(
            f"CREATE TRIGGER IF NOT EXISTS {trigger} AFTER DELETE ON {messages} "  # noqa: S608 - quoted names
            f"BEGIN DELETE FROM {vectors} WHERE seq = OLD.seq; END"
        )

    def value(self, name: str) -> sa.ColumnElement[Any]:
        """A parameter that is a vector, as `encoded`."""
        return sa.bindparam(name, type_=self.kind)

    def encoded(self, vector: Sequence[float]) -> bytes:
        """Return a vector of length 1 as bytes."""
        from dynamiq_memory.ranking.vectors import pack  # noqa: PLC0415 - numpy is optional

        return pack(vector)

    def ranked(self) -> sa.ColumnElement[Any]:
        """The vector itself."""
        return self.table.c.embedding

    def similarities(self, read: Mapping[int, Any], query: Sequence[float]) -> Mapping[int, float]:
        """Compare the vectors that were read."""
        from dynamiq_memory.ranking.vectors import similarities  # noqa: PLC0415 - numpy is optional

        return similarities(query, read)
