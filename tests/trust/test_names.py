"""Hostile names, in each store, adapter and the service; `make soak` tries all of them against each other."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.trust.names import CHECKS
from tests.trust.tally import Tally

# Runs of a check; the others are cheaper.
RUNS = {"InMemory": 2, "SQLite": 2}
USUALLY = 1


@pytest.mark.parametrize("name", CHECKS)
def test_names(name: str, tmp_path: Path) -> None:
    total = Tally()
    with CHECKS[name](tmp_path) as check:
        for seed in range(RUNS.get(name, USUALLY)):
            total += check(Random(seed))
    assert total.is_clean, "\n".join(total.seen)
