"""The conformance suite: the contract of a backend, as tests to subclass.

    class TestMyStore(MemoryBackendConformance):
        @pytest.fixture
        def backend(self):
            with MyStore("localhost") as backend:
                yield backend

Every test runs twice, with the synchronous methods and with their asynchronous twins.
"""

from importlib.util import find_spec
from pkgutil import iter_modules

from dynamiq_memory.exceptions import MissingDependencyError

for _library in ("hypothesis", "pytest"):
    if find_spec(_library) is None:
        raise MissingDependencyError(f"dynamiq_memory.testing needs {_library}: pip install 'dynamiq-memory[testing]'")

import pytest  # noqa: E402

# Must be registered before the modules are imported, so that their failing asserts show values.
pytest.register_assert_rewrite(*(f"{__name__}.{part.name}" for part in iter_modules(__path__)))

from dynamiq_memory.testing.base import ConformanceBase, Twin, contents, say  # noqa: E402
from dynamiq_memory.testing.changing import ChangingConformance  # noqa: E402
from dynamiq_memory.testing.concurrency import ConcurrencyConformance  # noqa: E402
from dynamiq_memory.testing.content import ContentConformance  # noqa: E402
from dynamiq_memory.testing.deleting import DeletingConformance  # noqa: E402
from dynamiq_memory.testing.filtering import FilteringConformance  # noqa: E402
from dynamiq_memory.testing.lifecycle import LifecycleConformance  # noqa: E402
from dynamiq_memory.testing.moving import MovingConformance  # noqa: E402
from dynamiq_memory.testing.reading import ReadingConformance  # noqa: E402
from dynamiq_memory.testing.retrieving import RetrievingConformance  # noqa: E402
from dynamiq_memory.testing.searching import SearchingConformance  # noqa: E402
from dynamiq_memory.testing.stateful import StatefulConformance  # noqa: E402

__all__ = ["ConformanceBase", "MemoryBackendConformance", "Twin", "contents", "say"]


class MemoryBackendConformance(
    ReadingConformance,
    FilteringConformance,
    SearchingConformance,
    DeletingConformance,
    ChangingConformance,
    ContentConformance,
    RetrievingConformance,
    ConcurrencyConformance,
    LifecycleConformance,
    MovingConformance,
    StatefulConformance,
):
    """The whole contract. Subclass it and override the `backend` fixture with a fresh, empty backend."""
