"""When one connection breaks, all that were opened before it are replaced before they are used again."""

from __future__ import annotations

import math
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

_OPENED = "dynamiq_memory_opened"


class StaleConnections:
    """Replaces connections that were opened before one broke, in all engines that it watches."""

    def __init__(self) -> None:
        """Begin with nothing broken."""
        self._broken = -math.inf

    def broke(self) -> None:
        """Note that a connection has broken: those opened until now are stale."""
        self._broken = time.monotonic()

    def watch(self, engine: Engine) -> None:
        """Check each connection that an engine opens and hands out."""
        event.listen(engine, "connect", self._note)
        event.listen(engine, "checkout", self._check)

    def leave(self, engine: Engine) -> None:
        """Stop checking."""
        for name, listener in (("connect", self._note), ("checkout", self._check)):
            if event.contains(engine, name, listener):
                event.remove(engine, name, listener)

    def _note(self, _: Any, record: Any) -> None:
        record.info[_OPENED] = time.monotonic()

    def _check(self, _: Any, record: Any, __: Any) -> None:
        if record.info.get(_OPENED, math.inf) <= self._broken:
            raise DisconnectionError("opened before another connection broke")  # the pool opens a new one
