"""The end of what the checks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trust.stores import end_shared


@pytest.fixture(scope="session", autouse=True)
def _end_shared() -> Iterator[None]:
    yield
    end_shared()
