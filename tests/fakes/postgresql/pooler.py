"""PgBouncer in front of a PostgreSQL server, which gives each transaction any connection that is free."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
_NOBODY = 65534


@contextmanager
def pooler(server: str) -> Iterator[str]:
    """Start one, and yield its URL.

    Args:
        server: The URL of the server.
    """
    import psycopg  # noqa: PLC0415 - not where only the lowest versions are tested

    url = make_url(server)
    host, port = url.normalized_query.get("host", (url.host or "",))[0], url.port or 5432
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dm-pgbouncer-", dir="/tmp") as folder:
        settings = Path(folder) / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={host} port={port} user={url.username}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
            f"listen_port={own}\nunix_socket_dir=\nauth_type=any\npool_mode=transaction\ndefault_pool_size=3\n"
        )
        Path(folder).chmod(0o755)
        # It does not run as root; only the server's own user may use its socket.
        owner = Path(host).stat().st_uid if host.startswith("/") else _NOBODY
        as_user = {"user": owner, "extra_groups": []} if os.getuid() == 0 else {}
        with subprocess.Popen([str(PROGRAM), "-q", str(settings)], stderr=subprocess.DEVNULL, **as_user) as running:  # type: ignore[call-overload]
            try:
                result = f"postgresql://{url.username}@127.0.0.1:{own}/{url.database}"
                deadline = time.monotonic() + 60
                while True:
                    try:
                        psycopg.connect(result, connect_timeout=5).close()
                        break
                    except psycopg.OperationalError:
                        if running.poll() is not None or time.monotonic() > deadline:
                            raise
                        time.sleep(0.05)
                yield result
            finally:
                running.terminate()
