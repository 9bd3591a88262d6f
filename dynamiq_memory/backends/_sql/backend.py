"""The operations of both SQL stores, as plans of transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from dynamiq_memory.backends import operations
from dynamiq_memory.backends._embedding import Embed, EmbedQuery
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._sql.neighbours import NeighbourReader
from dynamiq_memory.backends._sql.reader import SQLReader
from dynamiq_memory.backends._sql.search import HybridSearch, Question, WordSearch
from dynamiq_memory.backends._sql.tables import SQLTables
from dynamiq_memory.backends._sql.vectors import DIMENSION_KEY, EMBEDDER_KEY, VECTOR
from dynamiq_memory.backends._sql.writer import Row, SQLWriter
from dynamiq_memory.backends._weights import LARGE, weigh
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.plans import Plan, Step, run
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking.tokenizer import terms_of

_STORING = (operations.Write, operations.Replace, operations.Update)
_WRITING = (*_STORING, operations.Delete, operations.Take)

T_co = TypeVar("T_co", covariant=True)

MAX_MESSAGE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Transaction(Step[T_co]):
    """Work in a transaction that is committed at the end, and rolled back on an error.

    Attributes:
        work: Is called with the connection; its result is the step's.
        write: Whether it writes.
        alone: Whether it is a single statement that may be committed by itself.
        snapshot: Whether its statements must all see the same state.
        large: Whether it would hold up an event loop for milliseconds.
    """

    work: Callable[[sa.Connection], T_co]
    write: bool = False
    alone: bool = False
    snapshot: bool = False
    large: bool = False


class SQLBackend(PlannedBackend):
    """Messages in a SQL table, their terms and vectors in others, all written in one transaction.

    The plan of each operation prepares what is needed and yields one `Transaction`, which `_ask` carries out.
    """

    max_message_bytes: int
    _writer: SQLWriter

    def _use(self, tables: SQLTables) -> None:
        """Set up reading and ranking."""
        self._reader = SQLReader(tables)
        self._neighbours = NeighbourReader(tables)
        self._words: WordSearch = WordSearch(tables, self._reader, self.bm25)
        self._hybrid: WordSearch = HybridSearch(tables, self._reader, self.bm25)
        self._encoded = tables.vectors.encoded
        self._tables = tables

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this instance."""
        vector = self._embedder is not None
        return Capabilities(vector=vector, transactions=True, max_message_bytes=self.max_message_bytes)

    @property
    def stored_embedder(self) -> str | None:
        """The embedder of the store's vectors, also if it is opened without one; None if there are none."""
        meta = self._tables.checked_meta
        return meta.get(EMBEDDER_KEY, "an unnamed embedder") if DIMENSION_KEY in meta else None

    def _plan(self, operation: operations.Operation[Any]) -> Plan[Any]:
        return self._ranking(operation) if isinstance(operation, operations.Search) else self._transaction(operation)

    def _ranking(self, search: operations.Search) -> Plan[list[Message]]:
        """Rank by words, and with an embedder by meaning too."""
        vector = yield from EmbedQuery(search.query)
        ranking = self._words if vector is None else self._hybrid
        question = Question(search, terms_of(self.tokenizer, search.query), vector or ())
        found = yield from Transaction(partial(ranking.search_at_once, question=question))
        if found is None:
            found = yield from Transaction(partial(ranking.search, question=question), snapshot=True)
        return found

    def _transaction(self, operation: operations.Operation[Any]) -> Plan[Any]:
        """Perform an operation in a transaction; in a thread if there is much to write."""
        write = type(operation) in _WRITING  # isinstance is slow with abstract classes
        messages = operation.messages if write and isinstance(operation, _STORING) else ()
        rows = (yield from self._rows(messages)) if messages else []
        large = weigh(rows) >= LARGE
        if type(operation) is operations.Write and self._writer.fits_at_once(rows):
            at_once = partial(self._writer.write_at_once, rows=rows)
            if (yield from Transaction(at_once, write=True, alone=True, large=large)):
                return None
        work = partial(self._within, operation=operation, rows=rows)
        return (yield from Transaction(work, write=write, large=large))

    def _rows(self, messages: Sequence[Message]) -> Plan[list[Row]]:
        """Make the rows of messages."""
        if self._embedder is None:
            return self._writer.rows(messages)
        vectors = yield from Embed(messages)
        rows = self._writer.rows(messages)
        encoded = [None if vector is None else self._encoded(vector) for vector in vectors]
        return [row | {VECTOR: vector} for row, vector in zip(rows, encoded, strict=True)]

    def _within(  # noqa: C901, PLR0911 - a table of the operations
        self, connection: sa.Connection, operation: operations.Operation[Any], rows: Sequence[Row] = ()
    ) -> Any:
        """Perform an operation within a transaction."""
        reader, writer = self._reader, self._writer
        match operation:
            case operations.Read(filter, limit, before, after):
                return reader.read(connection, filter, limit, before, after)
            case operations.Around(filter, anchors, before_count, after_count):
                return self._neighbours.around(connection, filter, anchors, before_count, after_count)
            case operations.AroundPage():
                return self._neighbours.page(connection, operation)
            case operations.ReadPage():
                return reader.read_page(connection, operation)
            case operations.Write():
                return writer.write(connection, rows)
            case operations.Count(filter):
                return reader.count(connection, filter)
            case operations.Sessions(filter):
                return reader.sessions(connection, filter)
            case operations.Delete(filter):
                return writer.delete(connection, filter)
            case operations.Take(filter):
                return writer.take(connection, filter)
            case operations.Replace(filter):
                return writer.replace(connection, filter, rows)
            case operations.Update(filter, messages):
                return writer.update(connection, filter, messages, rows)
        return run(operation.default_plan(self), partial(self._within, connection))
