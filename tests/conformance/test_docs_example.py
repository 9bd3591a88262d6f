"""The example backend of the docs passes the conformance suite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamiq_memory import MemoryBackend
from tests.conformance.calls import Sync

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "backends.md"
_blocks = re.findall(r"^```python\n(.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
_namespace: dict[str, Any] = {"__name__": __name__}
for _block in _blocks:
    exec(compile(_block, str(_PAGE), "exec"), _namespace)
_Documented: Any = _namespace["TestMyStore"]


class TestTextStore(Sync, _Documented):  # type: ignore[misc]  # made by the page
    """Slower than a real one: each read parses all of it."""

    stateful_examples = 4

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with _namespace["TextStore"]() as backend:
            yield backend
