"""All stores answer alike; `make soak` asks them for hours."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.trust.differential import CHECKS
from tests.trust.tally import Tally

# Runs of a check; the others are cheaper.
RUNS: dict[str, int] = {}
USUALLY = 1


@pytest.mark.parametrize("name", CHECKS)
def test_differential(name: str, tmp_path: Path) -> None:
    total = Tally()
    with CHECKS[name](tmp_path) as check:
        for seed in range(RUNS.get(name, USUALLY)):
            total += check(Random(seed))
    assert total.is_clean, "\n".join(total.seen)
