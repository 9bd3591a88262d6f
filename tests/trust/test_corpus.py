"""Inputs that once failed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.trust.corpus import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_what_once_failed(name: str, tmp_path: Path) -> None:
    with CHECKS[name](tmp_path) as check:
        tally = check(Random(0))
    assert tally.operations > 10
    assert tally.is_clean, "\n".join(tally.seen)
