"""What all SQL stores do alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Double,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)

from dynamiq_memory.backends._order import latest_first, session_filter, version_filters, with_stored_version
from dynamiq_memory.backends._sql.filters import clauses, scope_clauses
from dynamiq_memory.backends._sql.prepared import Prepared
from dynamiq_memory.backends._sql.records import COLUMNS, from_rows, to_row
from dynamiq_memory.backends._sql.schema import DIMENSION_KEY, TOKENIZER_KEY, Tables
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.filters import Condition, Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session
from dynamiq_memory.ranking import BM25, Tokenize, packed_terms
from dynamiq_memory.ranking.bm25 import best
from dynamiq_memory.ranking.tokenizer import signature_of, terms_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.sql import ClauseElement
    from sqlalchemy.types import TypeEngine

_T = TypeVar("_T")
_Row = dict[str, Any]
_NO_LIMIT = 2**62
_BEFORE, _AFTER = "before", "after"


class SQLBackend(MemoryBackend):
    """Messages in a SQL table, their terms in another, both written in one transaction.

    Args:
        tables: The tables.
        dialect: The SQL dialect.
        insert: The dialect's INSERT, which knows ON CONFLICT.
        tokenizer: Turns a text into the terms of keyword ranking.
        bm25: The parameters of keyword ranking.
    """

    def __init__(
        self, tables: Tables, dialect: Dialect, insert: Any, *, tokenizer: Tokenize | None, bm25: BM25 | None
    ) -> None:
        """Keep the tables and compile the statements of the common calls."""
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._tables = tables
        self._dialect = dialect
        self._columns = [tables.messages.c[column] for column in COLUMNS]
        self._upsert_messages, self._upsert_terms = (
            Prepared(statement, dialect) for statement in _upserts(tables, insert)
        )
        self._reads: dict[frozenset[str], tuple[Select[Any], Prepared]] = {}
        self._terms_reads: dict[frozenset[str], Prepared] = {}
        seq = tables.messages.c.seq
        by_seq = select(seq, *self._columns).where(self._among(seq, bindparam("many", type_=self._many_type(seq))))
        self._read_by_seq = Prepared(by_seq, dialect)
        meta = tables.meta.c
        checked = (meta.key == TOKENIZER_KEY) | (meta.key == DIMENSION_KEY)
        reading = select(meta.key, meta.value).where(checked)
        self._read_meta = Prepared(reading, dialect)
        # What indexes all messages anew waits for the writers that hold this. SQLite's stand in line: it leaves it out.
        self._hold_meta = Prepared(reading.with_for_update(read=True, key_share=True), dialect)

    @abstractmethod
    def _transaction(self, *, write: bool, snapshot: bool) -> AbstractContextManager[Connection]:
        """A connection in a transaction that commits at the end and rolls back on an error.

        With `snapshot`, several statements that read see one state.
        """

    def _run(self, work: Callable[..., _T], *arguments: Any, write: bool = False, snapshot: bool = False) -> _T:
        """Do work in a transaction."""
        with self._transaction(write=write, snapshot=snapshot) as connection:
            return work(connection, *arguments)

    @abstractmethod
    def _metadata_clause(self, conditions: Sequence[Condition]) -> ColumnElement[bool]:
        """What conditions on metadata keys are in the store's SQL."""

    @abstractmethod
    def _among(self, column: ColumnElement[Any], many: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether a column is one of the values that a parameter holds."""

    @abstractmethod
    def _many_type(self, column: ColumnElement[Any]) -> TypeEngine[Any]:
        """The type of a parameter that holds many values of a column."""

    @abstractmethod
    def _many(self, values: Sequence[Any]) -> Any:
        """Many values as one parameter."""

    # --- the operations: what they need is prepared outside of the transaction, what they do is done within -----

    def _write(self, messages: Sequence[Message]) -> None:
        self._run(self._insert, *self._rows(messages), write=True)

    def _read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        return self._run(self._messages, where, limit, before, after)

    def _around(self, anchors: Sequence[Message], before: int, after: int, where: Filter) -> list[list[Message]]:
        return self._run(self._windows, anchors, before, after, where, snapshot=True)

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return self._run(self._best, terms_of(self.tokenizer, query), where, limit, snapshot=True)

    def _delete(self, where: Filter) -> int:
        return self._run(self._delete_matching, where, write=True)

    def _replace(self, where: Filter, messages: Sequence[Message]) -> None:
        self._run(self._exchange, where, *self._rows(messages), write=True)

    def _update(self, where: Filter, messages: Sequence[Message]) -> list[Message]:
        return self._run(self._overwrite, where, messages, *self._rows(messages), write=True)

    def _take(self, where: Filter) -> list[Message]:
        return self._run(self._withdraw, where, write=True)

    def _count(self, where: Filter) -> int:
        return self._run(self._number, where)

    def _sessions(self, where: Filter) -> list[Session]:
        return self._run(self._conversations, where)

    # --- within a transaction ----------------------------------------------------------------------------------

    def _windows(
        self, connection: Connection, anchors: Sequence[Message], before: int, after: int, where: Filter
    ) -> list[list[Message]]:
        windows = []
        for anchor in anchors:
            within = session_filter(anchor, where)
            earlier = self._messages(connection, within, before, anchor, None) if before else []
            later = self._messages(connection, within, after, None, anchor) if after else []
            windows.append([*earlier, anchor, *later])
        return windows

    def _best(self, connection: Connection, terms: Sequence[str], where: Filter, limit: int | None) -> list[Message]:
        self._check_meta(connection)
        rows = self._terms_within(connection, where)
        scores = self._by_words(terms, rows)
        return self._best_of(connection, rows, scores, where, limit)

    def _by_words(self, terms: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[int, float]:
        """Score rows of terms, by their numbers."""
        return packed_terms.scores(self.bm25, terms, [row[2] for row in rows], [row[3] for row in rows])

    def _best_of(
        self,
        connection: Connection,
        rows: Sequence[Sequence[Any]],
        scores: Mapping[int, float],
        where: Filter,
        limit: int | None,
    ) -> list[Message]:
        """Read the messages of the best of some rows of terms."""
        # Of equal scores the latest first: by timestamp, then by arrival.
        ranked = best(scores, lambda number: (rows[number][1], rows[number][0]), limit)
        found = self._by_seq(connection, [rows[number][0] for number in ranked])
        results = []
        for number in ranked:
            # Terms without their message, or with another's, are what a change by other hands leaves behind.
            message = found.get(rows[number][0])
            if message is not None and where.matches(message):
                message.score = scores[number]
                results.append(message)
        return results

    def _exchange(self, connection: Connection, where: Filter, rows: Sequence[_Row], terms: Sequence[_Row]) -> None:
        self._delete_matching(connection, where)
        if rows:
            self._insert(connection, rows, terms)

    def _overwrite(
        self,
        connection: Connection,
        where: Filter,
        messages: Sequence[Message],
        rows: Sequence[_Row],
        terms: Sequence[_Row],
    ) -> list[Message]:
        held: list[Message] = []
        for versions in version_filters(messages, where):
            held += self._messages(connection, versions, None, None, None, lock=True)
        present = with_stored_version(messages, held)
        if present:
            chosen = set(map(id, present))
            numbers = [number for number, message in enumerate(messages) if id(message) in chosen]
            self._insert(connection, [rows[n] for n in numbers], [terms[n] for n in numbers])
        return present

    def _withdraw(self, connection: Connection, where: Filter) -> list[Message]:
        taken = self._messages(connection, where, None, None, None, lock=True)
        for versions in version_filters(taken):
            self._delete_matching(connection, versions)
        return taken

    def _number(self, connection: Connection, where: Filter) -> int:
        statement = select(func.count()).select_from(self._tables.messages).where(*self._clauses(where))
        return int(connection.execute(statement).scalar_one())

    def _conversations(self, connection: Connection, where: Filter) -> list[Session]:
        columns = self._tables.messages.c
        times = (func.min(columns.timestamp), func.max(columns.timestamp))
        statement = (
            select(columns.user_id, columns.session_id, func.count(), *times)
            .where(*self._clauses(where))
            .group_by(columns.user_id, columns.session_id)
        )
        rows = connection.execute(statement).fetchall()
        found = [Session(user or None, session or None, *numbers) for user, session, *numbers in rows]
        return latest_first(found)

    def _rows(self, messages: Sequence[Message]) -> tuple[list[_Row], list[_Row]]:
        """The rows of messages, and the parameters of `_upsert_terms` for each."""
        rows, parameters = [], []
        for message in messages:
            row = self._row(message)
            terms = terms_of(self.tokenizer, message.text)
            rows.append(row)
            parameters.append(
                {
                    "of_user": row["user_id"],
                    "of_session": row["session_id"],
                    "of_id": row["id"],
                    "how_many": len(terms),
                    "packed": packed_terms.encode(terms),
                }
            )
        return rows, parameters

    def _row(self, message: Message) -> _Row:
        """The values of a message's columns."""
        return to_row(message)

    def _insert(self, connection: Connection, rows: Sequence[_Row], terms: Sequence[_Row]) -> Mapping[str, str]:
        """Write messages and their terms; tell what the table of meta says."""
        meta = self._check_meta(connection, hold=True)
        self._upsert_messages.run(connection, rows)
        self._upsert_terms.run(connection, terms)
        return meta

    def _check_meta(self, connection: Connection, *, hold: bool = False) -> Mapping[str, str]:
        """Refuse to go on when another process has indexed the messages anew with another tokenizer.

        With `hold`, none can until the end of the transaction.
        """
        signature = signature_of(self.tokenizer)
        meta = dict((self._hold_meta if hold else self._read_meta).fetch(connection, {}))
        stored = meta.get(TOKENIZER_KEY, signature)
        if stored != signature:
            raise ConfigurationError(
                f"the messages in {self._tables.messages.name!r} have been indexed anew by the tokenizer "
                f"{stored!r} meanwhile, this object has {signature!r}: make a new one with that tokenizer"
            )
        return meta

    def _delete_matching(self, connection: Connection, where: Filter) -> int:
        messages, terms = self._tables.messages, self._tables.terms
        conditions = self._clauses(where)
        if where.beyond_scope or where.scope(USER_KEY) is None:
            key = (messages.c.user_id, messages.c.session_id, messages.c.seq)
            doomed = select(*key).where(*conditions)
            statement = delete(terms).where(tuple_(*terms.primary_key).in_(doomed))
        else:
            statement = delete(terms).where(*scope_clauses(where, terms, self._one_of_many))
        connection.execute(statement)
        return connection.execute(delete(messages).where(*conditions)).rowcount

    def _clauses(self, where: Filter) -> list[ColumnElement[bool]]:
        return clauses(where, self._tables.messages, self._metadata_clause, self._one_of_many)

    def _one_of_many(self, column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
        return self._among(column, literal(self._many(values), self._many_type(column)))

    def _terms_within(
        self, connection: Connection, where: Filter, near: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        """Read the terms of all messages that match: seq, timestamp, length, packed terms.

        With `near`, the parameters of a query's vector, what `_with_nearness` adds, too.
        """
        told = self._told(where)
        parameters = told if near is None else {**told, **near}
        if USER_KEY in told and self._tells_all(told, where):
            known = frozenset(parameters)
            prepared = self._terms_reads.get(known)
            if prepared is None:
                statement = _select_terms(self._tables, told)
                statement = statement if near is None else self._with_nearness(statement)
                prepared = self._terms_reads[known] = Prepared(statement, self._dialect)
            return prepared.fetch(connection, parameters)
        messages, terms = self._tables.messages, self._tables.terms
        if not where.beyond_scope and where.scope(USER_KEY) is not None:
            clauses_of_scope = scope_clauses(where, terms, self._one_of_many)
            statement = _select_terms(self._tables, ()).where(*clauses_of_scope)
        else:
            same = [terms.c[name] == messages.c[name] for name in ("user_id", "session_id", "seq")]
            both = messages.join(terms, and_(*same))
            statement = _select_terms(self._tables, (), both).where(*self._clauses(where))
        if near is not None:
            return connection.execute(self._with_nearness(statement), near).fetchall()
        return connection.execute(statement).fetchall()

    def _with_nearness(self, statement: Select[Any]) -> Select[Any]:
        """Add to a SELECT of terms how near each message's vector is, where a store has vectors."""
        raise NotImplementedError

    def _by_seq(self, connection: Connection, numbers: Sequence[int]) -> Mapping[int, Message]:
        rows = self._read_by_seq.fetch(connection, {"many": self._many(numbers)})
        return dict(zip([row[0] for row in rows], from_rows([row[1:] for row in rows]), strict=True))

    @staticmethod
    def _told(where: Filter) -> dict[str, str]:
        """What a filter says of the scope by single values: parameters of the compiled statements."""
        told = {}
        for key in (USER_KEY, SESSION_KEY):
            allowed = where.scope(key)
            if allowed is not None and len(allowed) == 1:
                told[key] = allowed[0] or ""
        return told

    @staticmethod
    def _tells_all(told: Collection[str], where: Filter) -> bool:
        """Whether single values of the scope are all that a filter says."""
        return not where.beyond_scope and all(
            where.scope(key) is None or key in told for key in (USER_KEY, SESSION_KEY)
        )

    def _messages(
        self,
        connection: Connection,
        where: Filter,
        limit: int | None,
        before: Message | None,
        after: Message | None,
        *,
        lock: bool = False,
    ) -> list[Message]:
        """Read, oldest first; what the compiled statements do not tell of the filter is added as clauses.

        With `lock`, others who would change these messages wait for the end of the transaction.
        """
        told: dict[str, Any] = self._told(where)
        whole = self._tells_all(told, where)
        sides = [side for side, anchor in ((_BEFORE, before), (_AFTER, after)) if anchor is not None]
        statement, prepared = self._reading(frozenset((*told, *sides)))
        parameters = told | {"most": _NO_LIMIT if limit is None else limit}
        for side, anchor in ((_BEFORE, before), (_AFTER, after)):
            if anchor is not None:
                parameters[f"{side}_user"] = anchor.user_id or ""
                parameters[f"{side}_session"] = anchor.session_id or ""
                parameters[f"{side}_id"] = anchor.id
                parameters[f"{side}_time"] = anchor.timestamp or 0.0
        rows: Sequence[Any]
        if whole and not lock:
            rows = prepared.fetch(connection, parameters)
        else:
            statement = statement.where(*self._clauses(where))
            # A store whose writers stand in line has no FOR UPDATE: its dialect leaves it out.
            rows = connection.execute(statement.with_for_update() if lock else statement, parameters).fetchall()
        return from_rows(rows[::-1] if after is None else rows)

    def _reading(self, told: frozenset[str]) -> tuple[Select[Any], Prepared]:
        found = self._reads.get(told)
        if found is None:
            statement = _select(self._tables, self._columns, told)
            found = self._reads[told] = (statement, Prepared(statement, self._dialect))
        return found


def _select_terms(tables: Tables, told: Collection[str], source: FromClause | None = None) -> Select[Any]:
    """A SELECT of terms by those of user_id and session_id that are told, from their table or a join with it."""
    columns = tables.terms.c
    statement = select(columns.seq, columns.timestamp, columns.length, columns.terms)
    statement = statement.select_from(tables.terms if source is None else source)
    return statement.where(*(columns[key] == bindparam(key, type_=Text) for key in told))


def _select(tables: Tables, columns: Sequence[Any], told: frozenset[str]) -> Select[Any]:
    """A SELECT of messages by those of user_id, session_id, before and after that are told."""
    table = tables.messages
    statement: Select[Any] = select(*columns)
    for key in (USER_KEY, SESSION_KEY):
        if key in told:
            statement = statement.where(table.c[key] == bindparam(key, type_=Text))
    for side in (_BEFORE, _AFTER):
        if side in told:
            statement = statement.where(_beside(table, side))
    order = (table.c.timestamp, table.c.seq)
    statement = statement.order_by(*(order if _AFTER in told else [column.desc() for column in order]))
    return statement.limit(bindparam("most", type_=BigInteger))


def _beside(table: Table, side: str) -> ColumnElement[bool]:
    """What holds for the messages before or after a stored one, which may be gone meanwhile."""
    anchor = table.alias(f"{side}_anchor")
    this = (
        (anchor.c.user_id == bindparam(f"{side}_user", type_=Text))
        & (anchor.c.session_id == bindparam(f"{side}_session", type_=Text))
        & (anchor.c.id == bindparam(f"{side}_id", type_=Text))
    )
    own_time, own_seq = (select(anchor.c[name]).where(this).scalar_subquery() for name in ("timestamp", "seq"))
    time = func.coalesce(own_time, bindparam(f"{side}_time", type_=Double))
    seq = func.coalesce(own_seq, literal_column("-1"))
    # Written so that an index on the timestamp bounds the read.
    if side == _AFTER:
        return (table.c.timestamp >= time) & ((table.c.timestamp > time) | (table.c.seq > seq))
    return (table.c.timestamp <= time) & ((table.c.timestamp < time) | (table.c.seq < seq))


def _upserts(tables: Tables, insert: Any) -> tuple[ClauseElement, ClauseElement]:
    """INSERT … ON CONFLICT DO UPDATE for the messages, and for the terms of a message that is in its table."""
    messages, terms = tables.messages, tables.terms
    key = ("user_id", "session_id", "id")
    columns = [column for column in messages.c if column is not messages.c.seq]
    into_messages = insert(messages).values({c.name: bindparam(c.name, type_=c.type) for c in columns})
    into_messages = into_messages.on_conflict_do_update(
        index_elements=list(key),
        set_={c.name: into_messages.excluded[c.name] for c in columns if c.name not in key},
    )
    stored = select(
        messages.c.user_id,
        messages.c.session_id,
        messages.c.seq,
        messages.c.timestamp,
        bindparam("how_many", type_=Integer),
        bindparam("packed", type_=LargeBinary),
    ).where(
        messages.c.user_id == bindparam("of_user", type_=Text),
        messages.c.session_id == bindparam("of_session", type_=Text),
        messages.c.id == bindparam("of_id", type_=Text),
    )
    into_terms = insert(terms).from_select([column.name for column in terms.columns], stored)
    into_terms = into_terms.on_conflict_do_update(
        index_elements=[column.name for column in terms.primary_key],
        set_={column: into_terms.excluded[column] for column in ("timestamp", "length", "terms")},
    )
    return into_messages, into_terms
