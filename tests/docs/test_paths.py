"""The files named by the architecture page and the contributors' page exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
PATHS = re.compile(r"`((?:dynamiq_memory|adapters|tests|docs|backends|constraints)/[\w./-]*)`")
NOT_YET = ("/redis",)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {path for path in PATHS.findall(text) if not any(part in path for part in NOT_YET)}
    assert len(named) > 5
    missing = [path for path in named if not any((ROOT / base / path).exists() for base in ("", "dynamiq_memory"))]
    assert missing == []


def test_modules_in_the_diagrams_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    diagrams = "".join(re.findall(r"^```mermaid\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    named = set(re.findall(r"[\w/]+\.py", diagrams))
    assert len(named) > 8
    files = [str(path.relative_to(ROOT)) for path in ROOT.glob("dynamiq_memory/**/*.py")]
    files += [str(path.relative_to(ROOT)) for path in ROOT.glob("adapters/*/*_*/**/*.py")]
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []
