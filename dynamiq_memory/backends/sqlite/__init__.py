"""Messages in a SQLite file."""

from dynamiq_memory.backends.sqlite.backend import SQLite

__all__ = ["SQLite"]

SQLite.__module__ = __name__
