"""The table of meta, which in PostgreSQL also has the dimension of the vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.meta import TOKENIZER_KEY, Meta
from dynamiq_memory.backends._sql.prepared import Prepared
from dynamiq_memory.backends._sql.tables import Tables
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.ranking import Tokenize

DIMENSION_KEY = "dimension"


class PostgreSQLMeta(Meta):
    """Checks the table of meta, including the dimension of vectors."""

    def __init__(self, tables: Tables, tokenize: Tokenize, embedder: MessageEmbedder | None) -> None:
        """Compile the statements."""
        super().__init__(tables, tokenize, (TOKENIZER_KEY, DIMENSION_KEY))
        self._tables = tables
        self._embedder = embedder
        locking = self._statement.with_for_update(read=True, key_share=True)
        self._read_and_lock = Prepared(locking, tables.dialect)

    def check_for_write(self, connection: sa.Connection) -> Mapping[str, str]:
        """Return what the table says; see `check`. Nobody can re-index until the end of the transaction."""
        return self._checked(self._read_and_lock.fetch(connection, {}))

    def wait_for_writers(self, connection: sa.Connection) -> None:
        """Wait for the transactions that have called `check_for_write`, and let no other begin."""
        connection.execute(sa.select(self._tables.meta.c.key).with_for_update()).fetchall()

    def settle_dimension(self, connection: sa.Connection, meta: Mapping[str, str]) -> None:
        """Set the store's dimension to that of the embedder, unless another process has set one.

        Raises:
            ConfigurationError: Another process has set another dimension.
        """
        dimension = None if self._embedder is None else self._embedder.dimension
        if dimension is None or DIMENSION_KEY in meta:
            return
        table = self._tables.meta
        # Otherwise a writer that has seen no dimension would not delete the old vector of a text that it changes.
        self.wait_for_writers(connection)
        insert = self._tables.insert(table).values(key=DIMENSION_KEY, value=str(dimension))
        connection.execute(insert.on_conflict_do_nothing())
        settled = connection.execute(sa.select(table.c.value).where(table.c.key == DIMENSION_KEY)).scalar_one()
        self._check_dimension(int(settled))

    def replace_dimension(self, connection: sa.Connection, dimension: int) -> None:
        """Set the dimension of the store, whatever it was."""
        insert = self._tables.insert(self._tables.meta).values(key=DIMENSION_KEY, value=str(dimension))
        connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_={"value": str(dimension)}))

    def _checked(self, rows: Iterable[Any]) -> Mapping[str, str]:
        meta = super()._checked(rows)
        if DIMENSION_KEY in meta:
            self._check_dimension(int(meta[DIMENSION_KEY]))
        return meta

    def _check_dimension(self, dimension: int) -> None:
        embedder = self._embedder
        if embedder is None or embedder.dimension == dimension:
            return
        if embedder.dimension is None:
            embedder.expect(dimension)
            return
        raise ConfigurationError(
            f"the embedder's vectors have {embedder.dimension} numbers, those of the table {self._name!r} have "
            f"{dimension}: use the embedder that the messages were stored with, another table_name, or reindex=True to "
            "embed all messages again"
        )
