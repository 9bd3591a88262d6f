"""What the service counts, for Prometheus: nothing that names a user, a session or a memory."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter(
            "dynamiq_memory_requests", "Requests that were answered.", labels, registry=self.registry
        )
        self.seconds = Histogram(
            "dynamiq_memory_request_seconds", "Seconds to the end of the answer.", labels[:2], registry=self.registry
        )
        self.open = Gauge("dynamiq_memory_open_requests", "Requests that are being answered.", registry=self.registry)
        self.written = Counter("dynamiq_memory_messages_written", "Messages stored.", registry=self.registry)
        self.deleted = Counter("dynamiq_memory_messages_deleted", "Messages deleted.", registry=self.registry)
        self.refused = Counter(
            "dynamiq_memory_refused",
            "Requests that were refused before they were looked at.",
            ("reason",),
            registry=self.registry,
        )
