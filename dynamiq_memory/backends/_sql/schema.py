"""Creating, checking and upgrading the tables of a SQL store, and embedding its messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.backend import Transaction
from dynamiq_memory.backends._sql.legacy import LegacyTable, upgrade
from dynamiq_memory.backends._sql.records import from_rows, to_row
from dynamiq_memory.backends._sql.tables import (
    RENEWED_KEY,
    SCHEMA_VERSION,
    TOKENIZER_KEY,
    VERSION_KEY,
    SQLTables,
)
from dynamiq_memory.backends._sql.vectors import VECTOR, hash_of
from dynamiq_memory.backends._sql.writer import SQLWriter
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message, prepare

logger = logging.getLogger(__name__)

_BATCH = 1_000
_EMBEDDED_AT_ONCE = 500


class SQLSchema:
    """Creates, checks and upgrades the tables of a store, which may be a legacy table."""

    def __init__(self, tables: SQLTables, writer: SQLWriter, legacy: LegacyTable) -> None:
        """Touch no database yet."""
        self._tables = tables
        self._writer = writer
        self._legacy = legacy

    def open(self, run: Callable[[Transaction[Any]], Any], *, reindex: bool) -> None:
        """Make the tables ready for use.

        Args:
            run: Carries out a transaction.
            reindex: Whether to index the stored messages again if another tokenizer indexed them; with an embedder,
                whether to embed those without a vector, or all if their vectors are of another embedder.

        Raises:
            ConfigurationError: The table is not one of this package, or is of a newer version, or of another tokenizer
                or embedder.
        """
        embedder = self._tables.vectors.embedder
        if not (reindex and embedder) and run(Transaction(self.is_ready)):
            self._complete_vectors(run, reindex=False)
            return  # nothing to write: it may be a replica, or a file or user that may only be read
        dimension = embedder.measured_dimension() if reindex and embedder is not None else None
        more = run(Transaction(partial(self.make_ready, reindex=reindex, dimension=dimension), write=True))
        while more:
            more = run(Transaction(self.renew_terms, write=True))
        self._complete_vectors(run, reindex=reindex)

    def is_ready(self, connection: sa.Connection) -> bool:
        """Whether the tables are as they should be, so that opening them needs no write."""
        tables = self._tables
        present = tables.present(connection)
        if not {tables.messages.name, tables.terms.name, tables.meta.name} <= present:
            return False
        meta = tables.read_meta(connection)
        if RENEWED_KEY in meta or not tables.expected_meta.items() <= meta.items():
            return False
        tables.check_meta(connection)
        return tables.vectors.embedder is None or tables.vectors.table.name in present

    def _complete_vectors(self, run: Callable[[Transaction[Any]], Any], *, reindex: bool) -> None:
        """Embed the messages that have no vector, or warn of them."""
        embedder = self._tables.vectors.embedder
        if embedder is None or not run(Transaction(self._tables.vectors.may_miss_some, snapshot=True)):
            return
        if reindex:
            self._embed_missing(run, embedder)
        else:
            logger.warning(
                "%s has messages that were stored without this embedder: they are ranked by words alone, until it is "
                "opened with reindex=True",
                self._tables.name,
            )

    def make_ready(self, connection: sa.Connection, *, reindex: bool, dimension: int | None) -> bool:
        """Create the tables, upgrade them, or check that they are as they should be.

        Args:
            connection: A connection in a transaction that writes.
            reindex: Whether to index the stored messages again if another tokenizer indexed them.
            dimension: The dimension that new vectors have, to replace vectors of another one; or None.

        Returns:
            Whether `renew_terms` has work to do.

        Raises:
            ConfigurationError: The table is not one of this package, or is of a newer version or another tokenizer.
        """
        tables = self._tables
        present = columns_of(connection, tables.messages)
        beside = [columns_of(connection, table) for table in (tables.terms, tables.meta)]
        for table, columns in zip((tables.terms, tables.meta), beside, strict=True):
            _check_columns(table, columns)
        if not present:
            tables.metadata.create_all(connection)
            # Somebody may have dropped the messages and not their terms.
            connection.execute(tables.terms.delete())
            tables.vectors.drop(connection)
        elif present == set(self._legacy.columns):
            upgrade(connection, tables, self._legacy, self._store)
        else:
            _check_columns(tables.messages, present)
            tables.metadata.create_all(connection)
            for index in tables.later_indexes.values():
                connection.execute(CreateIndex(index, if_not_exists=True))
            self._check_meta(connection, reindex=reindex)
            if not all(beside):
                # Without its table the terms are gone; without that of meta nobody knows which tokenizer made them.
                logger.warning("%s lacks a table beside it: its messages are indexed again", tables.name)
                self._set_tokenizer(connection)
                connection.execute(tables.meta.insert(), {"key": RENEWED_KEY, "value": "-1"})
        rows = [{"key": key, "value": value} for key, value in tables.expected_meta.items()]
        connection.execute(tables.insert(tables.meta).on_conflict_do_nothing(), rows)
        if tables.vectors.embedder is not None:
            tables.vectors.create(connection)
            if dimension is not None:
                tables.vectors.replace_embedder(connection, tables.vectors.embedder, dimension)
        tables.check_meta(connection)
        return RENEWED_KEY in tables.read_meta(connection)

    def renew_terms(self, connection: sa.Connection) -> bool:
        """Index the next messages that an earlier version of the tokenizer indexed.

        Each batch is a transaction, so that a process that is killed loses only the last. Several processes may do it
        at the same time.

        Args:
            connection: A connection in a transaction that writes.

        Returns:
            Whether there may be more.

        Raises:
            ConfigurationError: Another process has indexed the messages again, with another tokenizer.
        """
        tables, meta = self._tables, self._tables.meta
        tables.wait_for_writers(connection)
        tables.check_meta(connection)
        done = tables.read_meta(connection).get(RENEWED_KEY)
        if done is None:
            return False
        rows = connection.execute(self._batch_after(int(done))).fetchall()
        if rows:
            self._writer.index(connection, prepare(from_rows([row[1:] for row in rows])))
            connection.execute(meta.update().where(meta.c.key == RENEWED_KEY).values(value=str(rows[-1][0])))
            logger.info("re-indexed %s up to its message number %d", tables.name, rows[-1][0])
        else:
            connection.execute(meta.delete().where(meta.c.key == RENEWED_KEY))
        return bool(rows)

    def _check_meta(self, connection: sa.Connection, *, reindex: bool) -> None:
        name, signature = self._tables.name, self._tables.signature
        meta = self._tables.read_meta(connection)
        version = meta.get(VERSION_KEY, SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"the table {name!r} has version {version}, this package knows {SCHEMA_VERSION}: upgrade dynamiq-memory"
            )
        stored = meta.get(TOKENIZER_KEY, signature)
        if stored == signature:
            return
        if stored in self._tables.earlier_signatures:
            self._set_tokenizer(connection)
            connection.execute(self._tables.meta.insert(), {"key": RENEWED_KEY, "value": "-1"})
            return
        if not reindex:
            raise ConfigurationError(
                f"the messages in {name!r} are indexed by the tokenizer {stored!r}, not {signature!r}: pass that "
                "tokenizer, or reindex=True to index them again"
            )
        self._reindex(connection)

    def _set_tokenizer(self, connection: sa.Connection) -> None:
        """Let nobody write or search any more by the tokenizer that indexed the messages."""
        tables, meta = self._tables, self._tables.meta
        tables.wait_for_writers(connection)
        connection.execute(meta.update().where(meta.c.key == TOKENIZER_KEY).values(value=tables.signature))
        connection.execute(meta.delete().where(meta.c.key == RENEWED_KEY))

    def _reindex(self, connection: sa.Connection) -> None:
        self._set_tokenizer(connection)
        last, done = -1, 0
        while rows := connection.execute(self._batch_after(last)).fetchall():
            self._writer.index(connection, prepare(from_rows([row[1:] for row in rows])))
            last = rows[-1][0]
            done += len(rows)
            logger.info("re-indexed %d messages of %s", done, self._tables.name)

    def _batch_after(self, last: int) -> sa.Select[Any]:
        seq = self._tables.messages.c.seq
        return sa.select(seq, *self._tables.columns).where(seq > last).order_by(seq).limit(_BATCH)

    def _embed_missing(self, run: Callable[[Transaction[Any]], Any], embedder: MessageEmbedder) -> None:
        """Embed messages that have no vector, in batches that stay if this is interrupted."""
        vectors = self._tables.vectors
        total = run(Transaction(vectors.count_missing))
        last, done, without = -1, 0, set[int]()
        while found := run(Transaction(partial(vectors.read_missing, after=last, limit=_EMBEDDED_AT_ONCE))):
            messages = from_rows([row[1:] for row in found])
            embedded = embedder.embed(messages)
            rows = [
                {**to_row(message), "seq": row[0], VECTOR: vectors.encoded(vector)}
                for row, message, vector in zip(found, messages, embedded, strict=True)
                if vector is not None
            ]
            without.update(hash_of(row) for row, vector in zip(found, embedded, strict=True) if vector is None)
            if rows:
                run(Transaction(partial(vectors.insert_missing, rows=rows), write=True))
            last = found[-1][0]
            done += len(found)
            logger.info("embedded %d of %d messages of %s", done, total, self._tables.name)
        run(Transaction(partial(vectors.end_embedding, without=without), write=True))

    def _store(self, connection: sa.Connection, messages: Sequence[Message]) -> None:
        self._writer.upsert(connection, self._writer.rows(messages))


def has_table(connection: sa.Connection, table: sa.Table) -> bool:
    """Whether a table exists in the database."""
    return sa.inspect(connection).has_table(table.name, table.schema)


def columns_of(connection: sa.Connection, table: sa.Table) -> set[str]:
    """Return the names of a table's columns in the database; an empty set if it does not exist."""
    if not has_table(connection, table):
        return set()
    return {column["name"] for column in sa.inspect(connection).get_columns(table.name, table.schema)}


def _check_columns(expected: sa.Table, present: set[str]) -> None:
    if present and present != {column.name for column in expected.columns}:
        raise ConfigurationError(
            f"the table {expected.name!r} exists and is not one of this package (its columns are "
            f"{', '.join(sorted(present))}): choose another name"
        )
