"""Every check of this folder, again and again with other random choices: `make soak HOURS=2`.

The counts are kept in a JSON file and added up over all runs; so are the findings, with the seed that repeats them:
`python -m tests.trust.soak --only "kill -9" --seed 7` makes one run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

from tests.trust import corpus, crashes, differential, faults, histories, names
from tests.trust.tally import Checks, Opener, Tally

PROMISES: dict[str, Checks] = {
    "what once failed works": corpus.CHECKS,
    "survives kill -9": crashes.CHECKS,
    "a failed request changes nothing": faults.CHECKS,
    "concurrent operations have an order": histories.CHECKS,
    "nobody sees another's messages": names.CHECKS,
    "all stores answer alike": differential.CHECKS,
}
COUNTS = Path(".cache/soak/counts.json")
_COLUMNS = ("runs", "faults", "operations", "lost", "doubled", "leaked", "wrong")
# Setting up takes seconds, so each check goes on for a while. What must not fail first comes first, and for longer.
_SECONDS = 20.0
_LONGER = ("SQLite", "PostgreSQL", "service")
_EXAMPLES = 10_000
_PROPERTIES = ("tests/conversation", "adapters/langchain/tests", "adapters/llama-index/tests")
_PROPERTIES_OF_AGENTS = ("adapters/dynamiq/tests",)


@dataclass
class Soak:
    """What all runs have counted, by promise and store, and what they found."""

    file: Path
    tallies: dict[str, Tally] = field(default_factory=dict)
    hours: float = 0.0

    @classmethod
    def read(cls, file: Path) -> Soak:
        """Continue with the counts of a file, if it exists."""
        if not file.exists():
            return cls(file)
        known = json.loads(file.read_text())
        for counts in known["tallies"].values():
            if "kills" in counts:  # their earlier name
                counts["faults"] = counts.pop("kills")
        return cls(file, {name: Tally(**counts) for name, counts in known["tallies"].items()}, known["hours"])

    def add(self, promise: str, store: str, tally: Tally, seconds: float) -> None:
        """Add counts, and write the file: whole or not at all."""
        total = self.tallies.setdefault(f"{promise} | {store}", Tally())
        total += tally
        self.hours += seconds / 3600
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        tallies = {name: asdict(each) for name, each in self.tallies.items()}
        new.write_text(json.dumps({"hours": self.hours, "tallies": tallies}, indent=1))
        new.replace(self.file)

    def order(self, check: tuple[str, str, Opener]) -> tuple[bool, int]:
        """What must not fail comes first, and of this what has been checked least, so that no stop leaves it out."""
        promise, store, _ = check
        return not store.startswith(_LONGER), self.tallies.get(f"{promise} | {store}", Tally()).runs

    def table(self) -> str:
        """The counts as a table in Markdown, by promise and store."""
        lines = [f"| promise | store | {' | '.join(_COLUMNS)} |", "|---|---|" + "--:|" * len(_COLUMNS)]
        for name, tally in sorted(self.tallies.items(), key=_place):
            lines.append(f"| {name} | {' | '.join(f'{getattr(tally, column):,}' for column in _COLUMNS)} |")
        return "\n".join(lines)


def _place(tally: tuple[str, Tally]) -> tuple[int, str]:
    """Sort promises as they are listed here, then by store."""
    promise, _, store = tally[0].partition(" | ")
    promises = [*PROMISES]
    return promises.index(promise) if promise in promises else len(promises), store


def checks(only: str = "") -> Iterator[tuple[str, str, Opener]]:
    """The checks of which the promise or the store contains a text."""
    every = [(promise, store, opener) for promise, by_store in PROMISES.items() for store, opener in by_store.items()]
    return (check for check in every if only in f"{check[0]} | {check[1]}")


def run_for(opener: Opener, seeds: Iterator[int], seconds: float) -> Tally:
    """Make runs of a check for a time, at least one; one that fails ends it."""
    total, seed = Tally(), None
    end = time.monotonic() + seconds
    try:
        with (
            tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder,
            opener(Path(folder)) as check,
        ):
            while not total.runs or time.monotonic() < end:
                seed = next(seeds)
                tally = check(Random(seed))
                tally.seen = [f"seed {seed}: {each}" for each in tally.seen]
                total += tally
    except Exception:  # noqa: BLE001 - the other checks go on
        if seed is None:  # nothing was checked: a server did not start
            traceback.print_exc()
        else:
            total += Tally(runs=1, wrong=1, seen=[f"seed {seed}: {traceback.format_exc()[-4000:]}"])
    return total


def _announced(promise: str, store: str, opener: Opener, seeds: Iterator[int], seconds: float) -> Tally:
    """Make runs of a check; say on standard error what runs, and what was found."""
    print(f"{promise} | {store}: ", end="", file=sys.stderr, flush=True)
    tally = run_for(opener, seeds, seconds)
    found = "nothing found" if tally.is_clean else "; ".join([f"{len(tally.seen)} found", *tally.seen])
    print(f"{tally.runs:,} runs, {tally.operations:,} operations, {found}", file=sys.stderr, flush=True)
    return tally


def properties(python: str, folders: Sequence[str], examples: int, seconds: float) -> Tally:
    """The properties of what an agent is given, each with so many examples; nothing if the time does not suffice."""
    files = [f"{folder}/test_properties.py" for folder in folders]
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        try:
            done = subprocess.run(
                [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report.name}", *files],
                env={**os.environ, "DYNAMIQ_MEMORY_EXAMPLES": str(examples)},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return Tally()
        suites = list(ET.parse(report.name).getroot().iter("testsuite"))
    tests = sum(int(suite.get("tests", 0)) for suite in suites)
    wrong = sum(int(suite.get(kind, 0)) for suite in suites for kind in ("failures", "errors"))
    seen = [] if done.returncode == 0 else [done.stdout[-4000:]]
    return Tally(runs=tests, operations=tests * examples, wrong=max(wrong, len(seen)), seen=seen)


def main() -> int:
    """Run until the time is over; print the table. The exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.trust.soak", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--hours", type=float, default=2.0, help="how long; the default is 2")
    parser.add_argument("--only", default="", help="only checks of which the promise or the store contains this")
    parser.add_argument("--seed", type=int, help="make one run of each check with this seed, and keep no counts")
    parser.add_argument("--examples", type=int, default=_EXAMPLES, help="of each property; 0 for none")
    parser.add_argument("--agents", help="the Python that has the dynamiq package, for the properties of its agents")
    parser.add_argument("--counts", type=Path, default=COUNTS, help="the JSON file")
    given = parser.parse_args()
    if given.seed is not None:
        found = [
            _announced(promise, store, opener, iter([given.seed]), 0) for promise, store, opener in checks(given.only)
        ]
        print(*[text for tally in found for text in tally.seen], sep="\n")
        return int(not found or not all(tally.is_clean for tally in found))
    # So that servers end with this process, however it is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    soak = Soak.read(given.counts)
    _soak(soak, given)
    print(soak.table())
    findings = [f"{name}: {text}" for name, tally in soak.tallies.items() for text in tally.seen]
    print(*findings, sep="\n\n", file=sys.stderr)
    return int(not all(tally.is_clean for tally in soak.tallies.values()))


def _soak(soak: Soak, given: Any) -> None:
    random = Random()
    seeds = (random.getrandbits(32) for _ in itertools.count())
    end = time.monotonic() + given.hours * 3600
    tried_properties = given.only or not given.examples
    while time.monotonic() < end:
        for promise, store, opener in sorted(checks(given.only), key=soak.order):
            left = end - time.monotonic()
            if left <= 0:
                return
            started = time.monotonic()
            seconds = min(left, _SECONDS * (3 if store.startswith(_LONGER) else 1))
            tally = _announced(promise, store, opener, seeds, seconds)
            soak.add(promise, store, tally, time.monotonic() - started)
        if not tried_properties:
            tried_properties = True
            for python, folders in ((sys.executable, _PROPERTIES), (given.agents, _PROPERTIES_OF_AGENTS)):
                if python:
                    started = time.monotonic()
                    tally = properties(python, folders, given.examples, max(1.0, end - time.monotonic()))
                    soak.add("what an agent is given is valid", folders[-1], tally, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
