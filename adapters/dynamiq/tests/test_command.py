"""The dynamiq package's own command, `dynamiq memory …`, as a client of our service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from click.testing import CliRunner

from dynamiq_memory.backends import InMemory
from dynamiq_memory.server.keys import KeyStore
from tests.service.serving import serving

Command = Callable[..., Any]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs the command with a key for the memories `m` and `n`; `m` holds messages of two users."""
    group = import_module("dynamiq.cli.commands.memory").memory
    with InMemory() as store, KeyStore(tmp_path / "keys.db") as keys, serving(store, keys) as service:
        for name, value in (("BASE_URL", service.url), ("TOKEN", keys.create(["m", "n"])[1])):
            monkeypatch.setenv(f"DYNAMIQ_API_{name}", value)
        monkeypatch.setenv("DYNAMIQ_PROJECT_ID", "p")

        def run(*arguments: str, status: int = 0) -> Any:
            result = CliRunner().invoke(group, arguments)
            assert result.exit_code == status, result.output
            return json.loads(result.stdout) if status == 0 else result.output

        with service.client(keys.create(["m"])[1]) as client:
            for number in range(60):
                session = None if number % 3 == 0 else f"s{number % 3}"
                body = {"user_id": "alex", "session_id": session, "data": {"role": "user", "content": f"{number}"}}
                client.post("/v1/memories/m/items", json=body).raise_for_status()
            client.post("/v1/memories/m/items", json=body | {"user_id": "kim"}).raise_for_status()
        yield run


def texts(items: list[Any]) -> list[int]:
    return [int(each["data"]["content"][0]["text"]) for each in items]


def test_all_items_of_a_user_are_listed_in_pages(command: Command) -> None:
    everything = command("items", "m", "--user-id", "alex", "--all", "--page-size", "25")
    assert texts(everything["data"]) == list(range(59, -1, -1))
    page = command("items", "m", "--user-id", "alex", "--page-size", "25", "--page", "3")
    assert texts(page["data"]) == list(range(9, -1, -1))
    assert page["pagination"] == {"page_count": 3, "total_count": 60}
    session = command("items", "m", "--user-id", "alex", "--session-id", "s1", "--all")
    assert texts(session["data"]) == list(range(58, 0, -3))


def test_a_session_or_a_user_is_cleared(command: Command) -> None:
    assert command("clear", "m", "--user-id", "alex", "--session-id", "s1", "--yes") == {"deleted": 20}
    assert command("items", "m", "--user-id", "alex")["pagination"]["total_count"] == 40
    # On the platform, messages in sessions would stay.
    assert command("clear", "m", "--user-id", "alex", "--yes") == {"deleted": 40}
    assert command("items", "m", "--user-id", "kim")["pagination"]["total_count"] == 1


def test_memories_are_listed_begun_described_and_emptied(command: Command) -> None:
    assert [each["id"] for each in command("list", "--all")["data"]] == ["m", "n"]
    assert command("create", '{"name": "n"}')["data"]["id"] == "n"
    assert "keys create" in command("create", '{"name": "o"}', status=1)
    assert command("get", "m")["memory_id"] == "m"
    assert command("delete", "m", "--yes") == {"deleted": 61}
    assert command("items", "m", "--user-id", "alex", "--all")["data"] == []
