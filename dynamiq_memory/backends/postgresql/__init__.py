"""Messages in a PostgreSQL database."""

from dynamiq_memory.backends.postgresql.backend import PostgreSQL

__all__ = ["PostgreSQL"]

PostgreSQL.__module__ = __name__
