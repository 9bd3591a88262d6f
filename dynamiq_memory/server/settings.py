"""What the service allows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.server.partition import MEMORY_ID_PATTERN

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The limits of a service.

    Attributes:
        memory_id: The one memory that the store is; None for any number of memories within it.
        max_body_bytes: The largest body of a request.
        max_page_size: The most items in a page.
        max_results: The most results of a search without a limit.
        rate: Requests of a key, or of an address without one, as the library `limits` writes it; None for any number.
        body_timeout: Seconds in which a request's body must have come.
        local_only: Whether only requests to a name of this machine are answered: the guard of a service without keys
            against pages in a browser that reach for it under a name of their own.
    """

    memory_id: str | None = None
    max_body_bytes: int = 32 * MEBIBYTE
    max_page_size: int = 1000
    max_results: int = 10_000
    rate: str | None = "100/second"
    body_timeout: float = 30.0
    local_only: bool = False

    def __post_init__(self) -> None:
        """Check the numbers and the memory's id."""
        if self.memory_id is not None and not re.fullmatch(MEMORY_ID_PATTERN, self.memory_id):
            raise ConfigurationError(f"memory id {self.memory_id!r} must be of letters, digits, '.', '_' and '-'")
        for name in ("max_body_bytes", "max_page_size", "max_results"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be 1 or more, not {getattr(self, name)!r}")
        if self.body_timeout <= 0:
            raise ConfigurationError(f"body_timeout must be more than 0 seconds, not {self.body_timeout!r}")
