"""The operations of both SQL stores, as plans of transactions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._sql.reader import SQLReader
from dynamiq_memory.backends._sql.search import WordSearch
from dynamiq_memory.backends._sql.steps import Transaction
from dynamiq_memory.backends._sql.writer import Row, SQLWriter
from dynamiq_memory.backends.operations import (
    Around,
    Count,
    Delete,
    Operation,
    Read,
    Replace,
    Search,
    Sessions,
    Take,
    Update,
    Write,
)
from dynamiq_memory.backends.plans import Compute, Plan
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking.tokenizer import terms_of

# Preparing or writing more rows than this would hold up an event loop for milliseconds.
_BATCH_ON_THE_LOOP = 50


class SQLBackend(PlannedBackend):
    """Messages in a SQL table, their terms in another, both written in one transaction.

    The plan of each operation prepares what is needed and yields one `Transaction`, which `_ask` carries out.
    """

    _reader: SQLReader
    _writer: SQLWriter
    _words: WordSearch

    def _plan(self, operation: Operation[Any]) -> Plan[Any]:
        match operation:
            case Write() | Replace() | Update():
                return self._changing(operation)
            case Search():
                return self._ranking(operation)
        transaction = self._transaction(operation)
        return super()._plan(operation) if transaction is None else iter(transaction)

    def _transaction(self, operation: Operation[Any]) -> Transaction[Any] | None:
        """Return the transaction of an operation that needs no preparation; None if it is done by others."""
        reader, writer = self._reader, self._writer
        match operation:
            case Read(filter, limit, before, after):
                return Transaction(lambda connection: reader.read(connection, filter, limit, before, after))
            case Around(filter, anchors, earlier, later):
                return Transaction(
                    lambda connection: reader.around(connection, anchors, earlier, later, filter), snapshot=True
                )
            case Count(filter):
                return Transaction(lambda connection: reader.count(connection, filter))
            case Sessions(filter):
                return Transaction(lambda connection: reader.sessions(connection, filter))
            case Delete(filter):
                return Transaction(lambda connection: writer.delete(connection, filter), write=True)
            case Take(filter):
                return Transaction(lambda connection: writer.take(connection, filter), write=True)
        return None

    def _changing(self, operation: Write | Replace | Update) -> Plan[Any]:
        """Make the rows of messages, then store them in a transaction; both in a thread if there are many."""
        writer, messages = self._writer, operation.messages
        rows = yield from self._rows(messages)

        def work(connection: sa.Connection) -> Any:
            match operation:
                case Write():
                    return writer.write(connection, rows)
                case Replace(filter):
                    return writer.replace(connection, filter, rows)
                case Update(filter):
                    return writer.update(connection, filter, messages, rows)

        return (yield from Transaction(work, write=True, large=len(rows) > _BATCH_ON_THE_LOOP))

    def _ranking(self, search: Search) -> Plan[list[Message]]:
        """Rank by words."""
        terms, words = terms_of(self.tokenizer, search.query), self._words
        return (
            yield from Transaction(
                lambda connection: words.search(connection, terms, search.filter, search.limit), snapshot=True
            )
        )

    def _rows(self, messages: Sequence[Message]) -> Plan[list[Row]]:
        """Make the rows of messages, in a thread if there are many."""
        if len(messages) <= _BATCH_ON_THE_LOOP:
            return self._writer.rows(messages)
        return (yield from Compute(partial(self._writer.rows, messages)))
