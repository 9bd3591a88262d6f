"""The demo's data is what its README says."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "cookbook" / "data"
Row = dict[str, Any]
QUESTIONS: list[Row] = json.loads((DATA / "questions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in (DATA / "conversation.jsonl").read_text(encoding="utf-8").splitlines()]


def test_counts(rows: list[Row]) -> None:
    assert len(rows) == 315
    assert len({row["session_id"] for row in rows}) == 17
    assert Counter(row["role"] for row in rows) == {"user": 152, "assistant": 151, "tool": 12}
    assert len(QUESTIONS) == 12


def test_times_increase_and_sessions_do_not_mix(rows: list[Row]) -> None:
    assert all(row["timestamp"].endswith("Z") for row in rows)
    times = [dt.datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    runs = [session for session, _ in itertools.groupby(rows, key=lambda row: row["session_id"])]
    assert len(runs) == len(set(runs))
    for session, group in itertools.groupby(rows, key=lambda row: row["session_id"]):
        first = next(group)
        assert session.startswith(first["timestamp"][:10])
        assert first["role"] == "user"


def test_every_message_has_its_keys(rows: list[Row]) -> None:
    keys = {"session_id", "timestamp", "role", "content"}
    for row in rows:
        assert isinstance(row["content"], str)
        if row["role"] == "tool":
            assert row.keys() == keys | {"tool_call_id", "name"}
            json.loads(row["content"])
        elif "tool_calls" in row:
            assert row["role"] == "assistant"
            assert row.keys() == keys | {"tool_calls"}
            assert not row["content"]
        else:
            assert row.keys() == keys
            assert row["content"].strip()


def test_every_tool_call_is_answered_at_once(rows: list[Row]) -> None:
    waiting: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for row in rows:
        if row["role"] == "tool":
            assert waiting.pop(row["tool_call_id"]) == (row["session_id"], row["name"])
            continue
        assert not waiting
        for call in row.get("tool_calls", ()):
            assert call["type"] == "function"
            json.loads(call["function"]["arguments"])
            assert call["id"] not in seen
            seen.add(call["id"])
            waiting[call["id"]] = (row["session_id"], call["function"]["name"])
    assert not waiting
    assert len(seen) == 12


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: str(question["question"])[:30])
def test_the_answers_stand_in_the_named_sessions(rows: list[Row], question: Row) -> None:
    assert question.keys() == {"question", "session_ids", "expect", "note"}
    spoken = {
        session: [r["content"] for r in rows if r["session_id"] == session and r["role"] in ("user", "assistant")]
        for session in question["session_ids"]
    }
    for part in question["expect"]:
        assert any(part in text for texts in spoken.values() for text in texts), part
    for session, texts in spoken.items():
        assert any(part in text for part in question["expect"] for text in texts), session
