"""The recipe for Weaviate runs offline and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "cookbook" / "weaviate_store.py"


def test_the_recipe_runs(child_environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("weaviate")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(RECIPE)],
        cwd=tmp_path,
        env={name: value for name, value in child_environment.items() if not name.startswith("WEAVIATE_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "By meaning, 'Which restaurant suits her?' finds:",
        "  No meat for me, I am a vegetarian.",
        "By words, 'in May' finds 2 messages.",
        "With the topic food, and sure: 1",
        "Another tenant sees: []",
        "Deleted: 3",
        "Left: 0",
    ]
    assert list(tmp_path.iterdir()) == []
