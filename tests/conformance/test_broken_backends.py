"""The suite catches each backend that breaks a rule, by the tests of that rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.broken_backends import BROKEN, NothingBroken

FILE = Path(__file__).with_name("broken_backends.py")
NAMED = {f"Test{kind.__name__}": kind.caught_by for kind in BROKEN}


class Results:
    """Gathers the tests that fail, and those that pass, of each class."""

    def __init__(self) -> None:
        self.failed: dict[str, set[str]] = {}
        self.passed: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or (report.passed and report.when == "call"):
            _, kind, test = report.nodeid.split("::")
            results = self.failed if report.failed else self.passed
            results.setdefault(kind, set()).add(test.partition("[")[0])


def run(*arguments: str) -> Results:
    results = Results()
    # The last one collects garbage several times, of which there is much in the process of many tests.
    without = [each for name in ("cacheprovider", "unraisableexception") for each in ("-p", f"no:{name}")]
    pytest.main([*arguments, "-q", "--no-header", "--no-summary", *without], plugins=[results])
    return results


def test_each_broken_rule_is_caught_by_its_tests() -> None:
    chosen = [f"{FILE}::{kind}::{test}" for kind, tests in NAMED.items() for test in sorted(tests)]
    assert run(*chosen).failed == {kind: tests for kind, tests in NAMED.items() if tests}


def test_the_unbroken_backend_passes_the_same_tests() -> None:
    tests = sorted(set().union(*NAMED.values()))
    results = run(*(f"{FILE}::Test{NothingBroken.__name__}::{test}" for test in tests))
    assert results.failed == {}
    assert results.passed == {"TestNothingBroken": set(tests)}


def test_a_broken_backend_fails_the_suite_as_its_author_runs_it() -> None:
    assert run(f"{FILE}::Test{BROKEN[1].__name__}", "--exitfirst").failed


def test_enough_rules_are_broken() -> None:
    assert len(BROKEN) >= 15
