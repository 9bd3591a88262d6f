"""Finding the index or creating it, and checking it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dynamiq_memory.backends.pinecone.errors import ConflictError, NotFoundError
from dynamiq_memory.backends.pinecone.requests import ClientRequest
from dynamiq_memory.backends.plans import Plan, Wait
from dynamiq_memory.exceptions import BackendError, ConfigurationError, StoreNotFoundError

_READY_SECONDS = 300.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_FAILED = ("InitializationFailed", "Terminating", "Disabled")


class PineconeIndexType(StrEnum):
    """How a new index is run."""

    SERVERLESS = "serverless"
    POD = "pod"


class PineconeSimilarityMetric(StrEnum):
    """How vectors are compared."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    DOT_PRODUCT = "dotproduct"


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is ready.

    Attributes:
        host: Its host; "" for an index that the caller opened.
        dimension: Length of its vectors.
        is_serverless: Whether it is serverless, and can list ids.
    """

    host: str
    dimension: int
    is_serverless: bool


@dataclass(frozen=True, slots=True)
class NewIndex:
    """How to create an index; see the arguments of `Pinecone`."""

    type: PineconeIndexType
    metric: PineconeSimilarityMetric
    cloud: str | None
    region: str | None
    environment: str | None
    pod_type: str | None
    pods: int
    replicas: int | None
    shards: int | None

    def arguments(self, dimension: int) -> dict[str, Any]:
        """Return the arguments of the client's method, apart from the name.

        Raises:
            ConfigurationError: A setting is missing.
        """
        if self.type == PineconeIndexType.POD:
            settings = {"environment": self.environment, "pod_type": self.pod_type}
            counts = {"pods": self.pods, "replicas": self.replicas, "shards": self.shards}
        else:
            settings, counts = {"cloud": self.cloud, "region": self.region}, {}
        for name, value in settings.items():
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{name} is missing: a {self.type} index cannot be created without it")
        numbers = {name: number for name, number in counts.items() if number is not None}
        return {"dimension": dimension, "metric": str(self.metric), "spec": {str(self.type): {**settings, **numbers}}}


def open_index(
    name: str,
    location: str,
    metric: PineconeSimilarityMetric,
    new: NewIndex | None,
    dimension_of_new: Callable[[], int],
) -> Plan[Index]:
    """Find an index or create it, and wait until it is ready.

    Args:
        name: The index's name.
        location: The index, for errors.
        metric: The metric that it must have.
        new: How to create it; None if a missing index is an error.
        dimension_of_new: Returns the length of the vectors of a new index.

    Raises:
        StoreNotFoundError: It does not exist.
        BackendError: It does not become ready.
        ConfigurationError: It has other properties.
    """
    found = yield from _describe(name)
    if found is None:
        if new is None:
            raise StoreNotFoundError(
                f"{location} does not exist: create it, correct index_name, or open it with create_if_not_exist=True"
            )
        yield from _create(name, new.arguments(dimension_of_new()))
        found = yield from _describe(name)
    deadline, wait = time.monotonic() + _READY_SECONDS, _FIRST_WAIT
    while found is None or not found.status["ready"]:
        if found is not None and str(found.status["state"]) in _FAILED:
            raise BackendError(f"{location} cannot be used, its state is {found.status['state']}: delete it")
        if time.monotonic() > deadline:
            raise BackendError(f"{location} is not ready after {_READY_SECONDS:.0f} seconds: try again later")
        yield from Wait(wait)
        wait = min(wait * 2, _LONGEST_WAIT)
        found = yield from _describe(name)
    return _checked(found, location, metric)


def _describe(name: str) -> Plan[Any]:
    try:
        return (yield from ClientRequest(lambda client: client.describe_index(name)))
    except NotFoundError:
        return None


def _create(name: str, arguments: dict[str, Any]) -> Plan[None]:
    with suppress(ConflictError):  # another process was faster
        yield from ClientRequest(lambda client: client.create_index(name=name, timeout=-1, **arguments))


def _checked(found: Any, location: str, metric: PineconeSimilarityMetric) -> Index:
    kind = getattr(found, "vector_type", None) or "dense"
    if kind != "dense":
        raise ConfigurationError(f"{location} contains {kind} vectors: use an index for dense ones")
    try:
        dimension, its_metric = int(found.dimension), str(found.metric)
        pod = found.spec.get("pod") if isinstance(found.spec, dict) else getattr(found.spec, "pod", None)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{location} is not an index of vectors with one dimension and metric ({error}): use another index_name"
        ) from error
    if its_metric != metric:
        raise ConfigurationError(
            f"{location} compares by {its_metric!r}, not by metric={metric!r}, and that cannot be changed: open it "
            f"with metric={its_metric!r}, or use another index_name and copy the messages: `dynamiq-memory "
            "copy FROM TO`"
        )
    return Index(str(found.host), dimension, is_serverless=pod is None)
