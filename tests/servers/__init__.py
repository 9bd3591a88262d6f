"""Servers for the tests: real ones, or ones over real engines, started when first needed, by the tests alone."""

from tests.servers.base import REQUIRED, HTTPServer
from tests.servers.postgresql import PostgreSQLServer, postgresql

__all__ = ["REQUIRED", "HTTPServer", "PostgreSQLServer", "postgresql"]
