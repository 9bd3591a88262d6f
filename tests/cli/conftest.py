"""A store with a conversation, and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynamiq_memory import Message
from dynamiq_memory.backends import SQLite
from dynamiq_memory.cli import app

Run = Callable[..., Result]

CALL = {"id": "c", "type": "function", "function": {"name": "timetable", "arguments": '{"to": "Ostend"}'}}
CHAT = [
    Message(role="user", content="When does the ferry to Ostend leave?"),
    Message(role="assistant", tool_calls=[CALL]),
    Message(role="tool", content="9:40", tool_call_id="c", name="timetable"),
    Message(role="assistant", content="At 9:40.\n\x1b[31mBe early."),
]


def chat() -> list[Message]:
    """A turn with a call of a tool, and a question of another user."""
    messages = [
        each.model_copy(
            update={
                "id": f"m-{number}",
                "timestamp": 1.7e9 + number,
                "metadata": {"user_id": "u-1", "session_id": "s-1"},
            }
        )
        for number, each in enumerate(CHAT)
    ]
    other = {"user_id": "u-2", "session_id": "s-1"}
    return [*messages, Message(role="user", content="No ferry today.", id="m-4", timestamp=1.75e9, metadata=other)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the command runs, and in which the user's settings are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def store(folder: Path) -> str:
    """The URL of a store with the conversation."""
    with SQLite(folder / "a.db", synchronous="NORMAL") as backend:
        backend.add_many(chat())
    return "sqlite:///a.db"


@pytest.fixture
def run(folder: Path) -> Run:
    """Runs the command, and checks how it ends."""

    def invoke(*arguments: str, code: int = 0, data: bytes | None = None) -> Result:
        result = CliRunner().invoke(app, arguments, input=data)
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        return result

    return invoke
