"""Prometheus metrics of the service. They name no user, session or memory."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        """Create all metrics, starting at zero."""
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("dynamiq_memory_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "dynamiq_memory_request_seconds",
            "Seconds until the response ended.",
            labels[:2],
            registry=self.registry,
        )
        self.open = Gauge("dynamiq_memory_open_requests", "Requests in progress.", registry=self.registry)
        self.written = Counter("dynamiq_memory_messages_written", "Messages stored.", registry=self.registry)
        self.deleted = Counter("dynamiq_memory_messages_deleted", "Messages deleted.", registry=self.registry)
        self.refused = Counter(
            "dynamiq_memory_refused",
            "Requests rejected before they reached the application.",
            ("reason",),
            registry=self.registry,
        )
