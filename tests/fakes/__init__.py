"""Servers and embedders for the tests: real ones, or small ones with the API of the real ones."""

import os

REQUIRED = os.environ.get("DYNAMIQ_MEMORY_REQUIRE_SERVERS") == "1"
"""Whether a server that cannot be started fails the tests, rather than skipping them."""
