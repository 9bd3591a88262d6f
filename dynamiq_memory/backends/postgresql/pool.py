"""A limit of connections that an interrupt cannot break.

SQLAlchemy's own pool counts its connections, under a lock: an interrupt can leave the count wrong or the lock locked.
"""

from __future__ import annotations

import threading
import time

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_POLLED_SECONDS = 0.0002


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
