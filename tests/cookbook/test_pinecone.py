"""The recipe for Pinecone runs offline and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "cookbook" / "pinecone_store.py"


def test_the_recipe_runs(child_environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("pinecone")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(RECIPE)],
        cwd=tmp_path,
        env={name: value for name, value in child_environment.items() if not name.startswith("PINECONE_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "This process reads its own writes at once:",
        "  assistant: Noted: by rail, in May.",
        "  user: No meat for me, I am a vegetarian.",
        "Elsewhere, 0 of 3 messages are visible.",
        "A moment later, all of them.",
        "By meaning, 'Which restaurant suits her?' finds:",
        "  No meat for me, I am a vegetarian.",
        "Deleted 3 messages of Ann; 1 message of Bob is left.",
    ]
    assert list(tmp_path.iterdir()) == []
