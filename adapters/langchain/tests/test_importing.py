"""Tables of LangChain's SQL histories are imported without loss."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, message_to_dict

from dynamiq_memory import Memory
from dynamiq_memory.backends import InMemory
from dynamiq_memory.transfer import Totals, TransferError, import_from
from langchain_dynamiq_memory import DynamiqChatMessageHistory

CALL = {"name": "timetable", "args": {"to": "Ostend"}, "id": "c", "type": "tool_call"}
MESSAGES = [
    HumanMessage("When does the ferry leave?", id="h", additional_kwargs={"lang": "en"}),
    AIMessage("", tool_calls=[CALL], usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    ToolMessage("9:40", tool_call_id="c", artifact={"rows": [1]}, name="timetable"),
    AIMessage("At 9:40.", response_metadata={"model": "m"}),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table as SQLChatMessageHistory of langchain-community makes it, with two sessions."""
    path = tmp_path / "chat histories.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE message_store (id INTEGER NOT NULL PRIMARY KEY, session_id TEXT, message TEXT)")
        for message in MESSAGES:
            for session in ("s-1", "s-2"):
                row = (session, json.dumps(message_to_dict(message)))
                database.execute("INSERT INTO message_store (session_id, message) VALUES (?, ?)", row)
    database.close()
    return path


def test_a_table_is_imported_without_loss(file: Path) -> None:
    backend = InMemory()
    assert import_from(file, backend, format="langchain-sql", user_id="u-1").written == 8
    for session in ("s-1", "s-2"):
        memory = Memory(backend, filters={"user_id": "u-1", "session_id": session})
        assert DynamiqChatMessageHistory(memory, session).messages == MESSAGES
    # The table has grown: the rest is imported, though the table has no ids and no times of messages.
    with sqlite3.connect(file) as database:
        row = ("s-1", json.dumps(message_to_dict(HumanMessage("Thanks."))))
        database.execute("INSERT INTO message_store (session_id, message) VALUES (?, ?)", row)
    database.close()
    again = import_from(f"sqlite:///{file}", backend, format="langchain-sql", user_id="u-1")
    assert again == Totals(read=9, written=1, unchanged=8)
    assert backend.get_all(filters={"session_id": "s-1"})[-1].content == "Thanks."


def test_a_row_that_cannot_be_read_is_named(file: Path) -> None:
    with sqlite3.connect(file) as database:
        rows = [(3, '{"type": "human"'), (5, '{"type": "martian", "data": {"content": ""}}')]
        for number, text in rows:
            database.execute("UPDATE message_store SET message = ? WHERE id = ?", (text, number))
    database.close()
    backend, skipped = InMemory(), list[str]()
    with pytest.raises(TransferError, match="row 3 of message_store: this is not JSON"):
        import_from(file, backend, format="langchain-sql")
    assert import_from(file, backend, format="langchain-sql", on_error="skip", report=skipped.append).skipped == 2
    assert skipped[1].startswith("row 5 of message_store: this is not of the format langchain-sql")
    assert backend.count() == 6


def test_a_file_without_the_table(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(TransferError, match=r"the table 'message_store' cannot be read .*no such table"):
        import_from(tmp_path / "empty.db", InMemory(), format="langchain-sql")
    with pytest.raises(TransferError, match="does not exist"):
        import_from(tmp_path / "gone.db", InMemory(), format="langchain-sql")
