"""The parts of the benchmark of speed that compute and print; what it measures is checked by running it."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("psycopg")

from benchmarks.speed import __main__ as speed
from benchmarks.speed import catalog, contests, report
from benchmarks.speed.contests import OURS, Contest, Contestant, Figure, Operation
from benchmarks.speed.messages import BIG_MESSAGES, BIG_USER, rows_of


class Stub(Contestant):
    """Counts the calls."""

    def __init__(self, name):
        self.name = name
        self.loaded = self.calls = 0

    def load(self, rows):
        self.loaded += len(rows)

    def append(self, case):
        self.calls += 1


class Reading(Stub):
    def newest(self, case):
        self.calls += 1


def test_each_operation_is_repeated_on_all_that_know_it():
    ours, other, peer = Reading(OURS), Stub("other"), Stub("peer")
    made = {1_000: iter((ours, other, peer)), 2_000: iter((Reading(OURS), Stub("other")))}
    sizes = iter([1_000] * 3 + [2_000] * 2)
    opened = lambda _: next(made[next(sizes)])  # noqa: E731
    operations = [Operation("append", "append", 10), Operation("newest", "newest", 10)]
    figures = list(contests.measure(Contest("Stubs", (1_000, 2_000), [opened] * 2, operations, [opened]), 1.0))
    assert ours.loaded == other.loaded == 1_000 + BIG_MESSAGES
    assert (ours.calls, other.calls, peer.calls) == (24, 12, 12)
    found = [(each.operation, each.contestant, each.size) for each in figures]
    assert found == [
        *[("append", name, 1_000) for name in (OURS, "other", "peer")],
        *[("append", name, 2_000) for name in (OURS, "other")],
        *[("newest", OURS, size) for size in (1_000, 2_000)],
    ]
    assert all(each.ratio == 1 for each in figures if each.contestant == OURS)


def test_the_report_has_ratios_and_growth():
    figures = [
        Figure("S", "append", name, size, microseconds, ratio)
        for size in (1_000, 10_000, 100_000)
        for name, microseconds, ratio in ((OURS, size / 10, 1.0), ("raw", 50.0, size / 500))
    ]
    text = report.tables(figures)
    assert "| append | 100 | 2.00 |" in text
    assert "| S | append | 100 → 1,000 → 10,000 µs | 1.00 | 0.00 |" in text
    drawn = report.plot(figures)
    assert drawn is not None
    assert len(re.findall("<polyline", drawn)) == 2
    assert report.plot(figures[:2]) is None


def test_a_store_has_the_same_user_to_search_in_every_size():
    for size in (1_000, 3_000):
        rows = list(rows_of(size))
        assert len(rows) == size + BIG_MESSAGES
        assert sum(row.user == BIG_USER for row in rows) == BIG_MESSAGES
        assert [row.timestamp for row in rows] == sorted(row.timestamp for row in rows)


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None if name == "agents" else object())
    assert catalog.missing() == ["openai-agents"]


def test_a_quick_run_measures_every_operation_of_a_store(capsys):
    speed.main(["InMemory"], sizes="1000", quick=True)
    printed = capsys.readouterr()
    assert speed.QUICK_NOTE in printed.out
    for operation in ("append", "batch of 100", "newest 50", "search", "BOTH", "is_empty", "count", "replace 50"):
        assert re.search(rf"^\| {operation}[^|]*\| [\d,]+ \| [\d.]+ \|$", printed.out, re.MULTILINE), operation
    assert re.search(r"InMemory: \d+ s", printed.err)
