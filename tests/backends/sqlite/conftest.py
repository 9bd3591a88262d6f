"""Helpers of the SQLite tests: the file, the tables of the dynamiq package, a record of executed statements."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# As dynamiq 0.69.0 creates it (dynamiq/memory/backends/sqlite.py).
OLD_TABLE = """
        CREATE TABLE IF NOT EXISTS {index_name} (
            id TEXT PRIMARY KEY,
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            metadata TEXT,
            timestamp REAL
        )
    """


class OldFile:
    """A file as the dynamiq package writes and reads it."""

    def __init__(self, path: Path, table: str = "conversations") -> None:
        self.path = path
        self.table = '"' + table.replace('"', '""') + '"'
        self._execute(OLD_TABLE.format(index_name=self.table))

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def raw(self, message_id: Any, role: Any, content: Any, metadata: Any, timestamp: Any) -> None:
        self._execute(
            f"INSERT INTO {self.table} VALUES (?, ?, ?, ?, ?)", (message_id, role, content, metadata, timestamp)
        )

    def add(
        self,
        message_id: str,
        role: str,
        content: str,
        metadata: dict[str, Any],
        tool_calls: list[dict[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> None:
        """As its Memory.add and SQLite.add do together."""
        values = {key: "" if value is None else value for key, value in metadata.items()}
        if tool_calls is not None:
            values["_tool_calls"] = json.dumps(tool_calls)
        if tool_call_id is not None:
            values["_tool_call_id"] = tool_call_id
        if name is not None:
            values["_name"] = name
        self.raw(message_id, role, content, json.dumps(values), values.get("timestamp", 0))

    def rows(self) -> list[Any]:
        """As its SQLite.get_all reads them."""
        return self._execute(f"SELECT id, role, content, metadata, timestamp FROM {self.table} ORDER BY timestamp ASC")

    def schema(self) -> list[Any]:
        return self._execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")


@dataclass
class Record:
    """The statements that were executed, as the driver got them."""

    statements: list[tuple[str, Any]] = field(default_factory=list)

    def selects(self) -> list[tuple[str, Any]]:
        return [(sql, values) for sql, values in self.statements if sql.lstrip().upper().startswith(("SELECT", "WITH"))]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Records every statement of connections that are opened from here on."""
    kept = Record()

    class Cursor(sqlite3.Cursor):
        def execute(self, sql, parameters=(), /):
            kept.statements.append((sql, parameters))
            return super().execute(sql, parameters)

        def executemany(self, sql, parameters, /):
            parameters = list(parameters)
            kept.statements += [(sql, each) for each in parameters]
            return super().executemany(sql, parameters)

    connect = sqlite3.connect

    def recording(*arguments, factory=sqlite3.Connection, **options):
        class Connection(factory):
            def cursor(self, factory=Cursor):
                return super().cursor(factory)

        return connect(*arguments, factory=Connection, **options)

    monkeypatch.setattr(sqlite3, "connect", recording)
    return kept


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def old_file() -> type[OldFile]:
    return OldFile
