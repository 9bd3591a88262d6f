"""Errors name a missing library and the line that installs it."""

from __future__ import annotations

import pytest

from tests.conftest import RunScript

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Block())
from dynamiq_memory.exceptions import MissingDependencyError
try:
    __import__(sys.argv[2])
except MissingDependencyError as error:
    assert f"pip install 'dynamiq-memory[{sys.argv[3]}]'" in str(error), error
    assert isinstance(error.__cause__, ImportError)
else:
    raise AssertionError("nothing is missing")
"""


@pytest.mark.parametrize(
    ("library", "module", "extra"),
    [
        ("httpx", "dynamiq_memory.backends.dynamiq", "dynamiq"),
        ("httpx_retries", "dynamiq_memory.backends.dynamiq", "dynamiq"),
        ("fastapi", "dynamiq_memory.server.app", "server"),
        ("limits", "dynamiq_memory.server.app", "server"),
        ("prometheus_client", "dynamiq_memory.server.app", "server"),
        ("uvicorn", "dynamiq_memory.server.run", "server"),
        ("typer", "dynamiq_memory.cli", "cli"),
    ],
)
def test_a_missing_library_is_named(run_script: RunScript, library: str, module: str, extra: str) -> None:
    run_script(BLOCK, library, module, extra)
