"""The suite catches each backend that breaks a rule, by the test that holds the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.broken_backends import BROKEN, Broken, NothingBroken

FILE = Path(__file__).with_name("broken_backends.py")


class Failures:
    """Gathers the names of the tests that fail."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.passed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.add(report.nodeid.rpartition("::")[2].partition("[")[0])
        elif report.passed and report.when == "call":
            self.passed += 1


def run_suite(kind: type[Broken], tests: str) -> Failures:
    failures = Failures()
    arguments = [f"{FILE}::Test{kind.__name__}", "-q", "--no-header", "--no-summary"]
    # The last one collects garbage several times, of which there is much in the process of many tests.
    without = [each for name in ("cacheprovider", "unraisableexception") for each in ("-p", f"no:{name}")]
    pytest.main([*arguments, *without, "-k", tests], plugins=[failures])
    return failures


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind is not NothingBroken])
def test_a_broken_rule_is_caught(kind: type[Broken]) -> None:
    failures = run_suite(kind, " or ".join(kind.caught_by))
    assert failures.names == kind.caught_by


def test_the_unbroken_backend_passes_the_same_tests() -> None:
    failures = run_suite(NothingBroken, " or ".join({name for kind in BROKEN for name in kind.caught_by}))
    assert failures.names == set()
    assert failures.passed > 50


def test_a_broken_backend_fails_the_suite_as_its_author_runs_it() -> None:
    assert run_suite(BROKEN[1], "not nothing").names


def test_enough_rules_are_broken() -> None:
    assert len(BROKEN) >= 15
