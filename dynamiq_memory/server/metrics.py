"""Prometheus metrics of the service. They name no user, session or memory."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        """Create all metrics, starting at zero."""
        registry = self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("dynamiq_memory_requests", "Requests answered.", labels, registry=registry)
        self.seconds = Histogram(
            "dynamiq_memory_request_seconds", "Seconds until the response ended.", labels[:2], registry=registry
        )
        self.open = Gauge("dynamiq_memory_open_requests", "Requests in progress.", registry=registry)
        self.written = Counter("dynamiq_memory_messages_written", "Messages stored.", registry=registry)
        self.deleted = Counter("dynamiq_memory_messages_deleted", "Messages deleted.", registry=registry)
        self.refused = Counter(
            "dynamiq_memory_refused",
            "Requests rejected before they reached the application.",
            ("reason",),
            registry=registry,
        )
