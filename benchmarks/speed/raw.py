"""The bare drivers, by hand: an open connection, raw tuples, and what a search needs kept in the same transaction."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from heapq import nlargest
from math import log
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.speed.contests import Contestant
from benchmarks.speed.messages import BIG_SESSION, BIG_USER, SCRATCH, Case, Row, role_of
from benchmarks.speed.ours import APPENDS, HITS, NEWEST, THREADS
from dynamiq_memory.ranking import Tokenizer

Values = tuple[str, str, float, str, str]
_second = itemgetter(1)


class Session:
    """A list, and an inverted index that is updated at each append."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows: list[Values] = []
        self.lengths: list[int] = []
        self.postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    def append(self, row: Values, terms: Sequence[str]) -> None:
        """Append to the list and to the postings."""
        number = len(self.rows)
        self.rows.append(row)
        self.lengths.append(len(terms))
        for term, count in Counter(terms).items():
            self.postings[term].append((number, count))


class Lists(Contestant):
    """A dict of lists with inverted indexes. A search takes BM25 by the statistics of the user, and nothing else."""

    name = "dict of lists, inverted index"

    def __init__(self) -> None:
        """Begin empty."""
        self.users: defaultdict[str, defaultdict[str, Session]] = defaultdict(lambda: defaultdict(Session))
        self._tokenize = Tokenizer()

    def load(self, rows: Sequence[Row]) -> None:
        """Append to the lists."""
        self._add(list(map(_values, rows)))

    def append(self, case: Case) -> None:
        """Append to a list."""
        self._add(_made(case, case.texts[:1]))

    def batch(self, case: Case) -> None:
        """Extend a list."""
        self._add(_made(case, case.texts))

    def newest(self, case: Case) -> object:
        """Slice a list."""
        return self.users[case.user]["session-1"].rows[-NEWEST:]

    def search(self, case: Case) -> object:
        """Rank by BM25."""
        sessions = self.users[BIG_USER].values()
        total = sum(len(session.rows) for session in sessions)
        average = sum(sum(session.lengths) for session in sessions) / total
        scores: defaultdict[tuple[int, int], float] = defaultdict(float)
        for term in set(self._tokenize(case.query)):
            found = [(session, session.postings.get(term, ())) for session in sessions]
            frequency = sum(len(postings) for _, postings in found)
            weight = log(1 + (total - frequency + 0.5) / (frequency + 0.5))
            for place, (session, postings) in enumerate(found):
                for number, count in postings:
                    length = session.lengths[number] / average
                    scores[place, number] += weight * count * 1.9 / (count + 0.9 * (0.25 + 0.75 * length))
        lists = [session.rows for session in sessions]
        return [(score, lists[place][number]) for (place, number), score in nlargest(HITS, scores.items(), key=_second)]

    def both(self, case: Case) -> object:
        """Slice a list and rank: matches without their turns."""
        return self.users[BIG_USER][BIG_SESSION].rows[-NEWEST:], self.search(case)

    def replace(self, case: Case) -> None:
        """Replace a list."""
        self.users[case.user].pop(SCRATCH, None)
        self._add(_made(case, case.texts[:50]))

    def is_empty(self, _: Case) -> object:
        """Look whether there is a list."""
        return not self.users

    def count(self, _: Case) -> object:
        """Add the lengths of the lists."""
        return sum(len(session.rows) for sessions in self.users.values() for session in sessions.values())

    def _add(self, rows: Sequence[Values]) -> None:
        for row in rows:
            self.users[row[0]][row[1]].append(row, self._tokenize(row[4]))


class RawSQL(Contestant):
    """Statements that every SQL database takes; `%s` stands for a parameter."""

    INSERT = "INSERT INTO messages (user_id, session_id, timestamp, role, content) VALUES (%s, %s, %s, %s, %s)"
    NEWEST = (
        "SELECT role, content, timestamp FROM messages WHERE user_id = %s AND session_id = %s"
        " ORDER BY timestamp DESC LIMIT %s"
    )
    DELETE = "DELETE FROM messages WHERE user_id = %s AND session_id = %s"

    def load(self, rows: Sequence[Row]) -> None:
        """Insert in one transaction."""
        self.insert(list(map(_values, rows)))

    def append(self, case: Case) -> object:
        """Insert a row."""
        return self.insert(_made(case, case.texts[:1]))

    def batch(self, case: Case) -> object:
        """Insert rows in one transaction."""
        return self.insert(_made(case, case.texts))

    def newest(self, case: Case) -> object:
        """Select the newest rows of a session."""
        return self.select(self.NEWEST, (case.user, "session-1", NEWEST))

    def search(self, case: Case) -> object:
        """Match any of the words, and filter by user."""
        raise NotImplementedError

    def both(self, case: Case) -> object:
        """Select the newest rows and search: matches without their turns."""
        return self.select(self.NEWEST, (BIG_USER, BIG_SESSION, NEWEST)), self.search(case)

    def replace(self, case: Case) -> object:
        """Delete and insert in one transaction."""
        return self.insert(_made(case, case.texts[:50]), replaced=(case.user, SCRATCH))

    def insert(self, rows: Sequence[Values], replaced: tuple[str, str] | None = None) -> object:
        """Insert rows in one transaction, after deleting a session."""
        raise NotImplementedError

    def select(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Select rows."""
        raise NotImplementedError


class RawSQLite(RawSQL):
    """The sqlite3 module, with FTS5."""

    name = "sqlite3 with FTS5"
    SEARCH = (
        "SELECT messages.content, rank FROM found JOIN messages ON messages.rowid = found.rowid"
        " WHERE found MATCH ? AND messages.user_id = ? ORDER BY rank LIMIT ?"
    )
    TABLES = (
        "CREATE TABLE IF NOT EXISTS messages (user_id TEXT, session_id TEXT, timestamp REAL, role TEXT, content TEXT)",
        "CREATE INDEX IF NOT EXISTS by_scope ON messages (user_id, session_id, timestamp)",
        "CREATE VIRTUAL TABLE IF NOT EXISTS found USING fts5(content, content='messages', tokenize='porter unicode61')",
        """CREATE TRIGGER IF NOT EXISTS inserted AFTER INSERT ON messages BEGIN
        INSERT INTO found (rowid, content) VALUES (new.rowid, new.content); END""",
        """CREATE TRIGGER IF NOT EXISTS deleted AFTER DELETE ON messages BEGIN
        INSERT INTO found (found, rowid, content) VALUES ('delete', old.rowid, old.content); END""",
    )

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._path = path
        self._connection = self._open()

    def insert(self, rows: Sequence[Values], replaced: tuple[str, str] | None = None) -> object:
        """Insert rows in one transaction, after deleting a session."""
        return self._insert(self._connection, rows, replaced)

    def _insert(
        self, connection: sqlite3.Connection, rows: Sequence[Values], replaced: tuple[str, str] | None = None
    ) -> object:
        connection.execute("BEGIN IMMEDIATE")
        if replaced is not None:
            connection.execute(self.DELETE.replace("%s", "?"), replaced)
        connection.executemany(self.INSERT.replace("%s", "?"), rows)
        return connection.execute("COMMIT")

    def select(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Select rows."""
        return self._connection.execute(statement.replace("%s", "?"), parameters).fetchall()

    def search(self, case: Case) -> object:
        """Match any of the words, and filter by user."""
        words = " OR ".join(f'"{word}"' for word in case.query.split())
        return self.select(self.SEARCH, (words, BIG_USER, HITS))

    def open_and_append(self, case: Case) -> object:
        """Open the file, insert a row, and close it."""
        with closing(self._open()) as connection:
            return self._insert(connection, _made(case, case.texts[:1]))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        for statement in self.TABLES:
            connection.execute(statement)
        return connection


class RawPostgreSQL(RawSQL):
    """Psycopg, with a GIN index of text search."""

    name = "psycopg with GIN"
    SEARCH = (
        "SELECT content, ts_rank(terms, query) AS rank FROM messages, to_tsquery('english', %s) query"
        " WHERE terms @@ query AND user_id = %s ORDER BY rank DESC LIMIT %s"
    )
    TABLES = (
        """CREATE TABLE IF NOT EXISTS messages (user_id TEXT, session_id TEXT, timestamp FLOAT8, role TEXT,
        content TEXT, terms TSVECTOR GENERATED ALWAYS AS (to_tsvector('english', content)) STORED)""",
        "CREATE INDEX IF NOT EXISTS by_scope ON messages (user_id, session_id, timestamp)",
        "CREATE INDEX IF NOT EXISTS by_term ON messages USING gin (terms)",
    )

    def __init__(self, url: str, schema: str) -> None:
        """Connect."""
        self._url, self._schema = url, schema
        self._connection: psycopg.Connection[Any] = self._open()
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
        for statement in self.TABLES:
            self._connection.execute(statement.encode())
        self._connections = [self._open() for _ in range(THREADS)]
        self._threads = ThreadPoolExecutor(THREADS)

    def prepare(self) -> None:
        """Gather statistics, as a server does after a while."""
        self._connection.execute("VACUUM ANALYZE messages")

    def insert(self, rows: Sequence[Values], replaced: tuple[str, str] | None = None) -> object:
        """Insert rows in one transaction, after deleting a session."""
        if len(rows) == 1 and replaced is None:
            return self._connection.execute(self.INSERT.encode(), rows[0])
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if replaced is not None:
                cursor.execute(self.DELETE.encode(), replaced)
            cursor.executemany(self.INSERT.encode(), rows)
        return None

    def select(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Select rows."""
        return self._connection.execute(statement.encode(), parameters).fetchall()

    def search(self, case: Case) -> object:
        """Match any of the words, and filter by user."""
        return self.select(self.SEARCH, (" | ".join(case.query.split()), BIG_USER, HITS))

    def open_and_append(self, case: Case) -> object:
        """Connect, insert a row, and close the connection."""
        with self._open() as connection:
            return connection.execute(self.INSERT.encode(), _made(case, case.texts[:1])[0])

    def threads_one_session(self, case: Case) -> object:
        """Insert rows from several threads, each with a connection of its own."""
        rows = _made(case, case.texts[:APPENDS])

        def work(number: int) -> None:
            for row in rows:
                self._connections[number].execute(self.INSERT.encode(), row)

        return list(self._threads.map(work, range(THREADS)))

    threads_own_sessions = threads_one_session

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown()
        for connection in (self._connection, *self._connections):
            connection.close()

    def _open(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, autocommit=True, options=f"-c search_path={self._schema}")


def _values(row: Row) -> Values:
    return row.user, row.session, row.timestamp, row.role.value, row.text


def _made(case: Case, texts: Sequence[str]) -> list[Values]:
    now = time.time()
    return [(case.user, SCRATCH, now + n * 1e-6, role_of(n).value, text) for n, text in enumerate(texts)]
