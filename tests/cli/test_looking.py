"""Looking into a store."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import SQLite
from dynamiq_memory.cli import output
from dynamiq_memory.transfer import Totals
from tests.cli.conftest import Run
from tests.fakes.embedders import NGrams


def test_sessions(run: Run, store: str) -> None:
    assert run("sessions", store).stdout.splitlines() == [
        "USER\tSESSION\tMESSAGES\tFIRST (UTC)\tLAST (UTC)",
        "u-2\ts-1\t1\t2025-06-15 15:06:40\t2025-06-15 15:06:40",
        "u-1\ts-1\t4\t2023-11-14 22:13:20\t2023-11-14 22:13:23",
    ]
    (line,) = run("sessions", store, "--user", "u-1", "--json").stdout.splitlines()
    assert json.loads(line) == {"user_id": "u-1", "session_id": "s-1", "messages": 4, "first": 1.7e9, "last": 1.7e9 + 3}
    assert len(run("sessions", store, "--limit", "1", "--json").stdout.splitlines()) == 1


def test_a_chat_cannot_change_the_terminal(run: Run, store: str) -> None:
    assert run("show", store, "--user", "u-1", "--session", "s-1").stdout.splitlines() == [
        "user · 2023-11-14 22:13:20",
        "  When does the ferry to Ostend leave?",
        "assistant · 2023-11-14 22:13:21",
        '  → timetable({"to": "Ostend"})',
        "tool timetable · 2023-11-14 22:13:22",
        "  9:40",
        "assistant · 2023-11-14 22:13:23",
        "  At 9:40.",
        "  \\x1b[31mBe early.",
    ]
    lines = run("show", store, "--user", "u-1", "--session", "s-1", "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["content"] for line in lines] == ["9:40", "At 9:40.\n\x1b[31mBe early."]
    assert "no messages" in run("show", store, "--session", "none").stderr


@pytest.mark.parametrize("command", [("show",), ("recall", "ferry")])
def test_a_session_of_several_users_needs_a_user(run: Run, store: str, command: tuple[str, ...]) -> None:
    name, *query = command
    refused = run(name, store, *query, "--session", "s-1", code=2)
    assert refused.stdout == ""
    assert refused.stderr == "error: several users have the session 's-1' ('u-1', 'u-2'): give --user\n"
    assert run(name, store, *query, "--session", "s-1", "--user", "u-2").stdout.count("No ferry today.") >= 1


def test_following_shows_what_is_new_until_an_interrupt(
    run: Run, store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = iter(["Until then.", None])

    def wait(_: float) -> None:
        text = next(waits)
        if text is None:
            raise KeyboardInterrupt
        with SQLite(folder / "a.db") as backend:
            backend.add(Message(role="user", content=text, metadata={"user_id": "u-2", "session_id": "s-1"}))

    monkeypatch.setattr(time, "sleep", wait)
    shown = run("show", store, "--user", "u-2", "--session", "s-1", "--follow").stdout.splitlines()
    assert shown[1::2] == ["  No ferry today.", "  Until then."]


def test_search_says_what_scores_are_made_of(run: Run, store: str) -> None:
    first, line = run("search", store, "ferry to Ostend", "--limit", "1").stdout.splitlines()
    assert first.startswith("user · 2023-11-14 22:13:20 · u-1, s-1 · ")
    assert "(words " in first
    assert line == "  When does the ferry to Ostend leave?"
    (found,) = run("search", store, "ferry", "--user", "u-2", "--json").stdout.splitlines()
    assert json.loads(found)["id"] == "m-4"
    assert json.loads(found)["score_parts"]["words"] > 0
    nothing = run("search", store, "zeppelin")
    assert (nothing.stdout, nothing.stderr) == ("", "nothing matches\n")


def test_recall_shows_each_strategy(run: Run, store: str) -> None:
    shown = run("recall", store, "When does the ferry leave?", "--user", "u-1", "--session", "s-1").stdout
    headings = [line for line in shown.splitlines() if " messages, " in line]
    assert [heading.split(":")[0] for heading in headings] == ["all", "relevant", "both"]
    assert "· match " in shown
    assert "· context" in shown
    (line,) = run("recall", store, "ferry", "--strategy", "relevant", "--json").stdout.splitlines()
    found = json.loads(line)
    assert (found["strategy"], found["messages"][0]["reason"], found["tokens"] > 0) == ("relevant", "match", True)


def test_stats(run: Run, store: str) -> None:
    found = json.loads(run("stats", store, "--json").stdout)
    assert found == {
        "messages": 5,
        "sessions": 2,
        "users": 2,
        "messages_without_user": 0,
        "median_of_a_session": 2.5,
        "largest_session": 4,
        "first": 1.7e9,
        "last": 1.75e9,
        "last_used": {"2023-11": 1, "2025-06": 1},
    }
    lines = run("stats", store).stdout.splitlines()
    assert lines[0].split() == ["messages", "5"]
    assert lines[-3] == "sessions by the month (UTC) of their last message"
    assert lines[-1].startswith("2025-06 ")
    assert lines[-1].endswith("█ 1")


def test_messages_without_a_user_and_superseded_ones(run: Run, folder: Path) -> None:
    with SQLite(folder / "n.db") as backend:
        backend.add(Message(role="user", content="Helo", timestamp=1.7e9, metadata={"superseded_at": 1.8e9}))
    found = json.loads(run("stats", "sqlite:///n.db", "--json").stdout)
    assert (found["users"], found["messages_without_user"]) == (0, 1)
    (line, _) = run("search", "sqlite:///n.db", "Helo").stdout.splitlines()
    assert line.startswith("user · 2023-11-14 22:13:20 · superseded · ")


def test_the_doctor(run: Run, store: str, folder: Path) -> None:
    checks = {
        each["name"]: each
        for each in map(json.loads, run("doctor", store, "--full", "--write", "--json").stdout.splitlines())
    }
    assert list(checks) == ["versions", "opens", "reads", "searches", "counts", "clock", "writes"]
    assert all(each["ok"] for each in checks.values())
    assert "SQLAlchemy 2." in checks["opens"]["detail"]
    assert checks["counts"]["detail"] == "5 messages"
    with SQLite(folder / "a.db") as backend:
        assert backend.count() == 5
        backend.add(Message(role="user", content="from the future", timestamp=time.time() + 5000))
    assert len(run("doctor", store).stdout.splitlines()) == 4
    failed = run("doctor", store, "--full", code=1).stdout
    assert "failed clock: the newest message is of" in failed
    assert "correct the clock" in failed
    missing = run("doctor", "sqlite:///typo.db", code=1).stdout.splitlines()
    assert missing[1].startswith("failed opens: there is no SQLite file")
    assert missing[1].endswith("put it back, or write to it with `copy` or `import`, which create it")
    assert not (folder / "typo.db").exists()


class Named(NGrams):
    name = "n-grams"


def test_the_doctor_names_an_embedder_that_is_missing(run: Run, store: str, folder: Path) -> None:
    assert run("doctor", store).stdout.splitlines()[-1] == "ok     searches: by words"
    with SQLite(folder / "v.db", embedder=Named()) as backend:
        backend.add(Message(role="user", content="The ferry leaves."))
    searches = run("doctor", "sqlite:///v.db").stdout.splitlines()[-1]
    assert "this store has vectors of 'n-grams', and is opened without an embedder: add ?embedder=" in searches


def test_a_terminal_gets_aligned_tables_and_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    output.print_table(("USER", "SESSION"), [["[bold]u-1\x1b", "s" * 40]])
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 30
    assert table.count("s") == 40
    assert "[bold]u-1\\x1b" in table
    with output.progress_bar("copying") as progress:
        progress(Totals(10, read=5))
    assert "5/10" in capsys.readouterr().err
