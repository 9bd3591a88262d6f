"""Requests that fail at any point; `make soak` lets them fail for hours."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.trust.faults import CHECKS
from tests.trust.tally import Tally

# Runs of a check; the others are cheaper.
RUNS = {
    "service over SQLite, connections cut": 2,
    "service over SQLite, requests fail": 6,
    "Weaviate, connections cut": 3,
}
HANGING = 2
USUALLY = 12


@pytest.mark.parametrize("name", CHECKS)
def test_faults(name: str, tmp_path: Path) -> None:
    total = Tally()
    with CHECKS[name](tmp_path) as check:
        for seed in range(HANGING if name.endswith("hangs") else RUNS.get(name, USUALLY)):
            total += check(Random(seed))
    assert total.is_clean, "\n".join(total.seen)
