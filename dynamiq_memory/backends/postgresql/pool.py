"""A pool of connections that an interrupt cannot break; see `dynamiq_memory/backends/sqlite/client.py`.

SQLAlchemy's own pool counts its connections, under a lock: an interrupt can leave the count wrong or the lock locked.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import Pool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

_POLLED_SECONDS = 0.0002


class IdlePool(Pool):
    """Keeps all connections that are not in use, in a list of which each step is one call."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Open no connection yet."""
        super().__init__(*arguments, **options)
        self._idle: list[ConnectionPoolEntry] = []

    def status(self) -> str:
        """Describe the pool."""
        return f"{type(self).__name__}: {len(self._idle)} idle connections"

    def recreate(self) -> IdlePool:
        """Return a new pool of the same kind."""
        return type(self)(
            self._creator,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def dispose(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return self._idle.pop()  # the last that was returned
        except IndexError:
            return self._create_connection()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._idle.append(record)


class Places:
    """A limited number of places, each for one transaction.

    Args:
        count: The number of places.
        timeout: Seconds to wait for one.

    Attributes:
        taken: The places that are taken. Whoever has taken one discards it in the end.
    """

    def __init__(self, count: int, timeout: float) -> None:
        """All are free."""
        self.count = count
        self.timeout = timeout
        self.taken: set[object] = set()
        self._turn = threading.Lock()

    def take(self, place: object) -> None:
        """Wait for a free place and take it.

        Raises:
            sqlalchemy.exc.TimeoutError: None was free in time.
        """
        deadline = time.monotonic() + self.timeout
        with self._turn:  # one thread looks, the others wait
            while len(self.taken) >= self.count:
                if time.monotonic() > deadline:
                    raise PoolTimeoutError
                time.sleep(_POLLED_SECONDS)
            self.taken.add(place)
