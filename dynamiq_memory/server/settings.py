"""The service's settings."""

from __future__ import annotations

from dataclasses import dataclass

from dynamiq_memory._checks import check_seconds, check_whole_number
from dynamiq_memory.server.partition import check_memory_id

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The limits of a service.

    Attributes:
        memory_id: Serve the whole store as this one memory. With None, the store holds any number of memories.
        max_body_bytes: Maximum size of a request body, in bytes.
        max_page_size: Maximum number of items per page.
        max_results: Maximum number of results of a search without a limit, and of items reached by page number.
        rate: Request limit per key, or per address without a key, in the notation of the `limits` library; None for no
            limit.
        max_concurrent: Maximum number of requests per key, or per address without a key, that are handled at once;
            others wait for their turn.
        body_timeout: Seconds within which a request body must arrive.
        request_timeout: Seconds within which a response must start.
        local_only: Whether to reject requests with a Host other than this machine. This protects a service without keys
            from web pages that reach it through a domain of their own (DNS rebinding).
    """

    memory_id: str | None = None
    max_body_bytes: int = 32 * MEBIBYTE
    max_page_size: int = 1000
    max_results: int = 10_000
    rate: str | None = "100/second"
    max_concurrent: int = 4
    body_timeout: float = 30.0
    request_timeout: float = 60.0
    local_only: bool = False

    def __post_init__(self) -> None:
        """Check the numbers and the memory id."""
        if self.memory_id is not None:
            check_memory_id(self.memory_id)
        for name in ("max_body_bytes", "max_page_size", "max_results", "max_concurrent"):
            check_whole_number(name, getattr(self, name))
        for name in ("body_timeout", "request_timeout"):
            check_seconds(name, getattr(self, name))
