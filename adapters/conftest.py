"""Fixtures that the tests of the adapters share with all others."""

from tests.conftest import child_environment, new_store, run_script, store

__all__ = ["child_environment", "new_store", "run_script", "store"]
