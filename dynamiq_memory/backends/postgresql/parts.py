"""The parts that the reader, the writer, the search and the schema of a PostgreSQL store share."""

from __future__ import annotations

from dataclasses import dataclass

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.parts import Parts
from dynamiq_memory.backends.postgresql.locks import Locks
from dynamiq_memory.backends.postgresql.meta import PostgreSQLMeta
from dynamiq_memory.backends.postgresql.vectors import VectorTable


@dataclass(frozen=True, slots=True)
class PostgreSQLParts(Parts):
    """The shared parts of a store in PostgreSQL.

    Attributes:
        vectors: The table of vectors.
        locks: Locks for the tables.
        embedder: The embedder that ranks, or None.
    """

    meta: PostgreSQLMeta
    vectors: VectorTable
    locks: Locks
    embedder: MessageEmbedder | None
