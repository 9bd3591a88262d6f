"""Fixtures of all tests: a hypothesis profile, and the two stores that need only this package."""

from __future__ import annotations

import functools
import gc
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

import dynamiq_memory
from dynamiq_memory.backends import InMemory, SQLite
from tests.fakes.postgresql.server import PostgreSQLServer, postgresql

if TYPE_CHECKING:
    from dynamiq_memory import MemoryBackend

# Hypothesis keeps small caches: not in the working tree.
_HYPOTHESIS_HOME = tempfile.TemporaryDirectory(prefix="dynamiq-memory-hypothesis-")
set_hypothesis_home_dir(_HYPOTHESIS_HOME.name)
hypothesis.settings.register_profile(
    "dynamiq-memory",
    derandomize=True,
    max_examples=30,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("dynamiq-memory")

# Each client of HTTP reads all certificates of authorities, which takes longer than most tests: once is enough.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]

NewStore = Callable[..., "MemoryBackend"]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # With `--dist=loadgroup`, tests that share a server run in one process, which starts it once.
    for item in items:
        folder = item.path.parent
        group = folder if folder.parent.name == "backends" else item.path
        item.add_marker(pytest.mark.xdist_group(group.stem))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # Modules and thousands of tests stay to the end: they would be looked through at each collection of garbage.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    _HYPOTHESIS_HOME.cleanup()


@pytest.fixture(params=["InMemory", "SQLite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """Makes empty stores of one kind (each SQLite one in a file of its own) and closes them at the end."""
    made: list[MemoryBackend] = []

    def make(**options: object) -> MemoryBackend:
        if request.param == "InMemory":
            made.append(InMemory(**options))  # type: ignore[arg-type]
        else:
            # NORMAL saves a wait for the disk in each of a thousand tests; tests/backends/sqlite tests FULL.
            made.append(SQLite(tmp_path / f"store-{len(made)}.db", synchronous="NORMAL", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: NewStore) -> MemoryBackend:
    """An empty store: InMemory, then a SQLite file."""
    return new_store()


@pytest.fixture(scope="class")
def opened() -> Iterator[list[MemoryBackend]]:
    """The backends that the tests of a class have opened for all; see `tests.conformance.reused`."""
    backends: list[MemoryBackend] = []
    yield backends
    for backend in backends:
        backend.close()


@pytest.fixture
def child_environment() -> dict[str, str]:
    """The environment in which a child process finds the package under test."""
    return {**os.environ, "PYTHONPATH": str(Path(dynamiq_memory.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def run_script(child_environment: dict[str, str]) -> RunScript:
    """Runs Python code in a process of its own, with warnings as errors; its failure is the test's."""

    def run(code: str, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            env=child_environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """A real PostgreSQL server."""
    with postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQLServer) -> str:
    """The URL of a real PostgreSQL server."""
    return postgresql_server.url


@pytest.fixture
def postgresql_table(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """A name for a table that no other test has."""
    with postgresql_server.new_table() as name:
        yield name
